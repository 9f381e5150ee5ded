"""The bytes of files: below ``blobs/`` under names of our own, so that no name from outside ever becomes a path."""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path

from starlette.concurrency import run_in_threadpool

from amc_server.errors import Refused

MAX_FILE_BYTES = 20 * 1024**3
MAX_NAME_LENGTH = 1024


@dataclass(frozen=True)
class Blob:
    """Bytes that are on disk, not yet belonging to anything."""

    name: str
    size: int
    md5: str  # base64, as W&B gives it


def check_name(name: str) -> str:
    """Return a file name that a client may give.

    Raises:
        Refused: for one that would leave a folder when somebody downloads it by its name.
    """
    parts = name.split("/")
    if not name or len(name) > MAX_NAME_LENGTH or name.startswith("/") or ".." in parts or "\0" in name or "\\" in name:
        raise Refused(
            f"{name[:100]!r} cannot be a file's name: give a relative path without .. of at most 1024 letters"
        )
    return name


class Blobs:
    """The folder of bytes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True, mode=0o700)

    def path(self, name: str) -> Path:
        """Return where the bytes are; ``name`` is one of ours."""
        return self._folder / name[:2] / name

    async def receive(self, body: AsyncIterator[bytes]) -> Blob:
        """Write bytes to disk as they arrive; they are there for good when this returns.

        Raises:
            Refused: when there are too many (413).
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
                # In a thread: while a busy disk takes its time, everybody else's requests go on.
                await run_in_threadpool(_to_disk, file.fileno(), (path.parent, self._folder))
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return Blob(name=name, size=size, md5=base64.b64encode(digest.digest()).decode())

    def remove(self, name: str) -> None:
        """Delete bytes that belong to nothing any more."""
        self.path(name).unlink(missing_ok=True)


def _to_disk(file: int, folders: Iterable[Path]) -> None:
    """Wait until a file is on disk, and under its name: the folders hold that."""
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
