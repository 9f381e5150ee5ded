"""Every SQL statement that reads, and the records that it returns.

A ``Reader`` sees one snapshot. ``storage.Storage.read`` gives it out; a ``writer.Writer`` has the same methods within
its transaction.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from amc_server.errors import Refused
from amc_server.store.records import (
    Agent,
    Artifact,
    ArtifactFile,
    Line,
    Member,
    PriorRun,
    Project,
    Record,
    Run,
    StoredFile,
    Sweep,
    SweepUpdate,
    warn,
)
from amc_sweeps.bounded_texts import strict_object
from amc_sweeps.values import is_32_bit, is_number

R = TypeVar("R", bound=Record)

# RunState.is_alive in SQL; spelled as in the index on it.
_LIVING = "state IN ('pending', 'running', 'preempting')"
# Few of a sweep's thousands of runs are alive. Without the hint SQLite walks over all of them to get the order.
_BY_STATE = "INDEXED BY runs_of_sweep_by_state"
# Member.is_waiting in SQL: queued, never started, or preempted; unless a stop is recorded.
_WAITING = (
    "state IN ('pending', 'preempted') AND (state = 'preempted' OR agent IS NULL)"
    " AND stop_reason IS NULL AND given_up = 0"
)


_HAS_PROJECT = "project IN (SELECT pk FROM projects)"  # which a hand edit can take away
# Only finite numbers are written, and they alone lie in this range: no text, no blob, no infinity.
_FINITE = f"value BETWEEN {-sys.float_info.max!r} AND {sys.float_info.max!r}"


class Reader:
    """Queries within one snapshot of the database."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def _rows(self, sql: str, *values: Any) -> list[Any]:
        return self._connection.execute(sql, values).fetchall()

    def _value(self, sql: str, *values: Any) -> Any:
        """Return the first column of the first row, or None without a row."""
        row = self._connection.execute(sql, values).fetchone()
        return row[0] if row else None

    def _records(self, kind: type[R], rest: str, *values: Any) -> list[R]:
        """Return the rows of the record's table as records; ``rest`` is the SQL after the table's name."""
        return [kind.of(row) for row in self._rows(f"SELECT {kind.columns()} FROM {kind.table} {rest}", *values)]

    def _record(self, kind: type[R], rest: str, *values: Any) -> R | None:
        row = self._connection.execute(f"SELECT {kind.columns()} FROM {kind.table} {rest}", values).fetchone()
        return kind.of(row) if row else None

    # projects and sweeps

    def projects(self, entity: str) -> list[Project]:
        """Return the entity's projects, newest first."""
        return self._records(Project, "WHERE entity = ? ORDER BY created_at DESC, pk DESC", entity)

    def project(self, entity: str, name: str) -> Project | None:
        return self._record(Project, "WHERE entity = ? AND name = ?", entity, name)

    def project_by_key(self, pk: int) -> Project:
        """Return the project that a record points to.

        Raises:
            Refused: there is none, which a hand edit can do (404).
        """
        project = self._record(Project, "WHERE pk = ?", pk)
        if project is None:
            raise Refused(f"the database has no project {pk}, to which this belongs", status=404)
        return project

    def sweeps(self, project: int) -> list[Sweep]:
        """Return the project's sweeps, newest first."""
        return self._records(Sweep, "WHERE project = ? ORDER BY created_at DESC, pk DESC", project)

    def open_sweeps(self) -> list[Sweep]:
        """Return the sweeps that have not ended."""
        return self._records(Sweep, "WHERE state IN ('PENDING', 'RUNNING', 'PAUSED')")

    def sweep(self, project: int, sweep_id: str) -> Sweep | None:
        return self._record(Sweep, "WHERE project = ? AND id = ?", project, sweep_id)

    def sweep_by_id(self, sweep_id: str) -> Sweep | None:
        return self._record(Sweep, "WHERE id = ?", sweep_id)

    def sweep_by_key(self, pk: int) -> Sweep | None:
        """Return the sweep that a record or a global id points to."""
        return self._record(Sweep, "WHERE pk = ?", pk)

    def sweep_updates(self, sweep: int) -> list[SweepUpdate]:
        """Return the changes of the sweep's config, oldest first."""
        return self._records(SweepUpdate, "WHERE sweep = ? ORDER BY pk", sweep)

    def count_sweeps(self) -> int:
        """Return how many sweeps were ever created (deleted ones with the highest key are not counted)."""
        return int(self._value("SELECT coalesce(max(pk), 0) FROM sweeps"))

    # agents

    def agents(self, sweep: int) -> list[Agent]:
        """Return the sweep's agents, oldest first."""
        return self._records(Agent, "WHERE sweep = ? ORDER BY pk", sweep)

    def agent_by_key(self, pk: int) -> Agent | None:
        return self._record(Agent, "WHERE pk = ?", pk)

    # runs

    def runs(self, project: int) -> list[Run]:
        """Return the project's runs, oldest first."""
        return self._records(Run, "WHERE project = ? ORDER BY pk", project)

    def runs_of_no_sweep(self, project: int, limit: int) -> list[Run]:
        """Return the project's runs that belong to no sweep, newest first."""
        return self._records(Run, "WHERE project = ? AND sweep IS NULL ORDER BY pk DESC LIMIT ?", project, limit)

    def runs_of_sweep(self, sweep: int) -> list[Run]:
        """Return the sweep's runs, oldest first."""
        return self._records(Run, "WHERE sweep = ? ORDER BY pk", sweep)

    def members(self, sweep: int) -> list[Member]:
        """Return the sweep's runs, oldest first, without what their trials reported; a tenth of the cost."""
        return self._records(Member, "WHERE sweep = ? ORDER BY pk", sweep)

    def members_since(self, sweep: int, pk: int) -> list[tuple[int, str | None, bool]]:
        """Return the sweep's runs with a key above ``pk``, oldest first.

        Each as its key, its parameters as JSON, and whether the sweep itself began it: adopted ones do not count
        against ``run_cap``.
        """
        sql = "SELECT pk, parameters, origin IN ('search', 'queue') FROM runs WHERE sweep = ? AND pk > ? ORDER BY pk"
        return [(row[0], row[1], bool(row[2])) for row in self._rows(sql, sweep, pk)]

    def contacts(self, sweep: int) -> list[tuple[str, str, str, float, float]]:
        """Return (id, state, host, creation, last heartbeat) of the sweep's runs that have begun on a known host."""
        sql = (
            "SELECT id, state, host, created_at, heartbeat_at FROM runs"
            " WHERE sweep = ? AND host IS NOT NULL AND heartbeat_at IS NOT NULL ORDER BY pk"
        )
        return [tuple(row) for row in self._rows(sql, sweep)]

    def is_shared(self, run: int) -> bool:
        """Return whether clients in shared mode have written into the run."""
        return self._value("SELECT 1 FROM shared_lines WHERE run = ? LIMIT 1", run) is not None

    def shared_lines(self, run: int, stream: str, writer: str, first: int, last: int) -> dict[int, int]:
        """Return for a writer's line numbers in a range the lines of the run that they became."""
        sql = (
            "SELECT number, line FROM shared_lines WHERE run = ? AND stream = ? AND writer = ?"
            " AND number BETWEEN ? AND ?"
        )
        return {row[0]: row[1] for row in self._rows(sql, run, stream, writer, first, last)}

    def run_keys(self, sweep: int) -> list[int]:
        """Return the keys of the sweep's runs, oldest first."""
        return [row[0] for row in self._rows("SELECT pk FROM runs WHERE sweep = ? ORDER BY pk", sweep)]

    def prior_runs(self, sweep: int) -> list[Run]:
        """Return the runs that were made outside of the sweep and that its search learns from, oldest first."""
        rest = (
            "WHERE ((sweep = ? AND origin = 'prior') OR pk IN (SELECT run FROM prior_runs WHERE sweep = ?))"
            f" AND {_HAS_PROJECT} ORDER BY pk"
        )
        return self._records(Run, rest, sweep, sweep)

    def priors_elsewhere(self, sweep: int) -> list[PriorRun]:
        """Return the prior runs that belong to other sweeps or projects, oldest first."""
        columns = ", ".join(f"runs.{name}" for name in Member.columns().split(", "))
        sql = (
            f"SELECT runs.sweep, prior_runs.parameters, low, high, last, {columns}"
            " FROM prior_runs JOIN runs ON runs.pk = run WHERE prior_runs.sweep = ? ORDER BY run"
        )
        found = []
        for row in self._rows(sql, sweep):
            own_sweep, parameters, *values = tuple(row)[:5]
            run = Member.of(tuple(row)[5:])
            found.append(PriorRun(run, own_sweep, parameters, tuple(values) if all(map(is_number, values)) else ()))
        return found

    def waiting_run(self, sweep: int) -> Run | None:
        """Return the sweep's oldest run that may be handed out to the next agent that asks."""
        return self._record(Run, f"{_BY_STATE} WHERE sweep = ? AND {_WAITING} ORDER BY pk LIMIT 1", sweep)

    def queued_run(self, sweep: int, display_name: str, parameters: str, since: float) -> Run | None:
        """Return the run of that name and those parameters (JSON) that a user has queued since a time."""
        rest = (
            "WHERE sweep = ? AND origin = 'queue' AND created_at >= ? AND display_name = ? AND parameters = ?"
            " ORDER BY pk DESC LIMIT 1"
        )
        return self._record(Run, rest, sweep, since, display_name, parameters)

    def is_over(self, sweep: int) -> bool:
        """Return whether none of the sweep's runs is alive and none may be handed out again."""
        sql = (
            f"SELECT 1 FROM runs {_BY_STATE} WHERE sweep = ?"
            " AND state IN ('pending', 'running', 'preempting', 'preempted')"
            " AND (state != 'preempted' OR (stop_reason IS NULL AND given_up = 0)) LIMIT 1"
        )
        return self._value(sql, sweep) is None

    def count_runs_of_sweep(self, sweep: int) -> int:
        return int(self._value("SELECT count(*) FROM runs WHERE sweep = ?", sweep))

    def run_states(self, project: int) -> dict[int | None, dict[str, int]]:
        """Return how many runs of each sweep of the project are in each state; None stands for runs without a sweep."""
        sql = "SELECT sweep, state, count(*) FROM runs WHERE project = ? GROUP BY sweep, state"
        counts: dict[int | None, dict[str, int]] = {}
        for sweep, state, count in self._rows(sql, project):
            counts.setdefault(sweep, {})[str(state)] = count
        return counts

    def best_values(self, sweep: int, goal: str) -> list[tuple[int, float]]:
        """Return (key, best logged value of the metric) of the sweep's runs that have any, oldest first."""
        best = "max" if goal == "maximize" else "min"
        sql = (
            f"SELECT points.run, {best}(value) FROM points JOIN runs ON runs.pk = points.run"
            f" WHERE sweep = ? AND {_FINITE} GROUP BY points.run ORDER BY points.run"
        )
        return [(row[0], row[1]) for row in self._rows(sql, sweep)]

    def count_runs_of_agent(self, agent: int) -> int:
        return int(self._value("SELECT count(*) FROM runs WHERE agent = ?", agent))

    def living_runs(self) -> list[Run]:
        """Return the runs of all projects whose state is not a final one."""
        return self._records(Run, f"WHERE {_LIVING}")

    def living_runs_of_sweep(self, sweep: int) -> list[Run]:
        """Return the sweep's runs whose state is not a final one, oldest first."""
        return self._records(Run, f"{_BY_STATE} WHERE sweep = ? AND {_LIVING} ORDER BY pk", sweep)

    def judged_runs(self, sweep: int) -> set[int]:
        """Return the keys of the sweep's runs that Hyperband may stop (``Member.is_judged``)."""
        judged = "state = 'running' AND origin != 'queue' AND stop_reason IS NULL"
        return {row[0] for row in self._rows(f"SELECT pk FROM runs {_BY_STATE} WHERE sweep = ? AND {judged}", sweep)}

    def living_runs_of_agent(self, agent: Agent, listed: Collection[str]) -> list[Run]:
        """Return the living runs that were handed out to the agent or that it lists by their ids, oldest first."""
        own = f"SELECT pk FROM runs WHERE agent = ? AND {_LIVING}"
        named = (
            "SELECT pk FROM runs WHERE project = (SELECT project FROM sweeps WHERE pk = ?)"
            " AND id IN (SELECT value FROM json_each(?))"
        )
        rest = f"WHERE pk IN ({own} UNION {named}) AND sweep = ? AND {_LIVING} ORDER BY pk"
        return self._records(Run, rest, agent.pk, agent.sweep, json.dumps(list(listed)), agent.sweep)

    def run(self, project: int, run_id: str) -> Run | None:
        return self._record(Run, "WHERE project = ? AND id = ?", project, run_id)

    def run_at(self, entity: str, project: str, run_id: str) -> Run | None:
        """Return the run of that id in the entity's project of that name."""
        rest = "WHERE project = (SELECT pk FROM projects WHERE entity = ? AND name = ?) AND id = ?"
        return self._record(Run, rest, entity, project, run_id)

    def run_by_key(self, pk: int) -> Run | None:
        """Return the run that a record or a global id points to."""
        return self._record(Run, "WHERE pk = ?", pk)

    # what runs logged

    def history(
        self, run: int, *, min_step: int | None = None, max_step: int | None = None, limit: int = -1
    ) -> list[str]:
        """Return the run's history rows as JSON texts in the order of logging.

        Args:
            min_step: the lowest ``_step``, inclusive.
            max_step: the ``_step`` to end before.
            limit: rows at most.
        """
        conditions, values = ["run = ?"], [run]
        if min_step is not None:
            conditions.append("coalesce(step, line) >= ?")
            values.append(_clamped(min_step))
        if max_step is not None:
            conditions.append("coalesce(step, line) < ?")
            values.append(_clamped(max_step))
        sql = f"SELECT body FROM history WHERE {' AND '.join(conditions)} ORDER BY line LIMIT ?"
        return self._objects("history", run, (row[0] for row in self._rows(sql, *values, limit)))

    def sampled(self, table: str, run: int, after: int, every: int) -> list[tuple[int, str]]:
        """Return (line, JSON text) of ``history`` or ``events`` after a line: those whose number is a multiple."""
        sql = f"SELECT line, body FROM {table} WHERE run = ? AND line > ? AND line % ? = 0 ORDER BY line"
        rows = self._rows(sql, run, after, every)
        return [(row[0], text) for row in rows if (text := strict_object(row[1])) is not None]

    def numbered_history(self, run: int) -> list[Line]:
        """Return the run's history with its row numbers, as it was sent."""
        rows = self._rows("SELECT line, body FROM history WHERE run = ? ORDER BY line", run)
        return [Line(row[0], row[1]) for row in rows if isinstance(row[0], int) and isinstance(row[1], str)]

    def _objects(self, table: str, run: int, texts: Iterable[Any]) -> list[str]:
        """Return the texts that hold a JSON object, as every client can read it."""
        objects = []
        for text in texts:
            readable = strict_object(text)
            if readable is None:
                warn(f"a row in {table} of the run with key {run}", f"no JSON object: {text!r:.60}")
            else:
                objects.append(readable)
        return objects

    def history_as_array(self, run: int, first: int, end: int, most: int) -> tuple[bytes, int] | None:
        """Return history rows ``first <= line < end`` as one JSON array, put together in SQLite, and the last line.

        None without rows.
        """
        sql = (
            "SELECT CAST('[' || group_concat(body, ',') || ']' AS BLOB), max(line)"
            " FROM (SELECT body, line FROM history WHERE run = ? AND line >= ? AND line < ? AND body IS NOT NULL"
            " ORDER BY line LIMIT ?)"
        )
        (row,) = self._rows(sql, run, first, end, most)
        return (row[0], row[1]) if row[0] is not None else None

    def count_history(self, run: int, first: int, end: int) -> int:
        """Return how many history rows the run has with ``first <= line < end``."""
        sql = "SELECT count(body) FROM history WHERE run = ? AND line >= ? AND line < ?"
        return int(self._value(sql, run, first, end))

    def history_line(self, run: int, line: int) -> str | None:
        """Return one history row as JSON text."""
        return _text(self._value("SELECT body FROM history WHERE run = ? AND line = ?", run, _clamped(line)))

    def last_step(self, run: int) -> int | None:
        """Return the highest ``_step`` of the run's history."""
        step = self._value("SELECT max(coalesce(step, line)) FROM history WHERE run = ?", run)
        return step if isinstance(step, int) else None

    def history_tail(self, run: int) -> str | None:
        """Return the last history row as JSON text."""
        return self._tail("history", run)

    def events(self, run: int) -> list[str]:
        """Return the run's system metrics as JSON texts."""
        rows = self._rows("SELECT body FROM events WHERE run = ? ORDER BY line", run)
        return self._objects("events", run, (row[0] for row in rows))

    def events_tail(self, run: int) -> str | None:
        """Return the last row of system metrics as JSON text."""
        return self._tail("events", run)

    def _tail(self, table: str, run: int) -> str | None:
        rows = self._rows(f"SELECT body FROM {table} WHERE run = ? ORDER BY line DESC LIMIT 1", run)
        return next(iter(self._objects(table, run, (row[0] for row in rows))), None)

    def console(self, run: int, *, after: int = -1, limit: int = -1) -> list[Line]:
        """Return lines of the run's console log whose number is above ``after``."""
        sql = "SELECT line, body FROM console WHERE run = ? AND line > ? ORDER BY line LIMIT ?"
        return _lines(self._rows(sql, run, after, limit))

    def console_tail(self, run: int, limit: int) -> list[Line]:
        """Return the last lines of the run's console log."""
        sql = "SELECT line, body FROM console WHERE run = ? ORDER BY line DESC LIMIT ?"
        return _lines(self._rows(sql, run, limit))[::-1]

    def curve(self, run: int) -> list[float]:
        """Return the run's logged finite values of its sweep's metric, in the order of logging."""
        sql = f"SELECT value FROM points WHERE run = ? AND {_FINITE} ORDER BY line"
        return [row[0] for row in self._rows(sql, run)]

    def first_point(self, run: int) -> int:
        """Return the lowest number of the run's values of the metric; 0 without any."""
        return int(self._value("SELECT line FROM points WHERE run = ? ORDER BY line LIMIT 1", run) or 0)

    def last_point(self, run: int) -> tuple[int, float] | None:
        """Return the number and the value of the run's last value of the metric."""
        sql = f"SELECT line, value FROM points WHERE run = ? AND {_FINITE} ORDER BY line DESC LIMIT 1"
        row = self._connection.execute(sql, (run,)).fetchone()
        return (row[0], row[1]) if row else None

    def curves(self, sweep: int) -> Mapping[int, Sequence[float]]:
        """Return by key, for every run of the sweep that has any, its logged finite values of the sweep's metric."""
        return {run: [value for _, value in points] for run, points in self.points(sweep).items()}

    def points_of_run(self, run: int) -> list[tuple[int, float]]:
        """Return (line of the history, value) of the metric's finite values; lines of the summary are negative."""
        sql = f"SELECT line, value FROM points WHERE run = ? AND {_FINITE} ORDER BY line"
        return [(row[0], row[1]) for row in self._rows(sql, run)]

    def points(self, sweep: int) -> dict[int, list[tuple[int, float]]]:
        """Return by key what ``points_of_run`` returns of every run of the sweep that has any."""
        points: dict[int, list[tuple[int, float]]] = {}
        sql = (
            "SELECT points.run, line, value FROM points JOIN runs ON runs.pk = points.run"
            f" WHERE sweep = ? AND {_FINITE} ORDER BY points.run, line"
        )
        cursor = self._connection.cursor()
        cursor.row_factory = None  # plain tuples take half the time
        for run, line, value in cursor.execute(sql, (sweep,)):
            points.setdefault(run, []).append((line, value))
        return points

    # files

    def files(self, run: int) -> list[StoredFile]:
        """Return the run's files by name."""
        return self._records(StoredFile, "WHERE run = ? ORDER BY name", run)

    def file(self, run: int, name: str) -> StoredFile | None:
        return self._record(StoredFile, "WHERE run = ? AND name = ?", run, name)

    def blob_of_file(self, pk: int) -> str | None:
        """Return the name of the blob that holds the file with that key."""
        return _text(self._value("SELECT blob FROM files WHERE pk = ?", pk))

    # artifacts

    def artifact(self, pk: int) -> Artifact | None:
        """Return the artifact that a record or a global id points to."""
        return self._record(Artifact, "WHERE pk = ?", pk)

    def artifacts(self, project: int, collection: str) -> list[Artifact]:
        """Return every version of the collection, incomplete ones included, newest first."""
        return self._records(Artifact, "WHERE project = ? AND collection = ? ORDER BY pk DESC", project, collection)

    def artifacts_of_run(self, run: int) -> list[Artifact]:
        """Return the artifacts that the run logged, oldest first."""
        return self._records(Artifact, "WHERE run = ? ORDER BY pk", run)

    def artifacts_logged_by(self, run: int) -> list[Artifact]:
        """Return the artifacts that the run logged, oldest first, also those whose content another run logged first."""
        rest = (
            "WHERE (run = ? OR pk IN (SELECT artifact FROM artifact_outputs WHERE run = ?))"
            f" AND {_HAS_PROJECT} ORDER BY pk"
        )
        return self._records(Artifact, rest, run, run)

    def artifact_of_client(self, client_id: str) -> Artifact | None:
        """Return the version that a client's own id means."""
        pk = self._value("SELECT artifact FROM artifact_client_ids WHERE client_id = ?", client_id)
        return self.artifact(pk) if pk is not None else self._record(Artifact, "WHERE client_id = ?", client_id)

    def artifact_reference(self, file: int) -> str | None:
        """Return the URL that a file of an artifact points to; None if the file is stored here."""
        return _text(self._value("SELECT url FROM artifact_references WHERE file = ?", file))

    def artifact_tags(self, artifact: int) -> list[str]:
        """Return the version's tags by name."""
        return _texts(self._rows("SELECT tag FROM artifact_tags WHERE artifact = ? ORDER BY tag", artifact))

    def collection_tags(self, project: int, collection: str) -> list[str]:
        """Return the collection's tags by name."""
        sql = "SELECT tag FROM collection_tags WHERE project = ? AND collection = ? ORDER BY tag"
        return _texts(self._rows(sql, project, collection))

    def collection_description(self, project: int, collection: str) -> str | None:
        sql = "SELECT description FROM collection_descriptions WHERE project = ? AND collection = ?"
        return _text(self._value(sql, project, collection))

    def blob_of_artifact_file(self, project: int, md5: str, name: str) -> str | None:
        """Return the blob of a committed file with that MD5 (base64); one whose last name is ``name`` comes first."""
        sql = (
            "SELECT blob FROM artifact_files JOIN artifacts ON artifacts.pk = artifact_files.artifact"
            " WHERE project = ? AND state = 'COMMITTED' AND md5 = ? AND blob IS NOT NULL"
            " ORDER BY name != ? LIMIT 1"
        )
        return _text(self._value(sql, project, md5, name))

    def artifacts_used_by(self, run: int) -> list[Artifact]:
        """Return the artifacts that the run used, oldest first."""
        rest = f"WHERE pk IN (SELECT artifact FROM artifact_uses WHERE run = ?) AND {_HAS_PROJECT} ORDER BY pk"
        return self._records(Artifact, rest, run)

    def runs_using(self, artifact: int) -> list[Run]:
        """Return the runs that used the artifact, oldest first."""
        rest = f"WHERE pk IN (SELECT run FROM artifact_uses WHERE artifact = ?) AND {_HAS_PROJECT} ORDER BY pk"
        return self._records(Run, rest, artifact)

    def collections(self, project: int) -> list[tuple[str, str]]:
        """Return (type, name) of the project's collections."""
        sql = "SELECT DISTINCT type, collection FROM artifacts WHERE project = ? AND version IS NOT NULL ORDER BY 1, 2"
        rows = self._rows(sql, project)
        return [(row[0], row[1]) for row in rows if isinstance(row[0], str) and isinstance(row[1], str)]

    def aliases(self, artifact: int) -> list[str]:
        """Return the names that point to this version."""
        sql = "SELECT alias FROM artifact_aliases WHERE artifact = ? ORDER BY alias"
        return _texts(self._rows(sql, artifact))

    def is_named(self, artifact: int) -> bool:
        """Return whether an alias or a tag names this version, or another run logged or used it."""
        tables = ("artifact_aliases", "artifact_tags", "artifact_uses", "artifact_outputs")
        return any(self._rows(f"SELECT 1 FROM {table} WHERE artifact = ? LIMIT 1", artifact) for table in tables)

    def artifact_with_alias(self, project: int, collection: str, alias: str) -> int | None:
        """Return the key of the version that a name points to."""
        sql = "SELECT artifact FROM artifact_aliases WHERE project = ? AND collection = ? AND alias = ?"
        pk: int | None = self._value(sql, project, collection, alias)
        return pk

    def artifact_files(self, artifact: int) -> list[ArtifactFile]:
        """Return the artifact's files by name."""
        return self._records(ArtifactFile, "WHERE artifact = ? ORDER BY name", artifact)

    def artifact_file(self, pk: int) -> ArtifactFile | None:
        return self._record(ArtifactFile, "WHERE pk = ?", pk)

    # the data folder

    def meta(self, key: str) -> str | None:
        """Return a fact about the data folder itself."""
        return _text(self._value("SELECT value FROM meta WHERE key = ?", key))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _texts(rows: Iterable[Any]) -> list[str]:
    return [row[0] for row in rows if isinstance(row[0], str)]


def _lines(rows: Iterable[Any]) -> list[Line]:
    """Return lines of which number and text are what they should be."""
    return [Line(row[0], row[1]) for row in rows if is_32_bit(row[0]) and isinstance(row[1], str)]


def _clamped(value: int) -> int:
    return max(-(2**63), min(value, 2**63 - 1))
