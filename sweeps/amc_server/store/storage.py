"""The data folder: one SQLite database, written through one connection, and the bytes of files beside it.

A request that changes something is one transaction, and it is on disk before its reply is sent, because a trial never
sends an acknowledged row again. With ``synchronous=FULL`` every commit would wait for the disk while it holds the
writer. With ``NORMAL`` a committed transaction is in the write-ahead log, which the kernel has and the disk may not.
``Storage.flush`` writes the log to disk (``fdatasync``) before anything is acknowledged, once for all transactions that
were committed meanwhile. A reader may see a row that a power cut then loses. The client was not told that the row was
stored, so it sends it again.

SQLite would copy the log into the database at the end of a commit, while that holds the writer. ``Storage.checkpoint``
does it on a connection of its own; commits do it only if that falls behind.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import os
import queue
import sqlite3
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from amc_core.files import LockedError, lock_file
from amc_server.store.reader import Reader
from amc_server.store.schema import SchemaError, prepare
from amc_server.store.writer import Writer

logger = logging.getLogger(__name__)

DATABASE = "amc.sqlite3"
BUSY_TIMEOUT_S = 10.0
CACHED_STATEMENTS = 512  # compiled SQL a connection; the 128 of sqlite3 are too few
MOST_OVERTAKING = 4  # urgent writes that go before one that came earlier
LOG_PAGES = 16_384  # of 4 kB: from there on a commit copies the log
LOG_BYTES = LOG_PAGES * 4096  # what is left of a log that had to grow beyond it, because a reader took long


_TEXT = functools.partial(str, encoding="utf-8", errors="replace")  # a bad disk costs a letter, not the row


class StorageError(RuntimeError):
    """The data folder cannot be used; the message says what to do."""


class FilesLostError(StorageError):
    """The database's files were removed or replaced while they were open: what is written now may be lost."""


def is_locked(error: sqlite3.Error) -> bool:
    """Return whether the database was locked by another program, so that the same request may work later."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def describe_failure(error: sqlite3.Error | OSError) -> str:
    """Return what a failure of the database or of its disk means, and what to do."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return (
            "the disk of the data folder is full, so nothing was stored. Make room: this request may be sent again. "
            "If it is refused then, too, end the server and start it again"
        )
    if isinstance(error, OSError):
        return f"the disk of the data folder failed ({error.strerror or error}). End the server and start it again"
    if is_locked(error):
        return (
            f"another program has kept the database locked for {BUSY_TIMEOUT_S:g} s, so nothing was stored. "
            "End that program (sqlite3, a copy in progress); this request may be sent again"
        )
    if code not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return f"the database failed: {error}"
    return (
        f"the database is damaged: {error}. End the server and restore a backup: mkdir restored && "
        "tar -xf BACKUP.tar -C restored && amc-sweep serve --data restored"
    )


class _FairLock:
    """A lock that is given in the order of asking: to urgent callers first, but only to a few before another one.

    A plain lock goes to whichever thread is awake. The thread that writes posts would take it back before the thread of
    an agent's heartbeat had woken up. Without the limit a server that cannot keep up with the heartbeats of very many
    agents would never write a post.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._is_taken = False
        self._urgent: deque[threading.Lock] = deque()  # of each waiting thread: released when it is its turn
        self._others: deque[threading.Lock] = deque()
        self._overtaken = 0  # urgent callers since one of the others

    @contextlib.contextmanager
    def take(self, *, urgent: bool) -> Iterator[None]:
        turn = threading.Lock()
        with self._guard:
            if self._is_taken:
                turn.acquire()
                (self._urgent if urgent else self._others).append(turn)
            self._is_taken = True
        turn.acquire()
        try:
            yield
        finally:
            self._give_on()

    def _give_on(self) -> None:
        with self._guard:
            if self._urgent and not (self._others and self._overtaken == MOST_OVERTAKING):
                self._overtaken += bool(self._others)
                self._urgent.popleft().release()
            elif self._others:
                self._overtaken = 0
                self._others.popleft().release()
            else:
                self._is_taken = False


class _WriteAheadLog:
    """The log as a file that is flushed. Threads that come during a flush share the next one.

    The file exists as long as a connection does. (A second descriptor is harmless: SQLite locks the database and the
    shared memory, never the log.)

    After a failed flush every later one fails, too: Linux reports lost pages once, and then takes them for clean.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDONLY)
        self._changed = threading.Condition()
        self._requested = self._flushed = 0
        self._is_busy = False
        self._failure: OSError | None = None
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)  # or a power cut could take the log's name
        os.close(folder)

    def flush(self) -> None:
        """Return once everything that is in the log by now is on disk.

        Raises:
            OSError: the disk has failed; nothing may be acknowledged until the server is started again.
        """
        with self._changed:
            self._requested = ticket = self._requested + 1
            while self._flushed < ticket:
                if self._failure is not None:
                    raise self._failure
                if self._is_busy:
                    self._changed.wait()
                    continue
                self._is_busy, until = True, self._requested
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


class _OpenFiles:
    """Notices that the database or its log is no longer the file of that name.

    SQLite goes on writing into a file that was removed. Nothing of it is found after a kill.
    """

    def __init__(self, database: Path, log: Path) -> None:
        end = "Then end the server and start it again."
        self._advice = {
            database: f"What came since then is in the file that was removed. Put the right file in its place. {end}",
            log: f"End the server by SIGTERM: it then saves what it has into {database.name}. Start it again.",
        }
        self._known = {path: self._identity(path) for path in self._advice}
        self._failure: FilesLostError | None = None

    def check(self) -> None:
        """Return if both files are there; this takes 5 microseconds.

        Raises:
            FilesLostError: one is not, or was not before.
        """
        lost = next((path for path, known in self._known.items() if self._identity(path) != known), None)
        if lost is not None and self._failure is None:
            self._failure = FilesLostError(
                f"{lost} was removed or replaced while the server uses it, so nothing more is stored. "
                f"{self._advice[lost]}"
            )
            logger.error("%s", self._failure)
        if self._failure is not None:
            raise FilesLostError(str(self._failure))

    @staticmethod
    def _identity(path: Path) -> tuple[int, int] | None:
        try:
            status = path.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino


class Storage:
    """One writer connection behind a lock, and a reader connection for every request at the same time."""

    def __init__(self, folder: Path) -> None:
        """Open the data folder, making it if it does not exist.

        Raises:
            StorageError: the folder cannot be written, another server uses it, or another version wrote it.
        """
        self.folder = folder
        self._path = folder / DATABASE
        with contextlib.ExitStack() as opened:
            self._folder_lock = opened.enter_context(_lock_folder(folder))
            try:
                self._connection = self._connect()
                opened.callback(self._connection.close)
                prepare(self._connection)
                log = self._path.with_name(f"{self._path.name}-wal")
                self._log = _WriteAheadLog(log)
                self._files = _OpenFiles(self._path, log)
            except SchemaError as error:
                raise StorageError(f"{self._path}: {error}") from error
            except sqlite3.Error as error:
                raise StorageError(f"{self._path}: {describe_failure(error)}") from error
            opened.pop_all()
        self._lock = _FairLock()
        self._writer = Writer(self._connection)
        self._checkpointer = self._connect()
        self._idle: queue.SimpleQueue[sqlite3.Connection] = queue.SimpleQueue()
        self.commits = 0  # so far, so that a reader knows whether anything may have changed
        self.run_changes: dict[int, int] = {}  # by key of a run: the number of the commit that changed it last

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path,
            timeout=BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=CACHED_STATEMENTS,
        )
        connection.row_factory = sqlite3.Row
        connection.text_factory = _TEXT
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")  # the top of this module says why
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
            connection.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    @contextlib.contextmanager
    def write(self) -> Iterator[Writer]:
        """Give a transaction. It is committed and on disk when the block ends, and undone when the block raises."""
        with self.write_unflushed(urgent=True) as writer:
            yield writer
        self.flush()

    @contextlib.contextmanager
    def write_unflushed(self, *, urgent: bool) -> Iterator[Writer]:
        """Give a transaction that may be acknowledged only after ``flush``.

        Args:
            urgent: go before those that are not.
        """
        with self._lock.take(urgent=urgent):
            self._connection.execute("BEGIN IMMEDIATE")
            self._writer.changed_runs.clear()
            try:
                yield self._writer
                self._connection.execute("COMMIT")
                # In this order a reader that knows a number misses no change before it.
                self.run_changes.update(dict.fromkeys(self._writer.changed_runs, self.commits + 1))
                self.commits += 1
            except BaseException:
                self._writer.invalidate_copies()
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def flush(self) -> None:
        """Return once everything that has been committed is on disk.

        Raises:
            FilesLostError: it may be in a file that nobody finds again.
            OSError: the disk has failed.
        """
        self._log.flush()
        self._files.check()

    def checkpoint(self) -> None:
        """Copy the log into the database. Only one thread at a time may call this.

        Raises:
            FilesLostError: after the copy, which still saves what is in an unlinked log.
        """
        copy = "PRAGMA wal_checkpoint(PASSIVE)"  # waits for nobody
        _, pages, copied = self._checkpointer.execute(copy).fetchone()
        if pages > 0 and copied > 0:
            # Others wrote meanwhile. Once the rest is copied, too, the next commit begins at the start of the log.
            with self._lock.take(urgent=False):
                self._checkpointer.execute(copy)
        self._files.check()

    @contextlib.contextmanager
    def read(self) -> Iterator[Reader]:
        """Give a snapshot that no writer changes.

        Raises:
            FilesLostError: the database's files were replaced.
        """
        try:
            connection = self._idle.get_nowait()
        except queue.Empty:
            self._files.check()  # a new connection would open other files than the writer has
            connection = self._connect()
        connection.execute("BEGIN")
        try:
            yield Reader(connection)
        finally:
            connection.execute("ROLLBACK")
            self._idle.put(connection)

    def close(self) -> None:
        """Close every connection and unlock the folder."""
        with self._lock.take(urgent=True):
            while not self._idle.empty():
                self._idle.get_nowait().close()
            self._log.close()
            self._checkpointer.close()
            self._connection.close()
        self._folder_lock.close()


def _lock_folder(folder: Path) -> BinaryIO:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return lock_file(folder / "lock")
    except LockedError as error:
        raise StorageError(
            f"another server (process {error.holder}) uses the data folder {folder}. "
            "Stop it, or choose another with --data."
        ) from error
    except OSError as error:
        raise StorageError(
            f"the data folder {folder} cannot be written ({error.strerror}). Choose another with --data."
        ) from error
