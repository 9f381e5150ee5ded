"""The data folder: one SQLite database, written through one connection, and the bytes of files beside it.

A request that changes something is one transaction, committed before its reply is sent. ``synchronous=FULL`` makes
SQLite wait for the disk at every commit: with NORMAL a power cut could take back commits whose reply a client has
already acted on, and a trial never sends an acknowledged row again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import queue
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from amc_server.curves import CurveCache
from amc_server.records import Agent, Artifact, ArtifactFile, Line, Member, Project, Run, StoredFile, Sweep
from amc_server.schema import SchemaError, migrate

BUSY_TIMEOUT_S = 10.0

# RunState.is_alive in SQL; spelled as in the index on it.
_LIVING = "state IN ('pending', 'running', 'preempting')"


class StorageError(RuntimeError):
    """The data folder cannot be used; the message says what to do."""


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
        sql = f"SELECT {Run.columns()} FROM runs WHERE sweep = ? AND {_LIVING} ORDER BY pk"
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


class Writer(Reader):
    """Questions and changes, within one transaction."""

    def __init__(self, connection: sqlite3.Connection, cache: CurveCache) -> None:
        super().__init__(connection)
        self._cache = cache

    def curves(self, sweep: int) -> Mapping[int, Sequence[float]]:
        """Return by key, for every run of the sweep that has any, its logged finite values of the sweep's metric."""
        known = self._cache.curves(sweep)
        if known is None:
            self._cache.keep(sweep, self._points(sweep))
            known = self._cache.curves(sweep) or {}
        return known

    def insert(self, table: str, **values: Any) -> int:
        """Add a row and return its key."""
        names, marks = ", ".join(values), ", ".join("?" * len(values))
        cursor = self._connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(values.values()))
        return int(cursor.lastrowid or 0)

    def update(self, table: str, pk: int, **values: Any) -> None:
        """Change columns of the row with that key."""
        if values:
            changes = ", ".join(f"{name} = ?" for name in values)
            self._connection.execute(f"UPDATE {table} SET {changes} WHERE pk = ?", (*values.values(), pk))

    def delete(self, table: str, pk: int) -> None:
        """Remove the row with that key and all that belongs to it."""
        self._cache.drop()
        self._connection.execute(f"DELETE FROM {table} WHERE pk = ?", (pk,))

    def put_history(self, run: int, lines: Iterable[Line]) -> None:
        """Write history rows; a row number that exists is overwritten."""
        self._connection.executemany(
            "INSERT INTO history (run, line, step, body) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (run, line) DO UPDATE SET step = excluded.step, body = excluded.body",
            [(run, line.number, line.step, line.body) for line in lines],
        )

    def put_lines(self, table: str, run: int, lines: Iterable[Line]) -> None:
        """Write lines of ``events`` or ``console``; a line number that exists is overwritten."""
        self._connection.executemany(
            f"INSERT INTO {table} (run, line, body) VALUES (?, ?, ?)"
            " ON CONFLICT (run, line) DO UPDATE SET body = excluded.body",
            [(run, line.number, line.body) for line in lines],
        )

    def put_points(self, sweep: int, run: int, first: int, end: int, points: Sequence[tuple[int, float]]) -> None:
        """Replace the metric's values of the history rows ``first <= line < end`` by (line, value) pairs."""
        if not self._cache.grow(sweep, run, first, points):
            self._cache.drop()
        self._connection.execute("DELETE FROM points WHERE run = ? AND line >= ? AND line < ?", (run, first, end))
        self._connection.executemany(
            "INSERT INTO points (run, line, value) VALUES (?, ?, ?)", [(run, line, value) for line, value in points]
        )

    def numbered_history(self, run: int) -> list[Line]:
        """Return the run's history with its row numbers."""
        return [Line(row[0], row[1]) for row in self._all("SELECT line, body FROM history WHERE run = ?", run)]

    def put_file(self, run: int, *, name: str, blob: str, size: int, md5: str, updated_at: float) -> None:
        """Record a file; one of the same name is replaced."""
        self._connection.execute(
            "INSERT INTO files (run, name, blob, size, md5, updated_at) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (run, name) DO UPDATE SET blob = excluded.blob, size = excluded.size, md5 = excluded.md5,"
            " updated_at = excluded.updated_at",
            (run, name, blob, size, md5, updated_at),
        )

    def put_alias(self, artifact: Artifact, alias: str) -> None:
        """Let a name point to this version, and to no other of its collection."""
        self._connection.execute(
            "INSERT INTO artifact_aliases (artifact, project, collection, alias) VALUES (?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET artifact = excluded.artifact",
            (artifact.pk, artifact.project, artifact.collection, alias),
        )

    def remove_alias(self, artifact: Artifact, alias: str) -> None:
        """Let a name no longer point to this version."""
        self._connection.execute("DELETE FROM artifact_aliases WHERE artifact = ? AND alias = ?", (artifact.pk, alias))

    def put_use(self, run: int, artifact: int) -> None:
        """Record that a run used an artifact."""
        self._connection.execute("INSERT OR IGNORE INTO artifact_uses (run, artifact) VALUES (?, ?)", (run, artifact))

    def set_meta(self, key: str, value: str) -> None:
        """Record a fact about the data folder itself."""
        self._connection.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (key, value))


class Storage:
    """One writer connection behind a lock, and as many readers as there are requests at once."""

    def __init__(self, folder: Path) -> None:
        """Open the data folder, making it where there is none.

        Raises:
            StorageError: when the folder cannot be written, another server uses it, or it is from a newer version.
        """
        self.folder = folder
        self._path = folder / "amc.sqlite3"
        with contextlib.ExitStack() as opened:
            claim = opened.enter_context(_claim(folder))
            try:
                self._writer = self._connect()
                opened.callback(self._writer.close)
                migrate(self._writer)
            except SchemaError as error:
                raise StorageError(f"{self._path}: {error}") from error
            except sqlite3.Error as error:
                raise StorageError(
                    f"{self._path} cannot be opened: {error}. Restore a backup, or choose another --data folder."
                ) from error
            opened.pop_all()
        self._claim = claim
        self._lock = threading.Lock()
        self._curves = CurveCache()
        self._idle: queue.SimpleQueue[sqlite3.Connection] = queue.SimpleQueue()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        connection.row_factory = sqlite3.Row
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")  # why: see the top of this module
            connection.execute("PRAGMA foreign_keys = ON")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    @contextlib.contextmanager
    def write(self) -> Iterator[Writer]:
        """Give a transaction, committed to disk when the block ends and undone when it raises."""
        with self._lock:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield Writer(self._writer, self._curves)
                self._writer.execute("COMMIT")
            except BaseException:
                self._curves.drop()
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def read(self) -> Iterator[Reader]:
        """Give a snapshot that no writer disturbs."""
        try:
            connection = self._idle.get_nowait()
        except queue.Empty:
            connection = self._connect()
        connection.execute("BEGIN")
        try:
            yield Reader(connection)
        finally:
            connection.execute("ROLLBACK")
            self._idle.put(connection)

    def size(self) -> int:
        """Return the bytes that the database takes on disk, its write-ahead log included."""
        paths = (self._path, self._path.with_name(f"{self._path.name}-wal"))
        return sum(path.stat().st_size for path in paths if path.exists())

    def close(self) -> None:
        """Close every connection and leave the folder to others."""
        with self._lock:
            while not self._idle.empty():
                self._idle.get_nowait().close()
            self._writer.close()
        self._claim.close()


def _claim(folder: Path) -> BinaryIO:
    """Make the folder ours as long as the process lives; the kernel frees it however the process ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (folder / "lock").open("a+b")
    except OSError as error:
        raise StorageError(
            f"the data folder {folder} cannot be written ({error.strerror}). Choose another with --data."
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.seek(0)
        holder = lock.read().decode(errors="replace").strip() or "unknown"
        lock.close()
        raise StorageError(
            f"another server (process {holder}) uses the data folder {folder}. Stop it, or choose another with --data."
        ) from error
    lock.truncate(0)
    lock.write(str(os.getpid()).encode())
    lock.flush()
    return lock


def _existing(row: sqlite3.Row | None) -> sqlite3.Row:
    if row is None:
        raise LookupError("a record points to a row that is not there")
    return row


def _integer(value: int) -> int:
    """Return the number, or the nearest that SQLite can hold."""
    return max(-(2**63), min(value, 2**63 - 1))
