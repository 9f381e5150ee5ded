"""Hyperband's decisions about the runs of one sweep, worked out again from their curves: as of now, and at the time."""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections.abc import Sequence
from itertools import pairwise

from amc_sweeps.grammar.hyperband import HyperbandConfig, bands, thresholds
from amc_sweeps.runs.causes import BandDecision
from amc_sweeps.runs.records import Goal, RunRecord

STOP_SLACK_S = 60.0  # a stop that was decided now ends the run within this time

_Timed = list[tuple[float, float]]  # (time, value) of a run's finite points


class Decisions:
    """What Hyperband decides, for any run of the sweep.

    Thresholds are those of hyperband.py: once for all runs as of now, and for every band after each run
    that reached it, so that asking for one run costs no look at the others.
    """

    def __init__(self, config: HyperbandConfig, goal: Goal, runs: Sequence[RunRecord]) -> None:
        self._config = config
        self._goal = goal
        self._sign = -1 if goal == "maximize" else 1
        self._curves = {run.run_id: run.curve for run in runs}
        self._limits = thresholds(config, self._curves.values(), goal)
        self._timed = {run.run_id: timed for run in runs if (timed := _timed(run)) is not None}
        self._then = {band: self._after_each(band) for band in bands(config)}

    def decision(self, run: RunRecord, *, asked: bool) -> BandDecision | None:
        """Return the decision that would have ended the run, from the highest band it passed downwards.

        A run that nobody is known to have asked to stop is judged at its highest band alone: it may have survived a
        lower one whose threshold rose later. For one that was asked, thresholds are also taken as they stood while it
        was alive: later, worse runs may have lowered them since.
        """
        curve = self._curves[run.run_id]
        passed = [band for band in bands(self._config) if band <= len(curve)]
        for band in reversed(passed) if asked else passed[-1:]:
            length = len(curve) if band == passed[-1] else band
            found = self._judged(band, curve[:length], self._limits[band])
            if found is not None:
                return found
        return self._at_the_time(run, passed) if asked and passed else None

    def _judged(self, band: int, curve: Sequence[float], limit: float) -> BandDecision | None:
        best = max if self._goal == "maximize" else min
        value = curve[band - 1] if self._config.strict else best(curve)
        worse = self._sign * value > self._sign * limit
        return BandDecision(band, value, limit) if worse else None

    def _at_the_time(self, run: RunRecord, passed: Sequence[int]) -> BandDecision | None:
        own = self._timed.get(run.run_id)
        if own is None:
            return None
        begins = [own[band - 1][0] for band in passed]
        ends = [*begins[1:], own[-1][0] + STOP_SLACK_S]
        for band, begin, end in reversed(list(zip(passed, begins, ends, strict=True))):
            times, limits = self._then[band]
            first, last = bisect_right(times, begin) - 1, bisect_right(times, end) - 1
            for place in range(last, first - 1, -1):
                until = [value for time, value in own if time <= times[place]]
                found = self._judged(band, until, limits[place]) if len(until) >= band else None
                if found is not None:
                    return found
        return None

    def _after_each(self, band: int) -> tuple[list[float], list[float]]:
        """Return when runs reached a band, in order, and the threshold after each of them."""
        reached = sorted(timed[band - 1] for timed in self._timed.values() if len(timed) >= band)
        ordered: list[float] = []
        limits = []
        for _, value in reached:
            insort(ordered, self._sign * value)
            limits.append(self._sign * ordered[int(1.0 / self._config.eta * len(ordered))])
        return [time for time, _ in reached], limits


def _timed(run: RunRecord) -> _Timed | None:
    """Return (time, value) of the finite points; None where a time is missing, or time goes back."""
    finite = [(point.time_s, point.value) for point in run.points if math.isfinite(point.value)]
    known = [(time, value) for time, value in finite if time is not None]
    if len(known) < len(finite) or any(later < earlier for (earlier, _), (later, _) in pairwise(known)):
        return None
    return known
