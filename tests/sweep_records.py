"""Small records of runs and sweeps, as amc_analysis reads them from a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from amc_analysis.runs import Metric, Point, RunRecord, SweepRecord

START = datetime(2025, 7, 1, 12, tzinfo=UTC)
MAXIMISE = Metric("val/combined_acc", "maximize")


def points(
    values: Sequence[float], *, named: bool = True, start_s: float = 0, apart_s: float = 60
) -> tuple[Point, ...]:
    """Return one point an epoch, ``apart_s`` seconds apart."""
    begin = START.timestamp() + start_s
    return tuple(
        Point(value, epoch=float(count) if named else None, step=count - 1, time_s=begin + count * 60)
        for count, value in enumerate(values, start=1)
    )


def run(run_id: str, values: Sequence[float] = (), state: str = "finished", **fields: Any) -> RunRecord:
    """Return a run whose heartbeat came with its last point."""
    named = fields.pop("named", True)
    start_s = fields.pop("start_s", 0.0)
    fields.setdefault("points", points(values, named=named, start_s=start_s))
    fields.setdefault("created_at", START)
    fields.setdefault("heartbeat_at", START + timedelta(seconds=start_s + 60 * len(values)))
    return RunRecord(run_id=run_id, name=fields.pop("name", run_id), state=state, **fields)


def completed(run_id: str, values: Sequence[float], **fields: Any) -> RunRecord:
    """Return a run that says it completed."""
    return run(run_id, values, exit_code=0, summary={"end_reason": "completed"}, **fields)


def sweep(*runs: RunRecord, config: Mapping[str, Any] | None = None, **fields: Any) -> SweepRecord:
    """Return a sweep that was read an hour after its start."""
    fields.setdefault("state", "RUNNING")
    fields.setdefault("metric", MAXIMISE)
    fields.setdefault("read_at", START + timedelta(hours=1))
    fields.setdefault("name", "a sweep")
    return SweepRecord(
        sweep_id="94fqx0gz", entity="local", project="amc-sweeps", config=config or {}, runs=tuple(runs), **fields
    )
