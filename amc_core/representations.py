"""From IQ to what the model sees, on whatever device the frames are.

In names: B frames, T = 1024 samples, C = channels (2 for I and Q), H = W = image_size, S Welch segments, F frequencies.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from amc_core.config import TrialConfig

__all__ = ["Representation", "channels", "histogram", "log_psd", "unit_power"]

_CHANNELS = {"constellation": 1, "constellation_psd": 2}
_WELCH_LENGTH, _WELCH_HOP = 64, 32
_PSD_FLOOR = 1e-6  # of white noise with unit power, that is -60 dB


def channels(representation: str) -> int:
    """Return the number of image channels."""
    return _CHANNELS[representation]


class Representation(nn.Module):
    """Map frames (B, 1024, 2) float32 to images (B, C, H, W) float32 on the same device.

    A frame with NaN or infinite samples gives zeros and is counted in ``bad_frames``, a tensor on the device: reading
    it is left to the caller, because reading waits for the GPU.
    """

    bad_frames: Tensor
    _hann: Tensor

    def __init__(self, config: TrialConfig) -> None:
        super().__init__()
        self._config = config
        self.channels = channels(config.representation)
        self.register_buffer("bad_frames", torch.zeros((), dtype=torch.int64), persistent=False)
        self.register_buffer("_hann", torch.hann_window(_WELCH_LENGTH), persistent=False)

    @torch.no_grad()
    def forward(self, iq_BTC: Tensor) -> Tensor:
        """Return the images; no step waits for the device."""
        config = self._config
        power_B = _power(iq_BTC)
        finite_B = torch.isfinite(power_B)  # one bad sample makes the power bad
        self.bad_frames += (~finite_B).sum()
        iq_BTC = _scaled(iq_BTC, power_B)
        counts_BHW = histogram(iq_BTC, size=config.image_size, half_range=config.histogram_range)
        image_BHW = torch.where(finite_B[:, None, None], torch.log1p(counts_BHW), 0.0)
        if config.histogram_norm == "max":
            image_BHW = image_BHW / image_BHW.amax(dim=(1, 2), keepdim=True).clamp_min(1e-12)
        if config.representation == "constellation":
            return image_BHW[:, None]
        psd_BF = torch.where(finite_B[:, None], log_psd(iq_BTC, self._hann), 0.0)
        row_BW = functional.interpolate(psd_BF[:, None], size=config.image_size, mode="linear")
        return torch.stack([image_BHW, row_BW.expand(-1, config.image_size, -1)], dim=1)


def unit_power(iq_BTC: Tensor) -> Tensor:
    """Scale every frame to a mean of I^2 + Q^2 of 1; a frame of zeros stays as it is.

    The receiver's gain tells nothing of the modulation or the SNR; the spread of the points at a common scale does.
    """
    return _scaled(iq_BTC, _power(iq_BTC))


def _power(iq_BTC: Tensor) -> Tensor:
    norm_B: Tensor = torch.linalg.vector_norm(iq_BTC, dim=(1, 2))
    return norm_B.square() / iq_BTC.shape[1]


def _scaled(iq_BTC: Tensor, power_B: Tensor) -> Tensor:
    return iq_BTC * torch.where(power_B > 0, power_B, 1.0).rsqrt()[:, None, None]


def histogram(iq_BTC: Tensor, *, size: int, half_range: float) -> Tensor:
    """Count points in a fixed square: float32 (B, size, size), I along the first axis.

    Equal to ``np.histogram2d(I, Q, bins=size, range=[[-r, r], [-r, r]])``: the last bin includes its upper edge, points
    outside and points that are not finite are dropped.
    """
    # float64, and multiplied before the division: a point exactly on an edge then falls on the same side as in numpy.
    place_CBT = iq_BTC.permute(2, 0, 1).to(torch.float64, copy=True).add_(half_range).mul_(size).div_(2 * half_range)
    inside_CBT = (place_CBT >= 0) & (place_CBT <= size)  # false for NaN
    bin_CBT = place_CBT.int().clamp_(0, size - 1)  # whatever the cast makes of NaN, it is not inside
    cell_BT = bin_CBT[0] * size + bin_CBT[1] + torch.arange(len(iq_BTC), device=iq_BTC.device)[:, None] * size**2
    inside_BT = inside_CBT[0] & inside_CBT[1]
    # scatter_add_ needs no synchronisation, bincount would; sums of ones are exact in any order.
    count = torch.zeros(len(iq_BTC) * size * size, dtype=torch.float32, device=iq_BTC.device)
    count.scatter_add_(0, cell_BT.flatten(), inside_BT.flatten().float())
    return count.view(-1, size, size)


def log_psd(iq_BTC: Tensor, window: Tensor) -> Tensor:
    """Estimate the power spectrum by Welch's method: ``log10(PSD + 1e-6) / 2`` (B, F), the carrier in the middle.

    White noise of unit power has a PSD of 1 at every frequency.
    """
    segments_BSF = torch.view_as_complex(iq_BTC.contiguous()).unfold(1, len(window), _WELCH_HOP) * window
    power_BF = torch.view_as_real(torch.fft.fft(segments_BSF)).square().sum(dim=-1).mean(dim=1)
    psd_BF = torch.fft.fftshift(power_BF, dim=-1) / window.square().sum()
    return torch.log10(psd_BF + _PSD_FLOOR) / 2
