"""Random changes of training frames under which their labels stay true, on the frames' device.

In names: B frames, M frames of a selection, T = 1024 samples, C = I and Q, K modulations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from amc_core.modulations import CLASSES

N_DRAWS = 4  # per frame: phase, carrier, start, mirror
LARGEST_OFFSET = 1e-4  # of the carrier, cycles per sample: a tenth of a turn over a frame
_ONE_SIDED = frozenset({"AM-SSB-WC", "AM-SSB-SC"})  # their mirrored spectrum is that of the other sideband
_STREAM = 1  # sets these random numbers apart from those that shuffle the epoch


def epoch_draws(n_frames: int, *, seed: int, epoch: int) -> npt.NDArray[np.float32]:
    """Return uniform numbers 0..1 (M, N_DRAWS): those of a frame depend on seed, epoch and its position alone."""
    return np.random.default_rng([seed, epoch, _STREAM]).random((n_frames, N_DRAWS), dtype=np.float32)


class Augmentation(nn.Module):
    """Turn, shift and mirror frames at random.

    - Phase: any, uniform.
    - Carrier: an offset within +-``LARGEST_OFFSET``, uniform.
    - Start: the samples are shifted in a circle by any number, uniform. So a frame has one seam.
    - Mirror: every second frame is conjugated, but never one of a one-sided modulation, nor of a class besides the 24.

    The gain stays, because every representation scales frames to unit power.

    Args:
        modulations: the names of the K classes, in the order of their indices.
    """

    _two_sided: Tensor

    def __init__(self, modulations: Sequence[str]) -> None:
        super().__init__()
        two_sided = [name in CLASSES and name not in _ONE_SIDED for name in modulations]
        self.register_buffer("_two_sided", torch.tensor(two_sided), persistent=False)

    @torch.no_grad()
    def forward(self, iq_BTC: Tensor, draw_BX: Tensor, modulation_B: Tensor) -> Tensor:
        """Return changed frames (B, T, 2), without waiting for the device.

        Args:
            iq_BTC: frames.
            draw_BX: uniform numbers 0..1 (B, N_DRAWS).
            modulation_B: indices of the frames' classes.
        """
        frame_BT = torch.view_as_complex(iq_BTC.contiguous())
        phase_B1, carrier_B1, start_B1, mirror_B1 = draw_BX[:, :, None].unbind(dim=1)
        n_samples = frame_BT.shape[1]
        time_T = torch.arange(n_samples, device=frame_BT.device)
        place_BT = (time_T + (start_B1 * n_samples).long()) % n_samples
        offset_B1 = (2 * carrier_B1 - 1) * LARGEST_OFFSET
        angle_BT = 2 * math.pi * (phase_B1 + offset_B1 * time_T)
        changed_BT = frame_BT.gather(1, place_BT) * torch.complex(angle_BT.cos(), angle_BT.sin())
        mirrored_B1 = (mirror_B1 < 0.5) & self._two_sided[modulation_B, None]
        return torch.view_as_real(torch.where(mirrored_B1, changed_BT.conj(), changed_BT))
