"""A file that can go, how much room that gives, and its removal."""

from __future__ import annotations

import contextlib
import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Kind(StrEnum):
    """Why a file can go."""

    CHECKPOINT = "checkpoints of runs that have ended"
    LEFTOVER = "leftovers of saves and downloads that were killed"
    CACHED = "copies of checkpoints in W&B's cache"
    BLOB = "files of the embedded server that no record names"


@dataclass(frozen=True)
class Removable:
    """One file, or the folder of a download that was killed."""

    kind: Kind
    path: Path
    run: str | None = None  # its id


def freed_bytes(items: Iterable[Removable]) -> int:
    """Return the room that the removal of all these gives. A file with a name elsewhere gives none."""
    removed: Counter[tuple[int, int]] = Counter()
    facts: dict[tuple[int, int], tuple[int, int]] = {}  # by device and inode: names, bytes
    for item in items:
        for path in item.path.rglob("*") if item.path.is_dir() else (item.path,):
            with contextlib.suppress(FileNotFoundError):
                status = path.lstat()
                key = status.st_dev, status.st_ino
                removed[key] += 1
                facts[key] = status.st_nlink, status.st_blocks * 512
    return sum(size for key, (names, size) in facts.items() if removed[key] >= names)


def remove(item: Removable) -> None:
    """Remove a file, or a folder with everything in it; no error where it is gone already.

    Raises:
        OSError: it cannot be removed.
    """
    with contextlib.suppress(FileNotFoundError):
        if item.path.is_dir() and not item.path.is_symlink():
            shutil.rmtree(item.path)
        else:
            item.path.unlink()
