"""Values that runs logged, as replies, search and early stopping need them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from amc_server.store.records import Line
from amc_sweeps.grammar.sweep_config import SweepConfig, flatten
from amc_sweeps.values import MISSING, as_finite, look_up, nest

SAMPLES = 500  # rows of history when the client does not say how many
LARGEST_STEP = 2**62  # SQLite holds 63 bits

_CONSOLE_LINE = re.compile(r"(?P<level>ERROR )?(?P<timestamp>\d{4}-\d\d-\d\dT[\d:.]+) (?P<line>.*)", re.DOTALL)


def history_line(number: int, text: str, row: Mapping[str, Any]) -> Line:
    """Return a history row for storage: its line number, its JSON text, and its ``_step`` if that is a whole number."""
    step = row.get("_step")
    has_step = isinstance(step, int) and not isinstance(step, bool) and abs(step) < LARGEST_STEP
    return Line(number, text, step if has_step else None)


def metric_points(rows: Iterable[tuple[int, Mapping[str, Any]]], config: SweepConfig) -> list[tuple[int, float]]:
    """Return (line, value) where a history row, given as (line, row), has a finite value of the sweep's metric."""
    metric = config.metric
    if metric is None:
        return []
    values = ((line, as_finite(look_up(row, metric.name))) for line, row in rows)
    return [(line, value) for line, value in values if value is not None]


def swept_values(values: Mapping[str, Any], config: SweepConfig) -> dict[str, Any]:
    """Return the part of a configuration that the sweep would have chosen."""
    pairs = ((path, look_up(values, ".".join(path), MISSING)) for path, _ in flatten(config.parameters))
    return nest((path, value) for path, value in pairs if value is not MISSING)


def sampled(rows: Sequence[Any], samples: int | None) -> list[Any]:
    """Return at most so many rows, evenly spread, with the first and the last."""
    count = SAMPLES if samples is None else max(samples, 1)
    if len(rows) <= count:
        return list(rows)
    if count == 1:
        return [rows[-1]]
    return [rows[round(index * (len(rows) - 1) / (count - 1))] for index in range(count)]


def log_line(line: Line) -> dict[str, Any]:
    """Split a console line into level, time and text; the client puts ``ERROR`` (for stderr) and the time in front."""
    match = _CONSOLE_LINE.fullmatch(line.body)
    if match is None:
        return {"number": line.number, "timestamp": None, "level": "info", "label": "", "line": line.body}
    return {
        "number": line.number,
        "timestamp": match["timestamp"],
        "level": "error" if match["level"] else "info",
        "label": "",
        "line": match["line"].rstrip("\n"),
    }
