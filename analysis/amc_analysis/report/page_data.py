"""The data of the page's charts, as plain numbers for its script."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from statistics import quantiles
from typing import Any

import numpy as np

from amc_analysis.results.analysed_sweep import AnalysedSweep, run_label
from amc_analysis.results.effects import Effect
from amc_analysis.runs.confusion import Confusion, Matrix
from amc_analysis.runs.parameters import Parameter, text_of
from amc_analysis.runs.records import history_of, row_of_value
from amc_core.metric_names import level_of
from amc_sweeps.runs.cause_groups import GROUPS, group_of
from amc_sweeps.runs.ranked_run import RankedRun
from amc_sweeps.runs.records import Goal
from amc_sweeps.values import look_up

DIGITS = 5  # significant ones of a drawn value; finer than a pixel
MOST_POINTS = 400  # of one drawn curve; the peak always stays
MOST_PARAMETERS = 10  # axes of the parallel coordinates
MOST_SLICES = 12
RUNS_BY_LEVEL = 6  # best ones whose accuracy by SNR is drawn
FAR_OUT = 3.0  # interquartile ranges beyond which a bad value is cut off, so that one divergence does not flatten all

Json = dict[str, Any]


def chart_data(analysed: AnalysedSweep) -> Json:
    """Return the data of all charts; values of the metric as they were logged."""
    parameters = analysed.parameters[:MOST_PARAMETERS]
    values = [value for entry in analysed.ranked for value in entry.run.curve]
    peaks = [entry.peak for entry in analysed.ranked if entry.peak is not None]
    started = sorted(analysed.ranked, key=lambda entry: (str(entry.run.created_at or ""), entry.run.run_id))
    order = {entry.run.run_id: number for number, entry in enumerate(started, start=1)}
    has_epochs = all(point.epoch is not None for entry in analysed.ranked for point in entry.run.points)
    return {
        "metric": analysed.metric.name,
        "maximize": analysed.metric.goal == "maximize",
        "percentage": analysed.scale.percentage,
        "peakName": analysed.peak_name,
        "range": _round_range(values, analysed.metric.goal),
        "peakRange": _round_range(peaks, analysed.metric.goal),
        "xLabel": "epoch" if has_epochs else "logged values",
        "groups": list(GROUPS),
        "parameters": [_axis(parameter) for parameter in parameters],
        "runs": [
            {
                "id": entry.run.run_id,
                "title": run_label(entry),
                "group": GROUPS.index(group_of(entry.cause)),
                "cause": str(entry.cause),
                "gem": entry.is_gem,
                "peak": _short(entry.peak),
                "at": entry.peak_epoch,
                "order": order[entry.run.run_id],
                "values": [_setting(parameter, place) for parameter in parameters],
                **_curve(entry),
            }
            for place, entry in enumerate(analysed.ranked)
        ],
        "slices": [_slice(effect, analysed) for effect in analysed.effects[:MOST_SLICES]],
        "levels": _by_level(analysed),
        "confusions": [_confusion(confusion, analysed) for confusion in analysed.confusions],
    }


def as_script(data: Json) -> str:
    """Write JSON for a script element; a ``<`` in a run's name cannot end the element."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def visible_range(values: Sequence[float], goal: Goal) -> tuple[float, float]:
    """Return the range of values to draw: from the best value to the worst, except bad ones that lie far out."""
    low, high = min(values), max(values)
    if len(values) >= 4:
        lower, _, upper = quantiles(values, n=4)
        reach = FAR_OUT * (upper - lower)
        if reach > 0 and goal == "maximize":
            low = max(low, lower - reach)
        elif reach > 0:
            high = min(high, upper + reach)
    if high <= low:
        pad = abs(low) * 0.05 or 0.5
        return low - pad, high + pad
    return low, high


def _round_range(values: Sequence[float], goal: Goal) -> list[float]:
    low, high = visible_range(values, goal) if values else (0.0, 1.0)
    step = 10.0 ** math.floor(math.log10((high - low) / 2))
    step *= 2 if (high - low) / step > 10 else 1
    return [float(f"{rounded(end / step) * step:.10g}") for rounded, end in ((math.floor, low), (math.ceil, high))]


def _curve(entry: RankedRun) -> Json:
    """Return x and y of a run's curve; x is left out where it is 1, 2, 3, ...; None breaks the line."""
    points = entry.run.points
    x = [float(count) if point.epoch is None else point.epoch for count, point in enumerate(points, start=1)]
    y = [_short(point.value) for point in points]
    if len(points) > MOST_POINTS:
        places = set(np.linspace(0, len(points) - 1, MOST_POINTS).round().astype(int).tolist())
        places |= {place for place, point in enumerate(points) if point.value == entry.peak}
        x, y = [x[place] for place in sorted(places)], [y[place] for place in sorted(places)]
    plain = x == [float(count) for count in range(1, len(x) + 1)]
    return {"y": y} if plain else {"x": [place if math.isfinite(place) else None for place in x], "y": y}


def _short(value: float | None) -> float | None:
    return float(f"{value:.{DIGITS}g}") if value is not None and math.isfinite(value) else None


def _axis(parameter: Parameter) -> Json:
    if not parameter.is_range:
        return {"name": parameter.name, "kind": "category", "levels": [text_of(level) for level in parameter.levels]}
    return {"name": parameter.name, "kind": "log" if parameter.scale == "log" else "value", "levels": []}


def _setting(parameter: Parameter, place: int) -> Any:
    value = parameter.values[place]
    return value if value is None or parameter.is_range else text_of(value)


def _slice(effect: Effect, analysed: AnalysedSweep) -> Json:
    """Return the runs' outcomes by one parameter, and the mean of each value with its interval."""
    listed = {outcome.label: place for place, outcome in enumerate(effect.values) if outcome.low is None}
    reached_N = analysed.outcomes.peak if effect.equal_epochs is None else analysed.outcomes.reached
    points: list[list[Any]] = []
    for number, entry in enumerate(analysed.ranked):
        value, reached = look_up(entry.run.config, effect.parameter), _short(float(reached_N[number]))
        place = listed.get(text_of(value)) if listed else value
        if value is not None and reached is not None and place is not None:
            points.append([place, reached, number])
    return {
        "name": effect.parameter,
        "clear": effect.is_clear,
        "epochs": effect.equal_epochs,
        "range": _round_range([point[1] for point in points], analysed.metric.goal),
        "labels": list(listed),
        "log": not listed and effect.scale == "log",
        "points": points,
        "values": [
            {
                "label": outcome.label,
                "low": outcome.low,
                "high": outcome.high,
                "n": outcome.n,
                "mean": _short(outcome.mean),
                "interval": None if outcome.interval is None else [_short(end) for end in outcome.interval],
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
                by_level.append([level, _short(float(column.values[positions[0]]))])
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
