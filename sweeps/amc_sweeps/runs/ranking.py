"""Rank runs by their peak, not by their last value or by how they ended."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from amc_sweeps.runs.causes import Diagnosis
from amc_sweeps.runs.evidence import epochs_done, epochs_planned
from amc_sweeps.runs.hidden_gems import mark_gems
from amc_sweeps.runs.ranked_run import RankedRun
from amc_sweeps.runs.records import Goal, Metric, RunRecord, summary_number
from amc_sweeps.runs.statistics import medians_of_3, noise_sd
from amc_sweeps.values import is_number


def rank(runs: Sequence[RunRecord], diagnoses: Mapping[str, Diagnosis], metric: Metric) -> tuple[RankedRun, ...]:
    """Return the runs as ``in_order`` does."""
    return in_order([measure(run, diagnoses[run.run_id], metric) for run in runs], metric.goal)


def in_order(entries: Sequence[RankedRun], goal: Goal) -> tuple[RankedRun, ...]:
    """Return measured runs, best peak first; those without a finite value come last, in the given order.

    Equal peaks share a rank. They are ordered by the smoothed peak, then by id, so that the order is reproducible.
    """
    sign = -1 if goal == "maximize" else 1

    def key(entry: RankedRun) -> tuple[float, float, str]:
        smoothed = math.inf if entry.smoothed_peak is None else sign * entry.smoothed_peak
        return (math.inf if entry.peak is None else sign * entry.peak), smoothed, entry.run.run_id

    with_peak = sorted((entry for entry in entries if entry.peak is not None), key=key)
    ranked: list[RankedRun] = []
    for position, entry in enumerate(with_peak, start=1):
        is_tied = bool(ranked) and ranked[-1].peak == entry.peak
        ranked.append(replace(entry, rank=ranked[-1].rank if is_tied else position))
    ranked.extend(entry for entry in entries if entry.peak is None)
    return mark_gems(ranked, goal)


def exclude(ranked: Sequence[RankedRun], rules: Mapping[str, str], goal: Goal) -> tuple[RankedRun, ...]:
    """Return the runs in their order, those in ``rules`` (run id -> rule) excluded; gems are found among the others."""
    excluded_by = ((entry, rules.get(entry.run.run_id)) for entry in ranked)
    return mark_gems(
        [entry if entry.excluded_by == rule else replace(entry, excluded_by=rule) for entry, rule in excluded_by], goal
    )


def matching_test_metric(name: str) -> str | None:
    """Return the likely name of the test value of a validation metric; None where the name has no such word.

    >>> matching_test_metric("val/combined_acc")
    'test/combined_acc'
    """
    test_name = re.sub(r"(?<![A-Za-z])(val|valid|validation|eval|dev)(?![A-Za-z])", "test", name, count=1)
    return None if test_name == name else test_name


def measure(run: RunRecord, diagnosis: Diagnosis, metric: Metric) -> RankedRun:
    """Return what a run's history shows, without a rank."""
    best = max if metric.goal == "maximize" else min
    curve = run.curve
    # Neighbours and second differences need a curve without missing epochs.
    is_even = _is_evenly_spaced(run)
    smoothed = medians_of_3(curve) if is_even else []
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
        noise_sd=noise_sd(curve) if is_even else None,
        test=None if test_name is None else summary_number(run.summary, test_name, metric.goal),
    )


def _is_evenly_spaced(run: RunRecord) -> bool:
    """Return whether the finite points are the same number of epochs apart; points of unknown epoch are left out."""
    epochs = [point.epoch for point in run.points if math.isfinite(point.value)]
    if epochs == list(range(1, len(epochs) + 1)):
        return True  # the usual case, a tenth of the time
    return len({round(b - a, 6) for a, b in pairwise(epochs) if a is not None and b is not None and b > a}) <= 1


def _epoch_of(run: RunRecord, peak: float | None) -> float | None:
    """Return where a value was first reached: its row's `epoch`, else its position among the points, from 1."""
    for position, point in enumerate(run.points, start=1):
        if point.value == peak:
            return float(position) if point.epoch is None else point.epoch
    return None
