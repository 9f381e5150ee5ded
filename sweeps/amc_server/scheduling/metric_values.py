"""The values of a sweep's metric in what a run has logged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from amc_server.store.logged_values import metric_points
from amc_server.store.reader import Reader
from amc_server.store.records import Run
from amc_sweeps.bounded_texts import json_object
from amc_sweeps.grammar.sweep_config import Metric, SweepConfig
from amc_sweeps.runs.records import summary_number
from amc_sweeps.values import as_finite

SUMMARY = -(2**31)  # the number of the summary's first value; rows of history have their own


def points_of(store: Reader, run: Run, config: SweepConfig) -> list[tuple[int, float]]:
    """Return (number, value) of a run's values of a sweep's metric, from its history or else from its summary."""
    rows = ((line.number, json_object(line.body)[0]) for line in store.numbered_history(run.pk))
    value = summary_value(run.summary_values, config.metric)
    return metric_points(rows, config) or ([] if value is None else [(SUMMARY, value)])


def summary_value(summary: Mapping[str, Any], metric: Metric | None) -> float | None:
    """Return the metric's value in a summary; None if it is not a finite number."""
    if metric is None:
        return None
    return as_finite(summary_number(summary, metric.name, "maximize" if metric.goal == "maximize" else "minimize"))
