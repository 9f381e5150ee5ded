"""Is a folder on a network file system? SQLite's write-ahead log needs a disk of this machine."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import psutil

# As /proc/mounts names them. https://sqlite.org/wal.html: "WAL does not work over a network filesystem."
_NETWORK = {
    *("nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "9p", "ceph", "lustre", "gpfs", "beegfs", "panfs"),
    *("glusterfs", "orangefs", "pvfs2", "ocfs2", "gfs2", "wekafs", "fuse.sshfs", "fuse.glusterfs", "fuse.ceph"),
    *("fuse.juicefs", "fuse.s3fs", "fuse.gcsfuse", "fuse.rclone", "fuse.beegfs"),
}


class Mount(NamedTuple):
    """A mounted file system."""

    mountpoint: str
    fstype: str
    device: str


def network_disk(folder: Path, mounts: Iterable[Mount] | None = None) -> Mount | None:
    """Return the network file system that a folder is on; it need not exist yet. None for a local disk.

    Args:
        mounts: of this machine by default.
    """
    mount = mount_of(folder, mounts)
    return mount if mount is not None and mount.fstype in _NETWORK else None


def mount_of(folder: Path, mounts: Iterable[Mount] | None = None) -> Mount | None:
    """Return the file system that a folder is on; it need not exist yet. None where it is not known.

    Args:
        mounts: of this machine by default.
    """
    if mounts is None:
        mounts = [Mount(part.mountpoint, part.fstype, part.device) for part in psutil.disk_partitions(all=True)]
    path = Path(os.path.realpath(folder))  # Path.resolve raises for a link to itself
    over = [mount for mount in mounts if path.is_relative_to(mount.mountpoint)]
    # A later mount hides an earlier one on the same folder.
    nearest = max(enumerate(over), key=lambda item: (len(Path(item[1].mountpoint).parts), item[0]), default=None)
    return None if nearest is None else nearest[1]


def network_disk_warning(folder: Path, mount: Mount) -> tuple[str, str]:
    """Return what is wrong with a data folder on a network file system, and what to do."""
    return (
        f"the data folder {folder} is on a network file system ({mount.fstype}, {mount.device}). SQLite's write-ahead "
        "log needs a disk of this machine: a database over the network can be damaged",
        "choose a folder on a local disk, such as amc-sweep serve --data /var/tmp/amc-sweep, and copy it "
        "with amc-sweep backup",
    )
