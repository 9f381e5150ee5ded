"""Blobs that no record names, such as those of a server that was killed between a commit and the deletion of a file."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from amc_server.store.blobs import BLOB_NAME
from amc_server.store.schema import SchemaError, check_version
from amc_server.store.storage import DATABASE, describe_failure

# The bytes of an upload are on disk before a record names them. No upload is silent for as long as this.
LEAST_AGE_S = 3600.0
_FOLDER = re.compile("[0-9a-f]{2}")
_COLUMNS = (("files", "blob"), ("artifact_files", "blob"), ("artifacts", "manifest"))


class UnreadableDataError(RuntimeError):
    """It is not known which blobs a data folder needs; the message says why."""


@dataclass(frozen=True)
class UnreferencedBlob:
    path: Path
    size: int  # bytes
    changed_at: float  # Unix time


def named_blobs(connection: sqlite3.Connection) -> set[str]:
    """Return the names of all blobs that the database's records need."""
    return {
        row[0]
        for table, column in _COLUMNS
        for row in connection.execute(f"SELECT {column} FROM {table} WHERE {column} IS NOT NULL")
    }


def unreferenced_blobs(data: Path, *, now: float, older_than_s: float) -> list[UnreferencedBlob]:
    """Return the blobs that no record names; the folder's server may run meanwhile.

    The files are listed before the records are read. So a blob that gets its record in between is never among them, and
    one that waits for its record is too young.

    Args:
        data: the data folder of an embedded server.
        now: Unix time.
        older_than_s: since the last write; LEAST_AGE_S is the least.

    Raises:
        UnreadableDataError: the database is missing, empty, damaged or of another version.
    """
    limit = now - max(older_than_s, LEAST_AGE_S)
    found = [blob for blob in _blobs_in(data / "blobs") if blob.changed_at < limit]
    database = data / DATABASE
    if not database.is_file():
        raise UnreadableDataError(f"{data} has no {DATABASE}")
    try:
        with contextlib.closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            check_version(connection)
            if not connection.execute("SELECT 1 FROM projects LIMIT 1").fetchone():
                raise UnreadableDataError(f"{database} is empty, so what its blobs belong to is not known")
            names = named_blobs(connection)
    except sqlite3.Error as error:
        raise UnreadableDataError(f"{database}: {describe_failure(error)}") from error
    except SchemaError as error:
        raise UnreadableDataError(f"{database}: {error}") from error
    return [blob for blob in found if blob.path.name not in names]


def _blobs_in(folder: Path) -> Iterator[UnreferencedBlob]:
    """Yield the files that have a blob's name and lie where a blob of that name lies."""
    for parent in sorted(folder.glob("*")):
        if not _FOLDER.fullmatch(parent.name) or parent.is_symlink():
            continue
        with contextlib.suppress(OSError), os.scandir(parent) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                    facts = entry.stat(follow_symlinks=False)
                    is_blob = BLOB_NAME.fullmatch(entry.name) and entry.name.startswith(parent.name)
                    if is_blob and stat.S_ISREG(facts.st_mode):
                        yield UnreferencedBlob(Path(entry.path), facts.st_size, max(facts.st_mtime, facts.st_ctime))
