"""Frames that are in the training part and in a held-out part are found, and only those."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from tiny_files import synthetic_file

from amc_core.data.duplicates import copies, duplicates_across_parts, duplicates_warning
from amc_core.data.radioml import RadioMLFile, select
from amc_core.data.splits import stratified_split


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return synthetic_file(tmp_path, levels_db=(0, 20), frames_per_cell=10)


@pytest.mark.parametrize("storage", ["memmap", "ram", "ram_float16"])
def test_planted_copies_across_parts_are_counted_wherever_the_frames_are(file: Path, storage: str) -> None:
    with RadioMLFile(file) as data:
        selection = select(data, "digital17", 0, 30)
        split = stratified_split(selection, (0.8, 0.1, 0.1), 0)
        cell_M = selection.modulation * 2 + selection.snr
        pairs = []  # (training row, held-out row) of one cell
        for held in (split.val[3], split.test[5], split.test[9]):
            train = split.train[cell_M[split.train] == cell_M[held]][0]
            pairs.append((int(selection.rows[train]), int(selection.rows[held])))
        elsewhere = split.train[cell_M[split.train] != cell_M[split.val[0]]][0]
        other_label = (int(selection.rows[elsewhere]), int(selection.rows[split.val[0]]))
    with h5py.File(file, "r+") as raw:
        for source, target in [*pairs, other_label]:
            raw["X"][target] = raw["X"][source]
    with RadioMLFile(file, storage=storage) as data:
        data.hold(selection.rows)
        assert duplicates_across_parts(data, selection, split) == 3


def test_the_same_beginning_is_no_copy(file: Path) -> None:
    with h5py.File(file, "r+") as raw:
        raw["X"][1] = raw["X"][0]
        raw["X"][1, -1, 1] += 1
        raw["X"][2] = raw["X"][0]
    with RadioMLFile(file) as data:
        assert data.column_N[0] == data.column_N[1] == data.column_N[2]
        assert data.snr_db_N[0] == data.snr_db_N[1] == data.snr_db_N[2]
        found = copies(data, np.array([1, 2, 5]), np.array([0, 5]))
    assert found is not None
    assert found.tolist() == [False, True, True]


def test_a_compressed_file_is_not_read_for_it(file: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed.hdf5"
    with h5py.File(file) as source, h5py.File(packed, "w") as target:
        for name in ("X", "Y", "Z"):
            target.create_dataset(name, data=source[name][:], compression="gzip" if name == "X" else None)
    with RadioMLFile(packed) as data:
        assert copies(data, np.array([0]), np.array([0])) is None
        data.hold(np.arange(data.n_frames))
        assert copies(data, np.array([0]), np.array([0])) is not None


def test_the_warning_says_how_many_and_what_to_do() -> None:
    text = duplicates_warning(1227, 3264, "frames.hdf5")
    assert text is not None
    assert text.startswith("1,227 of 3,264 validation and test frames are training frames, too")
    assert "amc-data audit frames.hdf5" in text
    assert duplicates_warning(0, 10, "x") is duplicates_warning(None, 10, "x") is None
