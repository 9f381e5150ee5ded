"""The audit tells labels of single frames from labels that are right in the mean only, by the spread of every level."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from amc_core.audit.ceilings import NOISE_BAND, estimate_snr_db
from amc_core.audit.check import Check
from amc_core.audit.checks import audit_file
from amc_core.audit.snr_labels import NOISE_VARIANCE, exact_spread_db, snr_labels
from amc_core.synthesis.file import write_file
from amc_core.synthesis.frames import synthesise_frames

LEVELS_DB = range(0, 31, 2)
NAMES = ("QPSK", "16QAM", "BPSK", "GMSK")
Draw = Callable[[np.random.Generator], float]


def checked(draw: Draw, n_frames: int = 48) -> Check:
    """Check labels that differ from the SNR of their frames by a draw, in dB."""
    measured = {}
    for level in LEVELS_DB:
        rng = np.random.default_rng([level, 1])
        frames = [
            synthesise_frames(NAMES[number % len(NAMES)], level + draw(rng), 1, rng) for number in range(n_frames)
        ]
        measured[level] = estimate_snr_db(np.concatenate(frames))
    return snr_labels(measured)


def rayleigh(rng: np.random.Generator) -> float:
    return float(10 * np.log10(rng.exponential()))


def test_exact_labels_pass_and_allow_nearly_everything() -> None:
    check = checked(lambda _: 0.0)
    assert check.verdict == "pass"
    assert check.measured["accuracy_allowed"] > 0.97
    for level, spread_db in check.measured["spread_db"].items():
        assert spread_db < 1.5 * exact_spread_db(int(level)) + 0.1


def test_the_variance_of_the_noise_follows_from_the_window() -> None:
    square_T = np.blackman(1024) ** 2
    n_bins = int((np.abs(np.fft.fftfreq(1024)) > NOISE_BAND).sum())
    correlation_F = np.abs(np.fft.fft(square_T) / square_T.sum()) ** 2  # of the powers of two bins, by their distance
    lags = np.arange(1 - n_bins, n_bins)
    mean = float(((1 - np.abs(lags) / n_bins) * correlation_F[lags]).sum()) / n_bins
    assert pytest.approx(mean, rel=1e-3) == NOISE_VARIANCE


@pytest.mark.parametrize("level_db", [0, 6, 20])
def test_frames_with_exact_labels_spread_as_the_audit_expects(level_db: int) -> None:
    rng = np.random.default_rng(level_db)
    measured = estimate_snr_db(synthesise_frames("QPSK", level_db, 3000, rng))
    # The standard error of the ratio is 0.013.
    assert measured.std() / exact_spread_db(level_db) == pytest.approx(1.0, abs=0.045)


@pytest.mark.parametrize(
    ("draw", "lowest", "highest"),
    [
        (lambda rng: 3 * rng.standard_normal(), 0.2, 0.35),  # 26% of a normal distribution of 3 dB are within 1 dB
        (lambda rng: rng.standard_normal(), 0.6, 0.78),
        (rayleigh, 0.1, 0.3),
    ],
)
def test_scattered_labels_fail_with_the_accuracy_that_they_allow(draw: Draw, lowest: float, highest: float) -> None:
    check = checked(draw)
    assert check.verdict == "fail"
    assert lowest < check.measured["accuracy_allowed"] < highest
    assert "the labels are not the SNR of single frames" in check.text
    assert "shifted" not in check.text


def test_a_shift_is_called_one_only_where_every_frame_is_shifted() -> None:
    shifted = checked(lambda _: -9.0)
    assert "all levels are shifted by -9.0 dB" in shifted.text
    assert shifted.measured["accuracy_allowed"] > 0.9
    faded = checked(lambda rng: rayleigh(rng) - 3)
    assert faded.verdict == "fail"
    assert "shifted" not in faded.text


def test_one_level_or_few_frames_allow_no_statement_about_the_accuracy(tmp_path: Path) -> None:
    write_file(tmp_path / "one", modulations=["QPSK"], levels_db=[10], frames_per_cell=20, seed=0)
    write_file(tmp_path / "few", modulations=["QPSK"], levels_db=[0, 10], frames_per_cell=4, seed=0)
    for name in ("one", "few"):
        (check,) = (check for check in audit_file(tmp_path / name) if check.name == "SNR labels")
        assert check.verdict == "pass"
        assert check.measured["accuracy_allowed"] is None
        assert "accuracy" not in check.text


def test_the_audit_measures_single_frames_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "scattered.hdf5"
    write_file(path, modulations=NAMES, levels_db=LEVELS_DB, frames_per_cell=8, seed=0)
    with h5py.File(path, "r+") as file:
        level_N = file["Z"][:, 0] // 2
        moved_N = np.random.default_rng(0).integers(-2, 3, size=len(level_N)) + level_N
        file["Z"][:] = 2 * np.clip(moved_N, 0, 15)[:, None]
    (check,) = (check for check in audit_file(path) if check.name == "SNR labels")
    assert check.verdict == "fail"
    assert 0.1 < check.measured["accuracy_allowed"] < 0.4
