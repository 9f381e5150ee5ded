"""Which code and which device computed a run."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import torch


def git_commit() -> str | None:
    """Return the commit of the checkout that this code runs from, with ``+dirty`` after local changes.

    None for an installed wheel, even inside somebody's repository, and where git is missing.
    """
    source = Path(__file__)
    tracked = _git(source.parent, "ls-files", "--error-unmatch", source.name)
    commit = _git(source.parent, "rev-parse", "HEAD") if tracked else None
    if commit is None:
        return None
    changes = _git(source.parent, "status", "--porcelain", "--untracked-files=no")
    return f"{commit}+dirty" if changes else commit


def device_name(device: torch.device) -> str:
    """Return the GPU's name, or the processor's architecture."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"CPU {platform.machine()}"


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        result = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None
