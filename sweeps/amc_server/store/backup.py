"""A consistent copy of a data folder while its server runs: one tar file, to be unpacked into an empty folder."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

DATABASE = "amc.sqlite3"


class BackupError(RuntimeError):
    """There is nothing to back up, or nowhere to put it; the message says what to do."""


@dataclass(frozen=True)
class Backup:
    """What was saved."""

    runs: int
    history_rows: int
    files: int
    size: int  # bytes of the tar file


def back_up(data: Path, target: Path) -> Backup:
    """Write the database and the files that belong to it to ``target``.

    SQLite gives a snapshot at one moment whatever is written meanwhile, and the server need not be asked. The key is
    left out: a restored server makes its own.

    Raises:
        BackupError: when there is no database, or the target exists or cannot be written.
    """
    database = data / DATABASE
    if not database.is_file():
        raise BackupError(f"{data} is no data folder of a server: it has no {DATABASE}. Name one with --data.")
    if target.exists():
        raise BackupError(f"{target} is there already and is not overwritten: choose another name")
    try:
        with tempfile.TemporaryDirectory(dir=target.absolute().parent, prefix=".amc-backup-") as folder:
            snapshot, partial = Path(folder) / DATABASE, Path(folder) / "backup.tar"
            blobs, runs, rows = _snapshot(database, snapshot)
            saved = 0
            with tarfile.open(partial, "w") as tar:
                tar.add(snapshot, DATABASE)
                for blob in blobs:
                    # A file that was deleted after the snapshot is gone: the run's entry of it stays without bytes.
                    with contextlib.suppress(FileNotFoundError):
                        tar.add(data / "blobs" / blob[:2] / blob, f"blobs/{blob[:2]}/{blob}")
                        saved += 1
            _sync(partial)
            os.link(partial, target)  # unlike a rename, never replaces what somebody else put there meanwhile
    except FileExistsError as error:
        raise BackupError(f"{target} is there already and is not overwritten: choose another name") from error
    except (OSError, sqlite3.Error) as error:
        raise BackupError(f"{data} could not be backed up to {target}: {error}") from error
    return Backup(runs=runs, history_rows=rows, files=saved, size=target.stat().st_size)


def _snapshot(database: Path, copy: Path) -> tuple[list[str], int, int]:
    """Copy the database as it is at one moment; return the blobs it names, and how many runs and rows it has."""
    with contextlib.closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as source:
        source.execute("VACUUM INTO ?", (str(copy),))
    with contextlib.closing(sqlite3.connect(copy)) as saved:
        tables = {row[0] for row in saved.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        columns = [("files", "blob"), ("artifact_files", "blob"), ("artifacts", "manifest")]
        blobs = {
            row[0]
            for table, column in columns
            if table in tables
            for row in saved.execute(f"SELECT {column} FROM {table} WHERE {column} IS NOT NULL")
        }
        runs, rows = (saved.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("runs", "history"))
    return sorted(blobs), runs, rows


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
