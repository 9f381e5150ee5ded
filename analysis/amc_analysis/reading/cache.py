"""What was read before, on this machine: a second reading asks for what is new only, and works without a network.

One SQLite file for every server, in the user's cache folder (``$XDG_CACHE_HOME`` or ``~/.cache``). A run is written
as it arrives, so that Ctrl-C loses no more than the run at hand; two processes may work on one file. Everything in it
can be read again from where it came: a file that cannot be used is thrown away.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import sqlite3
import time
import urllib.parse
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import orjson
import platformdirs

from amc_analysis.reading.serialisation import run_from_json, run_to_json, sweep_from_json, sweep_to_json
from amc_analysis.reading.sources import Mark, Part, Selection, SweepHead
from amc_analysis.runs.history import Column, History
from amc_analysis.runs.records import with_history
from amc_sweeps.runs.records import RunRecord

VERSION = 2  # of the tables and of what is in them; a file of another one is thrown away
BUSY_TIMEOUT_S = 30.0
NEVER_WHOLE = 0.0  # for `read_at`
COMMIT_EVERY_S = 0.5  # while runs arrive one on the heels of the other
ON_THE_HEELS_S = 0.02

_TABLES = """
CREATE TABLE runs (
    project TEXT NOT NULL,    -- ENTITY/PROJECT
    id TEXT NOT NULL,
    head TEXT NOT NULL,       -- JSON, see heads.py
    token TEXT NOT NULL,      -- sources.Mark
    lines INTEGER NOT NULL,
    last_step INTEGER,
    history BLOB NOT NULL,    -- see packed()
    PRIMARY KEY (project, id)
);
CREATE TABLE selections (
    project TEXT NOT NULL,
    key TEXT NOT NULL,        -- sources.Selection.key
    head TEXT NOT NULL,
    runs TEXT NOT NULL,       -- JSON list of ids, in their order
    read_at REAL NOT NULL,    -- Unix time, NEVER_WHOLE while the first reading goes on
    PRIMARY KEY (project, key)
);
CREATE TABLE evaluations (
    project TEXT NOT NULL,
    id TEXT NOT NULL,         -- of a run
    content BLOB NOT NULL,    -- the file as it was read, see evaluations.py
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
    """What is kept of one server; a context manager."""

    def __init__(self, path: Path) -> None:
        """Open a cache, or make it.

        Raises:
            OSError: when it can be neither read nor made.
        """
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path = path
        try:
            self._connection = self._open()
        except sqlite3.OperationalError as error:  # in use for long, or a disk that cannot be written
            raise OSError(f"the cache {path} cannot be used: {error}") from error
        except sqlite3.DatabaseError:  # no database, or a damaged one
            path.unlink(missing_ok=True)
            self._connection = self._open()

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        try:
            self.path.chmod(0o600)
            connection.execute("PRAGMA synchronous = OFF")  # after a power cut it may be read again
            if connection.execute("PRAGMA user_version").fetchone()[0] != VERSION:
                self._make_tables(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    @staticmethod
    def _make_tables(connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        if connection.execute("PRAGMA user_version").fetchone()[0] != VERSION:  # nobody was faster
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

    def projects(self, wanted: Selection, *, whole: bool = False) -> list[str]:
        """Return the ENTITY/PROJECT in which a selection was read before; what it does not name may be any.

        Args:
            wanted: the selection.
            whole: leave out those whose reading was interrupted every time.
        """
        rows = self._connection.execute("SELECT project, read_at FROM selections WHERE key = ?", (wanted.key,))
        fits = [
            project
            for project, read_at in rows
            if not (whole and read_at == NEVER_WHOLE)
            and wanted.entity in (None, project.partition("/")[0])
            and wanted.project in (None, project.partition("/")[2])
        ]
        return sorted(fits)

    def marks(self, project: str) -> dict[str, Mark]:
        """Return how much is known of which run of ENTITY/PROJECT."""
        rows = self._connection.execute("SELECT id, token, lines, last_step FROM runs WHERE project = ?", (project,))
        return {run_id: Mark(token, lines, last_step) for run_id, token, lines, last_step in rows}

    def history(self, project: str, run_id: str, mark: Mark) -> History | None:
        """Return a run's rows up to a mark; None where another process has changed them, or they are damaged."""
        row = self._connection.execute(
            "SELECT history FROM runs WHERE project = ? AND id = ? AND token = ? AND lines = ?",
            (project, run_id, mark.token, mark.lines),
        ).fetchone()
        return None if row is None else unpacked(row[0])

    def selection(self, project: str, wanted: Selection) -> tuple[SweepHead, list[RunRecord], datetime] | None:
        """Return what was last read of a selection, with histories; None where it never was."""
        sql = "SELECT head, runs, read_at FROM selections WHERE project = ? AND key = ?"
        row = self._connection.execute(sql, (project, wanted.key)).fetchone()
        if row is None or row[2] == NEVER_WHOLE:
            return None
        runs: list[RunRecord] = []
        for run_id in json.loads(row[1]):
            sql = "SELECT head, history FROM runs WHERE project = ? AND id = ?"
            found = self._connection.execute(sql, (project, run_id)).fetchone()
            history = None if found is None else unpacked(found[1])
            if found is not None and history is not None:
                runs.append(with_history(run_from_json(json.loads(found[0])), history))
        return sweep_from_json(json.loads(row[0])), runs, datetime.fromtimestamp(row[2], UTC)

    def evaluation(self, project: str, run_id: str) -> bytes | None:
        """Return what was last kept of a run's evaluation; None where nothing was."""
        sql = "SELECT content FROM evaluations WHERE project = ? AND id = ?"
        row = self._connection.execute(sql, (project, run_id)).fetchone()
        return None if row is None else bytes(row[0])

    def keep_evaluation(self, project: str, run_id: str, content: bytes) -> None:
        """Keep a run's evaluation in place of an earlier one."""
        sql = "INSERT OR REPLACE INTO evaluations (project, id, content) VALUES (?, ?, ?)"
        self._connection.execute(sql, (project, run_id, content))

    @contextlib.contextmanager
    def writing(self, wanted: Selection, head: SweepHead) -> Iterator[Writing]:
        """Give what takes the runs of a selection in; what it has when the block ends, however it ends, is kept."""
        writing = Writing(self._connection, wanted, head)
        try:
            writing.begin()
            yield writing
        finally:
            writing.commit()


class Writing:
    """Runs of one selection on their way into a cache."""

    def __init__(self, connection: sqlite3.Connection, wanted: Selection, head: SweepHead) -> None:
        self._connection = connection
        self._key = wanted.key
        self._head = json.dumps(sweep_to_json(head), default=str)
        self._project = f"{head.entity}/{head.project}"
        self._begun: float | None = None
        self._last_put = 0.0

    def begin(self) -> None:
        """Note where the selection is, so that what is kept of an interrupted reading is found again."""
        self._begin()
        self._connection.execute(
            "INSERT OR IGNORE INTO selections (project, key, head, runs, read_at) VALUES (?, ?, ?, '[]', ?)",
            (self._project, self._key, self._head, NEVER_WHOLE),
        )
        self.commit()

    def put(self, part: Part, history: History) -> None:
        """Keep a run with its whole history as it is now."""
        if part.head.unread is not None:
            return
        self._begin()
        head = json.dumps(run_to_json(part.head), default=str)
        key = (self._project, part.head.run_id)
        known = 0
        if part.rows is None:
            sql = "UPDATE runs SET head = ? WHERE project = ? AND id = ?"
            known = self._connection.execute(sql, (head, *key)).rowcount
        if not known:
            mark = part.mark
            self._connection.execute(
                "INSERT OR REPLACE INTO runs (project, id, head, token, lines, last_step, history)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (*key, head, mark.token, mark.lines, mark.last_step, packed(history)),
            )
        now = time.monotonic()
        if now - self._last_put > ON_THE_HEELS_S or now - (self._begun or now) > COMMIT_EVERY_S:
            self.commit()  # other processes want to write too
        self._last_put = now

    def finish(self, run_ids: list[str], read_at: datetime) -> None:
        """Keep which runs a selection has, and drop those that it had and that are no more."""
        self._begin()
        sql = "SELECT runs FROM selections WHERE project = ? AND key = ?"
        before = self._connection.execute(sql, (self._project, self._key)).fetchone()
        gone = set(json.loads(before[0])) - set(run_ids) if before else set()
        for table in ("runs", "evaluations"):
            self._connection.executemany(
                f"DELETE FROM {table} WHERE project = ? AND id = ?", [(self._project, run_id) for run_id in gone]
            )
        self._connection.execute(
            "INSERT OR REPLACE INTO selections (project, key, head, runs, read_at) VALUES (?, ?, ?, ?, ?)",
            (self._project, self._key, self._head, json.dumps(run_ids), read_at.timestamp()),
        )

    def commit(self) -> None:
        """Let others see what was put."""
        if self._begun is not None:
            self._connection.execute("COMMIT")
            self._begun = None

    def _begin(self) -> None:
        if self._begun is None:
            self._connection.execute("BEGIN IMMEDIATE")
            self._begun = time.monotonic()


def packed(history: History) -> bytes:
    """Return a history as bytes: a line of JSON, then the numbers as they are in memory, and a checksum before all.

    A column that every row holds is kept without its positions.
    """
    names, counts, pieces = [], [], []
    for name, column in history.columns.items():
        whole = len(column) == history.length
        names.append(name)
        counts.append(-1 if whole else len(column))
        if not whole:
            pieces.append(column.rows.astype("<i8").tobytes())
        pieces.append(column.values.astype("<f8").tobytes())
    head = json.dumps({"length": history.length, "names": names, "counts": counts}).encode() + b"\n"
    body = head + b" " * (-len(head) % 8) + b"".join(pieces)
    return zlib.crc32(body).to_bytes(8, "little") + body


def unpacked(blob: bytes) -> History | None:
    """Return the history that was packed; None where the bytes are damaged."""
    body = memoryview(blob)[8:]
    if len(blob) < 8 or int.from_bytes(blob[:8], "little") != zlib.crc32(body):
        return None
    end = blob.index(b"\n", 8) + 1
    head = orjson.loads(blob[8:end])
    length, at = head["length"], end + (-(end - 8) % 8)
    every = np.arange(length)
    columns = {}
    for name, count in zip(head["names"], head["counts"], strict=True):
        rows, size = every, length
        if count >= 0:
            rows, size = np.frombuffer(blob, "<i8", count, at), count
            at += 8 * count
        columns[name] = Column(rows, np.frombuffer(blob, "<f8", size, at))
        at += 8 * size
    return History(length, columns)
