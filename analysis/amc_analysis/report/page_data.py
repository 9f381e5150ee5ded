"""The data of the page's charts, as plain numbers for its script."""

from __future__ import annotations

from typing import Any

import numpy as np

from amc_analysis.results.analysed_sweep import AnalysedSweep, run_label
from amc_analysis.results.effects import Effect
from amc_analysis.runs.confusion import Confusion, Matrix
from amc_analysis.runs.parameters import flat_config, text_of
from amc_analysis.runs.records import history_of, row_of_value
from amc_core.metric_names import level_of
from amc_sweeps.browser.run_rows import parameter_facts, run_row, short, sweep_facts
from amc_sweeps.values import look_up, without_bare_nan

MOST_SLICES = 12
RUNS_BY_LEVEL = 6  # best ones whose accuracy by SNR is drawn

Json = dict[str, Any]


def chart_data(analysed: AnalysedSweep) -> Json:
    """Return the data of table and charts; values of the metric as they were logged."""
    record = analysed.record
    names = list(dict.fromkeys([*(each.name for each in analysed.parameters), *analysed.parameter_names]))
    order = start_order(analysed)
    has_epochs = all(point.epoch is not None for entry in analysed.ranked for point in entry.run.points)
    facts = sweep_facts(record.config, analysed.metric)
    return {
        **facts,
        "percentage": analysed.scale.percentage,
        "decimals": analysed.scale.decimals,
        "hasStatistics": True,
        "parameters": parameter_facts(flat_config(record.config), names),
        "xLabel": "epoch" if has_epochs else "logged values",
        "runs": [
            {
                **run_row(entry, names, has_epochs=has_epochs),
                "order": order[entry.run.run_id],
                "smoothed": short(entry.smoothed_peak),
                "noise": short(entry.noise_sd),
                "test": without_bare_nan(entry.test),
            }
            for entry in analysed.ranked
        ],
        "slices": [_slice(effect, analysed) for effect in analysed.effects[:MOST_SLICES]],
        "levels": _by_level(analysed),
        "confusions": [_confusion(confusion, analysed) for confusion in analysed.confusions],
    }


def start_order(analysed: AnalysedSweep) -> dict[str, int]:
    """Return run id -> the run's place in the order of the runs' starts, from 1."""
    started = sorted(analysed.ranked, key=lambda entry: (str(entry.run.created_at or ""), entry.run.run_id))
    return {entry.run.run_id: number for number, entry in enumerate(started, start=1)}


def _slice(effect: Effect, analysed: AnalysedSweep) -> Json:
    """Return the runs' outcomes by one parameter, and the mean of each value with its interval."""
    listed = {outcome.label: place for place, outcome in enumerate(effect.values) if outcome.low is None}
    reached_N = analysed.outcomes.peak if effect.equal_epochs is None else analysed.outcomes.reached
    points: list[list[Any]] = []
    for number, entry in enumerate(analysed.ranked):
        value, reached = look_up(entry.run.config, effect.parameter), short(float(reached_N[number]))
        place = listed.get(text_of(value)) if listed else value
        if value is not None and reached is not None and place is not None:
            points.append([place, reached, number])
    return {
        "name": effect.parameter,
        "clear": effect.is_clear,
        "epochs": effect.equal_epochs,
        "labels": list(listed),
        "log": not listed and effect.scale == "log",
        "points": points,
        "values": [
            {
                "label": outcome.label,
                "low": outcome.low,
                "high": outcome.high,
                "n": outcome.n,
                "mean": short(outcome.mean),
                "interval": None if outcome.interval is None else [short(end) for end in outcome.interval],
            }
            for outcome in effect.values
        ],
    }


def _by_level(analysed: AnalysedSweep) -> Json | None:
    """Return accuracy by SNR of the best runs in the epochs of their peaks; None where no run logged it."""
    runs: list[Json] = []
    for number, entry in enumerate(analysed.ranked):
        names = {
            name: level
            for name in history_of(entry.run).columns
            if name.startswith("acc/") and (level := level_of(name)) is not None
        }
        row = row_of_value(entry.run, analysed.metric.name, entry.peak)
        if not names or row is None or len(runs) == RUNS_BY_LEVEL:
            continue
        by_level = []
        for name, level in sorted(names.items(), key=lambda item: item[1]):
            column = history_of(entry.run).column(name)
            positions = np.flatnonzero(column.rows == row)
            if len(positions):
                by_level.append([level, short(float(column.values[positions[0]]))])
        if by_level:
            runs.append({"run": number, "points": by_level})
    return {"runs": runs} if runs else None


def _confusion(confusion: Confusion, analysed: AnalysedSweep) -> Json:
    names = {entry.run.run_id: run_label(entry) for entry in analysed.ranked}
    title = f"{names.get(confusion.run_id, confusion.run_id)}, epoch {confusion.epoch}"
    return {"title": title, "modulation": _matrix(confusion.modulation), "snr": _matrix(confusion.snr)}


def _matrix(matrix: Matrix) -> Json:
    """Return shares of each true class, so that rows of unequal size can be compared."""
    sums = [sum(row) or 1 for row in matrix.counts]
    shares = [[round(count / total, 4) for count in row] for row, total in zip(matrix.counts, sums, strict=True)]
    return {"names": list(matrix.names), "shares": shares}
