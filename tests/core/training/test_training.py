"""The whole loop on tiny real files."""

from __future__ import annotations

import dataclasses
import json
import math
import threading
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from tiny_files import DIGITAL_NAMES, Memory, synthetic_file, tiny_trial, without_time

from amc_core.config import ConfigError
from amc_core.data.feed import Batch
from amc_core.data.radioml import DataError, RadioMLFile, select
from amc_core.data.splits import stratified_split
from amc_core.metric_names import EPOCH_METRICS, FINAL_METRICS, OCCASIONAL_METRICS, detail_metrics
from amc_core.modulations import CLASSES
from amc_core.synthesis.file import write_file
from amc_core.training import preparation, save_and_resume, steps
from amc_core.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from amc_core.training.evaluation_files import read_epoch
from amc_core.training.file_recorder import FileRecorder
from amc_core.training.loop import train
from amc_core.training.losses import MultiTaskLoss
from amc_core.training.state import Diverged


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return synthetic_file(tmp_path_factory.mktemp("data"), levels_db=(0, 20), frames_per_cell=10)


def test_a_trial_logs_exactly_the_epoch_metrics_and_leaves_both_checkpoints(data: Path, tmp_path: Path) -> None:
    record = Memory()
    result = train(tiny_trial(data, epochs=3), run_dir=tmp_path, record=record)

    assert (result.end, result.epochs, len(record.history)) == ("completed", 3, 3)
    for number, row in enumerate(record.history, start=1):
        assert set(row) - OCCASIONAL_METRICS == EPOCH_METRICS | detail_metrics(DIGITAL_NAMES, (0, 20))
        assert row["epoch"] == number
        assert row["weight/mod"] + row["weight/snr"] == pytest.approx(1.0)
        assert all(0 <= row[name] <= 1 for name in row if name.endswith("_acc") and not name.startswith("gap/"))
        assert row["val/combined_acc"] <= min(row["val/mod_acc"], row["val/snr_acc"])
        assert row["gap/combined_acc"] == row["train/combined_acc"] - row["val/combined_acc"]
        assert row["val/combined_acc"] == pytest.approx((row["acc/snr/0"] + row["acc/snr/20"]) / 2)  # 17 frames each
    validations = [row["val/combined_acc"] for row in record.history]
    assert [row["best/combined_acc"] for row in record.history] == np.maximum.accumulate(validations).tolist()

    assert result.best_value == max(validations)
    assert result.best_epoch == validations.index(max(validations)) + 1
    best, last = load_checkpoint(tmp_path / "best.pt"), load_checkpoint(tmp_path / "last.pt")
    assert (best.epoch, last.epoch) == (result.best_epoch, 3)
    assert best.split_fingerprint == record.facts["split_fingerprint"]
    assert best.metrics == record.history[best.epoch - 1]
    assert result.checkpoint == tmp_path / "best.pt"


def test_the_speed_leaves_out_the_compilation_before_the_first_epoch(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s, compiled_for = [0.0], list[tuple[bool, int]]()

    def clock() -> float:
        now_s[0] += 0.001
        return now_s[0]

    def compiled(call: Any, **_: Any) -> Any:
        def run(batch: Batch) -> Any:
            case = (torch.is_grad_enabled(), len(batch.snr))
            if case not in compiled_for:  # torch.compile takes its time for each of them
                compiled_for.append(case)
                now_s[0] += 40
            return call(batch)

        return run

    monkeypatch.setattr(torch, "compile", compiled)
    monkeypatch.setattr(steps, "time", SimpleNamespace(perf_counter=clock))
    record = Memory()
    train(tiny_trial(data, epochs=2, compile=True), run_dir=tmp_path / "a", record=record)
    assert compiled_for == [(True, 64), (False, 34)]
    first, second = record.history
    n_train = record.facts["n_train"]
    assert 80 < first["throughput/compile_s"] < 81
    assert "throughput/compile_s" not in second
    for row in (first, second):
        assert n_train / row["throughput/frames_per_s"] < 1


def test_a_run_records_the_facts_that_comparisons_need(data: Path, tmp_path: Path) -> None:
    record = Memory()
    train(tiny_trial(data, epochs=1), run_dir=tmp_path, record=record)
    facts = record.facts
    assert (facts["n_train"], facts["n_val"], facts["n_test"]) == (272, 34, 34)
    assert {"split_fingerprint", "data_fingerprint", "label_set", "seed", "device_name", "git_commit"} <= set(facts)
    assert {"select_by", "parent_run", "parent_split_fingerprint"} <= set(facts)
    commit = facts["git_commit"]  # None outside a checkout
    assert commit is None or len(commit.removesuffix("+dirty")) == 40
    json.dumps(facts)


def test_missing_levels_and_repeated_frames_are_facts_and_said_at_the_start(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record, lines = Memory(), list[str]()
    config = tiny_trial(data, epochs=1, snr_min_db=-20)
    train(config, run_dir=tmp_path / "a", record=record, tell=lines.append)
    assert (record.facts["levels_db"], record.facts["missing_levels_db"]) == ([0, 20], [-20])
    assert "2 SNR levels, 0..20 dB (the file has none at -20 dB), " in lines[0]
    assert record.facts["duplicates_across_parts"] == 0
    assert "training frames, too" not in capsys.readouterr().err

    repeated = tmp_path / "repeated.hdf5"
    repeated.write_bytes(data.read_bytes())
    with h5py.File(repeated, "r+") as raw:
        raw["X"][::2] = raw["X"][1::2]  # neighbours have one label
    train(tiny_trial(repeated, epochs=1), run_dir=tmp_path / "b", record=record, tell=lines.append)
    n_copies, n_heldout = record.facts["duplicates_across_parts"], record.facts["n_val"] + record.facts["n_test"]
    assert 0 < n_copies <= n_heldout
    assert f"{n_copies} of {n_heldout} validation and test frames are training frames, too" in capsys.readouterr().err


def test_the_test_row_is_that_of_the_selected_checkpoint(data: Path, tmp_path: Path) -> None:
    record = Memory()
    result = train(tiny_trial(data, epochs=2), run_dir=tmp_path, record=record)
    assert result.test is not None
    assert set(result.test) == FINAL_METRICS
    assert record.last["test_checkpoint_epoch"] == record.last["checkpoint_epoch"]
    assert record.last["test_checkpoint"] == "best.pt"
    assert {name: record.last[name] for name in FINAL_METRICS} == result.test


def test_select_by_loss_keeps_the_epoch_of_the_lowest_loss_and_still_reports_the_peak(
    data: Path, tmp_path: Path
) -> None:
    record = Memory()
    result = train(tiny_trial(data, epochs=4, select_by="loss", max_lr=0.02), run_dir=tmp_path, record=record)
    losses = [row["val/loss"] for row in record.history]
    accuracies = [row["val/combined_acc"] for row in record.history]
    assert (
        load_checkpoint(tmp_path / "best.pt").epoch == losses.index(min(losses)) + 1 == record.last["checkpoint_epoch"]
    )
    assert result.best_value == max(accuracies)
    by_both = [load_checkpoint(tmp_path / f"best_{name}.pt").epoch for name in ("loss", "combined_acc")]
    assert by_both == [losses.index(min(losses)) + 1, accuracies.index(max(accuracies)) + 1]
    assert by_both == [record.last["best_loss_epoch"], record.last["best_epoch"]]


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(data: Path, tmp_path: Path) -> None:
    histories = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        record = Memory()
        train(tiny_trial(data, seed=seed), run_dir=tmp_path / name, record=record)
        histories.append(without_time(record.history))
    assert histories[0] == histories[1] != histories[2]
    weights = [load_checkpoint(tmp_path / name / "last.pt").model for name in "ab"]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_trial_learns(data: Path, tmp_path: Path) -> None:
    record = Memory()
    config = tiny_trial(data, epochs=6, epochs_per_cycle=6, representation="constellation_psd", max_lr=5e-3)
    train(config, run_dir=tmp_path, record=record)
    assert record.history[-1]["train/loss"] < record.history[0]["train/loss"] - 0.3
    assert record.history[-1]["val/snr_acc"] > 0.9  # 0 dB against 20 dB is plain in the spectrum


def test_micro_batches_change_memory_and_not_the_result(data: Path, tmp_path: Path) -> None:
    # Layer norm only, no dropout: the sum of micro-gradients is then the gradient of the batch.
    rows = []
    for micro in (None, 24):
        record = Memory()
        config = tiny_trial(data, epochs=2, dropout=0.0, micro_batch_size=micro)
        train(config, run_dir=tmp_path / str(micro), record=record)
        rows.append(record.history[-1])
    for name in ("train/loss", "val/loss", "weight/mod"):
        assert rows[0][name] == pytest.approx(rows[1][name], rel=1e-3)


@pytest.mark.parametrize(
    ("changes", "is_warned"),
    [
        ({"model_type": "amc_convnet"}, True),
        ({"model_type": "amc_convnet", "micro_batch_size": 32}, False),  # chosen, and the same on every machine
        ({"model_type": "test_vit"}, False),  # has no batch norm
        ({"model_type": "amc_convnet", "batch_size": 32}, False),  # fits
    ],
)
def test_a_batch_norm_that_depends_on_the_free_memory_is_said_and_recorded(
    data: Path,
    tmp_path: Path,
    changes: dict[str, Any],
    is_warned: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(preparation, "micro_batch_frames", lambda *_: 32)  # only a GPU is probed
    record = Memory()
    train(tiny_trial(data, epochs=1, **changes), run_dir=tmp_path, record=record)
    assert record.facts["has_batch_norm"] is (changes["model_type"] == "amc_convnet")
    said = "micro_batch_size: 32 frames of a batch of 64 fit" in capsys.readouterr().err
    assert said is is_warned


def test_every_epoch_and_the_test_leave_their_evaluation_and_the_end_its_pictures(data: Path, tmp_path: Path) -> None:
    record = Memory()
    result = train(tiny_trial(data), run_dir=tmp_path, record=record)
    folder = tmp_path / "evaluation"
    for number in (1, 2):
        content = json.loads(read_epoch(tmp_path, number) or b"")
        assert content["epoch"] == number
        assert content["combined_acc"] == record.history[number - 1]["val/combined_acc"]
        assert np.sum(content["modulation_confusion"]) == np.sum(content["snr_confusion"]) == content["n_frames"] == 34
    test = json.loads((folder / "test.json").read_text())
    assert (test["checkpoint"], test["checkpoint_epoch"]) == ("best.pt", record.last["checkpoint_epoch"])
    rows = (folder / "test_scores.csv").read_text().splitlines()
    assert rows[0] == "kind,name,n_frames,precision,recall,f1,combined_acc,mod_acc,snr_mae_db"
    assert len(rows) == 1 + 17 + 4 + 2
    confusion = np.genfromtxt(folder / "test_snr_confusion.csv", delimiter=",", skip_header=1)
    assert confusion[:, 0].tolist() == [0, 20]
    assert confusion[:, 1:].sum(axis=1).tolist() == [17, 17]
    assert sorted(result.pictures) == sorted(folder.glob("*.png"))
    assert len(result.pictures) == 3
    second = (folder / "epoch_0002_metrics.csv").read_text().splitlines()
    written = dict(line.split(",") for line in second)
    for name in ("gap/combined_acc", "weight/mod", "weight/snr", "attractor/share", "lr", "val/loss"):
        assert float(written[name]) == record.history[1][name]


def test_an_earlier_trials_checkpoints_in_the_same_folder_are_kept(data: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        train(tiny_trial(data, epochs=1, seed=seed), run_dir=tmp_path, record=Memory())
    seeds = [load_checkpoint(path).config["seed"] for path in (tmp_path / "before_1" / "best.pt", tmp_path / "best.pt")]
    assert seeds == [0, 1]


def test_max_lr_of_ten_thousand_diverges_and_leaves_no_checkpoint_with_nan(data: Path, tmp_path: Path) -> None:
    with pytest.raises(Diverged, match=r"not finite .*epoch 1.* learning rate"):
        train(tiny_trial(data, max_lr=1e4, epochs=8, epochs_per_cycle=2), run_dir=tmp_path, record=Memory())
    for path in tmp_path.glob("*.pt"):
        assert all(torch.isfinite(tensor).all() for tensor in load_checkpoint(path).model.values())


def test_infinite_weights_are_never_saved(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A spoiled running mean shows in no training loss.
    class Spoiling(torch.optim.AdamW):
        def step(self, *arguments: Any, **options: Any) -> Any:
            result = super().step(*arguments, **options)
            with torch.no_grad():
                self.param_groups[1]["params"][0].view(-1)[0] = math.inf
            return result

    monkeypatch.setattr(torch.optim, "AdamW", Spoiling)
    with pytest.raises(Diverged, match="not finite"):
        train(tiny_trial(data, batch_size=4096), run_dir=tmp_path, record=Memory())
    assert not list(tmp_path.glob("*.pt"))


@pytest.mark.parametrize("spoiled", ["weights", "loss"])
def test_a_stop_never_saves_a_diverged_state(
    data: Path, tmp_path: Path, spoiled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    def stop_before_the_third_step() -> str | None:
        nonlocal asked
        asked += 1
        return "preempted" if asked == 3 else None

    changes: dict[str, Any] = {}
    if spoiled == "weights":  # of the first step, whose loss was finite; the second is not checked
        changes = {"base_lr": 1e38, "max_lr": 1e38, "weight_decay": 100.0, "lr_schedule": "constant"}
    else:  # of the second step, and the weights have stayed finite
        good = MultiTaskLoss.weighted
        monkeypatch.setattr(MultiTaskLoss, "weighted", lambda *inputs: good(*inputs) * (math.nan if asked > 1 else 1.0))
        monkeypatch.setattr(torch.optim.AdamW, "step", lambda self, *arguments: None)
    monkeypatch.setitem(steps._STEPS_PER_CHECK, "cpu", 50)  # as on a GPU: checks at the first step and at the last
    config = tiny_trial(data, model_type="amc_convnet", **changes)
    with pytest.raises(Diverged, match="not finite"):
        train(config, run_dir=tmp_path, record=Memory(), should_stop=stop_before_the_third_step)
    assert not (tmp_path / "last.pt").exists()


def test_a_stop_saves_the_last_checkpoint_and_tests_nothing(data: Path, tmp_path: Path) -> None:
    asked = 0

    def stop_in_the_second_epoch() -> str | None:
        nonlocal asked
        asked += 1
        return "stopped" if asked == 6 else None  # 272 frames are 4 steps of 64

    record = Memory()
    result = train(tiny_trial(data), run_dir=tmp_path, record=record, should_stop=stop_in_the_second_epoch)
    assert (result.end, result.epochs, result.test) == ("stopped", 1, None)
    assert asked == 6
    assert load_checkpoint(tmp_path / "last.pt").epoch == 1
    assert load_checkpoint(tmp_path / "last.pt").metrics == record.history[0]
    assert record.last["best_epoch"] == 1
    assert not FINAL_METRICS & set(record.last)


def test_a_large_checkpoint_is_written_while_the_next_epoch_trains(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second_epoch_trains, asked, logged = threading.Event(), 0, list[tuple[int, int]]()
    record = Memory()

    def save(path: Path, checkpoint: Checkpoint) -> None:
        assert second_epoch_trains.wait(timeout=60)
        save_checkpoint(path, checkpoint)

    def count() -> None:
        nonlocal asked
        asked += 1
        if asked == 7:  # before the second step of the second epoch: an epoch asks 4 times in training and once after
            second_epoch_trains.set()

    class Log(Memory):
        def log(self, metrics: Mapping[str, float]) -> None:
            """Note which epoch's weights are on the disk when an epoch is logged."""
            logged.append((int(metrics["epoch"]), load_checkpoint(tmp_path / "a" / "last.pt").epoch))
            super().log(metrics)

    train(tiny_trial(data), run_dir=tmp_path / "at_once", record=record)
    monkeypatch.setattr(save_and_resume, "_WRITTEN_AT_ONCE", 0)
    monkeypatch.setattr(save_and_resume, "save_checkpoint", save)
    threaded = Log()
    train(tiny_trial(data), run_dir=tmp_path / "a", record=threaded, should_stop=count)
    assert logged == [(1, 1), (2, 2)]
    assert without_time(threaded.history) == without_time(record.history)
    # A copy was written: the weights of the end of each epoch, whatever training did meanwhile.
    for name in ("last.pt", "best.pt", "best_loss.pt", "best_combined_acc.pt"):
        plain, other = (load_checkpoint(tmp_path / folder / name) for folder in ("at_once", "a"))
        assert plain.epoch == other.epoch
        assert all(torch.equal(plain.model[key], other.model[key]) for key in plain.model)


def test_a_checkpoint_that_cannot_be_written_ends_the_trial_and_its_epoch_is_not_logged(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disk_full(_path: Path, _checkpoint: Checkpoint) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(save_and_resume, "_WRITTEN_AT_ONCE", 0)
    monkeypatch.setattr(save_and_resume, "save_checkpoint", disk_full)
    record = Memory()
    with pytest.raises(OSError, match="No space left"):
        train(tiny_trial(data), run_dir=tmp_path, record=record)
    assert record.history == []


def test_an_epoch_whose_checkpoint_is_being_written_is_logged_although_the_next_one_diverges(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, diverged = 0, threading.Event()
    good = MultiTaskLoss.weighted

    def count() -> None:
        nonlocal asked
        asked += 1

    def weighted(self: MultiTaskLoss, task_losses: torch.Tensor) -> torch.Tensor:
        if asked <= 5:
            return good(self, task_losses)
        diverged.set()
        return good(self, task_losses) * math.nan

    def save(path: Path, checkpoint: Checkpoint) -> None:
        assert diverged.wait(timeout=60)
        save_checkpoint(path, checkpoint)

    monkeypatch.setattr(MultiTaskLoss, "weighted", weighted)
    monkeypatch.setattr(save_and_resume, "_WRITTEN_AT_ONCE", 0)
    monkeypatch.setattr(save_and_resume, "save_checkpoint", save)
    record = Memory()
    with pytest.raises(Diverged):
        train(tiny_trial(data), run_dir=tmp_path, record=record, should_stop=count)
    assert [row["epoch"] for row in record.history] == [1]
    assert load_checkpoint(tmp_path / "best.pt").epoch == 1


def test_a_crashed_trial_leaves_the_pictures_of_its_best_epoch(data: Path, tmp_path: Path) -> None:
    asked = 0

    def crash_in_the_second_epoch() -> str | None:
        nonlocal asked
        asked += 1
        if asked == 6:
            raise RuntimeError("the driver is gone")
        return None

    with pytest.raises(RuntimeError, match="driver"):
        train(tiny_trial(data), run_dir=tmp_path, record=Memory(), should_stop=crash_in_the_second_epoch)
    names = {path.name for path in (tmp_path / "evaluation").glob("*.png")}
    assert names == {"modulation_confusion.png", "snr_confusion.png", "accuracy_by_snr.png"}


def test_a_stop_before_the_first_epoch_is_complete_leaves_no_best_checkpoint(data: Path, tmp_path: Path) -> None:
    result = train(tiny_trial(data), run_dir=tmp_path, record=Memory(), should_stop=lambda: "interrupted")
    assert (result.end, result.epochs, result.best_epoch, result.checkpoint) == ("interrupted", 0, None, None)
    assert load_checkpoint(tmp_path / "last.pt").epoch == 0


def test_patience_ends_a_trial_that_does_not_improve_but_not_inside_the_first_cycles(
    data: Path, tmp_path: Path
) -> None:
    stuck = {"epochs": 12, "base_lr": 1e-12, "max_lr": 1e-12, "patience": 1, "min_cycles": 2, "epochs_per_cycle": 2}
    result = train(tiny_trial(data, **stuck), run_dir=tmp_path, record=Memory())
    assert (result.end, result.epochs) == ("patience", 4)
    assert result.test is not None


@pytest.mark.parametrize(("mode", "first_epoch"), [("strict", (136, 136)), ("sliding", (272, 218))])
def test_a_curriculum_trains_on_the_highest_level_first_and_validates_on_all(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, first_epoch: tuple[int, int]
) -> None:
    seen: list[tuple[int, int]] = []  # frames, and those of the highest level
    read = RadioMLFile.frames

    def counting(self: RadioMLFile, rows_B: Any) -> Any:
        seen.append((len(rows_B), int((self.snr_db_N[rows_B] == 20).sum())))
        return read(self, rows_B)

    monkeypatch.setattr(RadioMLFile, "frames", counting)
    changes: dict[str, Any] = {"curriculum": True, "curriculum_mode": mode, "curriculum_window": 1, "batch_size": 1000}
    train(tiny_trial(data, epochs=2, patience=None, **changes), run_dir=tmp_path, record=Memory())
    # After the fingerprint: training and validation of both epochs, test.
    assert seen[1:] == [first_epoch, (34, 17), (272, 136), (34, 17), (34, 17)]


@pytest.mark.parametrize(
    "changes",
    [
        {"snr_layer": "bottleneck_64", "histogram_norm": "max"},
        {"snr_layer": "bottleneck_128", "lr_schedule": "constant", "warmup_epochs": 1},
        {"grad_clip_norm": 0.5, "storage": "memmap", "model_type": "test_byobnet", "micro_batch_size": None},
        {"snr_layer": "regression", "snr_loss": "smooth_l1", "lr_schedule": "plateau", "plateau_patience": 0},
        {"snr_loss": "d2", "snr_loss_scale": "levels", "task_weighting": "fixed", "task_weight_mod": 0.7},
        {"snr_loss": "ordinal", "select_by": "loss"},
        {"label_set": "digital17", "snr_min_db": 10, "split": [0.6, 0.2, 0.2], "split_seed": 3},
        {"representation": "synced", "model_type": "amc_convnet", "storage": "ram_float16"},
        {"representation": "iq", "model_type": "iq_convnet", "storage": "ram"},
        {"representation": "iq", "model_type": "iq_resnet", "micro_batch_size": 24, "epochs": 1},
    ],
)
def test_every_choice_of_the_configuration_trains(data: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    record = Memory()
    result = train(tiny_trial(data, **changes), run_dir=tmp_path, record=record)
    assert result.end == "completed"
    assert all(math.isfinite(value) for row in record.history for value in row.values())


def test_only_training_frames_are_augmented(data: Path, tmp_path: Path) -> None:
    # With a learning rate of almost 0, all losses are those of the first weights.
    rows = {}
    for augment in (False, True):
        record = Memory()
        config = tiny_trial(data, augment=augment, epochs=2, base_lr=1e-20, max_lr=1e-20, weight_decay=0.0, dropout=0.0)
        train(config, run_dir=tmp_path / str(augment), record=record)
        rows[augment] = record.history
    assert [row["val/loss"] for row in rows[True]] == [row["val/loss"] for row in rows[False]]
    plain, augmented = ([row["train/loss"] for row in rows[augment]] for augment in (False, True))
    assert len({*augmented, plain[0]}) == 3  # other numbers in every epoch


def test_all_24_classes_train(tmp_path: Path) -> None:
    path = tmp_path / "all.hdf5"
    write_file(path, modulations=list(CLASSES), levels_db=(0, 20), frames_per_cell=10, seed=0)
    record = Memory()
    config = tiny_trial(path, label_set="all24", model_type="amc_convnet", epochs=1)
    assert train(config, run_dir=tmp_path / "run", record=record).end == "completed"
    assert record.facts["n_train"] == 24 * 2 * 8
    assert set(record.history[0]) - OCCASIONAL_METRICS == EPOCH_METRICS | detail_metrics(CLASSES, (0, 20))
    assert load_checkpoint(tmp_path / "run" / "best.pt").model["modulation_head.weight"].shape[0] == 24


@pytest.mark.parametrize("changes", [{"batch_size": 1}, {"batch_size": 4, "micro_batch_size": 1}])
def test_batch_norm_on_a_single_frame_is_refused_by_the_fields_that_lead_to_it(
    data: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    config = tiny_trial(data, model_type="test_byobnet", **changes)
    with pytest.raises(ConfigError, match=r"test_byobnet at image_size 32 .* one in a forward pass of 1 frame.*>= 2"):
        train(config, run_dir=tmp_path, record=Memory())


def test_bad_frames_are_counted_once_each_and_not_trained_on_as_nan(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoiled = tmp_path / "spoiled.hdf5"
    spoiled.write_bytes(data.read_bytes())
    with RadioMLFile(spoiled) as file:
        selection = select(file, "digital17", 0, 30)
    split = stratified_split(selection, (0.8, 0.1, 0.1), 0)
    with h5py.File(spoiled, "r+") as raw:
        for row in [*split.train[:3], *split.val[:2], split.test[0]]:
            raw["X"][selection.rows[row], 100, 1] = np.nan
    record = Memory()
    config = tiny_trial(spoiled, epochs=2, batch_size=272)  # one batch: none is left out
    assert train(config, run_dir=tmp_path / "run", record=record).end == "completed"
    assert [(row["train/bad_frames"], row["val/bad_frames"]) for row in record.history] == [(3, 2), (3, 2)]
    assert record.last["bad_frames"] == 6
    warnings = [line for line in capsys.readouterr().err.splitlines() if "NaN" in line]
    assert len(warnings) == 1
    assert "3 of 272 training and 2 of 34 validation frames hold NaN" in warnings[0]


def test_faults_are_raised_before_anything_is_recorded(data: Path, tmp_path: Path) -> None:
    record = Memory()
    with pytest.raises(DataError, match="no such file"):
        train(tiny_trial(tmp_path / "none.hdf5"), run_dir=tmp_path, record=record)
    with pytest.raises(DataError, match="OOK"):
        train(tiny_trial(data, label_set="all24"), run_dir=tmp_path, record=record)
    with pytest.raises(ConfigError, match="no backbone"):
        train(tiny_trial(data, model_type="resnet5000"), run_dir=tmp_path, record=record)
    assert not record.facts
    assert not list(tmp_path.glob("*.pt"))


def test_a_half_written_checkpoint_of_a_killed_attempt_is_removed(data: Path, tmp_path: Path) -> None:
    (tmp_path / ".last.pt.4711").write_bytes(b"half a checkpoint")
    (tmp_path / ".hidden").write_text("not ours")
    train(tiny_trial(data, epochs=1), run_dir=tmp_path, record=Memory())
    assert [path.name for path in tmp_path.glob(".*")] == [".hidden"]


def test_the_file_recorder_keeps_history_summary_and_config(data: Path, tmp_path: Path) -> None:
    config = tiny_trial(data)
    record = FileRecorder(tmp_path)
    record.config(config.to_mapping())
    lines: list[str] = []
    result = train(config, run_dir=tmp_path, record=record, tell=lines.append, progress=True)
    rows = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    summary = json.loads((tmp_path / "summary.json").read_text())
    facts = json.loads((tmp_path / "config.json").read_text())
    assert [row["epoch"] for row in rows] == [1, 2]
    assert summary["val/combined_acc"] == rows[-1]["val/combined_acc"]
    assert summary["test/combined_acc"] == result.test["test/combined_acc"]  # type: ignore[index]
    assert (facts["model_type"], facts["n_train"]) == ("test_vit", 272)
    assert [line.split("  ")[0] for line in lines[1:3]] == ["epoch 1/2", "epoch 2/2"]
    assert f"val {rows[0]['val/combined_acc']:.2%}" in lines[1]
    assert lines[1].endswith(" s left")
    assert lines[2].endswith("last epoch")
    assert lines[3].startswith(f"test {summary['test/combined_acc']:.2%}")
    assert len(lines) == 4


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("amp", [True, False])
def test_a_trial_on_cuda_is_finite_and_near_the_cpus(
    data: Path, tmp_path: Path, amp: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(tiny_trial(data, epochs=1, dropout=0.0, seed=1), amp=amp)
    on_cuda, on_cpu = Memory(), Memory()
    train(config, run_dir=tmp_path / "cuda", record=on_cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    train(config, run_dir=tmp_path / "cpu", record=on_cpu)
    assert "CPU" not in on_cuda.facts["device_name"]
    for name in ("train/loss", "val/loss"):
        assert on_cuda.history[0][name] == pytest.approx(on_cpu.history[0][name], rel=0.02)
