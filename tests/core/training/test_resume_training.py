"""Continuing a trial exactly, starting from its weights, and refusing other splits."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from captured_graphs import capture_graphs
from tiny_files import Memory, synthetic_file, tiny_trial, without_time

from amc_core.config import ConfigError, TrialConfig
from amc_core.training import preparation
from amc_core.training.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from amc_core.training.loop import TrialResult, train

STEPS = 4  # optimiser steps an epoch: 272 frames in batches of 64
ASKED = STEPS + 1  # times that a stop is asked for an epoch: before every step, and before the one batch of validation


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return synthetic_file(tmp_path_factory.mktemp("data"), levels_db=(0, 20), frames_per_cell=10)


def run(config: TrialConfig, folder: Path, *, stop_at: int | None = None) -> tuple[TrialResult, Memory]:
    """Train; the ``stop_at``-th call of should_stop ends it."""
    asked = 0

    def should_stop() -> str | None:
        nonlocal asked
        asked += 1
        return "preempted" if asked == stop_at else None

    record = Memory()
    return train(config, run_dir=folder, record=record, should_stop=should_stop), record


EVERYTHING: dict[str, Any] = {
    "epochs": 4,
    "dropout": 0.3,  # draws random numbers
    "curriculum": True,
    "curriculum_window": 1,
    "snr_loss": "d2",
    "grad_clip_norm": 1.0,
    "micro_batch_size": 40,
    "model_type": "test_byobnet",  # batch norm: running means
    "batch_norm_frames": 80,  # two batches, between which a stop is asked for, too
    "patience": 2,
    "min_cycles": 0,
}


@pytest.mark.parametrize(
    ("changes", "stop_at"),
    [
        ({"lr_schedule": "plateau", "plateau_patience": 0, "curriculum": False}, 3 + ASKED),  # between two epochs
        (
            {"lr_schedule": "cosine", "augment": True, "curriculum_mode": "strict"},
            5 + 4,
        ),  # inside the second epoch; the first has 136 frames: 2 steps
        (
            {"lr_schedule": "constant", "augment": True, "curriculum_window": 2, "ema_decay": 0.9},
            3 + ASKED + 2,
        ),  # inside the second epoch, in which the levels have other weights than in the first
        ({"lr_schedule": "constant", "curriculum": False, "select_by": "loss"}, 2 * ASKED + 4),  # before its validation
        (
            {"lr_schedule": "triangular2", "curriculum": False, "ema_decay": 0.9},
            2 * ASKED + 2,
        ),  # inside the second epoch
        (
            {"lr_schedule": "triangular2", "curriculum": False, "ema_decay": 0.9},
            2 * ASKED + 3,
        ),  # while batch norm is renewed for it
        (
            {
                "lr_schedule": "cosine",
                "curriculum": False,
                "augment": True,
                "compile": True,
                "model_type": "amc_convnet",
            },
            2 * ASKED + 2,
        ),  # compiled again by the process that continues
    ],
)
def test_a_resumed_trial_equals_an_uninterrupted_one_to_the_last_bit(
    data: Path, tmp_path: Path, changes: dict[str, Any], stop_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    capture_graphs(monkeypatch)  # a compiler's own random numbers are another matter
    config = EVERYTHING | changes
    whole_result, whole = run(tiny_trial(data, **config), tmp_path / "whole")

    first_result, first = run(tiny_trial(data, **config), tmp_path / "first", stop_at=stop_at)
    assert first_result.end == "preempted"
    assert 0 < first_result.epochs < whole_result.epochs
    torch.manual_seed(12345)  # another process has other random numbers
    resumed_config = tiny_trial(data, **config, resume_from=str(tmp_path / "first" / "last.pt"))
    resumed_result, resumed = run(resumed_config, tmp_path / "second")

    assert without_time([*first.history, *resumed.history]) == without_time(whole.history)
    assert (resumed_result.end, resumed_result.best_epoch) == (whole_result.end, whole_result.best_epoch)
    assert resumed_result.test == whole_result.test
    assert resumed.last == whole.last
    for name in ("last.pt", "best.pt", "best_loss.pt", "best_combined_acc.pt"):
        expected, actual = load_checkpoint(tmp_path / "whole" / name), load_checkpoint(tmp_path / "second" / name)
        assert expected.epoch == actual.epoch
        assert expected.model.keys() == actual.model.keys()
        assert all(torch.equal(expected.model[key], actual.model[key]) for key in expected.model)
        trained, trained_too = (checkpoint.training.get("weights", {}) for checkpoint in (expected, actual))
        assert all(torch.equal(trained[key], trained_too[key]) for key in trained)
        for expected_state, actual_state in zip(
            expected.training["optimiser"]["state"].values(),
            actual.training["optimiser"]["state"].values(),
            strict=True,
        ):
            assert all(torch.equal(expected_state[key], actual_state[key]) for key in expected_state)
        assert torch.equal(expected.training["random"]["cpu"], actual.training["random"]["cpu"])
    assert resumed.facts["parent_run"] == "first"
    assert resumed.facts["parent_split_fingerprint"] == resumed.facts["split_fingerprint"]
    assert resumed.facts["split_override"] is False


@pytest.mark.parametrize("stop_at", [3, ASKED, ASKED + 2])  # inside a pass, before its validation, in the next epoch
def test_a_resumed_trial_counts_the_bad_frames_of_an_uninterrupted_one(
    data: Path, tmp_path: Path, stop_at: int
) -> None:
    spoiled = tmp_path / "spoiled.hdf5"
    spoiled.write_bytes(data.read_bytes())
    with h5py.File(spoiled, "r+") as raw:
        raw["X"][::10, 100, 1] = np.inf
    _, whole = run(tiny_trial(spoiled), tmp_path / "whole")
    _, first = run(tiny_trial(spoiled), tmp_path / "part", stop_at=stop_at)
    _, second = run(tiny_trial(spoiled, resume_from=str(tmp_path / "part")), tmp_path / "part")
    assert 0 < whole.last["bad_frames"] <= 34
    assert second.last == whole.last
    assert without_time([*first.history, *second.history]) == without_time(whole.history)


@pytest.mark.parametrize(("fits", "taken"), [(16, 16), (64, 32)])
def test_a_resumed_trial_divides_its_batches_as_before_unless_this_machine_has_less_room(
    data: Path,
    tmp_path: Path,
    fits: int,
    taken: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # Only a GPU is probed: here the probe is a number.
    monkeypatch.setattr(preparation, "micro_batch_frames", lambda *_: 32)
    _, first = run(tiny_trial(data, epochs=1), tmp_path / "a")
    monkeypatch.setattr(preparation, "micro_batch_frames", lambda *_: fits)
    _, second = run(tiny_trial(data, epochs=2, resume_from=str(tmp_path / "a")), tmp_path / "b")
    assert (first.facts["micro_batch_frames"], second.facts["micro_batch_frames"]) == (32, taken)
    assert ("this GPU takes 16 frames per forward pass, the trial had 32" in capsys.readouterr().err) == (taken < 32)


def test_a_stop_in_the_middle_keeps_the_steps_that_were_done(data: Path, tmp_path: Path) -> None:
    result, _ = run(tiny_trial(data), tmp_path, stop_at=ASKED + 3)
    last = load_checkpoint(tmp_path / "last.pt")
    assert (result.epochs, last.epoch, last.steps_done) == (1, 1, 2)


def test_a_finished_trial_continues_when_epochs_is_raised(data: Path, tmp_path: Path) -> None:
    run(tiny_trial(data, epochs=2), tmp_path / "short")
    config = tiny_trial(data, epochs=3, resume_from=str(tmp_path / "short"))  # a folder stands for its last.pt
    result, record = run(config, tmp_path / "longer")
    assert [row["epoch"] for row in record.history] == [3]
    assert result.epochs == 3


def test_resuming_in_the_same_folder_keeps_its_best_checkpoint(data: Path, tmp_path: Path) -> None:
    run(tiny_trial(data, epochs=3), tmp_path, stop_at=2 * ASKED)
    best = load_checkpoint(tmp_path / "best.pt").epoch
    result, _ = run(tiny_trial(data, epochs=3, resume_from=str(tmp_path)), tmp_path)
    assert result.end == "completed"
    assert load_checkpoint(tmp_path / "best.pt").epoch >= best
    assert not (tmp_path / "before_1").exists()


def test_resuming_with_other_settings_is_refused_naming_all_of_them(data: Path, tmp_path: Path) -> None:
    run(tiny_trial(data, epochs=1), tmp_path / "a")
    changed = tiny_trial(data, batch_size=32, max_lr=2e-3, patience=3, resume_from=str(tmp_path / "a"))
    with pytest.raises(ConfigError) as caught:
        run(changed, tmp_path / "b")
    assert len(caught.value.problems) == 2
    assert "resume_from: batch_size was 64 and is 32" in caught.value.problems[0]
    assert not (tmp_path / "b" / "last.pt").exists()


def test_a_continued_cosine_keeps_its_epochs(data: Path, tmp_path: Path) -> None:
    run(tiny_trial(data, lr_schedule="cosine", epochs=1), tmp_path / "a")
    longer = tiny_trial(data, lr_schedule="cosine", epochs=2, resume_from=str(tmp_path / "a"))
    with pytest.raises(ConfigError, match="resume_from: epochs was 1 and is 2"):
        run(longer, tmp_path / "b")


def test_a_checkpoint_with_the_old_word_of_a_setting_continues(data: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"snr_loss": "d2", "snr_loss_scale": "levels"}
    run(tiny_trial(data, epochs=1, **changes), tmp_path / "a")
    written = load_checkpoint(tmp_path / "a" / "last.pt")
    for name in ("last.pt", "best.pt", "best_combined_acc.pt"):
        old = dataclasses.replace(written, config={**written.config, "snr_loss_scale": "runlog"})
        save_checkpoint(tmp_path / "a" / name, old)
    result, _ = run(tiny_trial(data, epochs=2, **changes, resume_from=str(tmp_path / "a")), tmp_path / "b")
    assert result.end == "completed"


def test_a_checkpoint_older_than_a_setting_was_trained_with_its_default(data: Path, tmp_path: Path) -> None:
    run(tiny_trial(data, epochs=1), tmp_path / "a")
    written = load_checkpoint(tmp_path / "a" / "last.pt")
    settings = {name: value for name, value in written.config.items() if name != "augment"}
    for name in ("last.pt", "best.pt", "best_combined_acc.pt"):
        save_checkpoint(tmp_path / "a" / name, dataclasses.replace(written, config=settings))
    with pytest.raises(
        ConfigError, match=r"resume_from: augment was False \(the checkpoint is older than it\) and is True"
    ):
        run(tiny_trial(data, epochs=2, augment=True, resume_from=str(tmp_path / "a")), tmp_path / "b")
    result, _ = run(tiny_trial(data, epochs=2, resume_from=str(tmp_path / "a")), tmp_path / "b")
    assert result.end == "completed"


def test_a_curriculum_older_than_its_modes_was_a_strict_one(data: Path, tmp_path: Path) -> None:
    strict: dict[str, Any] = {"curriculum": True, "curriculum_mode": "strict", "resume_from": str(tmp_path / "a")}
    run(tiny_trial(data, epochs=1, **strict | {"resume_from": None}), tmp_path / "a")
    written = load_checkpoint(tmp_path / "a" / "last.pt")
    settings = {name: value for name, value in written.config.items() if name != "curriculum_mode"}
    for name in ("last.pt", "best.pt", "best_combined_acc.pt"):
        save_checkpoint(tmp_path / "a" / name, dataclasses.replace(written, config=settings))
    with pytest.raises(ConfigError, match=r"resume_from: curriculum_mode was 'strict' .* and is 'sliding'"):
        run(tiny_trial(data, epochs=2, **strict | {"curriculum_mode": "sliding"}), tmp_path / "b")
    result, _ = run(tiny_trial(data, epochs=2, **strict), tmp_path / "b")
    assert result.end == "completed"


def test_a_checkpoint_older_than_the_renewal_of_batch_norm_was_trained_without_it(data: Path, tmp_path: Path) -> None:
    config = {"model_type": "amc_convnet", "batch_norm_frames": 0}
    run(tiny_trial(data, epochs=1, **config), tmp_path / "a")
    written = load_checkpoint(tmp_path / "a" / "last.pt")
    settings = {name: value for name, value in written.config.items() if name != "batch_norm_frames"}
    for name in ("last.pt", "best.pt", "best_combined_acc.pt"):
        save_checkpoint(tmp_path / "a" / name, dataclasses.replace(written, config=settings))
    resumed = {"epochs": 2, "model_type": "amc_convnet", "resume_from": str(tmp_path / "a")}
    with pytest.raises(ConfigError) as caught:
        run(tiny_trial(data, **resumed), tmp_path / "b")
    assert caught.value.problems == [
        "resume_from: batch_norm_frames was 0 (the checkpoint is older than it) and is 8192; use the old value, or "
        "start a new trial from the weights with init_from"
    ]
    result, _ = run(tiny_trial(data, **resumed, batch_norm_frames=0), tmp_path / "b")
    assert result.end == "completed"


@pytest.mark.parametrize("task_weighting", ["kendall", "fixed"])
def test_losses_of_an_older_version_are_not_compared_with_those_of_this_one(
    data: Path, tmp_path: Path, task_weighting: str
) -> None:
    config = {"task_weighting": task_weighting}
    run(tiny_trial(data, epochs=1, **config), tmp_path / "a")
    written = load_checkpoint(tmp_path / "a" / "last.pt")
    metrics = {name: value for name, value in written.metrics.items() if "/loss_" not in name}
    best = {"epoch": 1, "value": -9.0}  # learned variances can make a loss negative
    training = {**written.training, "standing": {**written.training["standing"], "loss": best}}
    old = dataclasses.replace(written, metrics=metrics, training=training)
    for name in ("last.pt", "best.pt", "best_combined_acc.pt"):
        save_checkpoint(tmp_path / "a" / name, old)
    _, record = run(tiny_trial(data, epochs=2, **config, resume_from=str(tmp_path / "a")), tmp_path / "b")
    assert record.last["best_loss_epoch"] == (2 if task_weighting == "kendall" else 1)


def test_a_checkpoint_that_decayed_other_weights_is_refused(data: Path, tmp_path: Path) -> None:
    run(tiny_trial(data, epochs=1), tmp_path / "a")
    written = load_checkpoint(tmp_path / "a" / "last.pt")
    first, second = written.training["optimiser"]["param_groups"]
    moved = [*first["params"], second["params"][0]], second["params"][1:]
    groups = [{**group, "params": params} for group, params in zip((first, second), moved, strict=True)]
    training = {**written.training, "optimiser": {**written.training["optimiser"], "param_groups": groups}}
    save_checkpoint(tmp_path / "a" / "last.pt", dataclasses.replace(written, training=training))
    with pytest.raises(CheckpointError, match=r"an older version decayed other weights.*init_from"):
        run(tiny_trial(data, epochs=2, resume_from=str(tmp_path / "a")), tmp_path / "b")


def test_a_last_checkpoint_without_its_best_one_is_refused(data: Path, tmp_path: Path) -> None:
    # With a learning rate of almost 0 the first epoch stays the best, and the test needs it.
    still = {"base_lr": 1e-12, "max_lr": 1e-12, "epochs": 2}
    run(tiny_trial(data, **still), tmp_path / "a")
    alone = tmp_path / "copied" / "last.pt"
    alone.parent.mkdir()
    alone.write_bytes((tmp_path / "a" / "last.pt").read_bytes())
    with pytest.raises(CheckpointError, match=r"best checkpoint by combined_acc, of epoch 1, is not beside it"):
        run(tiny_trial(data, **still | {"epochs": 3}, resume_from=str(alone)), tmp_path / "b")


def test_init_takes_weights_only_and_a_fresh_schedule(data: Path, tmp_path: Path) -> None:
    run(tiny_trial(data, epochs=2), tmp_path / "a")
    config = tiny_trial(
        data, epochs=1, epochs_per_cycle=4, max_lr=1e-11, base_lr=1e-12, batch_size=272, init_from=str(tmp_path / "a")
    )
    _, record = run(config, tmp_path / "b")
    parent = load_checkpoint(tmp_path / "a" / "best.pt")
    started = load_checkpoint(tmp_path / "b" / "last.pt")
    assert record.history[0]["epoch"] == 1
    assert record.history[0]["lr"] == pytest.approx(1e-12)  # the start of a cycle, not where the parent was
    assert all(torch.allclose(started.model[name], parent.model[name], atol=1e-8) for name in parent.model)
    assert record.history[0]["val/combined_acc"] == parent.metrics["val/combined_acc"]
    assert started.training["optimiser"]["state"][0]["step"].item() == 1
    assert (record.facts["parent_run"], record.facts["split_override"]) == ("a", False)
    assert record.facts["heldout_trained_on"] == 0.0


def test_weights_of_another_network_are_refused(data: Path, tmp_path: Path) -> None:
    run(tiny_trial(data, epochs=1), tmp_path / "a")
    with pytest.raises(ConfigError, match=r"another network \(model_type test_vit.*tensors that do not fit"):
        run(tiny_trial(data, model_type="test_byobnet", init_from=str(tmp_path / "a")), tmp_path / "b")
    with pytest.raises(ConfigError, match="snr_head"):
        run(tiny_trial(data, snr_layer="bottleneck_64", init_from=str(tmp_path / "a")), tmp_path / "c")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"histogram_range": 1.5}, "histogram_range was 2.5 and is 1.5"),
        ({"histogram_norm": "max"}, "histogram_norm was 'none' and is 'max'"),
        ({"image_size": 48}, "image_size was 32 and is 48"),
        (
            {"representation": "synced", "image_size": 48},
            "representation was 'constellation' and is 'synced'; image_size was 32 and is 48",
        ),
        (
            {"representation": "synced", "carrier_range": 2.5e-3},
            "representation was 'constellation' and is 'synced'; carrier_range was 0.000625 and is 0.0025",
        ),
    ],
)
def test_weights_are_not_started_on_another_input_unless_it_is_allowed(
    data: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    network = {"model_type": "amc_convnet", "epochs": 1}
    run(tiny_trial(data, **network), tmp_path / "a")
    child = network | changes | {"init_from": str(tmp_path / "a")}
    with pytest.raises(ConfigError) as caught:
        run(tiny_trial(data, **child), tmp_path / "b")
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith(f"init_from: the weights were trained on another input: {message}.")
    assert "allow_split_change: true" in caught.value.problems[0]
    if "representation" in changes:  # another number of channels: no network takes that
        with pytest.raises(ConfigError, match="another network"):
            run(tiny_trial(data, **child, allow_split_change=True), tmp_path / "c")
    else:
        result, record = run(tiny_trial(data, **child, allow_split_change=True), tmp_path / "c")
        assert result.end == "completed"
        assert (record.facts["input_override"], record.facts["split_override"]) == (True, False)


def test_what_a_representation_does_not_use_may_differ(data: Path, tmp_path: Path) -> None:
    samples = {"model_type": "iq_convnet", "representation": "iq", "epochs": 1}
    run(tiny_trial(data, **samples), tmp_path / "a")
    _, record = run(tiny_trial(data, **samples, image_size=64, init_from=str(tmp_path / "a")), tmp_path / "b")
    assert record.facts["input_override"] is False


@pytest.mark.parametrize("field", ["resume_from", "init_from"])
def test_another_split_is_refused_with_the_share_of_frames_trained_on(data: Path, tmp_path: Path, field: str) -> None:
    # The 2025 research log's vocal-glade-228: an 80/10/10 checkpoint on a 70/20/10 split.
    _, parent = run(tiny_trial(data, epochs=1), tmp_path / "a")
    changed = tiny_trial(data, epochs=2, split=[0.7, 0.2, 0.1], **{field: str(tmp_path / "a")})
    with pytest.raises(ConfigError) as caught:
        run(changed, tmp_path / "b")
    message = str(caught.value)
    assert message.startswith(f"{field}: ")
    assert parent.facts["split_fingerprint"] in message
    assert "80/10/10" in message
    assert "70/20/10" in message
    assert "33.33% of the 102 held-out frames were trained on" in message
    assert "allow_split_change" in message


@pytest.mark.parametrize("field", ["resume_from", "init_from"])
def test_an_override_is_recorded_and_inherited(data: Path, tmp_path: Path, field: str) -> None:
    _, parent = run(tiny_trial(data, epochs=1), tmp_path / "a")
    changed = {"split": [0.7, 0.2, 0.1], "epochs": 2, "allow_split_change": True}
    _, child = run(tiny_trial(data, **changed, **{field: str(tmp_path / "a")}), tmp_path / "b")
    assert child.facts["split_override"] is True
    assert child.facts["parent_split_fingerprint"] == parent.facts["split_fingerprint"]
    assert child.facts["split_fingerprint"] != parent.facts["split_fingerprint"]
    assert child.facts["heldout_trained_on"] == pytest.approx(1 / 3, abs=0.01)
    # The grandchild has the child's split, but its weights were trained on these frames.
    with pytest.raises(ConfigError, match=r"33\.33% of the 102 held-out frames"):
        run(tiny_trial(data, split=[0.7, 0.2, 0.1], init_from=str(tmp_path / "b")), tmp_path / "c")


@pytest.mark.parametrize("where", ["b", "a"])
def test_a_resumed_trial_on_another_split_is_judged_by_that_split_alone(data: Path, tmp_path: Path, where: str) -> None:
    run(tiny_trial(data, epochs=2), tmp_path / "a")
    parent = load_checkpoint(tmp_path / "a" / "last.pt")
    standing = {**parent.training["standing"], "combined_acc": {"epoch": 2, "value": 0.99}}  # never reached again
    flattering = dataclasses.replace(parent, training={**parent.training, "standing": standing})
    for name in ("last.pt", "best_combined_acc.pt", "best.pt"):
        save_checkpoint(tmp_path / "a" / name, flattering)

    changed = {"split": [0.7, 0.2, 0.1], "allow_split_change": True, "resume_from": str(tmp_path / "a")}
    result, record = run(tiny_trial(data, epochs=3, **changed), tmp_path / where)
    assert (result.end, result.best_epoch, record.last["test_checkpoint_epoch"]) == ("completed", 3, 3)
    assert record.history[0]["best/combined_acc"] == record.history[0]["val/combined_acc"] == result.best_value
    for name in ("best.pt", "best_combined_acc.pt", "best_loss.pt", "last.pt"):
        kept = load_checkpoint(tmp_path / where / name)
        assert (kept.epoch, kept.split_fingerprint) == (3, record.facts["split_fingerprint"])
    if where == "a":
        assert load_checkpoint(tmp_path / "a" / "before_1" / "best.pt").split_fingerprint == parent.split_fingerprint


def test_a_trial_that_crashes_right_after_a_split_change_can_be_continued(data: Path, tmp_path: Path) -> None:
    run(tiny_trial(data, epochs=1), tmp_path)
    config = tiny_trial(data, epochs=2, split=[0.7, 0.2, 0.1], allow_split_change=True, resume_from=str(tmp_path))

    def die() -> str | None:
        raise OSError("the machine is gone")

    with pytest.raises(OSError, match="gone"):
        train(config, run_dir=tmp_path, record=Memory(), should_stop=die)
    result, record = run(config, tmp_path)
    assert (result.end, result.best_epoch) == ("completed", 2)
    assert record.facts["split_override"] is True


def test_a_finished_trial_has_no_epoch_left_for_another_split(data: Path, tmp_path: Path) -> None:
    run(tiny_trial(data, epochs=1), tmp_path / "a")
    changed = {"split": [0.7, 0.2, 0.1], "allow_split_change": True, "resume_from": str(tmp_path / "a")}
    with pytest.raises(ConfigError, match=r"epochs = 1 was reached on split .*raise epochs, or start .* init_from"):
        run(tiny_trial(data, epochs=1, **changed), tmp_path / "b")
    assert (tmp_path / "a" / "best.pt").exists()


def test_an_interrupted_trial_on_another_split_continues_inside_its_epoch(data: Path, tmp_path: Path) -> None:
    run(tiny_trial(data, epochs=1), tmp_path / "a")
    config = {"split": [0.7, 0.2, 0.1], "epochs": 2, "allow_split_change": True}
    _, whole = run(tiny_trial(data, **config, init_from=str(tmp_path / "a")), tmp_path / "whole")
    _, first = run(tiny_trial(data, **config, init_from=str(tmp_path / "a")), tmp_path / "b", stop_at=2 * ASKED - 2)
    assert load_checkpoint(tmp_path / "b" / "last.pt").steps_done > 0
    _, second = run(tiny_trial(data, **config, resume_from=str(tmp_path / "b")), tmp_path / "b")
    assert without_time([*first.history, *second.history]) == without_time(whole.history)


def test_another_label_set_is_refused_and_gets_fresh_heads_where_it_is_allowed(data: Path, tmp_path: Path) -> None:
    run(tiny_trial(data, epochs=1), tmp_path / "a")
    fewer = {"snr_min_db": 10, "epochs": 1, "init_from": str(tmp_path / "a")}
    with pytest.raises(ConfigError, match=r"0\.\.30 dB.*10\.\.30 dB.*: \d+\.\d\d% of the \d+ held-out"):
        run(tiny_trial(data, **fewer), tmp_path / "b")
    result, record = run(tiny_trial(data, **fewer, allow_split_change=True), tmp_path / "c")
    assert result.end == "completed"
    assert record.facts["split_override"] is True


def test_resuming_with_other_classes_is_refused_by_their_names(data: Path, tmp_path: Path) -> None:
    run(tiny_trial(data, epochs=1), tmp_path / "a")
    narrower = {"snr_min_db": 10, "epochs": 2, "resume_from": str(tmp_path / "a")}
    with pytest.raises(ConfigError, match="resume_from cannot change the classes: init_from with allow_split_change"):
        run(tiny_trial(data, **narrower), tmp_path / "b")
    with pytest.raises(ConfigError) as caught:
        run(tiny_trial(data, **narrower, allow_split_change=True), tmp_path / "b")
    assert caught.value.problems == [
        "resume_from: the classes of the snr_head were 0, 20 dB and are 20 dB; resume_from cannot change the classes; "
        "init_from starts fresh heads"
    ]


def test_a_head_with_other_classes_of_the_same_number_is_fresh(tmp_path: Path) -> None:
    data = synthetic_file(tmp_path, levels_db=(0, 10, 20), frames_per_cell=10)
    still = {"base_lr": 1e-12, "max_lr": 1e-12, "weight_decay": 0.0, "epochs": 1, "seed": 1}
    run(tiny_trial(data, snr_max_db=10, epochs=1), tmp_path / "a")
    moved = {"snr_min_db": 10, "init_from": str(tmp_path / "a"), "allow_split_change": True}
    run(tiny_trial(data, **still, **moved), tmp_path / "b")
    parent, child = (load_checkpoint(tmp_path / name / "best.pt").model for name in "ab")
    assert parent["snr_head.weight"].shape == child["snr_head.weight"].shape
    assert not torch.allclose(parent["snr_head.weight"], child["snr_head.weight"], atol=1e-3)
    others = [name for name in parent if not name.startswith("snr_head.")]
    assert all(torch.allclose(parent[name], child[name], atol=1e-6) for name in others)


def test_another_file_is_refused_and_its_share_is_unknown(data: Path, tmp_path: Path) -> None:
    run(tiny_trial(data, epochs=1), tmp_path / "a")
    another_file = synthetic_file(tmp_path, levels_db=(0, 20), frames_per_cell=12)
    with pytest.raises(ConfigError, match="different data files"):
        run(tiny_trial(another_file, init_from=str(tmp_path / "a")), tmp_path / "b")
    _, record = run(tiny_trial(another_file, init_from=str(tmp_path / "a"), allow_split_change=True), tmp_path / "c")
    assert record.facts["heldout_trained_on"] is None


def test_a_missing_checkpoint_is_refused_before_training(data: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        run(tiny_trial(data, init_from="nowhere.pt"), tmp_path)
    assert np.size(list(tmp_path.glob("*.pt"))) == 0
