"""Free memory of a container or a cluster job, from written control groups of both versions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from amc_core.data import storage
from amc_core.data.storage import find_room
from amc_core.machine.memory import free_memory, memory_groups

VERSION_2 = ("memory.max", "memory.current", "inactive_file")
VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def plant(folder: Path, names: tuple[str, str, str], limit: object, used: int, reclaimable: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"active_file 9\n{names[2]} {reclaimable}\nslab 5\n")


def groups(tmp_path: Path, lines: str) -> list[Path]:
    (tmp_path / "cgroup").write_text(lines)
    return memory_groups(tmp_path / "cgroup", tmp_path / "fs")


def test_the_limit_of_a_cluster_job_counts_although_it_lies_above_the_step(tmp_path: Path) -> None:
    # Slurm with version 2: the job has the limit, the step that runs in it has none of its own.
    plant(tmp_path / "fs" / "slurm" / "job_7", VERSION_2, 1000, 400)
    plant(tmp_path / "fs" / "slurm" / "job_7" / "step_0", VERSION_2, "max", 300)
    folders = groups(tmp_path, "0::/slurm/job_7/step_0\n")
    assert folders[0] == tmp_path / "fs" / "slurm" / "job_7" / "step_0"
    assert free_memory(folders) == 600


def test_version_1_is_read_from_the_memory_controller_and_not_from_another(tmp_path: Path) -> None:
    plant(tmp_path / "fs" / "memory" / "job", VERSION_1, 1000, 400, 50)
    plant(tmp_path / "fs" / "cpu" / "job", VERSION_1, 10, 5)
    assert free_memory(groups(tmp_path, "5:cpu,cpuacct:/job\n4:memory:/job\n1:name=systemd:/job\n")) == 650


def test_in_a_container_the_mounted_root_is_the_group(tmp_path: Path) -> None:
    plant(tmp_path / "fs", VERSION_2, 1000, 900)
    assert free_memory(groups(tmp_path, "0::/path/of/the/host\n")) == 100
    plant(tmp_path / "elsewhere", VERSION_2, 10, 9)
    assert free_memory(groups(tmp_path, "0::/../elsewhere\n")) == 100  # nothing outside of the mount


def test_file_pages_that_the_kernel_can_free_count_as_free(tmp_path: Path) -> None:
    # A trial that has read 800 bytes of its file would otherwise find its own container full.
    plant(tmp_path / "fs", VERSION_2, 1000, 900, 800)
    assert free_memory(groups(tmp_path, "0::/\n")) == 900


@pytest.mark.parametrize("lines", ["0::/\n", "no such line\n", ""])
def test_without_a_limit_the_answer_is_none(tmp_path: Path, lines: str) -> None:
    plant(tmp_path / "fs", VERSION_2, "max", 900)
    assert free_memory(groups(tmp_path, lines)) is None
    assert memory_groups(tmp_path / "none") == []


def test_a_containers_limit_below_the_machines_memory_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(tmp_path, VERSION_2, 5000, 1000, 500)
    monkeypatch.setattr(storage, "memory_groups", lambda: [tmp_path])
    assert find_room(torch.device("cpu")).ram == 4500
    plant(tmp_path, VERSION_2, 1 << 62, 0)
    assert 4500 < find_room(torch.device("cpu")).ram < 1 << 62
