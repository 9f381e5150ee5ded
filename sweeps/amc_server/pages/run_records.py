"""A stored run as the record that causes and ranking are worked out from.

Reading every row of a thousand histories would take seconds. The finite values of the sweep's metric are stored apart.
Of the rows only two are read: that of the peak, for its epoch, and the last one, which may hold a NaN.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from amc_server.clock import iso_time
from amc_server.store.logged_values import log_line
from amc_server.store.reader import Reader
from amc_server.store.records import Agent, Run, Sweep
from amc_sweeps.bounded_texts import json_object
from amc_sweeps.grammar.hyperband import BandDecision
from amc_sweeps.runs.records import Metric, Point, RunRecord, parse_time
from amc_sweeps.runs.run_states import RunState
from amc_sweeps.values import as_finite, as_number, look_up, printable

LOG_LINES = 100  # of a run that did not finish


def run_record(
    store: Reader, run: Run, values: Sequence[tuple[int, float]], metric: Metric | None, agent: Agent | None
) -> RunRecord:
    """Return a run as the analysis would read it.

    Args:
        values: (line of the history, finite value of the metric) in the order of logging; a negative line is of the
            summary.
        metric: None for a sweep that names none.
        agent: the one that the run was handed out to.
    """
    last_row = json_object(store.history_tail(run.pk) or "{}")[0]
    numbers = {name: as_number(value) for name, value in last_row.items() if not name.startswith("_")}
    not_finite = sorted(name for name, value in numbers.items() if value is not None and not math.isfinite(value))
    is_done = run.state is RunState.FINISHED or run.state.is_alive or not run.console_lines
    log = [] if is_done else store.console_tail(run.pk, LOG_LINES)
    return RunRecord(
        run_id=run.id,
        name=run.display_name or run.id,
        state=run.state.value,
        config=run.config_values(),
        summary=run.summary_values,
        points=_points(store, run, values, metric, last_row) if metric else (),
        not_finite=tuple(not_finite),
        exit_code=run.exit_code,
        stop_recorded=run.stop_recorded or (None if "stop_recorded" in run.unknown_facts else False),
        stop_reason=run.stop_reason,
        stop_decision=_decision(run),
        host=run.host or (agent.host if agent else None),
        created_at=time_of(run.began_at),
        heartbeat_at=time_of(run.heartbeat_at),
        alive_when_exported=run.state_when_exported is not None or None,
        log_tail="\n".join(log_line(line)["line"].rstrip() for line in log) or None,
        agent=agent.name if agent else None,
        notes=run.notes or "",
    )


def metric_of(sweep: Sweep) -> Metric | None:
    """Return the metric of a sweep, None if it names none or cannot be read."""
    config = sweep.readable_config
    if config is None or config.metric is None:
        return None
    return Metric(printable(config.metric.name), "maximize" if config.metric.goal == "maximize" else "minimize")


def _points(
    store: Reader, run: Run, values: Sequence[tuple[int, float]], metric: Metric, last_row: Mapping[str, Any]
) -> tuple[Point, ...]:
    logged = [(line, value) for line, value in values if isinstance(line, int) and line >= 0]
    points = [Point(value) for _, value in logged]
    if points:
        best = max if metric.goal == "maximize" else min
        place = points.index(best(points, key=lambda point: point.value))
        row = json_object(store.history_line(run.pk, logged[place][0]) or "{}")[0]
        points[place] = points[place]._replace(epoch=as_finite(look_up(row, "epoch")))
    last = as_number(look_up(last_row, metric.name))
    if last is not None and not math.isfinite(last):
        points.append(Point(last))
    return tuple(points)


def _decision(run: Run) -> BandDecision | None:
    if run.stop_band is None or run.stop_value is None or run.stop_threshold is None:
        return None
    return BandDecision(run.stop_band, run.stop_value, run.stop_threshold)


def time_of(seconds: float | None) -> datetime | None:
    """Return a stored time; one outside of the years that Python knows becomes the nearest."""
    return parse_time(iso_time(seconds))
