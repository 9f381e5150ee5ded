"""Amplitude and phase of every sample, on the frames' device.

In names: B frames, T = 1024 samples, C = I and Q.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def amplitude_phase(iq_BTC: Tensor) -> Tensor:
    """Return amplitudes and phases (B, 2, T) of frames (B, T, 2) at unit power.

    The amplitudes of a frame have a Euclidean norm of 1, so their root mean square is 1/32. Phases are divided by pi:
    -1..1, and 0 for a sample that is 0.

    S. Rajendran et al., "Deep Learning Models for Wireless Signal Classification With Distributed Low-Cost Spectrum
    Sensors", IEEE Trans. Cogn. Commun. Netw. 4 (2018), arXiv 1707.08908.
    """
    i_BT, q_BT = iq_BTC.unbind(dim=2)
    amplitude_BT = torch.hypot(i_BT, q_BT) / math.sqrt(iq_BTC.shape[1])
    return torch.stack([amplitude_BT, torch.atan2(q_BT, i_BT) / math.pi], dim=1)
