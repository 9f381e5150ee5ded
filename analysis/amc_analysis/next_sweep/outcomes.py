"""What every run would be worth at one and the same epoch: the runs that ended early are carried there, with a doubt.

A run that was cut short is censored, not bad. Comparing it with others needs equal epochs: its best smoothed value so
far is carried to the horizon by what the runs that went on gained from the same epoch, and how much these gains differ
says how little that is worth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LEAST_AT_HORIZON = 3  # runs that must have come as far as the horizon; with many runs a quarter of them
NORMAL_IQR = 1.349  # interquartile range of a normal distribution, in sd


@dataclass(frozen=True, eq=False)
class Outcomes:
    """The runs at equal epochs, higher is better."""

    values: Array  # (N,) best smoothed value at the horizon, negated where the metric is minimised
    variances: Array  # (N,) of having been carried there; 0 for a run that came that far
    horizon: int  # logged values of the metric
    carried: int  # how many runs ended before it


def at_equal_epochs(curves: Sequence[Sequence[float]], *, maximise: bool) -> Outcomes:
    """Carry every curve (finite values only, at least one each) to the longest horizon that enough runs reached."""
    sign = 1.0 if maximise else -1.0
    best = [_best_so_far(sign * np.asarray(curve, dtype=np.float64)) for curve in curves]
    lengths = sorted((len(curve) for curve in best), reverse=True)
    needed = max(LEAST_AT_HORIZON, len(lengths) // 4)
    horizon = lengths[min(needed, len(lengths)) - 1]
    whole = np.stack([curve[:horizon] for curve in best if len(curve) >= horizon])
    values, variances = [], []
    for curve in best:
        end = min(len(curve), horizon)
        gains = whole[:, -1] - whole[:, end - 1]
        values.append(float(curve[end - 1] + np.median(gains)))
        low, high = np.percentile(gains, [25, 75])
        variances.append(((high - low) / NORMAL_IQR) ** 2 * (1 + 1 / len(gains)))
    carried = sum(len(curve) < horizon for curve in best)
    return Outcomes(np.array(values), np.array(variances), horizon, carried)


def _best_so_far(curve: Array) -> Array:
    """Return the running maximum of the median of three neighbours: one lucky epoch is no outcome."""
    if len(curve) < 3:
        return np.maximum.accumulate(curve)
    inner = np.median(np.stack([curve[:-2], curve[1:-1], curve[2:]]), axis=0)
    smooth = np.concatenate([[min(curve[0], inner[0])], inner, [inner[-1]]])
    return np.maximum.accumulate(smooth)
