"""A consistent copy of a data folder while its server runs: one tar file, to be unpacked into an empty folder."""

from __future__ import annotations

import contextlib
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from amc_core.files import whole_file
from amc_server.errors import Refused
from amc_server.store.blobs import blob_path
from amc_server.store.schema import SchemaError, check_version
from amc_server.store.storage import DATABASE, describe_failure
from amc_server.store.unreferenced_blobs import named_blobs

_MOST_ATTEMPTS = 5  # where files are deleted all the time


class BackupError(RuntimeError):
    """The backup could not be made; the message says what to do."""


@dataclass(frozen=True)
class Backup:
    """The numbers of a finished backup."""

    runs: int
    history_rows: int
    files: int
    size: int  # bytes of the tar file


def back_up(data: Path, target: Path) -> Backup:
    """Write the database and the files that belong to it to ``target``.

    SQLite gives a snapshot of one moment, so the server may go on writing. Secrets are left out (the key, and the one
    that signs URLs and cookies): a restored server makes new ones. Only this user may read the tar file and its files.

    Raises:
        BackupError: there is no database or nothing in it, or the target exists or cannot be written.
    """
    database = data / DATABASE
    if not database.is_file():
        raise BackupError(
            f"{data} is not the data folder of a server: it has no {DATABASE}. Name one with --data. "
            "A project on a W&B server of another kind is saved by amc-sweep export."
        )
    refusal = f"{target} exists already and is not overwritten: choose another name"
    if target.exists():
        raise BackupError(refusal)
    try:
        with (
            whole_file(target.absolute(), replace=False, durable=True, mode=0o600) as partial,
            tempfile.TemporaryDirectory(dir=target.absolute().parent, prefix=".amc-backup-") as folder,
        ):
            snapshot = Path(folder) / DATABASE
            missing: set[str] = set()
            for _ in range(_MOST_ATTEMPTS):
                blobs, runs, rows = _snapshot(database, snapshot)
                gone = _pack(partial, snapshot, data / "blobs", blobs)
                # What was deleted after the snapshot has a successor, such as a newer checkpoint, that is not in it.
                if gone <= missing:
                    break
                missing = gone
            count = len(blobs) - len(gone)
    except FileExistsError as error:
        raise BackupError(refusal) from error
    except sqlite3.Error as error:
        raise BackupError(f"{data} could not be backed up to {target}: {describe_failure(error)}") from error
    except (OSError, SchemaError) as error:
        raise BackupError(f"{data} could not be backed up to {target}: {error}") from error
    return Backup(runs=runs, history_rows=rows, files=count, size=target.stat().st_size)


def _pack(target: Path, snapshot: Path, folder: Path, blobs: Iterable[str]) -> set[str]:
    """Write the snapshot and the blobs into a tar file; return the blobs that are missing."""
    gone = set()
    with tarfile.open(target, "w") as tar:
        tar.add(snapshot, DATABASE, filter=_for_this_user_alone)
        for blob in blobs:
            try:
                path = blob_path(blob)
                tar.add(folder / path, f"blobs/{path}", filter=_for_this_user_alone)
            except (FileNotFoundError, Refused):
                gone.add(blob)
    return gone


def _snapshot(database: Path, copy: Path) -> tuple[list[str], int, int]:
    """Copy the database as it is at one moment; return the blobs that it names, its runs and its history rows."""
    with contextlib.closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as source:
        check_version(source)
        if not source.execute("SELECT 1 FROM projects LIMIT 1").fetchone():
            raise BackupError(
                f"{database.parent} has no sweep and no run, so nothing was saved. Name the data folder with --data."
            )
        copy.unlink(missing_ok=True)  # of an earlier attempt
        source.execute("VACUUM INTO ?", (str(copy),))
    with contextlib.closing(sqlite3.connect(copy)) as snapshot, snapshot:
        snapshot.execute("PRAGMA secure_delete = ON")  # else the bytes stay in a free page
        snapshot.execute("DELETE FROM meta")
        blobs = named_blobs(snapshot)
        runs, rows = (snapshot.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("runs", "history"))
    return sorted(blobs), runs, rows


def _for_this_user_alone(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.mode = 0o600
    return member
