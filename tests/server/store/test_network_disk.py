"""Data folders on network file systems: found by the mounts, warned of by serve and doctor."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from embedded_server import EmbeddedServer

from amc_agents.doctor import check_server_disk
from amc_server.store.network_disk import Mount, network_disk

MOUNTS = [
    Mount("/", "ext4", "/dev/vda"),
    Mount("/home", "nfs4", "server:/home"),
    Mount("/home/ada/scratch", "xfs", "/dev/vdb"),
    Mount("/lustre", "autofs", "auto"),
    Mount("/lustre", "lustre", "mgs:/l"),
]


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/home/ada/.local/share/amc-sweep", "nfs4"),
        ("/home/ada/scratch/data", None),
        ("/homes/ada", None),
        ("/lustre/project/data", "lustre"),
        ("/var/tmp/amc-sweep", None),
    ],
)
def test_the_nearest_mount_decides(folder: str, kind: str | None) -> None:
    mount = network_disk(Path(folder), MOUNTS)
    assert (mount.fstype if mount else None) == kind


def test_this_machines_mounts_can_be_read(tmp_path: Path) -> None:
    assert network_disk(Path("/proc/self"), None) is None
    assert check_server_disk(tmp_path) is None


def test_serve_and_doctor_warn_and_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine has no network file system, so the list of mounts is given."""
    mounts = (
        "import psutil; from amc_server.store.network_disk import Mount; "
        f"psutil.disk_partitions = lambda all: [Mount({str(tmp_path)!r}, 'nfs', 's:/x')]"
    )
    with EmbeddedServer(tmp_path / "data", prelude=mounts) as server:
        deadline = time.monotonic() + 20
        while "Ctrl-C" not in server.log.read_text() and time.monotonic() < deadline:
            time.sleep(0.05)
        text = server.log.read_text()
    assert "Warning: the data folder" in text
    assert "nfs, s:/x" in text
    assert "amc-sweep serve --data" in text
    monkeypatch.setattr("psutil.disk_partitions", lambda all: [Mount(str(tmp_path), "nfs", "s:/x")])  # noqa: A006
    check = check_server_disk(tmp_path / "data")
    assert check is not None
    assert check.verdict == "warn"
    assert "amc-sweep serve --data" in (check.remedy or "")
