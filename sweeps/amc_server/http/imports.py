"""Takes an export in: every sweep and run with its history, or nothing at all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from amc_server.clock import iso_time
from amc_server.errors import Refused
from amc_server.scheduling.coordinator import Coordinator, chosen_from, metric_value, read_config
from amc_server.store.reader import Reader
from amc_server.store.records import Line, Project, Run, Sweep
from amc_server.store.writer import Writer
from amc_sweeps.grammar.parse import parse
from amc_sweeps.grammar.sweep_config import SweepConfigError
from amc_sweeps.runs.export_file import (
    Export,
    Record,
    differing_fields,
    unix_time,
    was_alive,
    with_steps,
    without_unknown,
)
from amc_sweeps.runs.run_states import RunState, SweepState

UNKNOWN_REASON = "unknown"  # a stop is recorded, and nobody says who asked
SHOWN = 5  # conflicts in a message

_RUN_COLUMNS = {
    "name": "display_name",
    "host": "host",
    "group": "group_name",
    "job_type": "job_type",
    "commit": "git_commit",
    "notes": "notes",
    "exit_code": "exit_code",
    "stop_reason": "stop_reason",
    "stop_band": "stop_band",
    "stop_value": "stop_value",
    "stop_threshold": "stop_threshold",
}


# What an export may lack though the database has something in its place.
_MAY_BE_UNKNOWN_OF_SWEEPS = ("name", "description", "created_at")
_MAY_BE_UNKNOWN_OF_RUNS = (
    "name",
    "created_at",
    "heartbeat_at",
    "exit_code",
    "stop_recorded",
    "tags",
    "config",
    "summary",
    "history",
)


def take_in(store: Writer, coordinator: Coordinator, export: Export) -> dict[str, int]:
    """Store an export and return how much of it was new.

    Raises:
        Refused: when an id is there already with other contents (409), or a sweep's config is none (400).
    """
    project = coordinator.project(store, export.project)
    _refuse_conflicts(store, project, export)
    counts = {"sweeps": 0, "runs": 0, "unchanged": 0}
    for record in export.sweeps:
        if store.sweep(project.pk, record["id"]) is None:
            _insert_sweep(store, coordinator, project, record)
            counts["sweeps"] += 1
        else:
            counts["unchanged"] += 1
    for record in export.runs:
        if store.run(project.pk, record["id"]) is None:
            _insert_run(store, coordinator, project, with_steps(record))
            counts["runs"] += 1
        else:
            counts["unchanged"] += 1
    for record in export.sweeps:
        sweep = store.sweep(project.pk, record["id"])
        if sweep is not None:
            coordinator.look_for_target(store, sweep)
    return counts


def _refuse_conflicts(store: Writer, project: Project, export: Export) -> None:
    conflicts, elsewhere = [], []
    for record in export.sweeps:
        sweep = store.sweep_by_id(record["id"])
        if sweep is not None and sweep.project != project.pk:
            elsewhere.append(f"sweep {record['id']} (in {store.project_by_key(sweep.project).name})")
        elif sweep is not None and (other := differing_fields(sweep_record(sweep), record)):
            conflicts.append(f"sweep {record['id']} ({', '.join(other)})")
    for record in export.runs:
        run = store.run(project.pk, record["id"])
        if run is not None and (other := differing_fields(run_record(store, run), with_steps(record))):
            conflicts.append(f"run {record['id']} ({', '.join(other)})")
    if elsewhere:
        raise Refused(
            f"nothing was imported into project {project.name}: a sweep's id is unique on a server, and another "
            f"project has {_shown(elsewhere)}. Import into another server (amc-sweep serve --data FOLDER), "
            "or into that project.",
            status=409,
        )
    if conflicts:
        raise Refused(
            f"nothing was imported: project {project.name} has other contents under the same id: {_shown(conflicts)}. "
            "Import into another server (amc-sweep serve --data FOLDER)"
            + (", or into another project (--project NAME)." if not export.sweeps else "."),
            status=409,
        )


def _shown(found: list[str]) -> str:
    return "; ".join(found[:SHOWN]) + (f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else "")


def _insert_sweep(store: Writer, coordinator: Coordinator, project: Project, record: Record) -> None:
    config = dict(record["config"])
    try:
        parse(config)
    except SweepConfigError as error:
        raise Refused(f"sweep {record['id']}: " + "; ".join(error.problems), status=400) from error
    now = coordinator.clock.wall()
    # A sweep that was running elsewhere waits for its first agent here.
    state = record.get("state", SweepState.FINISHED.value)
    state = SweepState.PENDING.value if state == SweepState.RUNNING.value else state
    store.insert(
        "sweeps",
        project=project.pk,
        id=record["id"],
        state=state,
        config=yaml.safe_dump(config, sort_keys=False),
        seed=coordinator.sweep_seed(store),
        display_name=record.get("name"),
        description=record.get("description"),
        created_at=unix_time(record.get("created_at")) or now,
        updated_at=now,
        unknown=_unknown(record, _MAY_BE_UNKNOWN_OF_SWEEPS),
    )


def _insert_run(store: Writer, coordinator: Coordinator, project: Project, record: Record) -> None:
    sweep = store.sweep(project.pk, record["sweep"]) if record.get("sweep") is not None else None
    config = read_config(sweep.config) if sweep else None
    values = record.get("config", {})
    created_at = unix_time(record.get("created_at"))
    heartbeat_at = unix_time(record.get("heartbeat_at"))
    columns = {column: record[name] for name, column in _RUN_COLUMNS.items() if record.get(name) is not None}
    if record.get("stop_recorded"):
        columns.setdefault("stop_reason", UNKNOWN_REASON)
    rows = record.get("history", [])
    pk = store.insert(
        "runs",
        project=project.pk,
        id=record["id"],
        sweep=sweep.pk if sweep else None,
        origin="search" if sweep else "trial",
        number=store.count_runs_of_sweep(sweep.pk) if sweep else None,
        parameters=json.dumps(chosen_from(values, config)) if config else None,
        # Nobody will hear of it here, so in this copy it is not alive; the fact is kept.
        state=RunState.CRASHED.value if was_alive(record) else record["state"],
        state_when_exported=record["state"] if was_alive(record) else None,
        unknown=_unknown(record, _MAY_BE_UNKNOWN_OF_RUNS),
        started=1,
        config=json.dumps({name: {"value": value} for name, value in values.items()}),
        summary=json.dumps(record.get("summary", {})),
        tags=json.dumps(record.get("tags", [])),
        history_lines=len(rows),
        created_at=coordinator.clock.wall() if created_at is None else created_at,
        heartbeat_at=heartbeat_at,
        ended_at=heartbeat_at,
        **columns,
    )
    store.put_history(pk, [Line(number, json.dumps(row), _step(row)) for number, row in enumerate(rows)])
    if sweep is not None and config is not None and config.metric is not None:
        logged = [(number, metric_value(row, config.metric.name)) for number, row in enumerate(rows)]
        points = [(number, value) for number, value in logged if value is not None]
        store.put_points(sweep.pk, pk, 0, len(rows), points)


def _unknown(record: Record, facts: Sequence[str]) -> str:
    return json.dumps([fact for fact in facts if fact not in record])


def _step(row: Mapping[str, Any]) -> int | None:
    step = row.get("_step")
    return step if isinstance(step, int) and not isinstance(step, bool) and abs(step) < 2**62 else None


def sweep_record(sweep: Sweep) -> Record:
    """Return a stored sweep in the words of an export; where it is changes by itself and is left out."""
    record = {
        "id": sweep.id,
        "config": yaml.safe_load(sweep.config),
        "name": sweep.display_name,
        "description": sweep.description,
        "created_at": iso_time(sweep.created_at),
    }
    return without_unknown(record, sweep.unknown_facts)


def run_record(store: Reader, run: Run) -> Record:
    """Return a stored run in the words of an export."""
    sweep = store.sweep_by_key(run.sweep) if run.sweep is not None else None
    record: dict[str, Any] = {
        "id": run.id,
        "sweep": sweep.id if sweep else None,
        "state": run.state_when_exported or run.state,
        "created_at": iso_time(run.created_at),
        "config": {name: value for name, value in run.config_values().items() if not name.startswith("_")},
        "summary": {name: value for name, value in json.loads(run.summary).items() if name != "_wandb"},
        "tags": json.loads(run.tags),
        "stop_recorded": run.stop_recorded,
        "history": [json.loads(text) for text in store.history(run.pk)],
    }
    record |= {name: getattr(run, column) for name, column in _RUN_COLUMNS.items() if getattr(run, column) is not None}
    if record.get("stop_reason") == UNKNOWN_REASON:
        del record["stop_reason"]
    return without_unknown(record, run.unknown_facts)
