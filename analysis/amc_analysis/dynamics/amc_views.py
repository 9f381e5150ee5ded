"""What only runs of automatic modulation classification log: task weights, SNR attractors, F1 by class.

Names are those of amc_core.metric_names; where a run did not log them there is no view of it.
"""

from __future__ import annotations

import math
from collections import Counter

import numpy as np

from amc_analysis.dynamics.dynamics import ClassScore, ClassView, RunAttractor, RunDrift
from amc_analysis.effects.parameters import Floats
from amc_analysis.runs.findings import Findings
from amc_analysis.runs.history import Column
from amc_analysis.runs.records import history_of
from amc_sweeps.runs.ranking import RankedRun
from amc_sweeps.runs.statistics import noise_sd

_MOD, _FAMILY, _LEVEL = "f1/mod/", "f1/family/", "f1/snr/"


def drifts(findings: Findings) -> tuple[RunDrift, ...]:
    """Return how the modulation task's share of both weights moved, for every run that logged it."""
    found = []
    for entry in findings.ranked:
        mod_E, snr_E = history_of(entry.run).aligned("weight/mod", "weight/snr")
        total_E = mod_E + snr_E
        share_E = mod_E[total_E > 0] / total_E[total_E > 0]
        if len(share_E):
            ends = (float(share_E[0]), float(share_E[-1]))
            found.append(RunDrift(entry.run.run_id, *ends, lowest=float(share_E.min()), highest=float(share_E.max())))
    return tuple(found)


def attractors(findings: Findings) -> tuple[RunAttractor, ...]:
    """Return which SNR level swallowed others, for every run in which one did."""
    found = []
    for entry in findings.ranked:
        share, level = history_of(entry.run).column("attractor/share"), history_of(entry.run).column("attractor/snr_db")
        if not len(share) or not (share.values > 0).any():
            continue
        usual = Counter(level.values[np.isfinite(level.values)].tolist()).most_common(1)
        found.append(
            RunAttractor(
                run_id=entry.run.run_id,
                epochs=len(share),
                epochs_with=int((share.values > 0).sum()),
                usual_db=usual[0][0] if usual else None,
                greatest_share=float(np.nanmax(share.values)),
                last_share=float(share.values[-1]),
            )
        )
    return tuple(found)


def class_view(findings: Findings) -> ClassView | None:
    """Return F1 by modulation, family and SNR level of the best run that logged it."""
    for entry in findings.ranked:
        row = _row_of_peak(entry, findings.metric.name)
        modulations, families, levels = (_scores(entry, prefix, row) for prefix in (_MOD, _FAMILY, _LEVEL))
        if modulations or levels:
            return ClassView(
                run_id=entry.run.run_id,
                epoch=entry.peak_epoch,
                modulations=tuple(sorted(modulations, key=_worst_last)),
                families=tuple(sorted(families, key=_worst_last)),
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


def _row_of_peak(entry: RankedRun, metric: str) -> int | None:
    """Return the row of the history in which the ranking metric has its peak."""
    column = history_of(entry.run).column(metric)
    found = np.flatnonzero(column.values == entry.peak)
    return int(column.rows[found[0]]) if len(found) else None


def _worst_last(score: ClassScore) -> float:
    return -(score.best if score.at_peak is None else score.at_peak)


def _decibels(name: str) -> float:
    try:
        return float(name)
    except ValueError:
        return math.inf
