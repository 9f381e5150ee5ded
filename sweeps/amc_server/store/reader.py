"""What the database is asked: every question in SQL that only reads, and the records that answer it.

A ``Reader`` sees one snapshot. It is handed out by ``storage.Storage.read``; a ``writer.Writer`` asks the same
questions within its transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from amc_server.store.records import Agent, Artifact, ArtifactFile, Line, Member, Project, Run, StoredFile, Sweep

# RunState.is_alive in SQL; spelled as in the index on it.
_LIVING = "state IN ('pending', 'running', 'preempting')"
# Few of a sweep's thousands of runs live, and SQLite would rather walk over all in the order that is asked for.
_BY_STATE = "INDEXED BY runs_of_sweep_by_state"
# Member.is_waiting in SQL: queued or never taken up, or preempted; unless somebody wants it ended.
_WAITING = (
    "state IN ('pending', 'preempted') AND (state = 'preempted' OR agent IS NULL)"
    " AND stop_reason IS NULL AND given_up = 0"
)


class Reader:
    """Questions to the database, within one snapshot of it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def _all(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        return self._connection.execute(sql, values).fetchall()

    def _one(self, sql: str, *values: Any) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self._connection.execute(sql, values).fetchone()
        return row

    # projects and sweeps

    def projects(self, entity: str) -> list[Project]:
        """Return the entity's projects, newest first."""
        rows = self._all(
            f"SELECT {Project.columns()} FROM projects WHERE entity = ? ORDER BY created_at DESC, pk DESC", entity
        )
        return [Project.of(row) for row in rows]

    def project(self, entity: str, name: str) -> Project | None:
        """Return the project of that name."""
        row = self._one(f"SELECT {Project.columns()} FROM projects WHERE entity = ? AND name = ?", entity, name)
        return Project.of(row) if row else None

    def project_by_key(self, pk: int) -> Project:
        """Return the project that a record points to."""
        return Project.of(_existing(self._one(f"SELECT {Project.columns()} FROM projects WHERE pk = ?", pk)))

    def sweeps(self, project: int) -> list[Sweep]:
        """Return the project's sweeps, newest first."""
        rows = self._all(
            f"SELECT {Sweep.columns()} FROM sweeps WHERE project = ? ORDER BY created_at DESC, pk DESC", project
        )
        return [Sweep.of(row) for row in rows]

    def open_sweeps(self) -> list[Sweep]:
        """Return the sweeps that have not ended."""
        rows = self._all(f"SELECT {Sweep.columns()} FROM sweeps WHERE state IN ('PENDING', 'RUNNING', 'PAUSED')")
        return [Sweep.of(row) for row in rows]

    def sweep(self, project: int, sweep_id: str) -> Sweep | None:
        """Return the project's sweep of that id."""
        row = self._one(f"SELECT {Sweep.columns()} FROM sweeps WHERE project = ? AND id = ?", project, sweep_id)
        return Sweep.of(row) if row else None

    def sweep_by_id(self, sweep_id: str) -> Sweep | None:
        """Return the sweep of that id, whatever its project."""
        row = self._one(f"SELECT {Sweep.columns()} FROM sweeps WHERE id = ?", sweep_id)
        return Sweep.of(row) if row else None

    def sweep_by_key(self, pk: int) -> Sweep | None:
        """Return the sweep that a record or a global id points to."""
        row = self._one(f"SELECT {Sweep.columns()} FROM sweeps WHERE pk = ?", pk)
        return Sweep.of(row) if row else None

    def count_sweeps(self) -> int:
        """Return how many sweeps were ever created (deleted ones of the highest key apart)."""
        return int(_existing(self._one("SELECT coalesce(max(pk), 0) FROM sweeps"))[0])

    # agents

    def agents(self, sweep: int) -> list[Agent]:
        """Return the sweep's agents, oldest first."""
        return [
            Agent.of(row)
            for row in self._all(f"SELECT {Agent.columns()} FROM agents WHERE sweep = ? ORDER BY pk", sweep)
        ]

    def agent_by_key(self, pk: int) -> Agent | None:
        """Return the agent that a global id points to."""
        row = self._one(f"SELECT {Agent.columns()} FROM agents WHERE pk = ?", pk)
        return Agent.of(row) if row else None

    # runs

    def runs(self, project: int) -> list[Run]:
        """Return the project's runs, oldest first."""
        return [
            Run.of(row) for row in self._all(f"SELECT {Run.columns()} FROM runs WHERE project = ? ORDER BY pk", project)
        ]

    def runs_of_sweep(self, sweep: int) -> list[Run]:
        """Return the sweep's runs, oldest first."""
        return [
            Run.of(row) for row in self._all(f"SELECT {Run.columns()} FROM runs WHERE sweep = ? ORDER BY pk", sweep)
        ]

    def members(self, sweep: int) -> list[Member]:
        """Return the sweep's runs, oldest first, without what their trials say; a tenth of the cost."""
        sql = f"SELECT {Member.columns()} FROM runs WHERE sweep = ? ORDER BY pk"
        return [Member.of(row) for row in self._all(sql, sweep)]

    def members_since(self, sweep: int, pk: int) -> list[tuple[int, str | None]]:
        """Return (key, parameters as JSON) of the sweep's runs with a key above ``pk``, oldest first."""
        rows = self._all("SELECT pk, parameters FROM runs WHERE sweep = ? AND pk > ? ORDER BY pk", sweep, pk)
        return [(row[0], row[1]) for row in rows]

    def waiting_run(self, sweep: int) -> Run | None:
        """Return the sweep's oldest run that may be handed out to the next agent that asks."""
        sql = f"SELECT {Run.columns()} FROM runs {_BY_STATE} WHERE sweep = ? AND {_WAITING} ORDER BY pk LIMIT 1"
        row = self._one(sql, sweep)
        return Run.of(row) if row else None

    def is_over(self, sweep: int) -> bool:
        """Return whether nothing is left to wait for: none of its runs is alive and none may be handed out again."""
        sql = (
            f"SELECT 1 FROM runs {_BY_STATE} WHERE sweep = ?"
            " AND state IN ('pending', 'running', 'preempting', 'preempted')"
            " AND (state != 'preempted' OR (stop_reason IS NULL AND given_up = 0)) LIMIT 1"
        )
        return self._one(sql, sweep) is None

    def count_runs_begun(self, sweep: int) -> int:
        """Return how many runs the sweep itself has begun; adopted ones do not count against ``run_cap``."""
        sql = "SELECT count(*) FROM runs WHERE sweep = ? AND origin IN ('search', 'queue')"
        return int(_existing(self._one(sql, sweep))[0])

    def count_runs_of_sweep(self, sweep: int) -> int:
        """Return how many runs the sweep has."""
        return int(_existing(self._one("SELECT count(*) FROM runs WHERE sweep = ?", sweep))[0])

    def count_runs_of_agent(self, agent: int) -> int:
        """Return how many runs were last handed out to the agent."""
        return int(_existing(self._one("SELECT count(*) FROM runs WHERE agent = ?", agent))[0])

    def living_runs(self) -> list[Run]:
        """Return the runs of all projects whose state is not a final one."""
        rows = self._all(f"SELECT {Run.columns()} FROM runs WHERE {_LIVING}")
        return [Run.of(row) for row in rows]

    def living_runs_of_sweep(self, sweep: int) -> list[Run]:
        """Return the sweep's runs whose state is not a final one, oldest first."""
        sql = f"SELECT {Run.columns()} FROM runs {_BY_STATE} WHERE sweep = ? AND {_LIVING} ORDER BY pk"
        return [Run.of(row) for row in self._all(sql, sweep)]

    def run(self, project: int, run_id: str) -> Run | None:
        """Return the project's run of that id."""
        row = self._one(f"SELECT {Run.columns()} FROM runs WHERE project = ? AND id = ?", project, run_id)
        return Run.of(row) if row else None

    def run_by_key(self, pk: int) -> Run | None:
        """Return the run that a record or a global id points to."""
        row = self._one(f"SELECT {Run.columns()} FROM runs WHERE pk = ?", pk)
        return Run.of(row) if row else None

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
            values.append(_integer(min_step))
        if max_step is not None:
            conditions.append("coalesce(step, line) < ?")
            values.append(_integer(max_step))
        sql = f"SELECT body FROM history WHERE {' AND '.join(conditions)} ORDER BY line LIMIT ?"
        return [row[0] for row in self._all(sql, *values, limit)]

    def history_as_array(self, run: int, first: int, end: int) -> bytes | None:
        """Return the run's history rows ``first <= line < end`` as one JSON array, put together in SQLite.

        None where there are none.
        """
        sql = (
            "SELECT CAST('[' || group_concat(body, ',') || ']' AS BLOB)"
            " FROM (SELECT body FROM history WHERE run = ? AND line >= ? AND line < ? ORDER BY line)"
        )
        found: bytes | None = _existing(self._one(sql, run, first, end))[0]
        return found

    def count_history(self, run: int, first: int) -> int:
        """Return how many history rows the run has from a line number on."""
        sql = "SELECT count(*) FROM history WHERE run = ? AND line >= ?"
        return int(_existing(self._one(sql, run, first))[0])

    def history_line(self, run: int, line: int) -> str | None:
        """Return one history row as JSON text."""
        row = self._one("SELECT body FROM history WHERE run = ? AND line = ?", run, line)
        return row[0] if row else None

    def last_step(self, run: int) -> int | None:
        """Return the highest ``_step`` of the run's history."""
        found = _existing(self._one("SELECT max(coalesce(step, line)) FROM history WHERE run = ?", run))[0]
        return None if found is None else int(found)

    def history_tail(self, run: int) -> str | None:
        """Return the last history row as JSON text."""
        row = self._one("SELECT body FROM history WHERE run = ? ORDER BY line DESC LIMIT 1", run)
        return row[0] if row else None

    def events(self, run: int) -> list[str]:
        """Return the run's system metrics as JSON texts."""
        return [row[0] for row in self._all("SELECT body FROM events WHERE run = ? ORDER BY line", run)]

    def events_tail(self, run: int) -> str | None:
        """Return the last row of system metrics as JSON text."""
        row = self._one("SELECT body FROM events WHERE run = ? ORDER BY line DESC LIMIT 1", run)
        return row[0] if row else None

    def console(self, run: int, *, after: int = -1, limit: int = -1) -> list[Line]:
        """Return lines of the run's console log whose number is above ``after``."""
        sql = "SELECT line, body FROM console WHERE run = ? AND line > ? ORDER BY line LIMIT ?"
        return [Line(row[0], row[1]) for row in self._all(sql, run, after, limit)]

    def console_tail(self, run: int, limit: int) -> list[Line]:
        """Return the last lines of the run's console log."""
        sql = "SELECT line, body FROM console WHERE run = ? ORDER BY line DESC LIMIT ?"
        return [Line(row[0], row[1]) for row in self._all(sql, run, limit)][::-1]

    def curve(self, run: int) -> list[float]:
        """Return the run's logged finite values of its sweep's metric, in the order of logging."""
        return [row[0] for row in self._all("SELECT value FROM points WHERE run = ? ORDER BY line", run)]

    def curves(self, sweep: int) -> Mapping[int, Sequence[float]]:
        """Return by key, for every run of the sweep that has any, its logged finite values of the sweep's metric."""
        return {run: [value for _, value in points] for run, points in self._points(sweep).items()}

    def _points(self, sweep: int) -> dict[int, list[tuple[int, float]]]:
        found: dict[int, list[tuple[int, float]]] = {}
        sql = (
            "SELECT points.run, line, value FROM points JOIN runs ON runs.pk = points.run"
            " WHERE sweep = ? ORDER BY points.run, line"
        )
        for run, line, value in self._connection.execute(sql, (sweep,)):
            found.setdefault(run, []).append((line, value))
        return found

    # files

    def files(self, run: int) -> list[StoredFile]:
        """Return the run's files by name."""
        return [
            StoredFile.of(row)
            for row in self._all(f"SELECT {StoredFile.columns()} FROM files WHERE run = ? ORDER BY name", run)
        ]

    def file(self, run: int, name: str) -> StoredFile | None:
        """Return the run's file of that name."""
        row = self._one(f"SELECT {StoredFile.columns()} FROM files WHERE run = ? AND name = ?", run, name)
        return StoredFile.of(row) if row else None

    def blob_of_file(self, pk: int) -> str | None:
        """Return where the bytes of a file are, by its key."""
        row = self._one("SELECT blob FROM files WHERE pk = ?", pk)
        return row[0] if row else None

    # artifacts

    def artifact(self, pk: int) -> Artifact | None:
        """Return the artifact that a record or a global id points to."""
        row = self._one(f"SELECT {Artifact.columns()} FROM artifacts WHERE pk = ?", pk)
        return Artifact.of(row) if row else None

    def artifacts(self, project: int, collection: str) -> list[Artifact]:
        """Return every version of the collection, those that are still arriving too, newest first."""
        sql = f"SELECT {Artifact.columns()} FROM artifacts WHERE project = ? AND collection = ? ORDER BY pk DESC"
        return [Artifact.of(row) for row in self._all(sql, project, collection)]

    def artifacts_of_run(self, run: int) -> list[Artifact]:
        """Return what the run logged, oldest first."""
        sql = f"SELECT {Artifact.columns()} FROM artifacts WHERE run = ? ORDER BY pk"
        return [Artifact.of(row) for row in self._all(sql, run)]

    def artifacts_used_by(self, run: int) -> list[Artifact]:
        """Return what the run used, oldest first."""
        sql = (
            f"SELECT {Artifact.columns()} FROM artifacts"
            " WHERE pk IN (SELECT artifact FROM artifact_uses WHERE run = ?) ORDER BY pk"
        )
        return [Artifact.of(row) for row in self._all(sql, run)]

    def runs_using(self, artifact: int) -> list[Run]:
        """Return the runs that used the artifact, oldest first."""
        sql = (
            f"SELECT {Run.columns()} FROM runs"
            " WHERE pk IN (SELECT run FROM artifact_uses WHERE artifact = ?) ORDER BY pk"
        )
        return [Run.of(row) for row in self._all(sql, artifact)]

    def collections(self, project: int) -> list[tuple[str, str]]:
        """Return (type, name) of the project's collections."""
        sql = "SELECT DISTINCT type, collection FROM artifacts WHERE project = ? AND version IS NOT NULL ORDER BY 1, 2"
        return [(row[0], row[1]) for row in self._all(sql, project)]

    def aliases(self, artifact: int) -> list[str]:
        """Return the names that point to this version."""
        sql = "SELECT alias FROM artifact_aliases WHERE artifact = ? ORDER BY alias"
        return [row[0] for row in self._all(sql, artifact)]

    def aliased(self, project: int, collection: str, alias: str) -> int | None:
        """Return the key of the version that a name points to."""
        sql = "SELECT artifact FROM artifact_aliases WHERE project = ? AND collection = ? AND alias = ?"
        row = self._one(sql, project, collection, alias)
        return row[0] if row else None

    def artifact_files(self, artifact: int) -> list[ArtifactFile]:
        """Return the artifact's files by name."""
        sql = f"SELECT {ArtifactFile.columns()} FROM artifact_files WHERE artifact = ? ORDER BY name"
        return [ArtifactFile.of(row) for row in self._all(sql, artifact)]

    def artifact_file(self, pk: int) -> ArtifactFile | None:
        """Return the file of an artifact by its key."""
        row = self._one(f"SELECT {ArtifactFile.columns()} FROM artifact_files WHERE pk = ?", pk)
        return ArtifactFile.of(row) if row else None

    def count_states(self, table: str) -> dict[str, int]:
        """Return how many rows of ``runs`` or ``sweeps`` are in which state."""
        return {row[0]: row[1] for row in self._all(f"SELECT state, count(*) FROM {table} GROUP BY state")}

    def meta(self, key: str) -> str | None:
        """Return a fact about the data folder itself."""
        row = self._one("SELECT value FROM meta WHERE key = ?", key)
        return row[0] if row else None


def _existing(row: sqlite3.Row | None) -> sqlite3.Row:
    if row is None:
        raise LookupError("a record points to a row that is not there")
    return row


def _integer(value: int) -> int:
    """Return the number, or the nearest that SQLite can hold."""
    return max(-(2**63), min(value, 2**63 - 1))
