"""The bytes of files, below ``blobs/`` under random names: a client's name never becomes a path."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import secrets
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path

from starlette.concurrency import run_in_threadpool

from amc_server.errors import Refused

MAX_FILE_BYTES = 20 * 1024**3
MAX_NAME_LENGTH = 1024
BLOB_NAME = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Blob:
    """Bytes that are on disk; no record names them yet."""

    name: str
    size: int
    md5: str  # base64, as W&B gives it


def check_name(name: str) -> str:
    """Return the file name that a client gave.

    Raises:
        Refused: the name would lead out of the folder that somebody downloads the file to, or cannot be stored.
    """
    parts = name.split("/")
    bad_letter = any(letter in "\0\\" or "\ud800" <= letter <= "\udfff" for letter in name)  # lone surrogates
    if not name or len(name) > MAX_NAME_LENGTH or name.startswith("/") or ".." in parts or bad_letter:
        raise Refused(
            f"{name[:100]!r} cannot be a file's name: give a relative path without .. of at most 1024 letters"
        )
    return name


def blob_path(name: str) -> Path:
    """Return where the blob of this name lies below ``blobs/``.

    Raises:
        Refused: no blob has such a name (404). A token or a database from elsewhere may hold a path in its place.
    """
    if not BLOB_NAME.fullmatch(name):
        raise Refused(f"{name[:100]!r} is not the name of stored bytes", status=404)
    return Path(name[:2]) / name


class Blobs:
    """The folder of bytes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True, mode=0o700)

    def path(self, name: str) -> Path:
        return self._folder / blob_path(name)

    async def receive(self, body: AsyncIterator[bytes]) -> Blob:
        """Write bytes to disk as they arrive; they survive a power cut once this returns.

        Raises:
            Refused: there are too many bytes (413).
        """
        name = secrets.token_hex(16)
        path = self.path(name)
        path.parent.mkdir(exist_ok=True)
        digest, size = hashlib.md5(usedforsecurity=False), 0
        try:
            with path.open("xb") as file:
                async for chunk in body:
                    size = _grown(size, chunk)
                    digest.update(chunk)
                    file.write(chunk)
                file.flush()
                # In a thread, so that other requests go on while the disk is busy.
                await run_in_threadpool(_flush, file.fileno(), (path.parent, self._folder))
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return Blob(name=name, size=size, md5=base64.b64encode(digest.digest()).decode())

    def remove(self, name: str) -> None:
        """Delete a blob that no record names."""
        self.path(name).unlink(missing_ok=True)


def _flush(file: int, folders: Iterable[Path]) -> None:
    """Return once a file is on disk, and its name in the folders, too."""
    os.fsync(file)
    for folder in folders:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _grown(size: int, chunk: bytes) -> int:
    size += len(chunk)
    if size > MAX_FILE_BYTES:
        raise Refused(f"a file may have {MAX_FILE_BYTES} bytes at most", status=413)
    return size
