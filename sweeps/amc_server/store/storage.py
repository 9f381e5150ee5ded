"""The data folder: one SQLite database, written through one connection, and the bytes of files beside it.

A request that changes something is one transaction, and it is on disk before its reply is sent: a trial never sends an
acknowledged row again. ``synchronous=FULL`` would have every commit wait for the disk while it holds the writer. With
NORMAL a commit is in the write-ahead log, which the kernel has and the disk may not; so ``Storage.settle`` has the log
flushed (``fdatasync``) before anything is acknowledged, once for all that were committed meanwhile. What somebody else
reads in between may, after a power cut, never have been; what was acknowledged stays.
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import itertools
import os
import queue
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from amc_server.store.reader import Reader
from amc_server.store.schema import SchemaError, migrate
from amc_server.store.writer import Writer

BUSY_TIMEOUT_S = 10.0
STATEMENTS_KEPT = 512  # compiled SQL a connection; there are more than sqlite3's own 128


class StorageError(RuntimeError):
    """The data folder cannot be used; the message says what to do."""


class _Turns:
    """A lock for the writer that is given in the order of asking, those in a hurry before the others.

    A plain lock goes to whoever happens to be awake: the thread that writes posts without end would take it back
    before an agent's heartbeat, which is small and waited for, had woken up.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: list[tuple[bool, int]] = []
        self._numbers = itertools.count()
        self._is_taken = False

    @contextlib.contextmanager
    def take(self, *, in_a_hurry: bool) -> Iterator[None]:
        ticket = (not in_a_hurry, next(self._numbers))
        with self._changed:
            heapq.heappush(self._waiting, ticket)
            self._changed.wait_for(lambda: not self._is_taken and self._waiting[0] == ticket)
            heapq.heappop(self._waiting)
            self._is_taken = True
        try:
            yield
        finally:
            with self._changed:
                self._is_taken = False
                self._changed.notify_all()


class _Log:
    """The write-ahead log as a file that is flushed: whoever comes while it is being flushed shares the next time.

    It is there as long as a connection is, and SQLite only ever writes into it. (A second descriptor is harmless:
    SQLite locks the database and the shared memory, never the log.)

    Once a flush has failed, none will do: Linux tells of lost pages a single time, and takes them for clean then.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDONLY)
        self._changed = threading.Condition()
        self._asked = self._flushed = 0
        self._is_busy = False
        self._failure: OSError | None = None
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)  # or a power cut could take the log's name
        os.close(folder)

    def settle(self) -> None:
        """Return once all that is in the log by now is on disk.

        Raises:
            OSError: when the disk has failed; nothing may be acknowledged until the server is started again.
        """
        with self._changed:
            self._asked = mine = self._asked + 1
            while self._flushed < mine:
                if self._failure is not None:
                    raise self._failure
                if self._is_busy:
                    self._changed.wait()
                    continue
                self._is_busy, until = True, self._asked
                self._changed.release()
                failure = None
                try:
                    os.fdatasync(self._file)
                except OSError as error:
                    failure = error
                finally:
                    self._changed.acquire()
                    self._is_busy, self._failure = False, failure
                    self._changed.notify_all()
                if failure is None:
                    self._flushed = until

    def close(self) -> None:
        os.close(self._file)


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
                self._connection = self._connect()
                opened.callback(self._connection.close)
                migrate(self._connection)
                self._log = _Log(self._path.with_name(f"{self._path.name}-wal"))
            except SchemaError as error:
                raise StorageError(f"{self._path}: {error}") from error
            except sqlite3.Error as error:
                raise StorageError(
                    f"{self._path} cannot be opened: {error}. Restore a backup, or choose another --data folder."
                ) from error
            opened.pop_all()
        self._claim = claim
        self._turns = _Turns()
        self._writer = Writer(self._connection)
        self._idle: queue.SimpleQueue[sqlite3.Connection] = queue.SimpleQueue()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path,
            timeout=BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=STATEMENTS_KEPT,
        )
        connection.row_factory = sqlite3.Row
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")  # why: see the top of this module
            connection.execute("PRAGMA foreign_keys = ON")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    @contextlib.contextmanager
    def write(self) -> Iterator[Writer]:
        """Give a transaction, committed and on disk when this ends, undone when the block raises."""
        with self.write_unsettled(in_a_hurry=True) as writer:
            yield writer
        self.settle()

    @contextlib.contextmanager
    def write_unsettled(self, *, in_a_hurry: bool) -> Iterator[Writer]:
        """Give a transaction that may be acknowledged only after ``settle``.

        Args:
            in_a_hurry: go before those that are in none.
        """
        with self._turns.take(in_a_hurry=in_a_hurry):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._connection.execute("COMMIT")
            except BaseException:
                self._writer.invalidate_copies()
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def settle(self) -> None:
        """Return once everything that has been committed is on disk."""
        self._log.settle()

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
        with self._turns.take(in_a_hurry=True):
            while not self._idle.empty():
                self._idle.get_nowait().close()
            self._log.close()
            self._connection.close()
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
