"""A file of the exchange format as records: what somebody exported, or wrote down by hand, without any server."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from amc_analysis.reading.reader import assemble
from amc_analysis.reading.sources import Selection, SweepHead
from amc_analysis.runs.history import History
from amc_analysis.runs.records import with_history
from amc_sweeps.runs import export_file
from amc_sweeps.runs.causes import BandDecision
from amc_sweeps.runs.records import RunRecord, SweepRecord


def records_of(
    export: export_file.Export, *, read_at: datetime, metric: str | None = None, goal: str | None = None
) -> list[SweepRecord]:
    """Return a record for every sweep of a file, and one for its runs that belong to none.

    Raises:
        MetricError: see ``reading.assemble``.
    """
    runs: dict[str | None, list[RunRecord]] = {}
    for run in export.runs:
        runs.setdefault(run.get("sweep"), []).append(_run(run, export.project))
    entity = "local"  # whom it becomes when it is imported
    found = [
        assemble(
            SweepHead(
                entity=entity,
                project=export.project,
                sweep_id=sweep["id"],
                config=sweep["config"],
                state=sweep.get("state", ""),
                name=sweep.get("name") or sweep["id"],
                description=sweep.get("description") or "",
            ),
            runs.get(sweep["id"], []),
            Selection(entity, export.project, sweep["id"]),
            metric=metric,
            goal=goal,
            read_at=read_at,
        )
        for sweep in export.sweeps
    ]
    if None in runs:
        head, wanted = SweepHead(entity, export.project), Selection(entity, export.project)
        found.append(assemble(head, runs[None], wanted, metric=metric, goal=goal, read_at=read_at))
    return found


def _run(run: Mapping[str, Any], project: str) -> RunRecord:
    record = RunRecord(
        run_id=run["id"],
        name=run.get("name") or run["id"],
        state=run["state"],
        config=run.get("config", {}),
        summary=run.get("summary", {}),
        exit_code=run.get("exit_code"),
        stop_recorded=run.get("stop_recorded"),
        stop_reason=run.get("stop_reason"),
        stop_decision=_decision(run),
        host=run.get("host"),
        created_at=_time(run.get("created_at")),
        heartbeat_at=_time(run.get("heartbeat_at")),
        alive_when_exported=export_file.was_alive(run) or None,
        project=project,
        sweep_id=run.get("sweep"),
        notes=run.get("notes") or "",
    )
    return with_history(record, History.from_rows(run.get("history", ())))


def _decision(run: Mapping[str, Any]) -> BandDecision | None:
    band, value, threshold = run.get("stop_band"), run.get("stop_value"), run.get("stop_threshold")
    if band is None or value is None or threshold is None:
        return None
    return BandDecision(band, value, threshold)


def _time(value: Any) -> datetime | None:
    seconds = export_file.parse_time(value)
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
