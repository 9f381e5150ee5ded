"""Images of ``synced`` from symbols, compiled: the same as synchronisation.py and histogram.py in torch.

Import this module where it is used, because importing numba is slow. Loops over flat arrays handle all points of a
frame at once and become vector instructions. ``math.log`` and ``math.atan2`` would not, so both are polynomials here.
Only the points' shares are added one by one; an empty pixel costs one store.

In names: B frames, K = 124 symbols, X = 2 K numbers (real and imaginary in turn), M places of the carrier search, N
points of an image, W = size, O planes of one number each, P numbers of an image, whose channels lie side by side.
"""

from __future__ import annotations

import cmath
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.polynomial import Chebyshev

from amc_core.inputs.cpu_compiler import compiled
from amc_core.inputs.synchronisation import CONTRAST, LARGEST, N_INNER, PHASE_ORDERS, QUADRANT, SEARCH_LENGTH

CHANNELS = 3 + len(PHASE_ORDERS)

_Floats = npt.NDArray[np.float32]
_Places = npt.NDArray[np.uint32]
_Flags = npt.NDArray[np.bool_]


@functools.cache
def turns(n_places: int) -> tuple[_Floats, _Floats]:
    """Return the rotation that removes the carrier of every place of the search: cosine and sine, (M, K)."""
    turn_M1 = 2 * np.pi / (4 * SEARCH_LENGTH) * (np.arange(n_places) - n_places // 2)[:, None]
    angle_MK = -turn_M1 * np.arange(N_INNER)
    return np.cos(angle_MK).astype(np.float32), np.sin(angle_MK).astype(np.float32)


def _fitted(function: Callable[..., Any], degree: int, low: float, high: float) -> tuple[np.float32, ...]:
    """Return the coefficients, highest first, of a polynomial by Chebyshev interpolation (close to the optimum)."""
    series = Chebyshev.interpolate(function, degree, domain=[low, high])
    return tuple(np.float32(value) for value in series.convert(kind=np.polynomial.Polynomial).coef[::-1])


# Exact to float32: test_cpu_drawing.py.
_SPLIT = math.sqrt(0.5)  # ln(m 2^e) = e ln 2 + ln m, with m between this and its double
_LOG = _fitted(lambda x: np.log1p(x) / x, 9, _SPLIT - 1, 2 * _SPLIT - 1)
_ARCTANGENT = _fitted(lambda x: np.arctan(np.sqrt(x)) / np.sqrt(x), 9, 0.0, 1.0)
_LN_2 = np.float32(math.log(2))
_HALF_PI, _PI = np.float32(math.pi / 2), np.float32(math.pi)


@compiled
def log1p(x_N: _Floats) -> None:
    """Replace every number, which must not be negative, by ln(1 + x)."""
    whole_N = np.empty(len(x_N), dtype=np.int32)
    part_N = np.empty(len(x_N), dtype=np.float32)
    bits_N, part_bits_N = x_N.view(np.int32), part_N.view(np.int32)
    offset = np.int32(0x3F3504F3)  # the bits of sqrt(1/2): the exponent changes there
    for n in range(len(x_N)):
        x_N[n] += np.float32(1.0)
    for n in range(len(x_N)):
        shifted = bits_N[n] - offset
        exponent = shifted >> np.int32(23)
        whole_N[n] = exponent
        part_bits_N[n] = bits_N[n] - (exponent << np.int32(23))
    for n in range(len(x_N)):
        x = part_N[n] - np.float32(1.0)
        y = np.float32(0.0)
        for coefficient in _LOG:
            y = y * x + coefficient
        x_N[n] = y * x + np.float32(whole_N[n]) * _LN_2


@compiled
def arctangent(y: np.float32, x: np.float32) -> np.float32:
    """Return the angle of (x, y), -pi..pi; 0 of (0, 0)."""
    wide, high = abs(x), abs(y)
    longer, shorter = (high, wide) if high > wide else (wide, high)
    ratio = shorter / (longer + np.float32(1e-30))
    square = ratio * ratio
    angle = np.float32(0.0)
    for coefficient in _ARCTANGENT:
        angle = angle * square + coefficient
    angle *= ratio
    angle = _HALF_PI - angle if high > wide else angle
    angle = _PI - angle if x < np.float32(0.0) else angle
    return -angle if y < np.float32(0.0) else angle


@compiled
def draw(
    cos_MK: _Floats,
    sin_MK: _Floats,
    symbol_BX: _Floats,
    line_BX: _Floats,
    spectrum_BW: _Floats,
    plane_BO: _Floats,
    bad_B: _Flags,
    image_BP: _Floats,
) -> None:
    """Draw the channels of a frame: quadrant, sizes against phase steps, spectrum, planes; zeros for a bad frame."""
    size = spectrum_BW.shape[1]
    n_polar = 2 * (N_INNER - 1)
    row_N, column_N = np.empty(n_polar, dtype=np.float32), np.empty(n_polar, dtype=np.float32)
    length_K = np.empty(N_INNER, dtype=np.float32)
    place_X = np.empty(4 * (N_INNER + n_polar), dtype=np.uint32)  # unsigned: numba skips the check for negatives
    share_X = np.empty(4 * (N_INNER + n_polar), dtype=np.float32)
    line_P = np.zeros(CHANNELS * size, dtype=np.float32)
    per_length, per_radian = np.float32(size / LARGEST), np.float32(size / (2 * math.pi))
    middle = np.float32(size / 2)
    for b in range(len(image_BP)):
        image_P = image_BP[b]
        if bad_B[b]:
            image_P[:] = 0.0
            continue
        for w in range(size):
            line_P[CHANNELS * w + 2] = (spectrum_BW[b, w] + np.float32(1.0)) * np.float32(0.5)
            for o in range(plane_BO.shape[1]):
                line_P[CHANNELS * w + 3 + o] = plane_BO[b, o]
        for h in range(size):
            for p in range(len(line_P)):  # twice as fast as assigning a slice
                image_P[h * len(line_P) + p] = line_P[p]
        symbol_X = symbol_BX[b]
        _quadrant(symbol_X, line_BX[b], cos_MK, sin_MK, size, row_N, column_N)
        _share(row_N[:N_INNER], column_N[:N_INNER], size, False, 0, place_X[: 4 * N_INNER], share_X[: 4 * N_INNER])
        for k in range(N_INNER):
            re, im = symbol_X[2 * k], symbol_X[2 * k + 1]
            length_K[k] = np.sqrt(re * re + im * im) * per_length
        for k in range(N_INNER - 1):
            re, im = symbol_X[2 * k + 2], symbol_X[2 * k + 3]
            re_before, im_before = symbol_X[2 * k], symbol_X[2 * k + 1]
            turn = per_radian * arctangent(im * re_before - re * im_before, re * re_before + im * im_before)
            column_N[k], column_N[N_INNER - 1 + k] = middle + turn, middle - turn
        row_N[: N_INNER - 1], row_N[N_INNER - 1 :] = length_K[1:], length_K[:-1]
        _share(row_N, column_N, size, True, 1, place_X[4 * N_INNER :], share_X[4 * N_INNER :])
        for x in range(len(place_X)):
            image_P[place_X[x]] += share_X[x]
        # All sums are read before one is replaced, because a pixel may be in the list several times.
        for x in range(len(place_X)):
            share_X[x] = image_P[place_X[x]]
        log1p(share_X)
        for x in range(len(place_X)):
            image_P[place_X[x]] = np.float32(CONTRAST) * share_X[x]


@compiled
def _quadrant(
    symbol_X: _Floats, line_X: _Floats, cos_MK: _Floats, sin_MK: _Floats, size: int, row_N: _Floats, column_N: _Floats
) -> None:
    """Remove carrier and phase from symbols and turn them into the first quadrant; see synchronisation.py."""
    best, strongest = 0, np.float32(-1.0)
    for m in range(len(line_X) // 2):
        strength = line_X[2 * m] * line_X[2 * m] + line_X[2 * m + 1] * line_X[2 * m + 1]
        if strength > strongest:
            best, strongest = m, strength
    phase = cmath.phase(complex(line_X[2 * best], line_X[2 * best + 1])) / 4
    scale = np.float32(size / QUADRANT)
    turn_re, turn_im = np.float32(math.cos(phase)) * scale, np.float32(-math.sin(phase)) * scale
    cos_K, sin_K = cos_MK[best], sin_MK[best]
    for k in range(len(cos_K)):
        both_re = cos_K[k] * turn_re - sin_K[k] * turn_im
        both_im = cos_K[k] * turn_im + sin_K[k] * turn_re
        re = symbol_X[2 * k] * both_re - symbol_X[2 * k + 1] * both_im
        im = symbol_X[2 * k] * both_im + symbol_X[2 * k + 1] * both_re
        # Swapped where the signs differ: i (re + i im) = -im + i re.
        swap = ((re > 0) & (im < 0)) | ((re <= 0) & (im > 0))
        row_N[k], column_N[k] = abs(im if swap else re), abs(re if swap else im)


@compiled
def _share(
    row_N: _Floats, column_N: _Floats, size: int, periodic: bool, channel: int, place_X: _Places, share_X: _Floats
) -> None:
    """Share points among four pixels, as histogram.spread_points does; a share beyond the edge becomes 0."""
    n_points = len(row_N)
    last, whole = np.int32(size - 1), np.int32(size)
    half, one, zero = np.float32(0.5), np.float32(1.0), np.float32(0.0)
    for n in range(n_points):
        row, column = row_N[n] - half, column_N[n] - half
        first_row, first_column = np.floor(row), np.floor(column)
        down, right = row - first_row, column - first_column
        up, left = one - down, one - right
        r0, c0 = np.int32(first_row), np.int32(first_column)
        r1, c1 = r0 + np.int32(1), c0 + np.int32(1)
        if periodic:
            c0 = c0 + whole if c0 < 0 else c0
            c1 = c1 - whole if c1 > last else c1
        else:
            left = left if (c0 >= 0) & (c0 <= last) else zero
            right = right if (c1 >= 0) & (c1 <= last) else zero
            c0, c1 = min(max(c0, np.int32(0)), last), min(max(c1, np.int32(0)), last)
        up = up if (r0 >= 0) & (r0 <= last) else zero
        down = down if (r1 >= 0) & (r1 <= last) else zero
        r0, r1 = min(max(r0, np.int32(0)), last), min(max(r1, np.int32(0)), last)
        place_X[n] = np.uint32((r0 * whole + c0) * np.int32(CHANNELS) + np.int32(channel))
        place_X[n_points + n] = np.uint32((r0 * whole + c1) * np.int32(CHANNELS) + np.int32(channel))
        place_X[2 * n_points + n] = np.uint32((r1 * whole + c0) * np.int32(CHANNELS) + np.int32(channel))
        place_X[3 * n_points + n] = np.uint32((r1 * whole + c1) * np.int32(CHANNELS) + np.int32(channel))
        share_X[n], share_X[n_points + n] = up * left, up * right
        share_X[2 * n_points + n], share_X[3 * n_points + n] = down * left, down * right
