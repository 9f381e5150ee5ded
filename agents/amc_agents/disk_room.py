"""How much room a folder's disk gives this user: bytes, files, and the quota where the system tells it."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from amc_server.store.network_disk import Mount, mount_of

_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Room:
    """What is free; None: no limit, or not known."""

    free_bytes: int
    free_files: int | None  # inodes; some file systems have no limit
    is_writable: bool
    quota: Quota | None = None


@dataclass(frozen=True)
class Quota:
    """A user's quota on one file system; None: no limit."""

    used_bytes: int
    most_bytes: int | None
    used_files: int
    most_files: int | None


def read_room(folder: Path) -> Room:
    """Look at a folder, or at its nearest parent that exists."""
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.is_dir())
    status = os.statvfs(existing)
    return Room(
        free_bytes=status.f_bavail * status.f_frsize,
        free_files=status.f_favail if status.f_files else None,
        is_writable=os.access(existing, os.W_OK | os.X_OK),
        quota=_read_quota(existing),
    )


def _read_quota(folder: Path) -> Quota | None:
    """Ask ``quota``, or ``lfs quota`` on Lustre; None where the program is missing or knows no quota."""
    mount = mount_of(folder)
    if mount is None:
        return None
    command = ["quota", "-w", "-p"]
    if mount.fstype == "lustre":
        command = ["lfs", "quota", "-q", "-u", _user(), str(folder)]
    if shutil.which(command[0]) is None:
        return None
    try:
        # Above its quota, a user gets exit code 1 with the same output.
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_quota(done.stdout, mount)


def parse_quota(text: str, mount: Mount) -> Quota | None:
    """Return the quota of a file system from the output of quota(1) or of ``lfs quota``.

    Both print a line of file system, kB used, soft limit, hard limit, grace, and the same four for files. The soft
    limit counts: above it, writing fails after the grace. A limit of 0 is none. A ``*`` marks a number above its limit.
    """
    for line in text.splitlines():
        name, *fields = line.split()[:9] or [""]
        numbers = [field.rstrip("*k") for field in fields]
        wanted = [*numbers[0:3], *numbers[4:7]]
        is_quota = len(numbers) == 8 and all(number.isdecimal() for number in wanted)
        if name not in (mount.device, mount.mountpoint) or not is_quota:
            continue
        used, soft, hard, used_files, soft_files, hard_files = map(int, wanted)
        most, most_files = soft or hard, soft_files or hard_files
        if not most and not most_files:
            return None
        return Quota(used * 1024, most * 1024 or None, used_files, most_files or None)
    return None


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container may have no user of this number
        return str(os.getuid())
