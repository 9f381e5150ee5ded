"""Which checkpoint a run continues from, and what its folder records; real checkpoints, no server."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_files import Memory, synthetic_file, tiny_trial

from amc_agents.trial.end_and_history import append_row, read_end, read_rows, remove_end, truncate_rows, write_end
from amc_agents.trial.relaunch import continued_values
from amc_agents.trial.reopen import Reopened, reopen_preempted
from amc_agents.trial.resume_checkpoint import find_resume_point
from amc_core.files import append_durably
from amc_core.training.checkpoint import CheckpointError
from amc_core.training.loop import train
from amc_sweeps.runs.causes import EndReason


class _Artifact:
    """An artifact that W&B keeps, as a folder."""

    name = "checkpoint-gem:v0"

    def __init__(self, folder: Path, epoch: int) -> None:
        self._folder = folder
        self.metadata = {"epoch": epoch, "steps_done": 0}

    def download(self, root: str, *, skip_cache: bool) -> None:
        assert skip_cache, "the cache would keep a copy of every checkpoint"
        for path in self._folder.glob("*.pt"):
            shutil.copy(path, root)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Return the folder of run ``gem`` after one or two epochs."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("trained")
    data = synthetic_file(root, levels_db=(20,), frames_per_cell=10)
    for epochs in (1, 2):
        train(tiny_trial(data, epochs=epochs), run_dir=root / str(epochs) / "gem", record=Memory())
    return lambda epochs: root / str(epochs) / "gem"


def _no_artifact() -> None:
    return None


def test_a_run_continues_from_its_later_checkpoint(tmp_path: Path, trained: Callable[[int], Path]) -> None:
    folder = tmp_path / "gem"
    assert find_resume_point("gem", folder, _no_artifact) is None
    shutil.copytree(trained(1), folder)
    local = find_resume_point("gem", folder, _no_artifact)
    assert local is not None
    assert (local.epoch, local.source, int(local.metrics["epoch"])) == (1, "the run's folder", 1)

    older = _Artifact(trained(1), epoch=1)
    assert find_resume_point("gem", folder, lambda: older) == local
    newer = _Artifact(trained(2), epoch=2)
    downloaded = find_resume_point("gem", folder, lambda: newer)
    assert downloaded is not None
    assert (downloaded.epoch, downloaded.path, downloaded.source) == (
        2,
        folder / "last.pt",
        "W&B's artifact checkpoint-gem:v0",
    )
    assert (folder / "before_1" / "last.pt").is_file(), "older checkpoints are moved away"
    assert not list(folder.glob(".fetch-*"))


def test_wandb_is_not_needed_where_the_folder_has_a_checkpoint(tmp_path: Path, trained: Callable[[int], Path]) -> None:
    def unreachable() -> None:
        raise ConnectionError("no route to host")

    with pytest.raises(ConnectionError):
        find_resume_point("gem", tmp_path / "gem", unreachable)
    point = find_resume_point("gem", trained(1), unreachable)
    assert point is not None
    assert point.epoch == 1


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path, trained: Callable[[int], Path]) -> None:
    shutil.copytree(trained(1), tmp_path / "other")
    with pytest.raises(CheckpointError, match=r"of run gem, not of other: .*--init_from="):
        find_resume_point("other", tmp_path / "other", _no_artifact)


def test_machine_and_flags_override_the_recorded_settings_of_a_continued_run() -> None:
    recorded = {"data": "/there.hdf5", "epochs": 5, "max_lr": 1e-3, "split_fingerprint": "x", "repeat_of": "y"}
    assert continued_values(recorded, {}, {}) == {"data": "/there.hdf5", "epochs": 5, "max_lr": 1e-3}
    older = {**recorded, "model_type": "resnet18", "representation": "synced", "batch_size": 8, "seed": 0}
    assert continued_values(older, {}, {})["batch_norm_frames"] == 0  # older than this field
    assert continued_values({**older, "batch_norm_frames": 4096}, {}, {})["batch_norm_frames"] == 4096
    assert continued_values(recorded, {"data": "/here.hdf5"}, {"epochs": 9})["data"] == "/here.hdf5"
    assert continued_values(recorded, {"data": "/here.hdf5"}, {"epochs": 9, "data": "/f"})["data"] == "/f"


def test_a_folders_history_is_cut_back_to_its_checkpoint_and_keeps_its_last_row(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"epoch": epoch, "val/loss": 1 / epoch} for epoch in (1, 2, 3)]
    for row in rows:
        append_row(tmp_path, row)
    with (tmp_path / "history.jsonl").open("a") as file:
        file.write('{"epoch": 4, "val/lo')  # cut off by a crash
    damaged = [b"\n\xff", b'{"epoch": null}', b'{"epoch": "5"}', b'{"epoch": NaN}', b'{"epoch": \xff}', b"[]"]
    append_durably(tmp_path / "history.jsonl", damaged)
    assert read_rows(tmp_path) == rows
    assert truncate_rows(tmp_path, epochs=2, last=rows[1]) == rows[:2] == read_rows(tmp_path)
    assert truncate_rows(tmp_path, epochs=3, last=rows[2]) == rows, "killed between checkpoint and log"
    assert truncate_rows(tmp_path, epochs=0, last={}) == []


def test_the_end_of_a_trial_is_read_back_and_can_be_removed(tmp_path: Path) -> None:
    assert read_end(tmp_path) is None
    write_end(tmp_path / "run", EndReason.PREEMPTED, run="e/p/r")
    end = read_end(tmp_path / "run")
    assert end is not None
    assert (end.reason, end.run) == (EndReason.PREEMPTED, "e/p/r")
    assert json.loads((tmp_path / "run" / "end.json").read_text())["exit_code"] == 75
    remove_end(tmp_path / "run")
    assert read_end(tmp_path / "run") is None


def test_only_a_preempted_trial_is_reopened_and_others_need_no_server(tmp_path: Path) -> None:
    nowhere = {"WANDB_BASE_URL": "http://127.0.0.1:9"}
    assert reopen_preempted("e/p/r", tmp_path, environ=nowhere) is Reopened.NOT_PREEMPTED
    write_end(tmp_path, EndReason.STOPPED)
    assert reopen_preempted("e/p/r", tmp_path, environ=nowhere) is Reopened.NOT_PREEMPTED
