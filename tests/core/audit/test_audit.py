"""The audit passes good files and names the faults of others, from the frames and not from the labels."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from amc_core.audit.check import Check
from amc_core.audit.checks import audit_file
from amc_core.audit.label_order import PUBLISHED_ORDER
from amc_core.audit.signal_statistics import carrier_offset
from amc_core.modulations import CLASSES
from amc_core.synthesis.file import write_file
from amc_core.synthesis.frames import Recipe, synthesise_frames


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
    reported: list[tuple[int, int]] = []
    checks = audit_file(good, advance=lambda done, whole: reported.append((done, whole)))
    assert [check.text for check in checks if check.verdict != "pass"] == []
    assert reported[-1] == (1440, 1440)
    by_name = {check.name: check for check in checks}
    assert by_name["samples per symbol"].measured["samples_per_symbol"] == pytest.approx(8.0, abs=0.02)
    assert by_name["label order"].measured["corrected"] == 1.0
    assert by_name["SNR labels"].measured["measured_db"]["10"] == pytest.approx(10.0, abs=0.3)
    assert "24 classes x 5 SNR levels (-10..30 dB) x 12 frames" in by_name["frames per cell"].text
    assert by_name["frames per cell"].measured["label_sets"] == ["digital17", "all24"]


def test_the_published_order_of_the_classes_is_recognised(spoil: Callable[..., dict[str, Check]]) -> None:
    assert sorted(PUBLISHED_ORDER) == sorted(CLASSES)

    def permute(file: Any) -> None:
        true = file["Y"][:].argmax(axis=1)
        file["Y"][:] = np.eye(24, dtype=np.int64)[[PUBLISHED_ORDER.index(CLASSES[column]) for column in true]]

    checks = spoil(permute)
    assert failed(checks) == {"label order"}
    assert "Y's columns follow classes.txt" in checks["label order"].text
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
    assert "columns follow neither" in order.text
    exchanged = order.measured["exchanged"]
    assert any(f"{one}, looks like {other}" in text for text in exchanged)
    assert any(f"{other}, looks like {one}" in text for text in exchanged)
    assert len(order.measured["contradicted"]) == 2


def test_one_odd_class_is_named_and_passes(spoil: Callable[..., dict[str, Check]]) -> None:
    def replace(file: Any) -> None:  # what single sidebands are in some files: noise in the whole band
        rows = np.flatnonzero(file["Y"][:, CLASSES.index("AM-SSB-SC")])
        noise = np.random.default_rng(0).normal(size=(len(rows), 1024, 2), scale=0.5**0.5)
        file["X"][rows] = noise

    order = spoil(replace)["label order"]
    assert order.verdict == "pass"
    assert "column 18, AM-SSB-SC, lacks one sideband" in order.text


def test_a_file_of_one_label_set_is_judged_by_what_it_has(tmp_path: Path) -> None:
    write_file(tmp_path / "a", modulations=["FM", "GMSK"], levels_db=[20], frames_per_cell=8, seed=0)
    checks = audited(tmp_path / "a")
    assert failed(checks) == set()
    assert checks["samples per symbol"].verdict == checks["synced"].verdict == "skip"
    write_file(tmp_path / "b", modulations=["QPSK"], levels_db=[0], frames_per_cell=8, seed=0)
    checks = audited(tmp_path / "b")
    assert "needs frames at 16 dB or more; the highest level is 0 dB" in checks["label order"].text
    assert "1 class x 1 SNR level (0..0 dB) x 8 frames" in checks["frames per cell"].text
    assert "no trial can train on 1 class" in checks["frames per cell"].text
    assert failed(checks) == set()


def test_classes_that_fit_both_orders_skip_the_check(tmp_path: Path) -> None:
    names = ["32QAM", "64QAM", "128QAM"]
    write_file(tmp_path / "a", modulations=names, levels_db=[20, 30], frames_per_cell=8, seed=0)
    checks = audited(tmp_path / "a")
    assert failed(checks) == set()
    assert checks["label order"].verdict == "skip"
    assert "100% of the signal checks" in checks["label order"].text
    assert "these classes fit the corrected order as well as the one in classes.txt" in checks["label order"].text
    assert checks["carrier"].verdict == "skip"
    assert checks["synced"].text == "not measured: a carrier within 1/1600 cycles per sample"


@pytest.mark.parametrize("value", [np.nan, 0.0])
def test_a_file_without_a_usable_frame_skips_the_order(spoil: Callable[..., dict[str, Check]], value: float) -> None:
    def empty(file: Any) -> None:
        file["X"][:] = np.full(file["X"].shape, value)  # h5py takes half a minute for a single value

    checks = spoil(empty)
    assert not failed(checks) & {"label order", "samples per symbol", "band", "carrier", "SNR labels", "synced"}
    assert "no usable frame" in checks["label order"].text
    assert "no usable frame" in checks["SNR labels"].text
    assert failed(checks) >= {"frame power"}


def test_huge_and_tiny_values_are_judged_like_any_other(spoil: Callable[..., dict[str, Check]]) -> None:
    def scale(file: Any) -> None:
        file["X"][::2] *= np.float32(1e25)
        file["X"][1::2] *= np.float32(1e-25)

    assert failed(spoil(scale)) == {"frame power"}


def test_a_large_carrier_offset_fails_synced_and_skips_the_order(
    tmp_path: Path,
) -> None:
    far = Recipe(cfo_sd=0.01)
    write_file(tmp_path / "a", modulations=CLASSES, levels_db=[20, 30], frames_per_cell=16, seed=0, recipe=far)
    checks = audited(tmp_path / "a")
    assert failed(checks) == {"carrier", "synced"}
    assert 0.01 < checks["carrier"].measured["cycles_a_sample"] < 0.02  # 1.64 standard deviations hold 90%
    assert "a carrier within 1/1600 cycles per sample, which does not hold here" in checks["synced"].text
    assert checks["label order"].verdict == "skip"
    assert "a large carrier offset hides the order" in checks["label order"].text


@pytest.mark.parametrize("modulation", ["BPSK", "QPSK"])
def test_the_carriers_limit_is_that_of_synced(tmp_path: Path, modulation: str) -> None:
    for cfo_sd, verdict in ((3e-4, "pass"), (5e-4, "fail")):  # 96% and 79% of the frames are within 1/1600
        path = tmp_path / f"{cfo_sd}"
        recipe = Recipe(cfo_sd=cfo_sd)
        write_file(path, modulations=[modulation], levels_db=[20], frames_per_cell=64, seed=0, recipe=recipe)
        carrier = audited(path)["carrier"]
        assert carrier.verdict == verdict
        needed = re.search(r"set carrier_range: ([\d.]+)$", carrier.text)
        assert (needed is None) == (verdict == "pass")
        assert needed is None or float(needed[1]) >= carrier.measured["widest"]


@pytest.mark.parametrize("modulation", CLASSES)
def test_another_class_in_the_place_of_bpsk_or_qpsk_shows_no_carrier_offset(modulation: str) -> None:
    iq_BTC = synthesise_frames(modulation, 20, 32, np.random.default_rng(0), Recipe())
    for named in ("BPSK", "QPSK"):
        offset_B = carrier_offset(iq_BTC, named)
        assert (np.abs(offset_B) > 1 / 1600).sum() <= 0.1 * len(offset_B)


def test_bad_samples_are_counted_and_found(spoil: Callable[..., dict[str, Check]]) -> None:
    def poison(file: Any) -> None:
        file["X"][7, 3, 0] = np.nan
        file["X"][900, 0, 1] = np.inf

    checks = spoil(poison)
    assert failed(checks) == {"NaN and infinity"}
    assert "in 2 frames, the first in row 7" in checks["NaN and infinity"].text


def test_a_frame_that_occurs_twice_is_found(spoil: Callable[..., dict[str, Check]]) -> None:
    def copy(file: Any) -> None:
        file["X"][1001] = file["X"][17]

    checks = spoil(copy)
    assert "duplicates" in failed(checks)
    assert checks["duplicates"].measured == {"pairs": 1, "first": [17, 1001]}
    assert "repeated frames: 1, such as row 1001 (equal to row 17)" in checks["duplicates"].text


def test_a_missing_frame_shows_in_its_cell(spoil: Callable[..., dict[str, Check]]) -> None:
    def relabel(file: Any) -> None:
        file["Z"][0] = 0  # from -10 dB

    checks = spoil(relabel)
    assert "frames per cell" in failed(checks)
    assert "x 11 to 13 frames" in checks["frames per cell"].text
    assert "OOK at -10 dB" in checks["frames per cell"].text


def test_random_gain_fails_the_frame_power_only(tmp_path: Path) -> None:
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


def test_shifted_labels_and_wrong_labels_get_different_messages(
    spoil: Callable[..., dict[str, Check]],
) -> None:
    def shift(file: Any) -> None:
        file["Z"][:] = file["Z"][:] + 9

    assert "all levels are shifted by -9.0 dB" in spoil(shift)["SNR labels"].text

    def stretch(file: Any) -> None:
        file["Z"][:] = file["Z"][:] * 2

    labels = spoil(stretch)["SNR labels"]
    assert labels.verdict == "fail"
    assert "not the SNR per sample" in labels.text


def test_another_symbol_rate_breaks_what_synced_assumes(spoil: Callable[..., dict[str, Check]]) -> None:
    def decimate(file: Any) -> None:
        frames = file["X"][:]
        file["X"][:] = np.concatenate([frames[:, ::2], np.roll(frames, 1, axis=0)[:, ::2]], axis=1)

    checks = spoil(decimate)
    assert {"samples per symbol", "band", "synced"} <= failed(checks)
    assert checks["samples per symbol"].measured["samples_per_symbol"] == pytest.approx(4.0, abs=0.02)
    assert "8 samples per symbol" in checks["synced"].text


def test_noise_has_no_symbol_clock(spoil: Callable[..., dict[str, Check]]) -> None:
    def drown(file: Any) -> None:
        file["X"][:] = np.random.default_rng(0).normal(size=file["X"].shape, scale=0.5**0.5)

    checks = spoil(drown)
    assert {"label order", "samples per symbol", "band", "SNR labels", "synced"} <= failed(checks)
    assert "no cyclic line" in checks["samples per symbol"].text


def test_other_integers_than_the_originals_fail_the_layout(spoil: Callable[..., dict[str, Check]]) -> None:
    def shrink(file: Any) -> None:
        labels = file["Y"][:].astype(np.int8)
        del file["Y"]
        file["Y"] = labels

    checks = spoil(shrink)
    assert failed(checks) == {"layout"}
    assert "Y int8 (1440, 24)" in checks["layout"].text


def test_a_file_that_cannot_be_read_gets_one_verdict(tmp_path: Path) -> None:
    (check,) = audit_file(tmp_path / "nowhere.hdf5")
    assert (check.name, check.verdict) == ("layout", "fail")
    assert "no such file" in check.text
