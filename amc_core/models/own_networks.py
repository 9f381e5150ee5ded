"""Two small networks, which sweeps compare with large ones.

In names: B frames, C image channels or I and Q, H = W = image_size, T = 1024 samples, D features.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn


def _blocks(
    convolution: type[nn.Conv1d | nn.Conv2d],
    norm: type[nn.BatchNorm1d | nn.BatchNorm2d],
    in_channels: int,
    sizes: tuple[tuple[int, int, int], ...],
) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width, kernel, stride in sizes:
        # Batch norm subtracts the mean, so a bias before it has no effect.
        layers.append(convolution(in_channels, width, kernel, stride, padding=kernel // 2, bias=False))
        layers += [norm(width), nn.ReLU(inplace=True)]
        in_channels = width
    return nn.Sequential(*layers)


class AmcConvNet(nn.Module):
    """Images (B, C, H, W) to 192 features; 118 thousand parameters, 124 thousand with two linear heads (C = 5).

    Five blocks of convolution, batch norm and ReLU, then each channel's mean and maximum. The maximum shows whether a
    pattern occurs, the mean how much of the image it covers.
    """

    n_features = 2 * 96
    _BLOCKS: ClassVar = ((16, 5, 2), (32, 3, 2), (64, 3, 1), (64, 3, 2), (96, 3, 2))

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.blocks = _blocks(nn.Conv2d, nn.BatchNorm2d, in_channels, self._BLOCKS)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return the features (B, D)."""
        map_BDHW = self.blocks(image_BCHW)
        return torch.cat([map_BDHW.mean(dim=(2, 3)), map_BDHW.amax(dim=(2, 3))], dim=1)


class IqConvNet(nn.Module):
    """Samples (B, 2, T) to 256 features: the same idea along time, without any synchronisation."""

    n_features = 2 * 128
    _BLOCKS: ClassVar = ((32, 7, 2), (64, 5, 2), (64, 5, 2), (96, 3, 2), (128, 3, 2))

    def __init__(self) -> None:
        super().__init__()
        self.blocks = _blocks(nn.Conv1d, nn.BatchNorm1d, 2, self._BLOCKS)

    def forward(self, iq_BCT: Tensor) -> Tensor:
        """Return the features (B, D)."""
        map_BDT = self.blocks(iq_BCT)
        return torch.cat([map_BDT.mean(dim=2), map_BDT.amax(dim=2)], dim=1)
