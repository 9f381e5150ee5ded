"""Whole histories of many runs in one reply, which W&B's API gives one run at a time.

The request, ``POST /bulk``, is a JSON object::

    entity, project     where to look; the id of a sweep is enough
    sweep               the id of a sweep, or
    runs                a list of run ids; without either, every run of the project that belongs to no sweep
    known               {run id: [token, lines]} of the rows that the client has: only later rows are sent

The reply is a line of JSON, then the rows of every run that has any, in the order of that line: JSON arrays, each after
a line with its number of bytes. Rows are sent as the text that was stored, so the server spends no time on them, and
the client must accept NaN and Infinity. The first line::

    format, version     "amc-bulk", 1
    entity, project     null if the request names nothing that exists
    sweep               null if none was asked for, or {id, name, state, config (YAML), description, created_at,
                        updated_at, crashed_runs: what its search learns from runs that did not finish,
                        updates: [{at, author, config (YAML, before that change)}]}
    runs                [{the fields of RUN_COLUMNS, id, name, sweep, tags, config, summary, stop_recorded, agent,
                        agent_host, created_at, heartbeat_at, log: the last lines of a run that did not finish,
                        history: {first, lines, rows, arrays, token}}]

A fact that an import lacked is null. ``state_when_exported`` is the state of an imported run that was alive. ``first``
is the number of the first row that is sent. It is 0 if the client's rows are not the beginning of this run, because the
run was deleted and begun again, or rewritten.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from amc_server.clock import iso_time
from amc_server.errors import Refused
from amc_server.store.logged_values import log_line
from amc_server.store.reader import Reader
from amc_server.store.records import ENTITY, Project, Run, Sweep
from amc_server.store.storage import Storage
from amc_sweeps.runs.run_states import RunState

FORMAT, VERSION = "amc-bulk", 1
CONTENT_TYPE = "application/vnd.amc-bulk"
LOG_LINES = 100
ROWS_AN_ARRAY = 5_000  # so that a long history takes little memory
CHUNK_BYTES = 1 << 20  # of the reply at a time: little memory, and few hops between threads

RUN_COLUMNS = (
    "state",
    "exit_code",
    "stop_reason",
    "stop_band",
    "stop_value",
    "stop_threshold",
    "host",
    "notes",
    "group_name",
    "job_type",
    "git_commit",
    "program",
    "state_when_exported",
)


def read_request(content: Any) -> dict[str, Any]:
    """Check a request's JSON.

    Raises:
        Refused: it is not such a request.
    """
    if not isinstance(content, dict):
        raise Refused("the body must be a JSON object", status=400)
    for name in ("entity", "project", "sweep"):
        if not isinstance(content.get(name), str | None):
            raise Refused(f"{name} must be a text", status=400)
    runs, marks = content.get("runs"), content.get("known")
    marks = {} if marks is None else marks
    if runs is not None and not (isinstance(runs, list) and all(isinstance(run, str) for run in runs)):
        raise Refused("runs must be a list of run ids", status=400)
    if not isinstance(marks, dict) or not all(_is_mark(mark) for mark in marks.values()):
        raise Refused("known must be {run id: [token, lines]}", status=400)
    return {**content, "known": marks}


def _is_mark(mark: Any) -> bool:
    return isinstance(mark, list) and len(mark) == 2 and isinstance(mark[0], str) and isinstance(mark[1], int)


def reply(storage: Storage, request: Mapping[str, Any]) -> Generator[bytes]:
    """Yield the reply piece by piece, all from one snapshot of the database."""
    with ExitStack() as open_until_the_end:
        store = open_until_the_end.enter_context(storage.read())
        sweep, project, runs = _select(store, request)
        entries = _Entries(store, project)
        marks = request["known"]
        records = [entries.entry(run, marks.get(run.id)) for run in runs]
        first_line = {
            "format": FORMAT,
            "version": VERSION,
            "entity": project.entity if project else None,
            "project": project.name if project else None,
            "sweep": _sweep(store, sweep) if sweep else None,
            "runs": records,
        }
        yield json.dumps(first_line).encode() + b"\n"
        chunk, size = [], 0
        for run, entry in zip(runs, records, strict=True):
            first, end = entry["history"]["first"], entry["history"]["lines"]
            while first < end and (found := store.history_as_array(run.pk, first, end, ROWS_AN_ARRAY)):
                rows, first = found[0], found[1] + 1
                chunk += [b"%d\n" % len(rows), rows]
                size += len(rows)
                if size >= CHUNK_BYTES:
                    yield b"".join(chunk)
                    chunk, size = [], 0
        yield b"".join(chunk)


def _select(store: Reader, request: Mapping[str, Any]) -> tuple[Sweep | None, Project | None, Sequence[Run]]:
    nothing = None, None, ()
    if request.get("entity") not in (None, "", ENTITY):
        return nothing
    if request.get("sweep") is not None:
        sweep = store.sweep_by_id(request["sweep"])
        try:
            project = store.project_by_key(sweep.project) if sweep else None
        except Refused:
            return nothing
        if sweep is None or project is None or request.get("project") not in (None, "", project.name):
            return nothing
        return sweep, project, store.runs_of_sweep(sweep.pk)
    project = store.project(ENTITY, request.get("project") or "")
    if project is None:
        return nothing
    if request.get("runs") is None:
        return None, project, [run for run in store.runs(project.pk) if run.sweep is None]
    runs = (store.run(project.pk, run_id) for run_id in request["runs"])
    return None, project, [run for run in runs if run is not None]


def _sweep(store: Reader, sweep: Sweep) -> dict[str, Any]:
    updates = store.sweep_updates(sweep.pk)
    return {
        "id": sweep.id,
        "name": sweep.display_name or sweep.id,
        "state": sweep.state,
        "config": sweep.shown_config,
        "description": sweep.shown_description,
        "created_at": iso_time(sweep.created_at),
        "updated_at": iso_time(sweep.updated_at),
        "crashed_runs": sweep.known_policy,
        "updates": [{"at": iso_time(item.at), "author": item.author, "config": item.shown_config} for item in updates],
    }


class _Entries:
    def __init__(self, store: Reader, project: Project | None) -> None:
        self._store = store
        self._project = project
        self._agents: dict[int, Any] = {}
        self._sweeps = {sweep.pk: sweep.id for sweep in store.sweeps(project.pk)} if project else {}

    def entry(self, run: Run, mark: Sequence[Any] | None) -> dict[str, Any]:
        """Return everything about a run except its rows; ``mark`` is [token, lines] of the client's rows."""
        agent = self._agent(run.agent)
        return {
            **{name: getattr(run, name) for name in RUN_COLUMNS},
            "id": run.id,
            "name": run.display_name,
            "sweep": self._sweeps.get(run.sweep or 0),
            "tags": run.tag_names,
            "config": run.config_values(),
            "summary": run.summary_values,
            "stop_recorded": run.stop_recorded or (None if "stop_recorded" in run.unknown_facts else False),
            "agent": agent.name if agent else None,
            "agent_host": agent.host if agent else None,
            "created_at": iso_time(run.began_at),
            "heartbeat_at": iso_time(run.heartbeat_at),
            "log": self._log(run),
            "history": self._history(run, mark),
        }

    def _agent(self, pk: int | None) -> Any:
        if pk is not None and pk not in self._agents:
            self._agents[pk] = self._store.agent_by_key(pk)
        return self._agents.get(pk) if pk is not None else None

    def _log(self, run: Run) -> list[str] | None:
        if run.state is RunState.FINISHED or not run.console_lines:
            return None
        return [log_line(line)["line"] for line in self._store.console_tail(run.pk, LOG_LINES)]

    def _history(self, run: Run, mark: Sequence[Any] | None) -> dict[str, Any]:
        first, token = 0, self._token(run, run.history_lines)
        if mark is not None and 0 < mark[1] <= run.history_lines:
            is_same = mark[0] == (token if mark[1] == run.history_lines else self._token(run, mark[1]))
            first = mark[1] if is_same else 0
        rows = self._store.count_history(run.pk, first, run.history_lines) if first < run.history_lines else 0
        return {
            "first": first,
            "lines": run.history_lines,
            "rows": rows,
            "arrays": math.ceil(rows / ROWS_AN_ARRAY),
            "token": token,
        }

    def _token(self, run: Run, lines: int) -> str:
        """Return a text that changes when the run's first ``lines`` rows belong to another run or were rewritten."""
        last = self._store.history_line(run.pk, lines - 1) if lines else None
        return f"{run.pk}-{run.created_at!r}-{zlib.crc32(last.encode()) if last is not None else 0}"
