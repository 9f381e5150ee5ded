"""Rank runs by their peak, not by their last value or by how they ended, and find the hidden gems."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from amc_sweeps.runs.causes import ENDED_WELL, Cause, Diagnosis
from amc_sweeps.runs.evidence import epochs_done, epochs_planned
from amc_sweeps.runs.records import Goal, Metric, RunRecord, summary_number
from amc_sweeps.runs.statistics import medians_of_3, noise_sd
from amc_sweeps.values import is_number

GEM_TOP_RANKS = 3  # a run that is cut short is a gem among the best k of all, whatever the others reached


@dataclass(frozen=True)
class RankedRun:
    """A run and what its history shows. ``peak`` is the best of many epochs, hence optimistic: see ``noise_sd``."""

    run: RunRecord
    diagnosis: Diagnosis
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
    excluded_by: str | None = None  # the integrity rule that keeps the run's values out of every comparison

    @property
    def cause(self) -> Cause:
        return self.diagnosis.cause


def rank(runs: Sequence[RunRecord], diagnoses: Mapping[str, Diagnosis], metric: Metric) -> tuple[RankedRun, ...]:
    """Return the runs, best peak first; those without a finite value come last, in the given order.

    Equal peaks share a rank. They are ordered by the smoothed peak, then by id, so that the order is reproducible.
    """
    measured = [_measure(run, diagnoses[run.run_id], metric) for run in runs]
    sign = -1 if metric.goal == "maximize" else 1

    def key(entry: RankedRun) -> tuple[float, float, str]:
        smoothed = math.inf if entry.smoothed_peak is None else sign * entry.smoothed_peak
        return (math.inf if entry.peak is None else sign * entry.peak), smoothed, entry.run.run_id

    with_peak = sorted((entry for entry in measured if entry.peak is not None), key=key)
    ranked: list[RankedRun] = []
    for position, entry in enumerate(with_peak, start=1):
        tied = bool(ranked) and ranked[-1].peak == entry.peak
        ranked.append(replace(entry, rank=ranked[-1].rank if tied else position))
    ranked.extend(entry for entry in measured if entry.peak is None)
    return _mark_gems(ranked, metric.goal)


def best_ended_well(ranked: Sequence[RankedRun]) -> RankedRun | None:
    """Return the best run that completed or ran out of patience, if one has a peak and is not excluded."""
    candidates = (entry for entry in ranked if entry.peak is not None and entry.excluded_by is None)
    return next((entry for entry in candidates if entry.cause in ENDED_WELL), None)


def exclude(ranked: Sequence[RankedRun], rules: Mapping[str, str], goal: Goal) -> tuple[RankedRun, ...]:
    """Return the runs in their order, those in ``rules`` (run id -> rule) excluded; gems are found among the others."""
    return _mark_gems([replace(entry, excluded_by=rules.get(entry.run.run_id)) for entry in ranked], goal)


def is_better(value: float, other: float, goal: Goal) -> bool:
    """Return whether a value beats another one."""
    return value > other if goal == "maximize" else value < other


def matching_test_metric(name: str) -> str | None:
    """Return the likely name of the test value of a validation metric; None where the name has no such word.

    >>> matching_test_metric("val/combined_acc")
    'test/combined_acc'
    """
    replaced = re.sub(r"(?<![A-Za-z])(val|valid|validation|eval|dev)(?![A-Za-z])", "test", name, count=1)
    return None if replaced == name else replaced


def _mark_gems(ranked: Sequence[RankedRun], goal: Goal) -> tuple[RankedRun, ...]:
    best = best_ended_well(ranked)
    # At most one less than all: of three runs, all are among the best three.
    top = min(GEM_TOP_RANKS, sum(entry.peak is not None and not entry.excluded_by for entry in ranked) - 1)

    def is_gem(entry: RankedRun) -> bool:
        if entry.peak is None or entry.rank is None or entry.excluded_by:
            return False
        if entry.cause in ENDED_WELL or entry.cause is Cause.RUNNING:
            return False
        beats_best = best is not None and best.peak is not None and is_better(entry.peak, best.peak, goal)
        excluded_ahead = sum(bool(other.excluded_by and other.rank and other.rank < entry.rank) for other in ranked)
        return beats_best or entry.rank - excluded_ahead <= top

    return tuple(replace(entry, is_gem=is_gem(entry)) for entry in ranked)


def _measure(run: RunRecord, diagnosis: Diagnosis, metric: Metric) -> RankedRun:
    best = max if metric.goal == "maximize" else min
    curve = run.curve
    # Neighbours and second differences need a curve without missing epochs.
    even = _is_evenly_spaced(run)
    smoothed = medians_of_3(curve) if even else []
    peak = best(curve) if curve else None
    last = run.points[-1].value if run.points else None
    if not run.points:
        # A script may have written the summary alone.
        last = summary_number(run.summary, metric.name, metric.goal)
        peak = last if is_number(last) else None
    test_name = matching_test_metric(metric.name)
    return RankedRun(
        run=run,
        diagnosis=diagnosis,
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


def _is_evenly_spaced(run: RunRecord) -> bool:
    """Return whether the finite points are the same number of epochs apart; points of unknown epoch are left out."""
    epochs = [point.epoch for point in run.points if math.isfinite(point.value)]
    gaps = [round(b - a, 6) for a, b in pairwise(epochs) if a is not None and b is not None and b > a]
    return not gaps or max(gaps) == min(gaps)


def _epoch_of(run: RunRecord, peak: float | None) -> float | None:
    """Return where a value was first reached: its row's `epoch`, else its position among the points, from 1."""
    for position, point in enumerate(run.points, start=1):
        if point.value == peak:
            return float(position) if point.epoch is None else point.epoch
    return None
