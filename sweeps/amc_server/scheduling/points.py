"""The finite values of a sweep's metric, copied from what its runs log: for the search, Hyperband and the target.

A metric may be in the summary alone: ``acc.max`` after ``define_metric``, or ``run.summary["score"] = ...``. Then each
post with new rows or a new value adds a value. Earlier values that are better than the present one are replaced by
it, so that the best value is the one in the summary, by which runs are ranked.

Values of history have the number of their row. Those of the summary have negative numbers, from ``SUMMARY`` on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from amc_server.scheduling.metric_values import SUMMARY, points_of, summary_value
from amc_server.store.logged_values import metric_points
from amc_server.store.records import Run, Sweep
from amc_server.store.writer import Writer


def add_rows(
    store: Writer, sweep: Sweep, run: Run, numbers: Sequence[int], rows: Iterable[Mapping[str, Any]]
) -> list[float]:
    """Store the values in rows of history, and return them."""
    config = sweep.readable_config
    points = metric_points(zip(numbers, rows, strict=True), config) if config else []
    store.put_points(sweep.pk, run.pk, numbers[0], numbers[-1] + 1, points)
    if points and store.first_point(run.pk) < 0:
        store.put_points(sweep.pk, run.pk, SUMMARY, 0, [])
    return [value for _, value in points]


def add_summary(
    store: Writer, sweep: Sweep, run: Run, summary: Mapping[str, Any], *, has_new_rows: bool
) -> list[float]:
    """Store the value in a run's new summary unless its history has values, and return it."""
    config = sweep.readable_config
    metric = config.metric if config else None
    value = summary_value(summary, metric)
    if metric is None or value is None:
        return []
    last = store.last_point(run.pk)
    if last is not None and (last[0] >= 0 or (last[1] == value and not has_new_rows)):
        return []
    number = SUMMARY if last is None else last[0] + 1
    store.put_points(sweep.pk, run.pk, number, number + 1, [(number, value)])
    if last is not None:
        low, high = (-math.inf, value) if metric.goal == "maximize" else (value, math.inf)
        store.limit_points(run.pk, low, high)
    return [value]


def copy_all(store: Writer, sweep: Sweep, run: Run) -> None:
    """Copy a run's values again, after a change of the metric or of the run's sweep."""
    config = sweep.readable_config
    points = points_of(store, run, config) if config else []
    store.put_points(sweep.pk, run.pk, SUMMARY, run.history_lines, points)
