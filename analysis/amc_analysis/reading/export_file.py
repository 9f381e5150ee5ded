"""The records in an export file, which ``amc-sweep export`` or a person wrote; no server is needed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from amc_analysis.reading.reader import assemble
from amc_analysis.reading.serialisation import read_update
from amc_analysis.reading.sources import Selection, SweepMetadata, run_record
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
            updates=tuple(map(read_update, sweep.get("updates", ()))),
            crashed_runs=sweep.get("crashed_runs"),
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
    record = run_record(run, project, alive_when_exported=export_file.was_alive(run) or None)
    return with_history(record, History.from_rows(run.get("history", ())))
