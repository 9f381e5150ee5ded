"""A cache of the runs that were read on this machine: the next reading asks only for new rows, or for none offline.

There is one SQLite file for every server, in the user's cache folder (``$XDG_CACHE_HOME`` or ``~/.cache``). Each run
is written as it arrives, so that Ctrl-C loses at most the run at hand. Several processes may use one file. A file that
cannot be used is deleted, because everything in it can be read again from its server.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
import urllib.parse
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import platformdirs

from amc_analysis.reading.serialisation import run_from_json, run_to_json, sweep_from_json, sweep_to_json
from amc_analysis.reading.sources import HistoryPosition, RunUpdate, Selection, SweepMetadata
from amc_analysis.runs.history import Column, History
from amc_sweeps.runs.records import RunRecord

VERSION = 3  # of the tables and their content; a file of another version is emptied
BUSY_TIMEOUT_S = 30.0
PAGE_BYTES = 65536  # a history is 50 kB: with SQLite's 4 kB it is read in thirteen pieces
NOT_WHOLE = ""  # the token of a history that was not read to its end: it is read again
NEVER_READ = 0.0  # `read_at` of a selection that was never read to its end

_TABLES = """
CREATE TABLE runs (
    project TEXT NOT NULL,    -- ENTITY/PROJECT
    id TEXT NOT NULL,
    head TEXT NOT NULL,       -- the run as JSON, see serialisation.py
    token TEXT NOT NULL,      -- this and the next two: sources.HistoryPosition
    lines INTEGER NOT NULL,
    last_step INTEGER,
    history BLOB NOT NULL,    -- see pack_history()
    PRIMARY KEY (project, id)
);
CREATE TABLE selections (
    project TEXT NOT NULL,
    key TEXT NOT NULL,        -- sources.Selection.key
    head TEXT NOT NULL,       -- the sweep as JSON, see serialisation.py
    runs TEXT NOT NULL,       -- JSON list of run ids, in their order
    read_at REAL NOT NULL,    -- Unix time, NEVER_READ before the first complete reading
    PRIMARY KEY (project, key)
);
CREATE TABLE evaluations (
    project TEXT NOT NULL,
    id TEXT NOT NULL,         -- the run's
    content BLOB NOT NULL,    -- the evaluation's file, see evaluations.py
    PRIMARY KEY (project, id)
);
"""


def cache_folder() -> Path:
    """Return where caches are."""
    return platformdirs.user_cache_path("amc-analyze")


def cache_path(base_url: str, folder: Path) -> Path:
    """Return the file of one server."""
    url = base_url.rstrip("/")
    readable = re.sub(r"[^\w.-]+", "_", urllib.parse.urlsplit(url).netloc)[:60]
    return folder / f"{readable}_{hashlib.sha256(url.encode()).hexdigest()[:12]}.sqlite3"


class Cache:
    """The cache of one server; a context manager."""

    def __init__(self, path: Path) -> None:
        """Open the file, or create it.

        Raises:
            OSError: when it can be neither read nor created.
        """
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path = path
        try:
            self._connection = self._open()
        except sqlite3.OperationalError as error:  # locked for too long, or a disk that cannot be written
            raise OSError(f"the cache {path} cannot be used: {error}") from error
        except sqlite3.DatabaseError:  # not a database, or a damaged one
            path.unlink(missing_ok=True)
            self._connection = self._open()

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        try:
            self.path.chmod(0o600)
            connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")  # of a new file
            connection.execute("PRAGMA synchronous = OFF")  # after a power cut the runs are read again
            if connection.execute("PRAGMA user_version").fetchone()[0] != VERSION:
                self._create_tables(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    @staticmethod
    def _create_tables(connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        if connection.execute("PRAGMA user_version").fetchone()[0] != VERSION:  # another process may have created them
            for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                connection.execute(f'DROP TABLE "{name}"')
            for statement in _TABLES.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")

    def __enter__(self) -> Cache:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def projects(self, selection: Selection, *, only_complete: bool = False) -> list[str]:
        """Return every ENTITY/PROJECT in which a selection was read; an entity or project of None matches any.

        Args:
            selection: the selection.
            only_complete: leave out those whose every reading was interrupted.
        """
        rows = self._connection.execute("SELECT project, read_at FROM selections WHERE key = ?", (selection.key,))
        return sorted(
            project
            for project, read_at in rows
            if not (only_complete and read_at == NEVER_READ)
            and selection.entity in (None, project.partition("/")[0])
            and selection.project in (None, project.partition("/")[2])
        )

    def positions(self, project: str) -> dict[str, HistoryPosition]:
        """Return for every cached run of ENTITY/PROJECT how far its history was read."""
        sql = "SELECT id, token, lines, last_step FROM runs WHERE project = ? AND token != ?"
        rows = self._connection.execute(sql, (project, NOT_WHOLE))
        return {run_id: HistoryPosition(token, lines, last_step) for run_id, token, lines, last_step in rows}

    def history(self, project: str, run_id: str, position: HistoryPosition) -> History | None:
        """Return a run's rows up to a position; None where another process changed them, or they are damaged."""
        row = self._connection.execute(
            "SELECT history FROM runs WHERE project = ? AND id = ? AND token = ? AND lines = ?",
            (project, run_id, position.token, position.lines),
        ).fetchone()
        return None if row is None else unpack_history(row[0])

    def selection(self, project: str, selection: Selection) -> tuple[SweepMetadata, list[RunRecord], datetime] | None:
        """Return a selection as it was last read, with histories; None where no reading was complete.

        A run without a usable history is marked as unread.
        """
        sql = "SELECT head, runs, read_at FROM selections WHERE project = ? AND key = ?"
        row = self._connection.execute(sql, (project, selection.key)).fetchone()
        if row is None or row[2] == NEVER_READ:
            return None
        runs: list[RunRecord] = []
        for run_id in json.loads(row[1]):
            sql = "SELECT head, history FROM runs WHERE project = ? AND id = ?"
            run = self._connection.execute(sql, (project, run_id)).fetchone()
            history = None if run is None else unpack_history(run[1])
            head = {"run_id": run_id, "name": run_id, "state": "unknown"} if run is None else json.loads(run[0])
            if history is None:
                head["unread"] = "the cache does not have its history"
            runs.append(run_from_json(head, history or History()))
        return sweep_from_json(json.loads(row[0])), runs, datetime.fromtimestamp(row[2], UTC)

    def evaluation(self, project: str, run_id: str) -> bytes | None:
        """Return the cached evaluation of a run; None without one."""
        sql = "SELECT content FROM evaluations WHERE project = ? AND id = ?"
        row = self._connection.execute(sql, (project, run_id)).fetchone()
        return None if row is None else bytes(row[0])

    def put_evaluation(self, project: str, run_id: str, content: bytes) -> None:
        """Store a run's evaluation in place of an earlier one."""
        sql = "INSERT OR REPLACE INTO evaluations (project, id, content) VALUES (?, ?, ?)"
        self._connection.execute(sql, (project, run_id, content))

    def begin(self, selection: Selection, sweep: SweepMetadata) -> None:
        """Store a selection without runs, so that the runs of an interrupted reading are found again."""
        self._connection.execute(
            "INSERT OR IGNORE INTO selections (project, key, head, runs, read_at) VALUES (?, ?, ?, '[]', ?)",
            (*_key_of(selection, sweep), _to_text(sweep_to_json(sweep)), NEVER_READ),
        )

    def put(self, project: str, update: RunUpdate, history: History) -> None:
        """Store a run with its whole history; one that could not be read now replaces no whole history."""
        key, run, position = (project, update.run.run_id), _to_text(run_to_json(update.run)), update.position
        if update.run.unread is not None:
            self._connection.execute(
                "INSERT INTO runs (project, id, head, token, lines, history) VALUES (?, ?, ?, ?, 0, ?)"
                " ON CONFLICT DO UPDATE SET head = excluded.head, history = excluded.history WHERE token = ?",
                (*key, run, NOT_WHOLE, pack_history(history), NOT_WHOLE),
            )
            return
        row = self._connection.execute("SELECT head FROM runs WHERE project = ? AND id = ?", key).fetchone()
        if row is not None and not update.is_whole and update.rows.length == 0:
            if row[0] != run:
                self._connection.execute("UPDATE runs SET head = ? WHERE project = ? AND id = ?", (run, *key))
            return
        self._connection.execute(
            "INSERT OR REPLACE INTO runs (project, id, head, token, lines, last_step, history)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (*key, run, position.token, position.lines, position.last_step, pack_history(history)),
        )

    def finish(self, selection: Selection, sweep: SweepMetadata, run_ids: list[str], read_at: datetime) -> None:
        """Store which runs a selection has, and delete its earlier runs that are not among them."""
        key = _key_of(selection, sweep)
        self._connection.execute("BEGIN IMMEDIATE")
        row = self._connection.execute("SELECT runs FROM selections WHERE project = ? AND key = ?", key).fetchone()
        deleted = set(json.loads(row[0])) - set(run_ids) if row else set()
        for table in ("runs", "evaluations"):
            self._connection.executemany(
                f"DELETE FROM {table} WHERE project = ? AND id = ?", [(key[0], run_id) for run_id in deleted]
            )
        self._connection.execute(
            "INSERT OR REPLACE INTO selections (project, key, head, runs, read_at) VALUES (?, ?, ?, ?, ?)",
            (*key, _to_text(sweep_to_json(sweep)), json.dumps(run_ids), read_at.timestamp()),
        )
        self._connection.execute("COMMIT")


def _key_of(selection: Selection, sweep: SweepMetadata) -> tuple[str, str]:
    return f"{sweep.entity}/{sweep.project}", selection.key


def _to_text(content: Mapping[str, Any]) -> str:
    return json.dumps(content, default=str)


def pack_history(history: History) -> bytes:
    """Return a history as bytes: a checksum, a line of JSON, then the numbers as they are in memory.

    A column with a value in every row is stored without its positions.
    """
    names, counts, arrays = [], [], []
    for name, column in history.columns.items():
        is_full = len(column) == history.length
        names.append(name)
        counts.append(-1 if is_full else len(column))
        if not is_full:
            arrays.append(column.rows.astype("<i8").tobytes())
        arrays.append(column.values.astype("<f8").tobytes())
    line = json.dumps({"length": history.length, "names": names, "counts": counts}).encode() + b"\n"
    body = line + b" " * (-len(line) % 8) + b"".join(arrays)
    return zlib.crc32(body).to_bytes(8, "little") + body


def unpack_history(blob: bytes) -> History | None:
    """Return the history that was packed; None where the bytes are damaged."""
    body = memoryview(blob)[8:]
    if len(blob) < 8 or int.from_bytes(blob[:8], "little") != zlib.crc32(body):
        return None
    end = blob.index(b"\n", 8) + 1
    line = orjson.loads(blob[8:end])
    length, offset = line["length"], end + (-(end - 8) % 8)
    all_rows = np.arange(length)
    if set(line["counts"]) == {-1}:
        values = np.frombuffer(blob, "<f8", length * len(line["names"]), offset).reshape(-1, length)
        return History(length, {name: Column(all_rows, row) for name, row in zip(line["names"], values, strict=True)})
    columns = {}
    for name, count in zip(line["names"], line["counts"], strict=True):
        rows, size = all_rows, length
        if count >= 0:
            rows, size = np.frombuffer(blob, "<i8", count, offset), count
            offset += 8 * count
        columns[name] = Column(rows, np.frombuffer(blob, "<f8", size, offset))
        offset += 8 * size
    return History(length, columns)
