"""Amplitude and phase of every sample in one pass over a frame, compiled for the CPU: as amplitude_phase.py in torch.

Import this module only to use it, because importing numba is slow.

In names: B frames, N = 2 T = 2048 numbers of a frame (I and Q in turn), or of its result (amplitudes, then phases).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from amc_core.inputs.cpu_compiler import MOST_ENERGY, compiled
from amc_core.inputs.cpu_drawing import arctangent

_PER_RADIAN = np.float32(1 / math.pi)


@compiled
def amplitudes_and_phases(
    iq_BN: npt.NDArray[np.float32], out_BN: npt.NDArray[np.float32], bad_B: npt.NDArray[np.bool_]
) -> None:
    """Write unit-norm amplitudes and phases / pi of frames at any power; and into ``bad_B`` whether a frame is bad.

    A bad frame gives zeros. Runs in one thread without the interpreter's lock.
    """
    n_samples = iq_BN.shape[1] // 2
    for b in range(len(iq_BN)):
        iq_N, out_N = iq_BN[b], out_BN[b]
        energy = np.float32(0.0)
        for n in range(2 * n_samples):
            energy += iq_N[n] * iq_N[n]
        bad_B[b] = not energy <= MOST_ENERGY
        if bad_B[b]:
            out_N[:] = 0.0
            continue
        scale = np.float32(1.0 / math.sqrt(energy)) if energy > 0.0 else np.float32(1.0)
        for t in range(n_samples):
            i, q = iq_N[2 * t], iq_N[2 * t + 1]
            out_N[t] = np.sqrt(i * i + q * q) * scale
            out_N[n_samples + t] = arctangent(q, i) * _PER_RADIAN
