"""Checkpoints are whole or absent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from amc_core.checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from amc_core.config import TrialConfig


def checkpoint(epoch: int = 3) -> Checkpoint:
    return Checkpoint(
        config=TrialConfig().to_mapping(),
        epoch=epoch,
        split_fingerprint="0123456789abcdef",
        metrics={"val/combined_acc": 0.5},
        model={"weight": torch.arange(6.0).reshape(2, 3)},
        criterion={"log_variance": torch.zeros(2)},
    )


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "best.pt", checkpoint())
    loaded = load_checkpoint(tmp_path / "best.pt")
    assert loaded.epoch == 3
    assert loaded.split_fingerprint == "0123456789abcdef"
    assert TrialConfig.from_mapping(loaded.config) == TrialConfig()
    assert torch.equal(loaded.model["weight"], checkpoint().model["weight"])
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".pt"] == ["best.pt"]


def test_a_failed_save_leaves_the_old_checkpoint_and_no_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run" / "best.pt"
    path.parent.mkdir()
    save_checkpoint(path, checkpoint(epoch=1))

    def disk_full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", disk_full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(path, checkpoint(epoch=2))
    monkeypatch.undo()
    assert load_checkpoint(path).epoch == 1
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("kept", [0, 10, 600])
def test_a_truncated_checkpoint_is_refused_clearly(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, checkpoint())
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=r"last\.pt: \d+ bytes that are not a complete checkpoint"):
        load_checkpoint(path)


def test_a_missing_or_foreign_file_is_refused_clearly(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "none.pt")
    torch.save({"state_dict": {}}, tmp_path / "foreign.pt")
    with pytest.raises(CheckpointError, match="no checkpoint of format"):
        load_checkpoint(tmp_path / "foreign.pt")


class Payload:
    """Touches a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return Path.touch, (str(self.path),)


def test_loading_runs_no_code_from_the_file(tmp_path: Path) -> None:
    torch.save({"format": 1, "model": Payload(tmp_path / "touched")}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path / "evil.pt")
    assert not (tmp_path / "touched").exists()
