"""Metrics that only runs of automatic modulation classification log: task weights, SNR attractors, F1 by class.

The metrics' names are those of amc_core.metric_names. Runs that did not log them are left out.
"""

from __future__ import annotations

import math
from collections import Counter

import numpy as np

from amc_analysis.results.analysed_sweep import AnalysedSweep
from amc_analysis.results.dynamics import ClassScore, ClassSummary, RunAttractor, RunDrift
from amc_analysis.runs.history import Column
from amc_analysis.runs.parameters import Floats
from amc_analysis.runs.records import history_of, row_of_value
from amc_sweeps.runs.ranked_run import RankedRun
from amc_sweeps.runs.statistics import noise_sd

_MOD, _FAMILY, _LEVEL = "f1/mod/", "f1/family/", "f1/snr/"


def drifts(analysed: AnalysedSweep) -> tuple[RunDrift, ...]:
    """Return the modulation task's share of both weights, for every run that logged them."""
    summaries = []
    for entry in analysed.ranked:
        mod_E, snr_E = history_of(entry.run).aligned("weight/mod", "weight/snr")
        total_E = mod_E + snr_E
        share_E = mod_E[total_E > 0] / total_E[total_E > 0]
        if len(share_E):
            shares = (share_E[0], share_E[-1], share_E.min(), share_E.max())
            summaries.append(RunDrift(entry.run.run_id, *map(float, shares)))
    return tuple(summaries)


def attractors(analysed: AnalysedSweep) -> tuple[RunAttractor, ...]:
    """Return the SNR level that other levels were taken for, for every run with such a level."""
    summaries = []
    for entry in analysed.ranked:
        share, level = history_of(entry.run).column("attractor/share"), history_of(entry.run).column("attractor/snr_db")
        if not len(share) or not (share.values > 0).any():
            continue
        usual = Counter(level.values[np.isfinite(level.values)].tolist()).most_common(1)
        summaries.append(
            RunAttractor(
                run_id=entry.run.run_id,
                epochs=len(share),
                epochs_with=int((share.values > 0).sum()),
                usual_db=usual[0][0] if usual else None,
                greatest_share=float(np.nanmax(share.values)),
                last_share=float(share.values[-1]),
            )
        )
    return tuple(summaries)


def class_summary(analysed: AnalysedSweep) -> ClassSummary | None:
    """Return F1 by modulation, family and SNR level of the best run that logged it."""
    for entry in analysed.ranked:
        if not any(name.startswith((_MOD, _LEVEL)) for name in history_of(entry.run).columns):
            continue
        row = row_of_value(entry.run, analysed.metric.name, entry.peak)
        modulations, families, levels = (_scores(entry, prefix, row) for prefix in (_MOD, _FAMILY, _LEVEL))
        if modulations or levels:
            return ClassSummary(
                run_id=entry.run.run_id,
                epoch=entry.peak_epoch,
                modulations=tuple(sorted(modulations, key=_best_first)),
                families=tuple(sorted(families, key=_best_first)),
                levels=tuple(sorted(levels, key=lambda score: _decibels(score.name))),
            )
    return None


def _scores(entry: RankedRun, prefix: str, row: int | None) -> list[ClassScore]:
    return [
        _score(metric, metric.removeprefix(prefix), column, row)
        for metric, column in history_of(entry.run).columns.items()
        if metric.startswith(prefix) and np.isfinite(column.values).any()
    ]


def _score(metric: str, name: str, column: Column, row: int | None) -> ClassScore:
    values_E: Floats = column.values[np.isfinite(column.values)]
    at_peak = column.values[column.rows == row] if row is not None else values_E[:0]
    return ClassScore(
        metric=metric,
        name=name,
        at_peak=float(at_peak[0]) if len(at_peak) else None,
        best=float(values_E.max()),
        last=float(values_E[-1]),
        volatility=noise_sd(values_E.tolist()),
        largest_drop=float(max(0.0, -np.diff(values_E).min())) if len(values_E) > 1 else 0.0,
    )


def _best_first(score: ClassScore) -> float:
    return -(score.best if score.at_peak is None else score.at_peak)


def _decibels(name: str) -> float:
    try:
        return float(name)
    except ValueError:
        return math.inf
