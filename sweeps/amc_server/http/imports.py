"""Imports an export file: every sweep and run with its history, or nothing at all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from amc_server.clock import iso_time
from amc_server.errors import Refused
from amc_server.scheduling import points
from amc_server.scheduling.coordinator import Coordinator
from amc_server.store.logged_values import history_line, swept_values
from amc_server.store.reader import Reader
from amc_server.store.records import Project, Run, Sweep
from amc_server.store.writer import Writer
from amc_sweeps.bounded_texts import json_object, read_yaml
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
    yaml_text,
)
from amc_sweeps.runs.run_states import RunState, SweepState
from amc_sweeps.values import printable

UNKNOWN_REASON = "unknown"  # for a recorded stop whose reason the file lacks
MOST_CONFLICTS = 5  # conflicts in a message

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

# The fields that an export may lack although the database has a value for them.
_MAY_BE_UNKNOWN_OF_SWEEPS = ("name", "description", "created_at", "seed", "shuffle", "crashed_runs", "updates")
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


def import_(store: Writer, coordinator: Coordinator, export: Export) -> dict[str, int]:
    """Store an export and return how much of it was new.

    Raises:
        Refused: an id exists with other contents (409), or a sweep's config is invalid (400).
    """
    # As it will be stored, or a second import of the same file would differ from the first.
    export = replace(export, sweeps=printable(export.sweeps), runs=printable(export.runs))
    project = store.project_or_new(export.project, coordinator.clock.wall())
    export = replace(export, runs=tuple(map(with_steps, export.runs)))
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
            _insert_run(store, coordinator, project, record)
            counts["runs"] += 1
        else:
            counts["unchanged"] += 1
    for record in export.sweeps:
        sweep = store.sweep(project.pk, record["id"])
        if sweep is not None:
            coordinator.check_target(store, sweep)
    return counts


def _refuse_conflicts(store: Writer, project: Project, export: Export) -> None:
    conflicts, foreign = [], []
    for record in export.sweeps:
        sweep = store.sweep_by_id(record["id"])
        if sweep is not None and sweep.project != project.pk:
            foreign.append(f"sweep {record['id']} (in {store.project_by_key(sweep.project).name})")
        elif sweep is not None and (fields := differing_fields(printable(sweep_record(store, sweep)), record)):
            conflicts.append(f"sweep {record['id']} ({', '.join(fields)})")
    for record in export.runs:
        run = store.run(project.pk, record["id"])
        if run is not None and (fields := differing_fields(with_steps(run_record(store, run)), record)):
            conflicts.append(f"run {record['id']} ({', '.join(fields)})")
    if foreign:
        raise Refused(
            f"nothing was imported into project {project.name}: a sweep's id is unique on a server, and another "
            f"project has {_text(foreign)}. Import into another server (amc-sweep serve --data FOLDER), "
            "or into that project.",
            status=409,
        )
    if conflicts:
        raise Refused(
            f"nothing was imported: project {project.name} has other contents under the same id: {_text(conflicts)}. "
            "Import into another server (amc-sweep serve --data FOLDER)"
            + (", or into another project (--project NAME)." if not export.sweeps else "."),
            status=409,
        )


def _text(conflicts: list[str]) -> str:
    more = len(conflicts) - MOST_CONFLICTS
    return "; ".join(conflicts[:MOST_CONFLICTS]) + (f"; and {more} more" if more > 0 else "")


def _insert_sweep(store: Writer, coordinator: Coordinator, project: Project, record: Record) -> None:
    config = yaml_text(record["config"])
    try:
        parse(config)
        for update in record.get("updates", ()):
            parse(update["config"], is_new=False)
    except SweepConfigError as error:
        raise Refused(f"sweep {record['id']}: " + "; ".join(error.problems), status=400) from error
    now = coordinator.clock.wall()
    # A sweep that was running elsewhere waits for its first agent here.
    state = record.get("state", SweepState.FINISHED.value)
    state = SweepState.PENDING.value if state == SweepState.RUNNING.value else state
    pk = store.insert(
        "sweeps",
        project=project.pk,
        id=record["id"],
        state=state,
        config=config,
        seed=record.get("seed", coordinator.sweep_seed(store)),
        shuffle=int(record.get("shuffle", False)),
        crashed_runs=record.get("crashed_runs"),
        display_name=record.get("name"),
        description=record.get("description"),
        created_at=unix_time(record.get("created_at")) or now,
        updated_at=now,
        unknown=_unknown(record, _MAY_BE_UNKNOWN_OF_SWEEPS),
    )
    for update in record.get("updates", ()):
        author, text = update.get("author"), yaml_text(update["config"])
        store.insert("sweep_updates", sweep=pk, at=unix_time(update["at"]), author=author, config=text)


def _insert_run(store: Writer, coordinator: Coordinator, project: Project, record: Record) -> None:
    sweep = store.sweep(project.pk, record["sweep"]) if record.get("sweep") is not None else None
    config = sweep.readable_config if sweep else None
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
        parameters=json.dumps(swept_values(values, config)) if config else None,
        # A run that was alive elsewhere never reports to this server. Its state is kept in state_when_exported.
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
    store.put_history(pk, [history_line(number, json.dumps(row), row) for number, row in enumerate(rows)])
    run = store.run_by_key(pk)
    if sweep is not None and run is not None:
        points.copy_all(store, sweep, run)


def _unknown(record: Record, facts: Sequence[str]) -> str:
    return json.dumps([fact for fact in facts if fact not in record])


def sweep_record(store: Reader, sweep: Sweep) -> Record:
    """Return a stored sweep as an export record, without its state, which changes by itself."""
    record: dict[str, Any] = {
        "id": sweep.id,
        "config": read_yaml(sweep.shown_config)[0],
        "name": sweep.display_name,
        "description": sweep.description,
        "created_at": iso_time(sweep.created_at),
        "seed": sweep.known_seed,
        "shuffle": bool(sweep.shuffle),
        "crashed_runs": sweep.known_policy,
    }
    if sweep.problem is not None:
        del record["config"]
    updates = [
        {"at": iso_time(item.at), "author": item.author, "config": read_yaml(item.shown_config)[0]}
        for item in store.sweep_updates(sweep.pk)
    ]
    return without_unknown({**record, "updates": updates}, sweep.unknown_facts)


def run_record(store: Reader, run: Run) -> Record:
    """Return a stored run as an export record."""
    sweep = store.sweep_by_key(run.sweep) if run.sweep is not None else None
    record: dict[str, Any] = {
        "id": run.id,
        "sweep": sweep.id if sweep else None,
        "state": run.state_when_exported or run.state,
        "created_at": iso_time(run.created_at),
        "config": {name: value for name, value in run.config_values().items() if not name.startswith("_")},
        "summary": {name: value for name, value in run.summary_values.items() if name != "_wandb"},
        "tags": run.tag_names,
        "stop_recorded": run.stop_recorded,
        "history": [json_object(line.body)[0] for line in store.numbered_history(run.pk)],
    }
    record |= {name: getattr(run, column) for name, column in _RUN_COLUMNS.items() if getattr(run, column) is not None}
    if record.get("stop_reason") == UNKNOWN_REASON:
        del record["stop_reason"]
    return without_unknown(record, [*run.unknown_facts, *run.problems])
