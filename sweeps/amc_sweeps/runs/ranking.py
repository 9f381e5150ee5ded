"""Rank runs by their peak, not by their last value or by whether they ended well, and find the hidden gems."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from amc_sweeps.runs.causes import WHOLE, Cause, Verdict
from amc_sweeps.runs.evidence import epochs_done, epochs_planned
from amc_sweeps.runs.records import Goal, Metric, RunRecord, summary_number
from amc_sweeps.runs.statistics import medians_of_3, noise_sd

GEM_AMONG_BEST = 3  # a run that is cut short counts as a gem among the best k of all, whatever whole runs reached


@dataclass(frozen=True)
class RankedRun:
    """A run and what its history says. ``peak`` is selected among its epochs, hence optimistic: see ``noise_sd``."""

    run: RunRecord
    verdict: Verdict
    rank: int | None  # 1 is best; equal peaks share a rank; None without any finite value
    peak: float | None  # best finite value by the goal
    peak_epoch: float | None
    smoothed_peak: float | None  # best median of three neighbouring values; None where epochs are missing
    last: float | None  # the final logged value, NaN and infinities included
    epochs: int
    epochs_planned: int | None
    noise_sd: float | None  # epoch to epoch, from second differences
    test: float | None  # shown, never ranked by
    is_gem: bool = False
    set_aside: str | None = None  # the integrity rule by which its values belong in no comparison

    @property
    def cause(self) -> Cause:
        """How the run ended."""
        return self.verdict.cause


def rank(runs: Sequence[RunRecord], verdicts: Mapping[str, Verdict], metric: Metric) -> tuple[RankedRun, ...]:
    """Return the runs, best peak first; those without a finite value come last, in their own order.

    Equal peaks share a rank and are ordered by the smoothed peak, then by id, so that the order never depends on
    chance.
    """
    measured = [_measure(run, verdicts[run.run_id], metric) for run in runs]
    sign = -1 if metric.goal == "maximize" else 1

    def key(entry: RankedRun) -> tuple[float, float, str]:
        smoothed = math.inf if entry.smoothed_peak is None else sign * entry.smoothed_peak
        return (math.inf if entry.peak is None else sign * entry.peak), smoothed, entry.run.run_id

    valued = sorted((entry for entry in measured if entry.peak is not None), key=key)
    placed: list[RankedRun] = []
    for position, entry in enumerate(valued, start=1):
        tied = bool(placed) and placed[-1].peak == entry.peak
        placed.append(replace(entry, rank=placed[-1].rank if tied else position))
    placed.extend(entry for entry in measured if entry.peak is None)
    return _mark_gems(placed, metric.goal)


def best_whole(ranked: Sequence[RankedRun]) -> RankedRun | None:
    """Return the best run that ended as it was meant to (completed or patience), if any has a value to be compared."""
    clean = (entry for entry in ranked if entry.peak is not None and entry.set_aside is None)
    return next((entry for entry in clean if entry.cause in WHOLE), None)


def set_aside(ranked: Sequence[RankedRun], rules: Mapping[str, str], goal: Goal) -> tuple[RankedRun, ...]:
    """Return the runs in their order, those in ``rules`` (run id -> why) marked, and gems found among the others."""
    return _mark_gems([replace(entry, set_aside=rules.get(entry.run.run_id)) for entry in ranked], goal)


def is_better(value: float, other: float, goal: Goal) -> bool:
    """Tell whether a value beats another one."""
    return value > other if goal == "maximize" else value < other


def name_of_test(name: str) -> str | None:
    """Return the name under which a script would log the test value of a validation metric; None without a hint."""
    replaced = re.sub(r"(?<![A-Za-z])(val|valid|validation|eval|dev)(?![A-Za-z])", "test", name, count=1)
    return None if replaced == name else replaced


def _mark_gems(ranked: Sequence[RankedRun], goal: Goal) -> tuple[RankedRun, ...]:
    whole = best_whole(ranked)
    # Fewer than all: to be among the best three of three says nothing.
    among = min(GEM_AMONG_BEST, sum(entry.peak is not None and not entry.set_aside for entry in ranked) - 1)

    def is_gem(entry: RankedRun) -> bool:
        if (
            entry.peak is None
            or entry.rank is None
            or entry.set_aside
            or entry.cause in WHOLE
            or entry.cause is Cause.RUNNING
        ):
            return False
        beats = whole is not None and whole.peak is not None and is_better(entry.peak, whole.peak, goal)
        return beats or entry.rank - sum(_leads(other, entry) for other in ranked) <= among

    return tuple(replace(entry, is_gem=is_gem(entry)) for entry in ranked)


def _leads(other: RankedRun, entry: RankedRun) -> bool:
    """Tell whether a run that was set aside stands before another one."""
    return bool(other.set_aside and other.rank and entry.rank and other.rank < entry.rank)


def _measure(run: RunRecord, verdict: Verdict, metric: Metric) -> RankedRun:
    best = max if metric.goal == "maximize" else min
    curve = run.curve
    # Neighbours and second differences mean something only where no epoch between them is missing.
    even = _is_even(run)
    smoothed = medians_of_3(curve) if even else []
    peak = best(curve) if curve else None
    last = run.points[-1].value if run.points else None
    if not run.points:
        # Nothing in the history: a script may have set the summary alone.
        told = summary_number(run.summary, metric.name, metric.goal)
        peak = told if told is not None and math.isfinite(told) else None
        last = told
    test_name = name_of_test(metric.name)
    return RankedRun(
        run=run,
        verdict=verdict,
        rank=None,
        peak=peak,
        peak_epoch=_epoch_of(run, peak),
        smoothed_peak=best(smoothed) if smoothed else None,
        last=last,
        epochs=epochs_done(run),
        epochs_planned=epochs_planned(run.config),
        noise_sd=noise_sd(curve) if even else None,
        test=None if test_name is None else summary_number(run.summary, test_name, metric.goal),
    )


def _is_even(run: RunRecord) -> bool:
    """Tell whether the finite points are equally many epochs apart, as far as their epochs are known."""
    epochs = [point.epoch for point in run.points if math.isfinite(point.value)]
    gaps = [round(b - a, 6) for a, b in pairwise(epochs) if a is not None and b is not None and b > a]
    return not gaps or max(gaps) == min(gaps)


def _epoch_of(run: RunRecord, peak: float | None) -> float | None:
    """Return where a value was first reached: its row's `epoch`, else its count among the metric's points, from 1."""
    for count, point in enumerate(run.points, start=1):
        if point.value == peak:
            return float(count) if point.epoch is None else point.epoch
    return None
