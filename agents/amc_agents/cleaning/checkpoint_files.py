"""Recognises the checkpoint files of this toolkit without torch."""

from __future__ import annotations

import zipfile
from pathlib import Path

_MOST_BYTES = 64 * 1024**2  # of the part that lists the tensors; it has some hundred kB
_FIELDS = (b"split_fingerprint", b"trained_on", b"steps_done")


def is_checkpoint(path: Path, run_id: str | None = None) -> bool:
    """Return whether a file is a checkpoint that this toolkit wrote, and of this run; reads less than a megabyte.

    A checkpoint that was cut off is none: its list of parts is at its end.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            part = next(part for part in archive.infolist() if part.filename.endswith("/data.pkl"))
            content = archive.read(part) if part.file_size <= _MOST_BYTES else b""
    except Exception:  # noqa: BLE001 - a damaged or foreign file may raise anything
        return False
    return all(word in content for word in (*_FIELDS, *([run_id.encode()] if run_id else [])))


def is_intact(path: Path) -> bool:
    """Return whether every part of a checkpoint has its check sum; reads the whole file."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except Exception:  # noqa: BLE001 - as above
        return False
