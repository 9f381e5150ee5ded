"""The cache of the wandb client: how large it is, and the copies of our checkpoints in it.

Trials of earlier versions let the client keep a copy of every checkpoint that it uploaded or downloaded. Nothing needs
such a copy: the client downloads what it lacks.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import platformdirs

from amc_agents.cleaning.checkpoint_files import is_checkpoint
from amc_agents.cleaning.removable import Kind, Removable


def cache_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where the client keeps files of artifacts: below WANDB_CACHE_DIR, else in the user's cache folder."""
    return Path(environ.get("WANDB_CACHE_DIR") or platformdirs.user_cache_path("wandb")) / "artifacts"


def cache_size(folder: Path) -> int:
    """Return the bytes of all files below a folder; 0 where it does not exist."""
    return sum(status.st_size for _, status in _files(folder))


def cached_checkpoints(folder: Path, *, now: float, older_than_s: float) -> list[Removable]:
    """Return the copies of our checkpoints that were not changed for this long; foreign files are left alone."""
    limit = now - older_than_s
    return [
        Removable(Kind.CACHED, path)
        for path, status in _files(folder / "obj")
        if max(status.st_mtime, status.st_ctime) < limit and is_checkpoint(path)
    ]


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            with contextlib.suppress(OSError):  # removed meanwhile
                if not path.is_symlink():
                    yield path, path.stat()
