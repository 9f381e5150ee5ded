"""Checkpoints are whole or absent."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from damaged_files import damages

from amc_core.config import TrialConfig
from amc_core.training.checkpoint import (
    Checkpoint,
    CheckpointError,
    keep_as,
    load_checkpoint,
    save_checkpoint,
    set_aside,
)


def checkpoint(epoch: int = 3) -> Checkpoint:
    return Checkpoint(
        run="94fqx0gz",
        config=TrialConfig().to_mapping(),
        epoch=epoch,
        steps_done=7,
        split_fingerprint="0123456789abcdef",
        trained_on=[{"split_fingerprint": "0123456789abcdef", "split": [0.8, 0.1, 0.1]}],
        metrics={"val/combined_acc": 0.5},
        model={"weight": torch.arange(6.0).reshape(2, 3)},
        criterion={"log_variance": torch.zeros(2)},
        training={"random": {"cpu": torch.get_rng_state(), "cuda": None}},
    )


def test_a_saved_checkpoint_is_loaded_unchanged(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "best.pt", checkpoint())
    loaded = load_checkpoint(tmp_path / "best.pt")
    assert (loaded.run, loaded.epoch, loaded.steps_done) == ("94fqx0gz", 3, 7)
    assert list(loaded.trained_on) == checkpoint().trained_on
    assert torch.equal(loaded.training["random"]["cpu"], torch.get_rng_state())
    assert loaded.split_fingerprint == "0123456789abcdef"
    assert TrialConfig.from_mapping(loaded.config) == TrialConfig()
    assert torch.equal(loaded.model["weight"], checkpoint().model["weight"])
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".pt"] == ["best.pt"]


def test_a_failed_save_leaves_only_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    with pytest.raises(CheckpointError, match="not a checkpoint of format"):
        load_checkpoint(tmp_path / "foreign.pt")


def test_the_refusal_does_not_pass_on_torchs_advice_to_run_code_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "frames.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(4096))
    with pytest.raises(CheckpointError, match=r"4104 bytes .*\(BadZipFile File is not a zip file\)"):
        load_checkpoint(path)
    torch.save({"format": 1, "model": Payload(tmp_path / "touched")}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError, match=r"bytes .*\(UnpicklingError\)") as caught:
        load_checkpoint(tmp_path / "evil.pt")
    assert "weights_only" not in str(caught.value)


def test_every_damage_is_refused_as_a_checkpoint_error_or_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, checkpoint())
    whole = load_checkpoint(path)
    refused = 0
    for content in damages(path.read_bytes(), 300, seed=1):
        (tmp_path / "damaged.pt").write_bytes(content)
        try:
            loaded = load_checkpoint(tmp_path / "damaged.pt")
        except CheckpointError:
            refused += 1
        else:  # in the padding between the parts
            assert str(loaded) == str(whole)
    assert refused > 150


@pytest.mark.parametrize("change", [{"epoch": "2"}, {"model": []}, {"extra": 1}, {"run": None}])
def test_a_checkpoint_with_other_content_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    torch.save({"format": 3, **vars(checkpoint()), **change}, tmp_path / "last.pt")
    with pytest.raises(CheckpointError, match="does not fit a checkpoint of this program"):
        load_checkpoint(tmp_path / "last.pt")


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


@pytest.mark.parametrize("links", [True, False])
def test_a_second_name_stays_when_the_first_is_replaced(
    tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(_self: Path, _target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    if not links:
        monkeypatch.setattr(Path, "hardlink_to", no_links)
    save_checkpoint(tmp_path / "last.pt", checkpoint(epoch=1))
    keep_as(tmp_path / "last.pt", "best.pt")
    save_checkpoint(tmp_path / "last.pt", checkpoint(epoch=2))
    assert [load_checkpoint(tmp_path / name).epoch for name in ("best.pt", "last.pt")] == [1, 2]
    keep_as(tmp_path / "last.pt", "best.pt")
    assert load_checkpoint(tmp_path / "best.pt").epoch == 2
    assert sorted(path.name for path in tmp_path.glob("*.pt")) == ["best.pt", "last.pt"]


def test_an_earlier_trials_checkpoints_are_set_aside_and_never_overwritten(tmp_path: Path) -> None:
    assert set_aside(tmp_path) is None
    for epoch in (1, 2):
        save_checkpoint(tmp_path / "best.pt", checkpoint(epoch=epoch))
        assert set_aside(tmp_path) == tmp_path / f"before_{epoch}"
    assert not list(tmp_path.glob("*.pt"))
    assert [load_checkpoint(tmp_path / f"before_{number}" / "best.pt").epoch for number in (1, 2)] == [1, 2]


def test_a_disk_that_is_full_while_a_checkpoint_is_written_is_an_os_error(tmp_path: Path) -> None:
    # A limit of the process replaces the full disk: both make a write fail.
    code = """
import pathlib, resource, signal, sys
import torch
from test_checkpoint import checkpoint
from amc_core.training.checkpoint import save_checkpoint
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
large = checkpoint()
large.model["weight"] = torch.zeros(1_000_000)
try:
    save_checkpoint(pathlib.Path(sys.argv[1]), large)
except OSError as error:
    print(error)
"""
    folder = tmp_path / "run"
    folder.mkdir()
    folders = [str(Path(__file__).parent), *sys.path]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {folders!r}\n{code}", str(folder / "last.pt")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "File too large" in done.stdout
    assert list(folder.iterdir()) == []
