"""From IQ to the model's input, on the device of the frames.

torch computes every representation on every device. On the CPU, numba's machine code computes ``constellation``,
``synced`` and ``amplitude_phase``, except for ``histogram_range: auto``.

In names: B frames, T = 1024 samples, C = channels (2 for I and Q), H = W = image_size, K symbols, F frequencies.
"""

from __future__ import annotations

import functools
import importlib.util
import math

import torch
from torch import Tensor, nn

from amc_core.config import SIGNAL_REPRESENTATIONS, TrialConfig
from amc_core.data.radioml import FRAME_LENGTH
from amc_core.inputs.amplitude_phase import amplitude_phase
from amc_core.inputs.histogram import histogram, power, scaled, spread_points
from amc_core.inputs.spectrum import WELCH_LENGTH, log_spectrum, welch
from amc_core.inputs.synchronisation import (
    CONTRAST,
    LARGEST,
    LINE_SCALE,
    PHASE_ORDERS,
    QUADRANT,
    carrier_free,
    carrier_search,
    first_quadrant,
    line_search,
    line_strengths,
    matched_filter,
    neighbours,
    phase_powers,
    symbols,
)

CHANNELS = {"constellation": 1, "constellation_psd": 2, "synced": 3 + len(PHASE_ORDERS), "iq": 2, "amplitude_phase": 2}


def input_shape(config: TrialConfig) -> tuple[int, ...]:
    """Return the shape of one frame's model input: (C, H, W), or (2, 1024) for samples."""
    if config.representation in SIGNAL_REPRESENTATIONS:
        return (2, FRAME_LENGTH)
    return (CHANNELS[config.representation], config.image_size, config.image_size)


class Representation(nn.Module):
    """Map frames (B, 1024, 2) float32 to images (B, C, H, W) float32 on the same device, or to samples (B, 2, 1024).

    Every representation first scales the frame to unit power, so that the receiver's gain does not matter.

    - ``constellation``: log1p of the histogram of I (rows) and Q over +-``histogram_range``, or over each frame's own
      extent (``auto``: what np.histogram2d does without a range); ``histogram_norm: max`` divides every
      image by its largest value.
    - ``constellation_psd``: the same, and the log power spectrum repeated over the rows.
    - ``synced``: (0) the symbols after synchronisation, turned into one quadrant: re (rows) and im over 0..2; (1) their
      size (rows, 0..2.2) against their phase difference to each neighbour (columns, -pi..pi), which no carrier offset
      blurs; (2) the log power spectrum repeated over the rows, shifted and halved; (3, 4) how strongly the symbols
      come in 8 and in 16 phases, one number in every pixel. (0) and (1) are three times log1p of points that are shared
      among the four nearest pixels. It assumes 8 samples per symbol and root-raised-cosine pulses;
      tests/benchmarks/results/input_study.md measures it on such synthetic frames.
    - ``iq``: I and Q.
    - ``amplitude_phase``: amplitudes of norm 1, and phases divided by pi; see amplitude_phase.py.

    A frame with NaN or infinite samples gives zeros and is counted in ``bad_frames``. That tensor is on the device, and
    reading it waits for the GPU.

    Args:
        config: the representation and its settings.
        compiled: whether numba, where it is installed, may compute frames on the CPU.
    """

    bad_frames: Tensor
    _hann: Tensor
    _filter: Tensor
    _search: Tensor
    _lines: Tensor

    def __init__(self, config: TrialConfig, *, compiled: bool = True) -> None:
        super().__init__()
        self._config = config
        self._compiled = compiled and _has_numba()
        self.register_buffer("bad_frames", torch.zeros((), dtype=torch.int64), persistent=False)
        self.register_buffer("_hann", torch.hann_window(WELCH_LENGTH), persistent=False)
        self.register_buffer("_filter", matched_filter().float(), persistent=False)
        search_KS = carrier_search(config.carrier_range).to(torch.complex64)
        self.register_buffer("_search", search_KS, persistent=False)
        self.register_buffer("_lines", line_search(config.carrier_range).to(torch.complex64), persistent=False)

    @torch.no_grad()
    def forward(self, iq_BTC: Tensor, is_counted_B: Tensor | None = None) -> Tensor:
        """Return the model's input, without waiting for the device.

        Args:
            iq_BTC: frames.
            is_counted_B: which frames may count as bad ones; None: all.
        """
        if self._compiled and iq_BTC.device.type == "cpu" and iq_BTC.dtype == torch.float32:
            input_BX = self._by_numba(iq_BTC.contiguous(), is_counted_B)
            if input_BX is not None:
                return input_BX
        power_B = power(iq_BTC)
        finite_B = torch.isfinite(power_B)  # one bad sample makes the power bad
        self._count(~finite_B, is_counted_B)
        # Bad frames become silent ones, which every later step accepts.
        iq_BTC = torch.where(finite_B[:, None, None], scaled(iq_BTC, power_B), 0.0)
        if self._config.representation == "iq":
            return iq_BTC.transpose(1, 2).contiguous()
        if self._config.representation == "amplitude_phase":
            return amplitude_phase(iq_BTC)
        make = self._synced if self._config.representation == "synced" else self._constellation
        return torch.where(finite_B[:, None, None, None], make(iq_BTC), 0.0)

    def _constellation(self, iq_BTC: Tensor) -> Tensor:
        config = self._config
        image_BHW = torch.log1p(histogram(iq_BTC, size=config.image_size, half_range=config.histogram_range))
        if config.histogram_norm == "max":
            image_BHW = image_BHW / image_BHW.amax(dim=(1, 2), keepdim=True).clamp_min(1e-12)
        if config.representation == "constellation":
            return image_BHW[:, None]
        return torch.stack([image_BHW, self._spectrum(iq_BTC).expand_as(image_BHW)], dim=1)

    def _synced(self, iq_BTC: Tensor) -> Tensor:
        size = self._config.image_size
        symbol_BK = symbols(torch.view_as_complex(iq_BTC.contiguous()), self._filter)
        turned_BK = first_quadrant(carrier_free(symbol_BK, self._search)) * (size / QUADRANT)
        length_BN, turn_BN = neighbours(symbol_BK)
        quadrant_BHW = spread_points(turned_BK.real, turned_BK.imag, size)
        turn_BN = (turn_BN + math.pi) * (size / (2 * math.pi))
        polar_BHW = spread_points(length_BN * (size / LARGEST), turn_BN, size, periodic=True)
        points_BCHW = CONTRAST * torch.stack([quadrant_BHW, polar_BHW], dim=1).log1p()
        rows_BHW = ((self._spectrum(iq_BTC) + 1) / 2).expand_as(quadrant_BHW)
        strength_BO = LINE_SCALE * line_strengths(phase_powers(symbol_BK), self._lines)
        planes_BOHW = strength_BO[:, :, None, None].expand(-1, -1, size, size)
        return torch.cat([points_BCHW, rows_BHW[:, None], planes_BOHW], dim=1)

    def _spectrum(self, iq_BTC: Tensor) -> Tensor:
        return log_spectrum(welch(iq_BTC, self._hann), self._hann, self._config.image_size)

    def _count(self, bad_B: Tensor, is_counted_B: Tensor | None) -> None:
        self.bad_frames.add_((bad_B if is_counted_B is None else bad_B & is_counted_B).sum())

    def _by_numba(self, iq_BTC: Tensor, is_counted_B: Tensor | None) -> Tensor | None:
        """Return the model's input, or None for a representation that only torch computes."""
        config = self._config
        if config.representation == "synced":
            from amc_core.inputs.cpu_synced import synced_images

            input_BX, bad_B = synced_images(
                iq_BTC,
                response_F=self._filter,
                search_KM=self._search,
                line_OKM=self._lines,
                window=self._hann,
                size=config.image_size,
            )
        elif config.representation == "constellation" and not isinstance(config.histogram_range, str):
            from amc_core.inputs.cpu_histogram import log_histogram

            input_BX = torch.empty(len(iq_BTC), 1, config.image_size, config.image_size)
            bad_B = torch.empty(len(iq_BTC), dtype=torch.bool)
            log_histogram(iq_BTC.numpy(), input_BX[:, 0].numpy(), bad_B.numpy(), config.histogram_range)
            if config.histogram_norm == "max":
                input_BX /= input_BX.amax(dim=(2, 3), keepdim=True).clamp_min(1e-12)
        elif config.representation == "amplitude_phase":
            from amc_core.inputs.cpu_amplitude_phase import amplitudes_and_phases

            input_BX = torch.empty(len(iq_BTC), 2, iq_BTC.shape[1])
            bad_B = torch.empty(len(iq_BTC), dtype=torch.bool)
            amplitudes_and_phases(iq_BTC.flatten(1).numpy(), input_BX.flatten(1).numpy(), bad_B.numpy())
        else:
            return None
        self._count(bad_B, is_counted_B)
        return input_BX


def laid_out(input_BX: Tensor) -> Tensor:
    """Return images with the channels last, which convolutions on tensor cores and in oneDNN want."""
    return input_BX.contiguous(memory_format=torch.channels_last) if input_BX.ndim == 4 else input_BX


@functools.cache
def _has_numba() -> bool:
    """Whether numba is installed, without importing it."""
    return importlib.util.find_spec("numba") is not None
