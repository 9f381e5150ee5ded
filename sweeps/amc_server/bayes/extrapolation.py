"""The outcome that a shortened run would have had at full length, from the curves of finished runs, and how sure it is.

At each length n, the outcomes of the finished runs that were longer are regressed on their levels at n: a ridge
regression towards "every run gains the same". The residuals give the standard deviation of a prediction, which grows
where few runs were longer, or where curves of that length say little. Source of the formulas: Draper & Smith, Applied
Regression Analysis (1998), chapters 1 and 22.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SMOOTHED = 5  # last values whose mean is the level of a curve: one value alone has the noise of an epoch
MOST_CURVES = 200  # finished runs that are used, the newest
PRIOR_RUNS = 2.0  # weight, in runs, of the prior of the residuals: half of the mean gain


class FinishedCurves:
    """Curves of finished runs, higher is better, as a predictor."""

    def __init__(self, curves: Sequence[Sequence[float]]) -> None:
        """Fit a regression for every length; runs without a value do not count."""
        curves = [curve for curve in curves[-MOST_CURVES:] if len(curve)]
        self.longest = max(map(len, curves), default=0)
        if not curves:
            return
        lengths = np.array([len(curve) for curve in curves])
        values = np.full((len(curves), self.longest), np.nan)
        for row, curve in zip(values, curves, strict=True):
            row[: len(curve)] = curve
        outcome = np.nanmax(values, axis=1)[:, None]
        level = _levels(np.nan_to_num(values))
        longer = np.arange(1, self.longest + 1) < lengths[:, None]
        self._count = longer.sum(axis=0)
        n = np.maximum(self._count, 1)
        level, outcome = np.where(longer, level, 0.0), np.where(longer, outcome, 0.0)
        self._level, self._outcome = level.sum(axis=0) / n, outcome.sum(axis=0) / n
        from_level = np.where(longer, level - self._level, 0.0)
        from_outcome = np.where(longer, outcome - self._outcome, 0.0)
        sxx, sxy = (from_level**2).sum(axis=0), (from_level * from_outcome).sum(axis=0)
        syy = (from_outcome**2).sum(axis=0)
        gains = syy - 2 * sxy + sxx  # the squares that are left if every run gains the same
        ridge = 4 * gains / n + 1e-12  # of a slope that is 1 +- 0.5
        self._slope, self._spread = (sxy + ridge) / (sxx + ridge), sxx + ridge
        left = syy - 2 * self._slope * sxy + self._slope**2 * sxx
        prior = ((self._outcome - self._level) / 2) ** 2
        self._variance = (left + PRIOR_RUNS * prior) / np.maximum(n - 2 + PRIOR_RUNS, 1)

    def predict(self, curve: Sequence[float]) -> tuple[float, float]:
        """Return the outcome at full length of a run that ended with this curve, and its standard deviation.

        Without a finished run that was longer, that is the best value so far, and 0.
        """
        best, n = max(curve), len(curve)
        if n >= self.longest or not self._count[n - 1]:
            return best, 0.0
        level = float(np.mean(curve[-SMOOTHED:] if n >= 3 * SMOOTHED else curve[-max(1, n // 3) :]))
        at = n - 1
        away = level - self._level[at]
        predicted = float(self._outcome[at] + self._slope[at] * away)
        variance = self._variance[at] * (1 + 1 / self._count[at] + away**2 / self._spread[at])
        return max(predicted, best), float(np.sqrt(variance))


def _levels(values_NL: Array) -> Array:
    """Return (N, L) for every length the mean of the last values, as ``predict`` takes it."""
    sums = np.concatenate([np.zeros((len(values_NL), 1)), np.cumsum(values_NL, axis=1)], axis=1)
    length = np.arange(1, values_NL.shape[1] + 1)
    width = np.where(length >= 3 * SMOOTHED, SMOOTHED, np.maximum(1, length // 3))
    return np.asarray((sums[:, length] - sums[:, length - width]) / width, np.float64)
