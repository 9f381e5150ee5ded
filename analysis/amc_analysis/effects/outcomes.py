"""One row a run: what it reached, how far it got, how it ended, and where it stands among the others.

Runs of a sweep differ in length because Hyperband, a person or a crash cut them short. A run's *standing* is the share
of the other runs that it beats, where each pair is compared by the best value of the epochs that both got to: a run
that was stopped at epoch 5 is judged against the first 5 epochs of the others. 0.5 is par. It is Gehan's generalised
Wilcoxon score (Biometrika 52, 1965) with the time of comparison in the place of the censored value; without cut runs
it is the rank of the peak.

In names: N runs, U different lengths.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from amc_analysis.runs.findings import Findings
from amc_sweeps.runs.causes import CENSORED, ENDED_WELL, FAILURES, Cause
from amc_sweeps.runs.ranking import RankedRun

Floats = NDArray[np.float64]

SHORT_OF_EQUAL_EPOCHS = 0.1  # share of the runs that may fall short of the epochs that all are compared at


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
        """Number of runs."""
        return len(self.entries)

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Epochs of every run that has a whole curve, else 0."""
        return np.array([0 if curve is None else len(curve) for curve in self.curves], dtype=np.int64)

    @cached_property
    def _whole(self) -> NDArray[np.bool_]:
        """Runs that ended as they were meant to: they have nothing more to show."""
        return np.array([entry.cause in ENDED_WELL for entry in self.entries], dtype=bool)

    @cached_property
    def _lasting(self) -> Floats:
        """Epochs up to which every run's outcome is known: without end for a whole one."""
        return np.where(self._whole, np.inf, self.lengths)

    @cached_property
    def _compared_at(self) -> float:
        """Epochs at which outcomes are compared: infinite for peaks of whole runs, 0 where only peaks are known."""
        valued = np.isfinite(self.peak)
        intact = valued & (self.failed != 1)
        if not intact.any() or (self.lengths[valued & ~self._whole] == 0).any():
            return 0.0
        lasting = np.sort(self._lasting[intact])
        stopped = np.array([entry.cause is Cause.EARLY_STOPPED for entry in self.entries])
        at = min([lasting[int(SHORT_OF_EQUAL_EPOCHS * len(lasting))], *self._lasting[intact & stopped].tolist()])
        # Where that leaves out most runs, the rest speaks for them even less than unequal peaks do.
        return float(at) if (self._lasting[valued] >= at).sum() * 2 > valued.sum() else 0.0

    @property
    def equal_epochs(self) -> int | None:
        """The epochs at which ``reached`` compares runs; None where it compares peaks.

        It is what all but a tenth of the runs that did not fail got to; yet never more than every early-stopped run
        did, for Hyperband stops the worse ones and the mean of the others would flatter. A whole run counts at any
        epoch.
        """
        return int(self._compared_at) if 0 < self._compared_at < math.inf else None

    @property
    def is_comparable(self) -> bool:
        """Whether ``reached`` holds like with like; else it is the peak of runs that ended anyhow and anywhen."""
        return self._compared_at > 0

    @cached_property
    def reached(self) -> Floats:
        """The outcome of every run in the metric's unit: its peak, or the best of its first ``equal_epochs``.

        NaN where a run failed or was cut short before. Only where rows are missing, or most runs would be left out,
        every run counts with its peak however early it ended.
        """
        at = self._compared_at
        if at == 0:
            return self.peak
        if at == math.inf:
            return np.where(self._whole, self.peak, np.nan)
        best = [math.nan if curve is None else float(curve[min(int(at), len(curve)) - 1]) for curve in self.curves]
        return np.where(self._lasting >= at, self.sign * np.array(best), np.nan)

    @cached_property
    def standing(self) -> Floats:
        """Share of the other runs that each beats at equal epochs, ties counted half; NaN without any value."""
        known = np.flatnonzero(np.isfinite(self.peak))
        standing_N = np.full(self.n, np.nan)
        if len(known) < 2:
            standing_N[known] = 0.5
            return standing_N
        peak_K, length_K = self.sign * self.peak[known], self.lengths[known]
        lengths_U = np.unique(length_K[length_K > 0])
        # Best so far of every run at every length that some run has: all that pairs are ever compared by.
        so_far_KU = np.full((len(known), max(len(lengths_U), 1)), np.nan)
        for row, run in enumerate(known):
            curve = self.curves[run]
            if curve is not None:
                so_far_KU[row] = curve[np.minimum(lengths_U, len(curve)) - 1]
        place_K = np.searchsorted(lengths_U, length_K)
        for row in range(len(known)):
            if length_K[row] == 0:
                mine_K, theirs_K = np.full(len(known), peak_K[row]), peak_K
            else:
                shared_K = np.minimum(place_K, place_K[row])
                mine_K, theirs_K = so_far_KU[row, shared_K], so_far_KU[np.arange(len(known)), shared_K]
                whole_K = length_K > 0
                mine_K, theirs_K = np.where(whole_K, mine_K, peak_K[row]), np.where(whole_K, theirs_K, peak_K)
            beaten = (mine_K > theirs_K).sum() + 0.5 * ((mine_K == theirs_K).sum() - 1)  # itself is one of the ties
            standing_N[known[row]] = beaten / (len(known) - 1)
        return standing_N


def outcomes_of(findings: Findings) -> Outcomes:
    """Gather them from a sweep's findings."""
    sign = 1.0 if findings.metric.goal == "maximize" else -1.0
    return Outcomes(
        entries=findings.ranked,
        sign=sign,
        peak=np.array([math.nan if entry.peak is None else entry.peak for entry in findings.ranked], dtype=float),
        failed=np.array([_failed(entry.cause) for entry in findings.ranked], dtype=float),
        cut_short=np.array([entry.cause in CENSORED or entry.cause is Cause.RUNNING for entry in findings.ranked]),
        curves=tuple(_best_so_far(entry, sign) for entry in findings.ranked),
    )


def _failed(cause: Cause) -> float:
    return math.nan if cause is Cause.RUNNING else float(cause in FAILURES)


def _best_so_far(entry: RankedRun, sign: float) -> Floats | None:
    """Return the running best, one an epoch; None where the rows of some epochs are missing."""
    finite = [point.value for point in entry.run.points if math.isfinite(point.value)]
    if not finite or not is_gapless(entry):
        return None
    return np.maximum.accumulate(sign * np.array(finite))


def is_gapless(entry: RankedRun) -> bool:
    """Tell whether a run logged the metric in every epoch from its first one on, as far as its epochs are known."""
    named = [point.epoch for point in entry.run.points if point.epoch is not None and math.isfinite(point.epoch)]
    return not named or (named[0] <= 1 and len(entry.run.points) >= named[-1] - named[0] + 1)
