"""The records in an export file, which ``amc-sweep export`` or a person wrote; no server is needed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from amc_analysis.reading.reader import assemble
from amc_analysis.reading.sources import Selection, SweepMetadata, band_decision
from amc_analysis.runs.history import History
from amc_analysis.runs.records import with_history
from amc_sweeps.runs import export_file
from amc_sweeps.runs.records import RunRecord, SweepRecord

ENTITY = "local"  # an embedded server that imports the file gives it this entity


def records_of(
    export: export_file.Export, *, read_at: datetime, metric: str | None = None, goal: str | None = None
) -> list[SweepRecord]:
    """Return a record for every sweep of a file, and one for its runs without a sweep.

    Raises:
        MetricError: see ``reader.assemble``.
    """
    runs: dict[str | None, list[RunRecord]] = {}
    for run in export.runs:
        runs.setdefault(run.get("sweep"), []).append(_run_record(run, export.project))
    sweeps = [
        SweepMetadata(
            entity=ENTITY,
            project=export.project,
            sweep_id=sweep["id"],
            config=sweep["config"],
            state=sweep.get("state", ""),
            name=sweep.get("name") or sweep["id"],
            description=sweep.get("description") or "",
        )
        for sweep in export.sweeps
    ]
    if None in runs:
        sweeps.append(SweepMetadata(ENTITY, export.project))
    records = []
    for sweep in sweeps:
        sweep_id = sweep.sweep_id or None
        selection = Selection(ENTITY, export.project, sweep_id)
        records.append(assemble(sweep, runs.get(sweep_id, []), selection, metric=metric, goal=goal, read_at=read_at))
    return records


def _run_record(run: Mapping[str, Any], project: str) -> RunRecord:
    record = RunRecord(
        run_id=run["id"],
        name=run.get("name") or run["id"],
        state=run["state"],
        config=run.get("config", {}),
        summary=run.get("summary", {}),
        exit_code=run.get("exit_code"),
        stop_recorded=run.get("stop_recorded"),
        stop_reason=run.get("stop_reason"),
        stop_decision=band_decision(run.get("stop_band"), run.get("stop_value"), run.get("stop_threshold")),
        host=run.get("host"),
        created_at=_time(run.get("created_at")),
        heartbeat_at=_time(run.get("heartbeat_at")),
        alive_when_exported=export_file.was_alive(run) or None,
        project=project,
        sweep_id=run.get("sweep"),
        notes=run.get("notes") or "",
    )
    return with_history(record, History.from_rows(run.get("history", ())))


def _time(value: Any) -> datetime | None:
    seconds = export_file.unix_time(value)
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
