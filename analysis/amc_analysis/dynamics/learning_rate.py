"""The learning rate against performance inside runs: changes of the metric, and the rate at the peak."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise
from typing import Literal

import numpy as np

from amc_analysis.effects.statistics import mean_of, t_interval
from amc_analysis.results.analysed_sweep import AnalysedSweep
from amc_analysis.results.dynamics import CycleSummary, RunCycle
from amc_analysis.runs.parameters import Floats
from amc_analysis.runs.records import history_of
from amc_sweeps.runs.ranked_run import RankedRun

_NAMED_LR = re.compile(r"(?:^|[/._-])(?:lr|learning_rate)(?:$|[-/._0-9])", re.IGNORECASE)

AT_AN_END = 0.1  # of a cycle's height: a rate this near its top or bottom counts as at it
STEEP_START = 0.8  # of the rise from the first value to the peak: before that a run gains at any rate
SAME_RATE = 1e-3  # relative change under which a rate counts as constant

Phase = Literal["rising", "at the top", "falling", "at the bottom", "constant"]


def cycle_summary(analysed: AnalysedSweep) -> CycleSummary | None:
    """Compare epochs with a rising and with a falling rate, run by run; None where no run logged a changing rate."""
    name = _name_of_lr(analysed)
    if name is None:
        return None
    sign = analysed.outcomes.sign
    runs = [cycle for entry in analysed.ranked if (cycle := _cycle(entry, name, analysed.metric.name, sign))]
    if not any(cycle.peak_phase not in {None, "constant"} for cycle in runs):
        return None
    differences = [
        cycle.change_falling - cycle.change_rising
        for cycle in runs
        if cycle.change_falling is not None and cycle.change_rising is not None
    ]
    return CycleSummary(
        metric=name,
        runs=tuple(runs),
        n=len(differences),
        difference=mean_of(differences),
        interval=t_interval(differences),
        runs_better_falling=sum(difference > 0 for difference in differences),
        peaks=dict(Counter(cycle.peak_phase for cycle in runs if cycle.peak_phase is not None).most_common()),
    )


def _name_of_lr(analysed: AnalysedSweep) -> str | None:
    columns = Counter(name for entry in analysed.ranked for name in history_of(entry.run).columns)
    names = {name: count for name, count in columns.items() if _NAMED_LR.search(name)}
    return min(names, key=lambda name: (-names[name], len(name), name)) if names else None


def _cycle(entry: RankedRun, name: str, metric: str, sign: float) -> RunCycle | None:
    history = history_of(entry.run)
    lr, value = history.column(name), history.column(metric)
    if not len(lr) or len(value) < 3:
        return None
    # Take the rate of the row, or the last one before it: some scripts log it in rows of its own.
    place = np.searchsorted(lr.rows, value.rows, side="right") - 1
    usable = (place >= 0) & np.isfinite(value.values)
    rate_E, value_E = lr.values[place[usable]], sign * value.values[usable]
    if len(value_E) < 3 or not np.isfinite(rate_E).all():
        return None
    moves_E = _moves(rate_E)
    peak = int(value_E.argmax())
    start = int(np.argmax(value_E >= value_E[0] + STEEP_START * (value_E[peak] - value_E[0])))
    later_E = np.arange(1, len(value_E)) > start
    changes_E = np.diff(value_E)
    share = _share_of_cycle(rate_E, peak)
    return RunCycle(
        run_id=entry.run.run_id,
        epochs=len(value_E),
        change_rising=mean_of(changes_E[later_E & (moves_E > 0)].tolist()),
        change_falling=mean_of(changes_E[later_E & (moves_E < 0)].tolist()),
        peak_phase=_phase(moves_E, peak, share),
        peak_lr=float(rate_E[peak]),
        peak_lr_share=share,
    )


def _moves(rate_E: Floats) -> Floats:
    """Return 1, 0 or -1 for every epoch but the first: the rate rose, stayed or fell since the last epoch."""
    change_E = np.diff(rate_E)
    return np.sign(np.where(np.abs(change_E) <= SAME_RATE * np.abs(rate_E[1:]), 0.0, change_E))


def _share_of_cycle(rate_E: Floats, at: int) -> float | None:
    """Return an epoch's rate as a share of the highest one between the two minima around it."""
    bounds = [0, *_minima(rate_E), len(rate_E) - 1]
    highest = max(rate_E[low : high + 1].max() for low, high in pairwise(bounds) if low <= at <= high)
    return float(rate_E[at] / highest) if highest > 0 else None


def _minima(rate_E: Floats) -> list[int]:
    inner = (rate_E[1:-1] < rate_E[:-2]) & (rate_E[1:-1] <= rate_E[2:])
    return [int(position) for position in np.flatnonzero(inner) + 1]


def _phase(moves_E: Floats, peak: int, share: float | None) -> Phase | None:
    if not moves_E.any():
        return "constant"
    if share is None:
        return None
    if share >= 1 - AT_AN_END:
        return "at the top"
    if share <= AT_AN_END:
        return "at the bottom"
    # The logged rate is that of the epoch's end, so the step before it happened during the epoch.
    move = moves_E[max(peak - 1, 0)]
    return "rising" if move > 0 else "falling" if move < 0 else "constant"
