"""Two small networks of our own, for what a sweep should compare large ones against.

In names: B frames, C image channels or I and Q, H = W = image_size, T = 1024 samples, D features.
"""

from __future__ import annotations

import itertools
from typing import ClassVar

import torch
from torch import Tensor, nn


class AmcConvNet(nn.Module):
    """Images (B, C, H, W) to 192 features; 117 thousand parameters, 123 thousand with two linear heads (C = 3).

    Five blocks of convolution, batch norm and ReLU, then each channel's mean and maximum: the maximum says whether a
    pattern is there, the mean how much of the image it covers.
    """

    n_features = 2 * 96
    _BLOCKS: ClassVar = ((16, 5, 2), (32, 3, 2), (64, 3, 1), (64, 3, 2), (96, 3, 2))  # channels, kernel, stride

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        widths = [in_channels, *(width for width, _, _ in self._BLOCKS)]
        blocks: list[nn.Module] = []
        for (before, width), (_, kernel, stride) in zip(itertools.pairwise(widths), self._BLOCKS, strict=True):
            # Batch norm takes the mean away: a bias before it would do nothing.
            convolution = nn.Conv2d(before, width, kernel, stride, padding=kernel // 2, bias=False)
            blocks += [convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        self.blocks = nn.Sequential(*blocks)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return the features (B, D)."""
        map_BDHW = self.blocks(image_BCHW)
        return torch.cat([map_BDHW.mean(dim=(2, 3)), map_BDHW.amax(dim=(2, 3))], dim=1)


class IqConvNet(nn.Module):
    """Samples (B, 2, T) to 256 features: the same idea along time, without any synchronisation before it."""

    n_features = 2 * 128
    _BLOCKS: ClassVar = ((32, 7, 2), (64, 5, 2), (64, 5, 2), (96, 3, 2), (128, 3, 2))

    def __init__(self) -> None:
        super().__init__()
        widths = [2, *(width for width, _, _ in self._BLOCKS)]
        blocks: list[nn.Module] = []
        for (before, width), (_, kernel, stride) in zip(itertools.pairwise(widths), self._BLOCKS, strict=True):
            convolution = nn.Conv1d(before, width, kernel, stride, padding=kernel // 2, bias=False)
            blocks += [convolution, nn.BatchNorm1d(width), nn.ReLU(inplace=True)]
        self.blocks = nn.Sequential(*blocks)

    def forward(self, iq_BCT: Tensor) -> Tensor:
        """Return the features (B, D)."""
        map_BDT = self.blocks(iq_BCT)
        return torch.cat([map_BDT.mean(dim=2), map_BDT.amax(dim=2)], dim=1)
