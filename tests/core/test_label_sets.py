"""Label sets of one's own, from the file to the scores: a list of RadioML's classes, and classes that a file names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from tiny_files import Memory, tiny_trial, without_time

from amc_core.config import ConfigError
from amc_core.data.radioml import DataError, RadioMLFile
from amc_core.evaluate_checkpoint import evaluate_checkpoint, open_checkpoint
from amc_core.synthesis.file import write_file
from amc_core.training.checkpoint import load_checkpoint
from amc_core.training.loop import train

PSK = "BPSK,QPSK,8PSK"


@pytest.fixture(scope="module")
def psk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file with frames of three of the 24 classes."""
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("psk") / "psk.hdf5"
    write_file(path, modulations=PSK.split(","), levels_db=(0, 20), frames_per_cell=20, seed=0)
    return path


def own(source: Path, path: Path, names: list[str], columns: list[int]) -> Path:
    """Write the three classes as columns of a file that names them."""
    with h5py.File(source) as file, h5py.File(path, "w") as target:
        target["X"], target["Z"] = file["X"][:], file["Z"][:]
        target["Y"] = np.eye(3, dtype=np.int64)[np.array(columns)[file["Y"][:, 3:6].argmax(axis=1)]]
        target.attrs["classes"] = np.array(names, "S")
    return path


def trained(folder: Path, data: Path, label_set: str, **changes: Any) -> Memory:
    record = Memory()
    trial = tiny_trial(data, label_set=label_set, batch_size=16, epochs=1, **changes)
    train(trial, run_dir=folder, record=record)
    return record


def test_a_list_of_classes_trains_and_is_on_record(psk: Path, tmp_path: Path) -> None:
    record = trained(tmp_path / "run", psk, "8psk, QPSK,BPSK", augment=True)
    assert record.facts["classes"] == ["BPSK", "QPSK", "8PSK"]
    assert record.facts["label_set"] == PSK
    assert {name for name in record.history[0] if name.startswith("f1/mod/")} == {
        "f1/mod/BPSK",
        "f1/mod/QPSK",
        "f1/mod/8PSK",
    }
    checkpoint = open_checkpoint(tmp_path / "run")
    assert checkpoint.own_split.label_set == PSK
    with RadioMLFile(psk) as data:
        scores = evaluate_checkpoint(checkpoint, data)
    assert scores.evaluation.modulations == ("BPSK", "QPSK", "8PSK")
    assert scores.evaluation.combined_acc == record.last["test/combined_acc"]


def test_the_classes_of_the_file_are_the_same_trial_as_their_list(psk: Path, tmp_path: Path) -> None:
    listed = trained(tmp_path / "listed", psk, PSK)
    of_file = trained(tmp_path / "file", psk, "file")
    assert without_time(of_file.history) == without_time(listed.history)
    for name in ("split_fingerprint", "classes"):
        assert of_file.facts[name] == listed.facts[name]
    assert of_file.facts["label_set"] == "file"


def test_the_order_of_the_columns_in_a_file_changes_nothing(psk: Path, tmp_path: Path) -> None:
    one = own(psk, tmp_path / "one.hdf5", ["A", "Z", "8PSK"], [0, 1, 2])
    other = own(psk, tmp_path / "other.hdf5", ["Z", "8PSK", "A"], [2, 0, 1])
    records = [trained(tmp_path / path.stem, path, "file", augment=True) for path in (one, other)]
    assert without_time(records[0].history) == without_time(records[1].history)
    assert records[0].facts["classes"] == ["8PSK", "A", "Z"]
    assert {"f1/mod/A", "f1/family/PSK", "f1/family/other"} <= records[0].history[0].keys()
    checkpoint = open_checkpoint(tmp_path / "one")
    with RadioMLFile(one) as here, RadioMLFile(other) as there:
        scores = [evaluate_checkpoint(checkpoint, data, "all") for data in (here, there)]
    assert np.array_equal(scores[0].evaluation.joint, scores[1].evaluation.joint)
    assert scores[0].n_trained_on == scores[1].n_trained_on == 96  # copies are known in another order of columns


def test_another_label_set_is_refused_on_resume_and_init(psk: Path, tmp_path: Path) -> None:
    trained(tmp_path / "run", psk, PSK)
    with pytest.raises(ConfigError, match=r"\(BPSK,QPSK,8PSK, .*\(BPSK,QPSK, .*resume_from cannot change the classes"):
        trained(tmp_path / "resumed", psk, "BPSK,QPSK", resume_from=str(tmp_path / "run"))
    with pytest.raises(
        ConfigError, match=r"classes of the modulation_head were .* BPSK,QPSK,8PSK and are .* BPSK,QPSK;"
    ):
        trained(tmp_path / "all", psk, "BPSK,QPSK", resume_from=str(tmp_path / "run"), allow_split_change=True)
    with pytest.raises(
        ConfigError, match=r"trained on split .* \(BPSK,QPSK,8PSK, .* this trial has split .* \(BPSK,QPSK, "
    ):
        trained(tmp_path / "new", psk, "BPSK,QPSK", init_from=str(tmp_path / "run"))
    record = trained(tmp_path / "new", psk, "BPSK,QPSK", init_from=str(tmp_path / "run"), allow_split_change=True)
    assert record.facts["split_override"]
    assert load_checkpoint(tmp_path / "new" / "last.pt").model["modulation_head.weight"].shape[0] == 2


def test_a_file_of_other_classes_is_refused_by_evaluate_with_both(psk: Path, tmp_path: Path) -> None:
    trained(tmp_path / "run", psk, PSK)
    checkpoint = open_checkpoint(tmp_path / "run")
    foreign = own(psk, tmp_path / "own.hdf5", ["A", "B", "C"], [0, 1, 2])
    with RadioMLFile(foreign) as data, pytest.raises(DataError, match=r"label_set BPSK,QPSK,8PSK at .* holds A, B, C"):
        evaluate_checkpoint(checkpoint, data)
    partly = own(psk, tmp_path / "partly.hdf5", ["A", "QPSK", "C"], [0, 1, 2])
    with RadioMLFile(partly) as data:
        scores = evaluate_checkpoint(checkpoint, data)
    assert (scores.evaluation.n_frames, scores.n_left_out, scores.missing_classes) == (40, 80, ("BPSK", "8PSK"))
