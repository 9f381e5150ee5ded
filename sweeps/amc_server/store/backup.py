"""A consistent copy of a data folder while its server runs: one tar file, to be unpacked into an empty folder."""

from __future__ import annotations

import contextlib
import sqlite3
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from amc_core.files import whole_file
from amc_server.store.schema import SchemaError, check_version

DATABASE = "amc.sqlite3"


class BackupError(RuntimeError):
    """The backup could not be made; the message says what to do."""


@dataclass(frozen=True)
class Backup:
    """What was saved."""

    runs: int
    history_rows: int
    files: int
    size: int  # bytes of the tar file


def back_up(data: Path, target: Path) -> Backup:
    """Write the database and the files that belong to it to ``target``.

    SQLite gives a snapshot of one moment, so the server may go on writing. The key is left out: a restored server makes
    a new one.

    Raises:
        BackupError: there is no database, or the target exists or cannot be written.
    """
    database = data / DATABASE
    if not database.is_file():
        raise BackupError(f"{data} is not the data folder of a server: it has no {DATABASE}. Name one with --data.")
    taken = f"{target} exists already and is not overwritten: choose another name"
    if target.exists():
        raise BackupError(taken)
    try:
        with (
            whole_file(target.absolute(), replace=False, durable=True) as partial,
            tempfile.TemporaryDirectory(dir=target.absolute().parent, prefix=".amc-backup-") as folder,
        ):
            snapshot = Path(folder) / DATABASE
            blobs, runs, rows = _snapshot(database, snapshot)
            saved = 0
            with tarfile.open(partial, "w") as tar:
                tar.add(snapshot, DATABASE)
                for blob in blobs:
                    # A file that was deleted after the snapshot is missing: the run keeps its entry without bytes.
                    with contextlib.suppress(FileNotFoundError):
                        tar.add(data / "blobs" / blob[:2] / blob, f"blobs/{blob[:2]}/{blob}")
                        saved += 1
    except FileExistsError as error:
        raise BackupError(taken) from error
    except (OSError, sqlite3.Error, SchemaError) as error:
        raise BackupError(f"{data} could not be backed up to {target}: {error}") from error
    return Backup(runs=runs, history_rows=rows, files=saved, size=target.stat().st_size)


def _snapshot(database: Path, copy: Path) -> tuple[list[str], int, int]:
    """Copy the database as it is at one moment; return the blobs that it names, its runs and its history rows."""
    with contextlib.closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as source:
        check_version(source)
        source.execute("VACUUM INTO ?", (str(copy),))
    with contextlib.closing(sqlite3.connect(copy)) as saved:
        columns = [("files", "blob"), ("artifact_files", "blob"), ("artifacts", "manifest")]
        blobs = {
            row[0]
            for table, column in columns
            for row in saved.execute(f"SELECT {column} FROM {table} WHERE {column} IS NOT NULL")
        }
        runs, rows = (saved.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("runs", "history"))
    return sorted(blobs), runs, rows
