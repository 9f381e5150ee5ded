"""The outcomes of runs of unequal length, compared at equal epochs in three ways.

Hyperband, a person or a crash cut runs short. Such a run is censored, not bad.

- ``Outcomes.rank_score`` is the share of the other runs that a run beats; each pair is compared by the best value of
  the epochs that both reached. It is Gehan's generalised Wilcoxon score (Biometrika 52, 1965), with the time of
  comparison in the place of the censored value. The average is 0.5. If no run was cut short, it is the peak's rank.
- ``Outcomes.reached`` is the best value of the first ``equal_epochs`` epochs, in the metric's unit.
- ``carry_to_horizon`` estimates what the runs that ended early would have reached, and how uncertain that is.

In names: N runs, U different lengths.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from amc_sweeps.runs.causes import CENSORED, ENDED_WELL, FAILURES, Cause
from amc_sweeps.runs.ranked_run import RankedRun
from amc_sweeps.runs.records import Goal

Floats = NDArray[np.float64]

FEW = 0.25  # share of the runs that may fall short of the epochs that the others are compared at
LEAST_AT_HORIZON = 3  # runs that must have come as far as the horizon; with many runs a quarter of them
NORMAL_IQR = 1.349  # interquartile range of a normal distribution, in sd


@dataclass(frozen=True, eq=False)
class Outcomes:
    """The runs of a sweep in the order of the ranking; NaN stands for unknown."""

    entries: tuple[RankedRun, ...]
    sign: float  # 1 where higher is better, -1 where lower is
    peak: Floats  # in the metric's unit
    failed: Floats  # 1 failed, 0 ended otherwise, NaN not ended
    cut_short: NDArray[np.bool_]  # from outside, or still running
    curves: tuple[Floats | None, ...]  # best value so far, one an epoch, times sign; None where rows are missing

    @property
    def n(self) -> int:
        return len(self.entries)

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Epochs of every run that has a whole curve, else 0."""
        return np.array([0 if curve is None else len(curve) for curve in self.curves], dtype=np.int64)

    @cached_property
    def _ended_well(self) -> NDArray[np.bool_]:
        """Runs that completed or ended by patience: their outcome is final."""
        return np.array([entry.cause in ENDED_WELL for entry in self.entries], dtype=bool)

    @cached_property
    def _last_known(self) -> Floats:
        """The last epoch with a known outcome, for every run: infinite for a run that ended well."""
        return np.where(self._ended_well, np.inf, self.lengths)

    @cached_property
    def _compared_at(self) -> float:
        """Epochs at which outcomes are compared: infinite for final peaks, 0 where only peaks are known."""
        valued = np.isfinite(self.peak)
        intact = valued & (self.failed != 1)
        if not intact.any() or (self.lengths[valued & ~self._ended_well] == 0).any():
            return 0.0
        lasting = np.sort(self._last_known[intact])
        stopped = intact & np.array([entry.cause is Cause.EARLY_STOPPED for entry in self.entries])
        at = lasting[int(FEW * len(lasting))]
        if stopped.sum() > FEW * len(lasting):
            at = min(at, self._last_known[stopped].min())
        # Where that leaves out most runs, unequal peaks are the better comparison.
        return float(at) if (self._last_known[valued] >= at).sum() * 2 > valued.sum() else 0.0

    @property
    def equal_epochs(self) -> int | None:
        """The epochs at which ``reached`` compares runs; None where it compares peaks.

        It is the largest number that at least three quarters of the runs that did not fail reached: a few runs that
        were cut short early do not shorten the comparison of all others. Where Hyperband stopped more than a quarter,
        every early-stopped run reached it, too: Hyperband stops the worse runs, so the mean without so many of them
        would be too high. A run that ended well counts at any epoch.
        """
        return int(self._compared_at) if 0 < self._compared_at < math.inf else None

    @property
    def is_comparable(self) -> bool:
        """Whether ``reached`` compares runs at equal epochs; else it is the peak of runs of any length."""
        return self._compared_at > 0

    @cached_property
    def reached(self) -> Floats:
        """The outcome of every run in the metric's unit: its peak, or the best of its first ``equal_epochs``.

        NaN where a run failed or was cut short earlier. Where rows are missing, or most runs would be left out, every
        run counts with its peak.
        """
        at = self._compared_at
        if at == 0:
            return self.peak
        if at == math.inf:
            return np.where(self._ended_well, self.peak, np.nan)
        best = [math.nan if curve is None else float(curve[min(int(at), len(curve)) - 1]) for curve in self.curves]
        return np.where(self._last_known >= at, self.sign * np.array(best), np.nan)

    @cached_property
    def rank_score(self) -> Floats:
        """Share of the other runs that each beats at equal epochs, ties counted half; NaN without any value."""
        valued = np.flatnonzero(np.isfinite(self.peak))
        rank_score_N = np.full(self.n, np.nan)
        if len(valued) < 2:
            rank_score_N[valued] = 0.5
            return rank_score_N
        peak_K, length_K = self.sign * self.peak[valued], self.lengths[valued]
        lengths_U = np.unique(length_K[length_K > 0])
        if length_K.min() == length_K.max():  # every pair is compared at the same epoch: by the peaks
            ordered_K = np.sort(peak_K)
            below_K, upto_K = (np.searchsorted(ordered_K, peak_K, side) for side in ("left", "right"))
            rank_score_N[valued] = (below_K + 0.5 * (upto_K - below_K - 1)) / (len(valued) - 1)
            return rank_score_N
        # Best so far of every run at every length that some run has: pairs are compared at these only.
        so_far_KU = np.full((len(valued), max(len(lengths_U), 1)), np.nan)
        for row, run in enumerate(valued):
            curve = self.curves[run]
            if curve is not None:
                so_far_KU[row] = curve[np.minimum(lengths_U, len(curve)) - 1]
        place_K = np.searchsorted(lengths_U, length_K)
        for row in range(len(valued)):
            if length_K[row] == 0:
                own_K, others_K = np.full(len(valued), peak_K[row]), peak_K
            else:
                shared_K = np.minimum(place_K, place_K[row])
                own_K, others_K = so_far_KU[row, shared_K], so_far_KU[np.arange(len(valued)), shared_K]
                has_curve_K = length_K > 0
                own_K, others_K = np.where(has_curve_K, own_K, peak_K[row]), np.where(has_curve_K, others_K, peak_K)
            beaten = (own_K > others_K).sum() + 0.5 * ((own_K == others_K).sum() - 1)  # a run ties with itself
            rank_score_N[valued[row]] = beaten / (len(valued) - 1)
        return rank_score_N


def outcomes_of(ranked: Sequence[RankedRun], goal: Goal) -> Outcomes:
    """Return the outcomes of ranked runs, in their order."""
    sign = 1.0 if goal == "maximize" else -1.0
    return Outcomes(
        entries=tuple(ranked),
        sign=sign,
        peak=np.array([math.nan if entry.peak is None else entry.peak for entry in ranked], dtype=float),
        failed=np.array([_failed(entry.cause) for entry in ranked], dtype=float),
        cut_short=np.array([entry.cause in CENSORED or entry.cause is Cause.RUNNING for entry in ranked]),
        curves=tuple(_best_so_far(entry, sign) for entry in ranked),
    )


def _failed(cause: Cause) -> float:
    return math.nan if cause is Cause.RUNNING else float(cause in FAILURES)


def _best_so_far(entry: RankedRun, sign: float) -> Floats | None:
    """Return the running best, one an epoch; None where the rows of some epochs are missing."""
    curve = entry.run.curve
    return np.maximum.accumulate(sign * np.array(curve)) if curve and is_gapless(entry) else None


def is_gapless(entry: RankedRun) -> bool:
    """Return whether a run logged the metric in every epoch from the first one on, as far as its epochs are known."""
    epochs = entry.run.finite_epochs
    return not epochs or (epochs[0] <= 1 and len(entry.run.points) >= epochs[-1] - epochs[0] + 1)


@dataclass(frozen=True, eq=False)
class CarriedOutcomes:
    """Runs at one epoch, the horizon; higher is better. Runs that ended before it are carried there."""

    values: Floats  # (N,) best smoothed value at the horizon, negated where the metric is minimised
    variances: Floats  # (N,) of the carrying; 0 for a run that came that far
    horizon: int  # logged values of the metric
    carried: int  # runs that ended before the horizon


def carry_to_horizon(curves: Sequence[Sequence[float]], *, maximise: bool) -> CarriedOutcomes:
    """Carry every curve (finite values only, at least one each) to the longest horizon that enough runs reached.

    A run that ended early gets the median gain that the others made from the same epoch on. The spread of these gains
    is its uncertainty.
    """
    sign = 1.0 if maximise else -1.0
    best = [np.maximum.accumulate(_smoothed(sign * np.asarray(curve, dtype=np.float64))) for curve in curves]
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
    return CarriedOutcomes(np.array(values), np.array(variances), horizon, carried)


def _smoothed(curve: Floats) -> Floats:
    """Return the median of three neighbours, as long as the curve: one lucky epoch does not count."""
    if len(curve) < 3:
        return curve
    inner = np.median(np.stack([curve[:-2], curve[1:-1], curve[2:]]), axis=0)
    return np.concatenate([[min(curve[0], inner[0])], inner, [inner[-1]]])
