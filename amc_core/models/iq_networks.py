"""A ResNet and a transformer for I and Q along time.

Parameter counts include one linear head of 24 classes.

In names: B frames, C = 2 channels (I and Q), T = 1024 samples, P patches, D features.
"""

from __future__ import annotations

import itertools
from typing import ClassVar

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from amc_core.models.keras_weights import start_as_keras


class IqResNet(nn.Module):
    """I and Q (B, 2, T) to 128 features: 165,144 parameters.

    Six stacks of a linear 1 x 1 convolution, two residual units and max pooling, then two SELU layers. There is no
    batch norm. The source gives no kernel size; here it is 3.

    T. O'Shea, T. Roy, T. C. Clancy, "Over-the-Air Deep Learning Based Radio Signal Classification", IEEE J. Sel. Topics
    Signal Process. 12 (2018), table IV (arXiv 1712.04578).
    """

    n_features = 128
    _WIDTH: ClassVar = 32
    _STACKS: ClassVar = 6

    def __init__(self, n_samples: int, dropout: float) -> None:
        super().__init__()
        widths = (2, *[self._WIDTH] * self._STACKS)
        self.stacks = nn.Sequential(
            *(
                nn.Sequential(nn.Conv1d(before, after, 1), _ResidualUnit(after), _ResidualUnit(after), nn.MaxPool1d(2))
                for before, after in itertools.pairwise(widths)
            )
        )
        n_values = self._WIDTH * (n_samples >> self._STACKS)
        # Alpha dropout keeps mean and variance, which SELU layers need; the classifier's own dropout follows.
        self.dense = nn.Sequential(
            nn.Linear(n_values, self.n_features),
            nn.SELU(),
            nn.AlphaDropout(dropout),
            nn.Linear(self.n_features, self.n_features),
            nn.SELU(),
        )
        start_as_keras(self)
        for layer in self.dense:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight)  # stated by the source

    def forward(self, iq_BCT: Tensor) -> Tensor:
        """Return the features (B, D)."""
        features: Tensor = self.dense(self.stacks(iq_BCT).flatten(1))
        return features


class _ResidualUnit(nn.Module):
    """Two convolutions, a ReLU between them, and a sum with the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv1d(width, width, 3, padding=1), nn.ReLU(inplace=True), nn.Conv1d(width, width, 3, padding=1)
        )

    def forward(self, map_BDT: Tensor) -> Tensor:
        branch: Tensor = self.branch(map_BDT)
        return map_BDT + branch


class IqTransformer(nn.Module):
    """I and Q (B, 2, T) to 96 features: 310,968 parameters.

    A plain vision transformer along time: patches of 16 samples as tokens, learned positions, four encoder layers with
    four heads and the norm first, then the mean over the tokens.

    A. Dosovitskiy et al., "An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale", ICLR 2021, with
    samples in place of pixels. Positions and weights start from a normal distribution with a deviation of 0.02.
    """

    n_features = 96
    _PATCH: ClassVar = 16  # samples
    _LAYERS: ClassVar = 4

    def __init__(self, n_samples: int) -> None:
        super().__init__()
        self.patches = nn.Conv1d(2, self.n_features, self._PATCH, stride=self._PATCH)
        self.position_1PD = nn.Parameter(torch.empty(1, n_samples // self._PATCH, self.n_features))
        self.layers = nn.Sequential(
            *(Block(self.n_features, num_heads=4, mlp_ratio=2.0, qkv_bias=True) for _ in range(self._LAYERS))
        )
        self.norm = nn.LayerNorm(self.n_features)
        nn.init.trunc_normal_(self.position_1PD, std=0.02)
        for layer in self.modules():
            if isinstance(layer, nn.Linear | nn.Conv1d):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def no_weight_decay(self) -> set[str]:
        """Return the names of parameters that an optimiser must not decay, as timm's backbones do."""
        return {"position_1PD"}

    def forward(self, iq_BCT: Tensor) -> Tensor:
        """Return the features (B, D)."""
        token_BPD = self.patches(iq_BCT).transpose(1, 2) + self.position_1PD
        features: Tensor = self.norm(self.layers(token_BPD)).mean(dim=1)
        return features
