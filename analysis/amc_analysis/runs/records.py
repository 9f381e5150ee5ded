"""Runs with their whole histories, and values that are taken from a history."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

import numpy as np

from amc_analysis.runs.history import Column, History
from amc_sweeps.runs.records import Point, RunRecord


class SweepUnreadableError(RuntimeError):
    """A server, the cache or a file does not give the runs; the message gives the reason."""


@dataclass(frozen=True)
class RunWithHistory(RunRecord):
    """One run with every number that it logged."""

    history: History = field(default_factory=History)


_FIELDS = tuple(item.name for item in fields(RunRecord))


def history_of(run: RunRecord) -> History:
    """Return every number that a run logged; an empty history where only its record was read."""
    return run.history if isinstance(run, RunWithHistory) else History()


def points_of(history: History, metric: str) -> tuple[Point, ...]:
    """Return the metric's points in the order of logging, with epoch, step and time of their rows."""
    column = history.column(metric)
    epochs, times = (_values_at(history, name, column) for name in ("epoch", "_timestamp"))
    steps = history.column("_step")
    whole: Sequence[int | None]
    if np.array_equal(steps.rows, column.rows) and np.isfinite(steps.values).all():
        whole = steps.values.astype(np.int64).tolist()
    else:
        known = _values_at(history, "_step", column)
        whole = [None if step is None or not math.isfinite(step) else int(step) for step in known]
    # As Point._make does, in half the time: there are a hundred thousand of them.
    return tuple(map(partial(tuple.__new__, Point), zip(column.values.tolist(), epochs, whole, times, strict=True)))


def _values_at(history: History, name: str, column: Column) -> Sequence[float | None]:
    """Return a metric's values in the rows of another column, None where a row lacks it."""
    other = history.column(name)
    if np.array_equal(other.rows, column.rows):
        values: list[float | None] = other.values.tolist()
        return values
    by_row = dict(zip(other.rows.tolist(), other.values.tolist(), strict=True))
    return [by_row.get(row) for row in column.rows.tolist()]


def row_of_value(run: RunRecord, metric: str, value: float | None) -> int | None:
    """Return the row of the history in which a metric first has a value; None where it never has it."""
    column = history_of(run).column(metric)
    positions = np.flatnonzero(column.values == value)
    return int(column.rows[positions[0]]) if len(positions) else None


def not_finite_of(history: History) -> tuple[str, ...]:
    """Return the names whose last logged value is NaN or infinite; W&B's own are left out."""
    last_values = {name: column.values[-1] for name, column in history.columns.items() if len(column)}
    return tuple(
        sorted(name for name in last_values if not name.startswith("_") and not math.isfinite(last_values[name]))
    )


def with_history(run: RunRecord, history: History) -> RunWithHistory:
    """Return a run with its history; ``with_metric`` then sets its points."""
    return _changed(run, history=history)


def with_metric(run: RunRecord, metric: str, **changes: Any) -> RunWithHistory:
    """Return a run with the points of a metric, taken from its history, and with other changed fields."""
    history = history_of(run)
    points = points_of(history, metric)
    return _changed(run, history=history, points=points, not_finite=not_finite_of(history), **changes)


def _changed(run: RunRecord, **changes: Any) -> RunWithHistory:
    """Return a run with other fields, like ``replace``, without escaping its texts again: in a tenth of the time."""
    changed = object.__new__(RunWithHistory)
    vars(changed).update({name: getattr(run, name) for name in _FIELDS} | changes)
    return changed
