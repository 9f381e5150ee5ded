"""The power-normalised log1p histogram of a frame in one pass over it, compiled for the CPU by numba.

Import this module where it is used: importing numba takes a second, and the first call compiles for some more. The
machine code is kept beside this file, or in numba's cache folder.

In names: B frames, T = 1024 samples, C = I and Q, H = W = size.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import numpy.typing as npt

from amc_core.inputs.cpu_compiler import MOST_ENERGY, compiled

_OUTSIDE = 65535  # bin of a point beyond every cell
_MOST_POINTS, _MOST_PIXELS = 65535, 255  # limits of 16 bits


def log_histogram(
    iq_BTC: npt.NDArray[np.float32], out_BHW: npt.NDArray[np.float32], bad_B: npt.NDArray[np.bool_], half_range: float
) -> None:
    """Write log1p histograms of unit-power frames into ``out_BHW``, and into ``bad_B`` whether a frame is bad.

    Runs in one thread without the interpreter's lock. A bad frame gives zeros. In float32, rounding may put a point
    near an edge on its other side. Arrays must be C-contiguous.

    Raises:
        ValueError: frames of more than 65,535 samples, or images of more than 255 pixels a side.
    """
    n_frames, n_points, _ = iq_BTC.shape
    size = out_BHW.shape[1]
    if n_points > _MOST_POINTS or size > _MOST_PIXELS:
        raise ValueError(
            f"{n_points} samples and {size} pixels were given; 16 bits hold at most {_MOST_POINTS} and {_MOST_PIXELS}"
        )
    iq_BN, out_BP = iq_BTC.reshape(n_frames, -1), out_BHW.reshape(n_frames, -1)
    _log_histogram(iq_BN, out_BP, bad_B, size, half_range, _log1p(n_points))


@functools.cache
def _log1p(n_samples: int) -> npt.NDArray[np.float32]:
    """Return every value that a cell may have: a look-up is one load, a logarithm about forty instructions."""
    return np.log1p(np.arange(n_samples + 1)).astype(np.float32)


@compiled
def _log_histogram(
    iq_BN: npt.NDArray[np.float32],
    out_BP: npt.NDArray[np.float32],
    bad_B: npt.NDArray[np.bool_],
    size: int,
    half_range: float,
    log1p: npt.NDArray[np.float32],
) -> None:
    """Take flat frames (N = 2 T), I and Q in turn: only such loops become vector instructions."""
    n_points = iq_BN.shape[1] // 2
    n_cells = size * size
    bin_N = np.empty(2 * n_points, dtype=np.uint16)
    pair_T = bin_N.view(np.uint32)  # I's bin in the lower half, Q's in the upper
    cell_T = np.empty(n_points, dtype=np.uint16)
    count = np.empty(n_cells + 1, dtype=np.uint16)  # the last one counts the points outside
    # Places are measured from the image's middle, where floats are finest; with an odd size it lies within a bin.
    first, last = np.float32(-(size // 2)), np.float32(size - size // 2)
    shift = np.float32(0.5 * (size % 2))
    for b in range(len(iq_BN)):
        iq_N, out_P = iq_BN[b], out_BP[b]
        energy = np.float32(0.0)
        for n in range(2 * n_points):
            energy += iq_N[n] * iq_N[n]
        bad_B[b] = not energy <= MOST_ENERGY
        if bad_B[b]:
            out_P[:] = 0.0
            continue
        rms = math.sqrt(energy / n_points) if energy > 0.0 else 1.0
        scale = np.float32(size / (2.0 * half_range * rms))
        for n in range(2 * n_points):
            place = iq_N[n] * scale + shift
            index = min(np.int32(np.floor(place) - first), np.int32(size - 1))
            bin_N[n] = np.uint16(index) if (place >= first) & (place <= last) else np.uint16(_OUTSIDE)
        for t in range(n_points):
            cell = (pair_T[t] & np.uint32(0xFFFF)) * np.uint32(size) + (pair_T[t] >> np.uint32(16))
            cell_T[t] = min(np.uint32(cell), np.uint32(n_cells))
        count[:] = 0
        for t in range(n_points):
            count[cell_T[t]] += np.uint16(1)
        for p in range(n_cells):
            out_P[p] = log1p[count[p]]
