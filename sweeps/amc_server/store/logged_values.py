"""What runs logged, as replies give it: samples of rows, values at a path, what strict JSON can hold, console lines."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from amc_server.store.records import Line

SAMPLES = 500  # rows of history when the client does not say how many

_CONSOLE_LINE = re.compile(r"(?P<level>ERROR )?(?P<timestamp>\d{4}-\d\d-\d\dT[\d:.]+) (?P<line>.*)", re.DOTALL)


def sampled(rows: Sequence[Any], samples: int | None) -> list[Any]:
    """Return at most so many rows, evenly spread, with the first and the last."""
    wanted = SAMPLES if samples is None else max(samples, 1)
    if len(rows) <= wanted:
        return list(rows)
    if wanted == 1:
        return [rows[-1]]
    return [rows[round(index * (len(rows) - 1) / (wanted - 1))] for index in range(wanted)]


def without_bare_nan(value: Any) -> Any:
    """Return a value that strict JSON can hold: NaN and the infinities as the texts that W&B gives for them."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {key: without_bare_nan(item) for key, item in value.items()}
    return [without_bare_nan(item) for item in value] if isinstance(value, list) else value


def at_path(row: Mapping[str, Any], path: str) -> Any:
    """Return a row's value; a dot in the path may also stand for nesting. None where there is none."""
    if path in row:
        return row[path]
    value: Any = row
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def log_line(line: Line) -> dict[str, Any]:
    """Split off what the client put in front of a console line: ``ERROR`` for stderr, and when it was written."""
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
