"""The audit: it passes what is right and names what is wrong, from the frames and not from the labels."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from amc_core.audit import PUBLISHED_ORDER, Check, audit_file
from amc_core.modulations import CLASSES
from amc_core.synthesis import Recipe
from amc_core.synthetic_file import write_file


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("audit") / "good.hdf5"
    write_file(path, modulations=CLASSES, levels_db=[-10, 0, 10, 20, 30], frames_per_cell=12, seed=0)
    return path


@pytest.fixture
def spoil(good: Path, tmp_path: Path) -> Callable[[Callable[[Any], None]], dict[str, Check]]:
    """Change a copy of the good file and audit it."""

    def spoiled(change: Callable[[Any], None]) -> dict[str, Check]:
        path = tmp_path / "spoiled.hdf5"
        shutil.copyfile(good, path)
        with h5py.File(path, "a") as file:
            change(file)
        return audited(path)

    return spoiled


def audited(path: Path) -> dict[str, Check]:
    return {check.name: check for check in audit_file(path)}


def failed(checks: dict[str, Check]) -> set[str]:
    return {name for name, check in checks.items() if check.verdict == "fail"}


def test_a_good_file_passes_every_check(good: Path) -> None:
    heard: list[tuple[int, int]] = []
    checks = audit_file(good, advance=lambda done, whole: heard.append((done, whole)))
    assert [check.said for check in checks if check.verdict != "pass"] == []
    assert heard[-1] == (1440, 1440)
    by_name = {check.name: check for check in checks}
    assert by_name["samples per symbol"].measured["samples_per_symbol"] == pytest.approx(8.0, abs=0.02)
    assert by_name["label order"].measured["corrected"] == 1.0
    assert by_name["SNR labels"].measured["measured_db"]["10"] == pytest.approx(10.0, abs=0.3)
    assert "24 classes x 5 SNR levels (-10..30 dB) x 12 frames" in by_name["frames per cell"].said


def test_the_published_order_of_the_classes_is_recognised(spoil: Callable[..., dict[str, Check]]) -> None:
    assert sorted(PUBLISHED_ORDER) == sorted(CLASSES)

    def permute(file: Any) -> None:
        true = file["Y"][:].argmax(axis=1)
        file["Y"][:] = np.eye(24, dtype=np.int64)[[PUBLISHED_ORDER.index(CLASSES[column]) for column in true]]

    checks = spoil(permute)
    assert failed(checks) == {"label order"}
    assert "the columns of Y follow classes.txt" in checks["label order"].said
    assert checks["label order"].measured["published"] == 1.0


@pytest.mark.parametrize(("one", "other"), [("BPSK", "QPSK"), ("16PSK", "16QAM"), ("FM", "AM-DSB-SC")])
def test_two_exchanged_columns_are_named(spoil: Callable[..., dict[str, Check]], one: str, other: str) -> None:
    def exchange(file: Any) -> None:
        column = np.arange(24)
        pair = [CLASSES.index(one), CLASSES.index(other)]
        column[pair] = column[pair[::-1]]
        file["Y"][:] = np.eye(24, dtype=np.int64)[column[file["Y"][:].argmax(axis=1)]]

    order = spoil(exchange)["label order"]
    assert order.verdict == "fail"
    assert "the columns follow neither" in order.said
    exchanged = order.measured["exchanged"]
    assert any(f"{one}, looks like {other}" in said for said in exchanged)
    assert any(f"{other}, looks like {one}" in said for said in exchanged)
    assert len(order.measured["contradicted"]) == 2


def test_one_odd_class_is_said_and_forgiven(spoil: Callable[..., dict[str, Check]]) -> None:
    def replace(file: Any) -> None:  # what single sidebands are in some files: noise in the whole band
        rows = np.flatnonzero(file["Y"][:, CLASSES.index("AM-SSB-SC")])
        noise = np.random.default_rng(0).normal(size=(len(rows), 1024, 2), scale=0.5**0.5)
        file["X"][rows] = noise

    order = spoil(replace)["label order"]
    assert order.verdict == "pass"
    assert "column 18, AM-SSB-SC, shows not one sideband" in order.said


def test_a_file_of_one_label_set_is_judged_by_what_it_has(tmp_path: Path) -> None:
    write_file(tmp_path / "a", modulations=["FM", "GMSK"], levels_db=[20], frames_per_cell=8, seed=0)
    checks = audited(tmp_path / "a")
    assert failed(checks) == set()
    assert checks["samples per symbol"].verdict == checks["synced"].verdict == "skip"
    write_file(tmp_path / "b", modulations=["QPSK"], levels_db=[0], frames_per_cell=8, seed=0)
    checks = audited(tmp_path / "b")
    assert "needs frames at 16 dB or more; the highest level is 0 dB" in checks["label order"].said
    assert failed(checks) == set()


def test_bad_samples_are_counted_and_found(spoil: Callable[..., dict[str, Check]]) -> None:
    def poison(file: Any) -> None:
        file["X"][7, 3, 0] = np.nan
        file["X"][900, 0, 1] = np.inf

    checks = spoil(poison)
    assert failed(checks) == {"NaN and infinity"}
    assert "in 2 frames, the first in row 7" in checks["NaN and infinity"].said


def test_a_frame_that_occurs_twice_is_found(spoil: Callable[..., dict[str, Check]]) -> None:
    def copy(file: Any) -> None:
        file["X"][1001] = file["X"][17]

    checks = spoil(copy)
    assert "duplicates" in failed(checks)
    assert checks["duplicates"].measured == {"pairs": 1, "first": [17, 1001]}


def test_a_missing_frame_shows_in_its_cell(spoil: Callable[..., dict[str, Check]]) -> None:
    def relabel(file: Any) -> None:
        file["Z"][0] = 0  # from -10 dB

    checks = spoil(relabel)
    assert "frames per cell" in failed(checks)
    assert "x 11 to 13 frames" in checks["frames per cell"].said
    assert "OOK at -10 dB" in checks["frames per cell"].said


def test_random_gain_breaks_unit_power_and_nothing_else_for_no_representation_sees_it(tmp_path: Path) -> None:
    write_file(
        tmp_path / "a",
        modulations=CLASSES,
        levels_db=[0, 20],
        frames_per_cell=12,
        seed=0,
        recipe=Recipe(gain_db=10),
    )
    checks = audited(tmp_path / "a")
    assert failed(checks) == {"frame power"}


def test_labels_that_are_shifted_and_labels_that_are_wrong_are_told_apart(
    spoil: Callable[..., dict[str, Check]],
) -> None:
    def shift(file: Any) -> None:
        file["Z"][:] = file["Z"][:] + 9

    assert "all levels are shifted alike" in spoil(shift)["SNR labels"].said

    def stretch(file: Any) -> None:
        file["Z"][:] = file["Z"][:] * 2

    said = spoil(stretch)["SNR labels"]
    assert said.verdict == "fail"
    assert "no SNR per sample" in said.said


def test_another_symbol_rate_breaks_what_synced_assumes(spoil: Callable[..., dict[str, Check]]) -> None:
    def decimate(file: Any) -> None:
        frames = file["X"][:]
        file["X"][:] = np.concatenate([frames[:, ::2], np.roll(frames, 1, axis=0)[:, ::2]], axis=1)

    checks = spoil(decimate)
    assert {"samples per symbol", "band", "synced"} <= failed(checks)
    assert checks["samples per symbol"].measured["samples_per_symbol"] == pytest.approx(4.0, abs=0.02)
    assert "8 samples per symbol" in checks["synced"].said


def test_noise_has_no_symbol_clock(spoil: Callable[..., dict[str, Check]]) -> None:
    def drown(file: Any) -> None:
        file["X"][:] = np.random.default_rng(0).normal(size=file["X"].shape, scale=0.5**0.5)

    checks = spoil(drown)
    assert {"label order", "samples per symbol", "band", "SNR labels", "synced"} <= failed(checks)
    assert "no cyclic line" in checks["samples per symbol"].said


def test_other_integers_than_the_originals_are_said(spoil: Callable[..., dict[str, Check]]) -> None:
    def shrink(file: Any) -> None:
        labels = file["Y"][:].astype(np.int8)
        del file["Y"]
        file["Y"] = labels

    checks = spoil(shrink)
    assert failed(checks) == {"layout"}
    assert "Y int8 (1440, 24)" in checks["layout"].said


def test_a_file_that_cannot_be_read_gets_one_verdict(tmp_path: Path) -> None:
    (check,) = audit_file(tmp_path / "nowhere.hdf5")
    assert (check.name, check.verdict) == ("layout", "fail")
    assert "no such file" in check.said
