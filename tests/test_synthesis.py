"""The generator: symbol tables, the pulse, what a written file holds."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from tiny_files import DIGITAL_NAMES

from amc_core.modulations import CLASSES
from amc_core.synthesis import NOT_BUILT, root_raised_cosine, symbol_table, synthesise_frames, write_file


@pytest.mark.parametrize("modulation", DIGITAL_NAMES)
def test_a_symbol_table_has_its_points_once_unit_power_and_no_offset(modulation: str) -> None:
    table = symbol_table(modulation)
    order = {"BPSK": 2, "QPSK": 4, "OQPSK": 4}.get(modulation) or int("".join(filter(str.isdigit, modulation)))
    assert len(np.unique(np.round(table, 4))) == order
    assert np.mean(np.abs(table) ** 2) == pytest.approx(1.0, rel=1e-5)
    assert abs(table.mean()) < 1e-5


def test_cross_qam_is_a_square_without_corners() -> None:
    for modulation, side in (("32QAM", 6), ("128QAM", 12)):
        table = symbol_table(modulation)
        assert len(np.unique(np.round(table.real, 4))) == len(np.unique(np.round(table.imag, 4))) == side
        assert not np.any(
            np.isclose(table.real, table.real.max(), atol=1e-4) & np.isclose(table.imag, table.imag.max(), atol=1e-4)
        )


def test_the_pulse_and_its_matched_filter_have_no_intersymbol_interference() -> None:
    time = np.arange(-8 * 64, 8 * 64 + 1) / 64
    for roll_off in (0.1, 0.25, 0.4):  # 0.25 meets t = 1 / (4 roll_off) exactly
        pulse = root_raised_cosine(time, np.array(roll_off))
        assert np.isfinite(pulse).all()
        raised_cosine = np.convolve(pulse, pulse) / 64
        at_symbols = raised_cosine[len(pulse) - 1 :: 64]
        assert at_symbols[0] == pytest.approx(1.0, abs=0.02)
        assert np.abs(at_symbols[1:8]).max() < 0.02


def recovered_symbols(modulation: str, snr_db: float) -> np.ndarray[tuple[int, ...], np.dtype[np.complex128]]:
    """Undo everything but the phase, with the truth found by trying: timing by the largest eye opening."""
    frames = synthesise_frames(modulation, snr_db, 8, np.random.default_rng(0)).astype(np.float64)
    signal = frames[..., 0] + 1j * frames[..., 1]
    pulse = root_raised_cosine(np.arange(-64, 65) / 8, np.array(0.25))
    filtered = np.stack([np.convolve(row, pulse, mode="same") for row in signal])
    fine = np.arange(100, 900, 8)[None] + np.arange(0, 8, 0.25)[:, None]
    best = []
    for row in filtered:
        tried = np.interp(fine, np.arange(1024), row.real) + 1j * np.interp(fine, np.arange(1024), row.imag)
        radius = np.abs(tried)
        best.append(tried[np.argmin(radius.std(axis=1) / radius.mean(axis=1))])
    return np.stack(best)


def test_a_psk_frame_is_a_ring_of_symbols_after_the_matched_filter() -> None:
    symbols = recovered_symbols("QPSK", 30)
    radius = np.abs(symbols)
    assert (radius.std(axis=1) / radius.mean(axis=1)).max() < 0.12
    # A phase and a small frequency offset turn the symbols; the fourth power removes the data.
    turned = np.angle(symbols[:, 1:] ** 4 * np.conj(symbols[:, :-1] ** 4))
    assert np.abs(np.median(turned, axis=1)).max() < 0.1


def test_oqpsks_quadrature_is_half_a_symbol_late() -> None:
    # Both components are never at a transition together, so that the envelope keeps clear of zero.
    def smallest(modulation: str) -> float:
        frames = synthesise_frames(modulation, 30, 20, np.random.default_rng(1))
        return float(np.quantile(np.hypot(frames[..., 0], frames[..., 1]), 0.005))

    assert smallest("OQPSK") > 3 * smallest("QPSK")


@pytest.mark.parametrize("snr_db", [-10, 0, 20])
def test_the_noise_floor_beside_the_signal_is_that_of_the_stated_snr(snr_db: int) -> None:
    frames = synthesise_frames("QPSK", snr_db, 200, np.random.default_rng(2))
    signal = frames[..., 0] + 1j * frames[..., 1]
    spectrum = np.abs(np.fft.fft(signal * np.blackman(1024), axis=1)) ** 2
    floor = spectrum[:, np.abs(np.fft.fftfreq(1024)) > 0.25].mean() / np.sum(np.blackman(1024) ** 2)
    noise = 10 ** (-snr_db / 10)
    assert 10 * np.log10(floor / (noise / (1 + noise))) == pytest.approx(0.0, abs=0.15)
    np.testing.assert_allclose(np.mean(np.abs(signal) ** 2, axis=1), 1.0, rtol=1e-4)


def test_the_file_has_the_layout_of_the_original(tmp_path: Path) -> None:
    path = tmp_path / "a.hdf5"
    heard: list[int] = []
    written = write_file(
        path, modulations=["OQPSK", "BPSK"], levels_db=[2, -2], frames_per_cell=3, seed=0, advance=heard.append
    )
    with h5py.File(path) as file:
        x_dataset, one_hot, snr_db = file["X"], file["Y"][:], file["Z"]
        assert (x_dataset.dtype, x_dataset.shape, x_dataset.chunks) == (np.float32, (12, 1024, 2), None)
        assert x_dataset.id.get_offset() is not None
        assert (one_hot.dtype, one_hot.shape) == (np.int64, (12, 24))
        assert (snr_db.dtype, snr_db.shape) == (np.int64, (12, 1))
        assert [CLASSES[column] for column in one_hot.argmax(axis=1)] == ["BPSK"] * 6 + ["OQPSK"] * 6
        assert snr_db[:, 0].tolist() == [-2, -2, -2, 2, 2, 2] * 2
    assert written == sum(heard) == 12


def test_the_same_seed_writes_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_file(tmp_path / name, modulations=["QPSK"], levels_db=[0], frames_per_cell=5, seed=seed)
    first, again, other = ((tmp_path / name).read_bytes() for name in "abc")
    assert first == again != other


def test_a_cell_is_the_same_whichever_others_are_written(tmp_path: Path) -> None:
    write_file(tmp_path / "few", modulations=["QPSK"], levels_db=[10], frames_per_cell=4, seed=3)
    write_file(tmp_path / "many", modulations=["QPSK", "BPSK"], levels_db=[0, 10], frames_per_cell=4, seed=3)
    with h5py.File(tmp_path / "few") as few, h5py.File(tmp_path / "many") as many:
        rows = (many["Y"][:].argmax(axis=1) == CLASSES.index("QPSK")) & (many["Z"][:, 0] == 10)
        assert np.array_equal(few["X"][:], many["X"][:][rows])


def test_an_interrupted_writing_leaves_nothing_behind(tmp_path: Path) -> None:
    def interrupt(_written: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_file(tmp_path / "a", modulations=["QPSK"], levels_db=[0, 2], frames_per_cell=2, seed=0, advance=interrupt)
    assert [path for path in tmp_path.iterdir() if path.is_file()] == []


def test_a_disk_that_is_too_small_is_said_before_the_first_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _folder: SimpleNamespace(free=100_000))
    heard: list[int] = []
    with pytest.raises(OSError, match="MiB are needed and 0 MiB free"):
        write_file(
            tmp_path / "a", modulations=["QPSK"], levels_db=[0], frames_per_cell=64, seed=0, advance=heard.append
        )
    assert not heard
    assert [path for path in tmp_path.iterdir() if path.is_file()] == []


@pytest.mark.parametrize("modulation", NOT_BUILT)
def test_a_class_that_is_not_built_has_no_table(modulation: str) -> None:
    with pytest.raises(ValueError, match=modulation):
        symbol_table(modulation)
