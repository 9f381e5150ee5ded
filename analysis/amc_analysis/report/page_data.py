"""What the page's charts draw, in plain numbers: the script in the page knows nothing but this."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from statistics import quantiles
from typing import Any

import numpy as np

from amc_analysis.effects.effects import Effect
from amc_analysis.effects.parameters import Parameter, parameters_of, text_of
from amc_analysis.next_sweep.axes import look_for
from amc_analysis.report.sections import Report
from amc_analysis.runs.confusion import Confusion, Matrix
from amc_analysis.runs.findings import Findings
from amc_analysis.runs.records import history_of
from amc_analysis.runs.wording import GROUPS, group_of, label, scale_of
from amc_core.metric_names import level_of
from amc_sweeps.runs.ranking import RankedRun

DIGITS = 5  # significant ones of a drawn value: finer than a pixel
MOST_POINTS = 400  # of one drawn curve; the peak always stays
MOST_PARAMETERS = 10  # axes of the parallel coordinates
MOST_SLICES = 12
RUNS_BY_LEVEL = 6  # best ones whose accuracy by SNR is drawn
FAR_OUT = 3.0  # interquartile ranges beyond which a value is drawn at the edge: one divergence must not flatten all

Json = dict[str, Any]


def chart_data(report: Report) -> Json:
    """Return everything that is drawn; values of the metric as they were logged."""
    findings = report.findings
    parameters = parameters_of(findings)[:MOST_PARAMETERS]
    values = [value for entry in findings.ranked for value in entry.run.curve]
    peaks = [entry.peak for entry in findings.ranked if entry.peak is not None]
    born = sorted(findings.ranked, key=lambda entry: (str(entry.run.created_at or ""), entry.run.run_id))
    order = {entry.run.run_id: number for number, entry in enumerate(born, start=1)}
    named = all(point.epoch is not None for entry in findings.ranked for point in entry.run.points)
    return {
        "metric": findings.metric.name,
        "maximize": findings.metric.goal == "maximize",
        "percentage": scale_of(findings).percentage,
        "range": _round_range(values),
        "peakRange": _round_range(peaks),
        "xLabel": "epoch" if named else "logged values",
        "groups": list(GROUPS),
        "parameters": [_axis(parameter) for parameter in parameters],
        "runs": [
            {
                "id": entry.run.run_id,
                "title": label(entry),
                "group": GROUPS.index(group_of(entry.cause)),
                "cause": str(entry.cause),
                "gem": entry.is_gem,
                "peak": _short(entry.peak),
                "at": entry.peak_epoch,
                "order": order[entry.run.run_id],
                "values": [_setting(parameter, place) for parameter in parameters],
                **_curve(entry),
            }
            for place, entry in enumerate(findings.ranked)
        ],
        "slices": [_slice(effect, findings) for effect in report.conclusions.effects[:MOST_SLICES]],
        "levels": _by_level(findings),
        "confusions": [_confusion(one, findings) for one in report.confusions],
    }


def as_script(data: Json) -> str:
    """Write JSON that nothing in it can leave: no ``<`` of a run's name ends the script element."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def visible_range(values: Sequence[float]) -> tuple[float, float]:
    """Return the range of values worth drawing: all of it, unless a few lie far out."""
    low, high = min(values), max(values)
    if len(values) >= 4:
        lower, _, upper = quantiles(values, n=4)
        reach = FAR_OUT * (upper - lower)
        if reach > 0:
            low, high = max(low, lower - reach), min(high, upper + reach)
    if high <= low:
        pad = abs(low) * 0.05 or 0.5
        return low - pad, high + pad
    return low, high


def _round_range(values: Sequence[float]) -> list[float]:
    """Return the visible range, widened to round numbers."""
    low, high = visible_range(values) if values else (0.0, 1.0)
    step = 10.0 ** math.floor(math.log10((high - low) / 2))
    step *= 2 if (high - low) / step > 10 else 1
    return [float(f"{rounded(end / step) * step:.10g}") for rounded, end in ((math.floor, low), (math.ceil, high))]


def _curve(entry: RankedRun) -> Json:
    """Return x and y of a run's curve; x is left out where it counts 1, 2, 3; None breaks the line."""
    points = entry.run.points
    x = [float(count) if point.epoch is None else point.epoch for count, point in enumerate(points, start=1)]
    y = [_short(point.value) for point in points]
    if len(points) > MOST_POINTS:
        kept = set(np.linspace(0, len(points) - 1, MOST_POINTS).round().astype(int).tolist())
        kept |= {place for place, point in enumerate(points) if point.value == entry.peak}
        x, y = [x[place] for place in sorted(kept)], [y[place] for place in sorted(kept)]
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


def _slice(effect: Effect, findings: Findings) -> Json:
    """Return one parameter's runs and the mean of each value with its interval."""
    listed = {outcome.label: place for place, outcome in enumerate(effect.values) if outcome.low is None}
    path = effect.parameter.split(".")
    points: list[list[Any]] = []
    for number, entry in enumerate(findings.ranked):
        value = look_for(dict(entry.run.config), path)
        reached = _reached(entry, effect.equal_epochs, findings.metric.goal)
        place = listed.get(text_of(value)) if listed else value
        if value is not None and reached is not None and place is not None:
            points.append([place, _short(reached), number])
    return {
        "name": effect.parameter,
        "called": effect.called,
        "epochs": effect.equal_epochs,
        "range": _round_range([point[1] for point in points]),
        "labels": list(listed),
        "log": not listed and effect.scale == "log",
        "points": points,
        "values": [
            {
                "label": one.label,
                "low": one.low,
                "high": one.high,
                "n": one.n,
                "mean": _short(one.mean),
                "interval": None if one.interval is None else [_short(end) for end in one.interval],
            }
            for one in effect.values
        ],
    }


def _reached(entry: RankedRun, epochs: int | None, goal: str) -> float | None:
    """Return a run's peak, or its best of the first so many epochs; None where it did not get that far."""
    if epochs is None:
        return entry.peak
    best = max if goal == "maximize" else min
    curve = entry.run.curve
    return best(curve[:epochs]) if len(curve) >= epochs else None


def _by_level(findings: Findings) -> Json | None:
    """Return accuracy by SNR of the best runs in the epochs of their peaks; None where nobody logged it."""
    runs: list[Json] = []
    for number, entry in enumerate(findings.ranked):
        names = {
            name: level
            for name in history_of(entry.run).columns
            if name.startswith("acc/") and (level := level_of(name)) is not None
        }
        row = _row_of_peak(entry, findings)
        if not names or row is None or len(runs) == RUNS_BY_LEVEL:
            continue
        by_level = []
        for name, level in sorted(names.items(), key=lambda item: item[1]):
            column = history_of(entry.run).column(name)
            there = np.flatnonzero(column.rows == row)
            if len(there):
                by_level.append([level, _short(float(column.values[there[0]]))])
        if by_level:
            runs.append({"run": number, "points": by_level})
    return {"runs": runs} if runs else None


def _row_of_peak(entry: RankedRun, findings: Findings) -> int | None:
    column = history_of(entry.run).column(findings.metric.name)
    there = np.flatnonzero(column.values == entry.peak)
    return int(column.rows[there[0]]) if len(there) else None


def _confusion(one: Confusion, findings: Findings) -> Json:
    names = {entry.run.run_id: label(entry) for entry in findings.ranked}
    title = f"{names.get(one.run_id, one.run_id)}, epoch {one.epoch}"
    return {"title": title, "modulation": _matrix(one.modulation), "snr": _matrix(one.snr)}


def _matrix(matrix: Matrix) -> Json:
    """Return shares of each truth, so that rows of unequal size can be read side by side."""
    sums = [sum(row) or 1 for row in matrix.counts]
    shares = [[round(count / total, 4) for count in row] for row, total in zip(matrix.counts, sums, strict=True)]
    return {"names": list(matrix.names), "shares": shares}
