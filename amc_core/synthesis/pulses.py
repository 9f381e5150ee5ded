"""Pulses of the digital modulations, and filtering with a different one in every frame.

A frame's pulse comes from a table for roll-offs in steps of 0.01 and times in steps of 1/512 symbol. Evaluating the
formula for every frame would take longer than any other step except the noise.

In names: B frames, S symbols, L taps of a phase, P = 8 samples of a symbol, R roll-offs, F table points, T samples.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

SAMPLES_PER_SYMBOL = 8
MAX_HALF_SPAN = 8  # symbols that a pulse may reach to either side
_STEPS = 64 * SAMPLES_PER_SYMBOL  # of the table, per symbol
_REACH = MAX_HALF_SPAN + 2  # symbols that the table holds to either side: span, 1.5 of delay, and rounding
_N_TAPS = 2 * MAX_HALF_SPAN + 2  # for a delay of up to 1.5 symbols


def root_raised_cosine(time: npt.NDArray[np.float64], roll_off: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the root-raised-cosine pulse of unit energy; time in symbols.

    J. Proakis, M. Salehi, "Digital Communications", 5th edition, section 9.2.
    """
    time, roll_off = np.broadcast_arrays(time, roll_off)
    # The formula is 0/0 at t = 0 and |t| = 1 / (4 roll_off). A shift of 3e-6 symbols is below float32's precision.
    singular = (np.abs(time) < 1e-6) | (np.abs(np.abs(4 * roll_off * time) - 1) < 1e-6)
    time = np.where(singular, time + 3e-6, time)
    angle = math.pi * time
    numerator = np.sin(angle * (1 - roll_off)) + 4 * roll_off * time * np.cos(angle * (1 + roll_off))
    pulse: npt.NDArray[np.float64] = numerator / (angle * (1 - (4 * roll_off * time) ** 2))
    return pulse


def gaussian_frequency_pulse(time: npt.NDArray[np.float64], bandwidth: float) -> npt.NDArray[np.float64]:
    """Return GMSK's frequency pulse: a rectangle of one symbol after a Gaussian filter, with an area of 1.

    3GPP TS 45.004, section 2.5, for any product of bandwidth and symbol time; time in symbols.
    """
    scale = math.pi * bandwidth * math.sqrt(2 / math.log(2))
    rise = np.array([math.erf(scale * (moment + 0.5)) for moment in time.ravel()])
    fall = np.array([math.erf(scale * (moment - 0.5)) for moment in time.ravel()])
    pulse: npt.NDArray[np.float64] = ((rise - fall) / 2).reshape(time.shape)
    return pulse


@lru_cache(maxsize=4)
def root_raised_cosine_bank(roll_offs_percent: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Return a table of pulses, float32 (R, F)."""
    roll_off_R1 = np.array(roll_offs_percent)[:, None] / 100
    return root_raised_cosine(_table_times(), roll_off_R1).astype(np.float32)


@lru_cache(maxsize=4)
def gaussian_bank(bandwidths_percent: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Return a table of GMSK's frequency pulses, float32 (R, F)."""
    pulses_RF = [gaussian_frequency_pulse(_table_times(), percent / 100) for percent in bandwidths_percent]
    return np.stack(pulses_RF).astype(np.float32)


def n_symbols_for(n_samples: int) -> int:
    """Return how many symbols ``shape`` needs for ``n_samples``, a multiple of 8."""
    return n_samples // SAMPLES_PER_SYMBOL + _N_TAPS - 1


def shape(
    symbols_BS: npt.NDArray[np.float32],
    bank_RF: npt.NDArray[np.float32],
    pulse_B: npt.NDArray[np.int64],
    delay_B: npt.NDArray[np.float64],
    half_span_B: npt.NDArray[np.int64],
) -> npt.NDArray[np.float32]:
    """Return real symbols filtered with every frame's own pulse at 8 samples per symbol, float32 (B, T).

    Args:
        symbols_BS: ``n_symbols_for(T)`` amplitudes.
        bank_RF: a table of pulses.
        pulse_B: index into the table.
        delay_B: 0..1.5 symbols.
        half_span_B: 1..8 symbols, where the pulse is cut to either side.
    """
    # x[8m + p] = sum_l s[m + l] g((8 (l0 - l) + p) / 8 - tau): one small matrix product per frame.
    lag_L1 = (MAX_HALF_SPAN + 1 - np.arange(_N_TAPS))[:, None]
    time_LP = lag_L1 * _STEPS + np.arange(SAMPLES_PER_SYMBOL) * (_STEPS // SAMPLES_PER_SYMBOL)
    time_BLP = time_LP - np.rint(delay_B * _STEPS).astype(np.int64)[:, None, None]
    taps_BLP = bank_RF[pulse_B[:, None, None], time_BLP + _REACH * _STEPS]
    taps_BLP *= np.abs(time_BLP) <= half_span_B[:, None, None] * _STEPS
    windows_BML = np.lib.stride_tricks.sliding_window_view(symbols_BS, _N_TAPS, axis=1)
    # A copy, because numpy multiplies overlapping windows without the fast kernels.
    shaped_BMP: npt.NDArray[np.float32] = np.ascontiguousarray(windows_BML) @ taps_BLP
    return shaped_BMP.reshape(len(symbols_BS), -1)


def _table_times() -> npt.NDArray[np.float64]:
    return np.arange(-_REACH * _STEPS, _REACH * _STEPS + 1) / _STEPS
