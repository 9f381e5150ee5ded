"""Hyperband's decisions about the runs of one sweep, worked out again from their curves."""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections.abc import Sequence
from itertools import pairwise

from amc_sweeps.grammar.hyperband import BandDecision, HyperbandConfig, bands, judge, thresholds
from amc_sweeps.runs.records import Goal, RunRecord

STOP_DELAY_S = 60.0  # a run ends within this time after the decision to stop it

_TimedCurve = list[tuple[float, float]]  # (time, value) of a run's finite points


class HyperbandDecisions:
    """Hyperband's decision about any run of the sweep.

    Thresholds are computed once: those of all runs so far, and those after each run that reached a band. So the
    decision about one run does not look at all the others again.
    """

    def __init__(self, config: HyperbandConfig, goal: Goal, runs: Sequence[RunRecord]) -> None:
        self._config = config
        self._goal = goal
        self._sign = -1 if goal == "maximize" else 1
        self._curves = {run.run_id: run.curve for run in runs}
        self._thresholds = thresholds(config, self._curves.values(), goal)
        self._timed = {run.run_id: timed for run in runs if (timed := _timed_curve(run)) is not None}
        self._threshold_history = {band: self._thresholds_over_time(band) for band in bands(config)}

    def decision(self, run: RunRecord, *, has_stop: bool) -> BandDecision | None:
        """Return the decision that would have ended the run; its highest band is tried first, then the lower ones.

        A run without a known stop is judged at its highest band only: it may have survived a lower band whose
        threshold rose later. A run with a known stop is also judged by the thresholds of its lifetime: later and worse
        runs may have lowered them since.

        Args:
            run: one of the sweep's runs.
            has_stop: whether the run is known to have been asked to stop.
        """
        curve = self._curves[run.run_id]
        passed_bands = [band for band in bands(self._config) if band <= len(curve)]
        for band in reversed(passed_bands) if has_stop else passed_bands[-1:]:
            length = len(curve) if band == passed_bands[-1] else band
            decision = judge(self._config, self._goal, curve[:length], band, self._thresholds[band])
            if decision is not None:
                return decision
        return self._decision_in_lifetime(run, passed_bands) if has_stop and passed_bands else None

    def _decision_in_lifetime(self, run: RunRecord, passed_bands: Sequence[int]) -> BandDecision | None:
        timed = self._timed.get(run.run_id)
        if timed is None:
            return None
        begins = [timed[band - 1][0] for band in passed_bands]
        ends = [*begins[1:], timed[-1][0] + STOP_DELAY_S]
        for band, begin, end in reversed(list(zip(passed_bands, begins, ends, strict=True))):
            times, limits = self._threshold_history[band]
            first, last = bisect_right(times, begin) - 1, bisect_right(times, end) - 1
            for index in range(last, first - 1, -1):
                curve = [value for time, value in timed if time <= times[index]]
                decision = judge(self._config, self._goal, curve, band, limits[index]) if len(curve) >= band else None
                if decision is not None:
                    return decision
        return None

    def _thresholds_over_time(self, band: int) -> tuple[list[float], list[float]]:
        """Return the times at which runs reached a band, in order, and the threshold after each of them."""
        reached = sorted(timed[band - 1] for timed in self._timed.values() if len(timed) >= band)
        ordered: list[float] = []
        limits = []
        for _, value in reached:
            insort(ordered, self._sign * value)
            limits.append(self._sign * ordered[int(1.0 / self._config.eta * len(ordered))])
        return [time for time, _ in reached], limits


def _timed_curve(run: RunRecord) -> _TimedCurve | None:
    """Return (time, value) of the finite points; None where a time is missing or times decrease."""
    finite = [point for point in run.points if math.isfinite(point.value)]
    timed = [(point.time_s, point.value) for point in finite if point.time_s is not None]
    if len(timed) < len(finite) or any(later < earlier for (earlier, _), (later, _) in pairwise(timed)):
        return None
    return timed
