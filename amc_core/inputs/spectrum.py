"""The power spectrum of many frames at once.

In names: B frames, T = 1024 samples, C = I and Q, S Welch segments, F frequencies.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

WELCH_LENGTH, WELCH_HOP = 64, 32
PSD_FLOOR = 1e-6  # 60 dB below white noise of unit power


def welch(iq_BTC: Tensor, window: Tensor) -> Tensor:
    """Return the mean power of windowed segments of frames (B, T, 2) at every frequency: (B, F), zero first."""
    segments_BSF = torch.view_as_complex(iq_BTC.contiguous()).unfold(1, len(window), WELCH_HOP) * window
    return torch.view_as_real(torch.fft.fft(segments_BSF)).square().sum(dim=-1).mean(dim=1)


def log_psd(power_BF: Tensor, window: Tensor) -> Tensor:
    """Return Welch's powers as ``log10(PSD + 1e-6) / 2`` (B, F), the carrier in the middle.

    White noise of unit power has a PSD of 1 at every frequency.
    """
    psd_BF = torch.fft.fftshift(power_BF, dim=-1) / window.square().sum()
    return torch.log10(psd_BF + PSD_FLOOR) / 2


def log_spectrum(power_BF: Tensor, window: Tensor, size: int) -> Tensor:
    """Return ``log_psd`` interpolated to one row of an image: (B, 1, size)."""
    psd_B1F = log_psd(power_BF, window)[:, None]
    return psd_B1F if psd_B1F.shape[-1] == size else functional.interpolate(psd_B1F, size=size, mode="linear")
