"""The files of this repository, in a checkout and in an unpacked source archive."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
_WRITTEN_BY_TOOLS = ("__pycache__", ".egg-info", ".hypothesis", "_cache")


def repository_files() -> list[str]:
    """Return the paths of all files, relative to the root: those that git tracks, or all where there is no git."""
    if (ROOT / ".git").exists():
        listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
        return listed.stdout.split()
    paths = (path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file())
    return [str(path) for path in paths if not any(part.endswith(_WRITTEN_BY_TOOLS) for part in path.parts)]
