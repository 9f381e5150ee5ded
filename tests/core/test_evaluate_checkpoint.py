"""Scores of a checkpoint on its own file and on others, as a user asks for them."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from tiny_files import Memory, synthetic_file, tiny_trial

from amc_core.commands import main
from amc_core.data.radioml import RadioMLFile, select
from amc_core.data.splits import stratified_split
from amc_core.modulations import CLASSES
from amc_core.synthesis.file import write_file
from amc_core.training.checkpoint import load_checkpoint, save_checkpoint
from amc_core.training.loop import train


@dataclasses.dataclass(frozen=True)
class Trained:
    data: Path
    run_dir: Path
    record: Memory


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("trained")
    data, record = synthetic_file(folder, levels_db=(0, 20), frames_per_cell=10), Memory()
    train(tiny_trial(data, epochs=1, ema_decay=0.9), run_dir=folder / "run", record=record)
    return Trained(data, folder / "run", record)


def evaluate(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["evaluate", *map(str, arguments)], env={"AMC_DATA": None})


def scores(*arguments: object) -> dict[str, Any]:
    result = evaluate(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout))


@pytest.mark.compatibility("evaluate")
def test_the_default_is_the_test_that_the_trial_logged(trained: Trained) -> None:
    content = scores(trained.run_dir)
    for name in ("combined_acc", "mod_acc", "mod_acc_mean", "mod_acc_peak", "snr_acc", "snr_mae_db"):
        assert content[name] == trained.record.last[f"test/{name}"]
    logged = json.loads((trained.run_dir / "evaluation" / "test.json").read_text())
    assert content["loss"] == pytest.approx(logged["loss"])
    assert content["modulation_confusion"] == logged["modulation_confusion"]
    assert content["snr_confusion"] == logged["snr_confusion"]
    assert (content["part"], content["n_frames"], content["n_trained_on"]) == ("test", 34, 0)
    assert (content["run"], content["epoch"]) == ("run", 1)
    val = scores(trained.run_dir / "last.pt", "--part", "val")
    assert val["combined_acc"] == trained.record.history[0]["val/combined_acc"]


def test_frames_that_were_trained_on_are_counted(trained: Trained) -> None:
    assert scores(trained.run_dir, "--part", "train")["n_trained_on"] == 272
    everything = evaluate(trained.run_dir, "--part", "all")
    assert "272 of 340 frames were in its training part, so the scores are too high" in everything.stdout
    assert "training part" not in evaluate(trained.run_dir).stdout


def test_frames_that_were_trained_on_can_be_left_out(trained: Trained, tmp_path: Path) -> None:
    content = scores(trained.run_dir, "--part", "all", "--without-training-frames")
    assert (content["n_frames"], content["n_trained_on"], content["n_without"]) == (68, 0, 272)
    parts = [scores(trained.run_dir, "--part", part) for part in ("val", "test")]
    right = sum(part["combined_acc"] * part["n_frames"] for part in parts)
    assert content["combined_acc"] * 68 == pytest.approx(right)
    assert (
        "left out: 272 frames that it was trained on"
        in evaluate(trained.run_dir, "--part", "all", "--without-training-frames").stdout
    )
    copies = tmp_path / "copies.hdf5"
    with h5py.File(trained.data) as source, h5py.File(copies, "w") as target:
        for name in ("X", "Y", "Z"):
            target[name] = source[name][:200]
    assert scores(trained.run_dir, "--data", copies, "--without-training-frames")["n_frames"] < 100
    refused = evaluate(trained.run_dir, "--part", "train", "--without-training-frames")
    assert refused.exit_code == 1
    assert "no frame is left" in refused.stderr
    written = load_checkpoint(trained.run_dir / "best.pt")
    moved = dataclasses.replace(written, config={**written.config, "data": "gone.hdf5"})
    save_checkpoint(tmp_path / "moved.pt", moved)
    unknown = evaluate(tmp_path / "moved.pt", "--data", copies, "--without-training-frames")
    assert unknown.exit_code == 1
    assert "gone.hdf5, is not on this machine" in unknown.stderr


def test_a_copy_of_the_file_is_the_same_file_and_its_test_is_scored(trained: Trained, tmp_path: Path) -> None:
    moved = tmp_path / "moved.hdf5"
    moved.write_bytes(trained.data.read_bytes())
    content = scores(trained.run_dir, "--data", moved)
    assert (content["part"], content["combined_acc"]) == ("test", trained.record.last["test/combined_acc"])


def test_another_file_is_scored_whole_and_what_it_lacks_or_has_too_much_is_said(
    trained: Trained, tmp_path: Path
) -> None:
    other = tmp_path / "other.hdf5"
    write_file(other, modulations=["BPSK", "8PSK", "FM"], levels_db=[0, 10], frames_per_cell=4, seed=5)
    content = scores(trained.run_dir, "--data", other)
    assert (content["part"], content["n_frames"], content["n_left_out"]) == ("all", 8, 16)
    assert content["missing_levels_db"] == [20]
    assert len(content["missing_classes"]) == 15
    assert content["n_trained_on"] == 0
    assert [level["snr_db"] for level in content["by_snr"]] == [0]
    assert [score["name"] for score in content["by_modulation"]] == ["BPSK", "8PSK"]
    text = evaluate(trained.run_dir, "--data", other).stdout
    assert "left out: 16 frames of classes or SNR levels that it does not know" in text
    assert "QPSK" in text
    assert "20 dB: the scores say nothing about these" in text
    assert not [line for line in text.splitlines() if line.strip().startswith("20 dB")]
    refused = evaluate(trained.run_dir, "--data", other, "--part", "test")
    assert refused.exit_code == 2
    assert "use part all" in refused.stderr


def test_copies_of_training_frames_in_another_file_are_counted_where_the_first_file_is_known(
    trained: Trained, tmp_path: Path
) -> None:
    other = tmp_path / "part.hdf5"
    with h5py.File(trained.data) as source, h5py.File(other, "w") as target:
        for name in ("X", "Y", "Z"):
            target[name] = source[name][:200]
    with RadioMLFile(trained.data) as data:
        selection = select(data, "digital17", 0, 30)
        train_rows = selection.rows[stratified_split(selection, (0.8, 0.1, 0.1), 0).train]
    assert scores(trained.run_dir, "--data", other)["n_trained_on"] == (train_rows < 200).sum()
    written = load_checkpoint(trained.run_dir / "best.pt")
    moved = dataclasses.replace(written, config={**written.config, "data": "gone.hdf5"})
    save_checkpoint(tmp_path / "moved.pt", moved)
    assert scores(tmp_path / "moved.pt", "--data", other)["n_trained_on"] is None
    assert (
        "whether it has copies of training frames is unknown" in evaluate(tmp_path / "moved.pt", "--data", other).stdout
    )


def test_the_table_has_every_level_and_the_mistakes(trained: Trained) -> None:
    content, text = scores(trained.run_dir), evaluate(trained.run_dir).stdout
    levels = [line.split() for line in text.splitlines() if line.strip().startswith(("0 dB", "20 dB"))]
    assert len(levels) == 4  # accuracies, then mistakes
    for line, level in zip(levels[:2], content["by_snr"], strict=True):
        assert line[2] == str(level["n_frames"])
        assert line[3:7] == [f"{level[name]:.2%}" for name in ("combined_acc", "mod_acc", "recall")] + [
            f"{level['snr_mae_db']:.2f}"
        ]
    mean, peak = (f"{content[name]:.2%}" for name in ("mod_acc_mean", "mod_acc_peak"))
    assert f"modulation: {mean} in the mean over these levels, {peak} at the best one" in text
    assert sum(level["snr_mae_db"] * level["n_frames"] for level in content["by_snr"]) / 34 == pytest.approx(
        content["snr_mae_db"]
    )


def test_csv_and_pictures_are_written(trained: Trained, tmp_path: Path) -> None:
    table, folder = tmp_path / "scores.csv", tmp_path / "new" / "pictures"
    content = scores(trained.run_dir, "--csv", table, "--pictures", folder)
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert (rows[0]["kind"], float(rows[0]["combined_acc"])) == ("all", content["combined_acc"])
    by_level = [row for row in rows if row["kind"] == "snr"]
    guesses = [[int(row["guessed 0 dB"]), int(row["guessed 20 dB"])] for row in by_level]
    assert guesses == content["snr_confusion"]
    by_class = [row for row in rows if row["kind"] == "modulation"]
    names = content["modulations"]
    assert [[int(row[f"guessed {name}"]) for name in names] for row in by_class] == content["modulation_confusion"]
    for name in ("modulation_confusion", "snr_confusion", "accuracy_by_snr"):
        with Image.open(folder / f"{name}.png") as picture:
            assert picture.format == "PNG"
    before = (trained.run_dir / "best.pt").read_bytes()
    for place, message in (
        (tmp_path / "nowhere" / "scores.csv", "its folder does not exist"),
        (trained.run_dir / "best.pt", "given twice"),
    ):
        refused = evaluate(trained.run_dir, "--csv", place)
        assert refused.exit_code == 2
        assert message in refused.stderr
    assert (trained.run_dir / "best.pt").read_bytes() == before


def test_bad_frames_are_counted(trained: Trained, tmp_path: Path) -> None:
    spoiled = tmp_path / "spoiled.hdf5"
    spoiled.write_bytes(trained.data.read_bytes())
    with h5py.File(spoiled, "r+") as raw:
        raw["X"][:3, 100, 0] = float("nan")
    assert (
        "3 frames with NaN or infinite samples" in evaluate(trained.run_dir, "--data", spoiled, "--part", "all").stdout
    )


def test_what_cannot_be_used_is_refused_in_words(trained: Trained, tmp_path: Path) -> None:
    written = load_checkpoint(trained.run_dir / "best.pt")
    (tmp_path / "cut.pt").write_bytes((trained.run_dir / "best.pt").read_bytes()[:-100])
    save_checkpoint(tmp_path / "newer.pt", dataclasses.replace(written, config={**written.config, "wings": 2}))
    save_checkpoint(tmp_path / "lost.pt", dataclasses.replace(written, criterion={}))
    save_checkpoint(
        tmp_path / "net.pt", dataclasses.replace(written, config={**written.config, "model_type": "amc_convnet"})
    )
    unknown = tmp_path / "unknown.hdf5"
    write_file(unknown, modulations=[CLASSES[21]], levels_db=[10], frames_per_cell=2, seed=0)
    cases = [
        ((tmp_path,), "no such checkpoint"),
        ((tmp_path / "cut.pt",), "not a complete checkpoint"),
        ((tmp_path / "newer.pt",), "settings of another version of this program: wings: no such parameter"),
        ((tmp_path / "lost.pt",), "weights of another loss"),
        ((tmp_path / "net.pt",), "weights of another network"),
        ((trained.run_dir, "--data", tmp_path / "no.hdf5"), "no such file"),
        ((trained.run_dir, "--data", unknown), "no frame that the checkpoint knows"),
    ]
    for arguments, message in cases:
        result = evaluate(*arguments)
        assert result.exit_code == 1, result.output
        assert message in result.stderr
        assert "Traceback" not in result.output
