"""The generator: symbol tables, pulses, and the written file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from tiny_files import DIGITAL_NAMES

from amc_core.modulations import CLASSES
from amc_core.synthesis.constellations import APSK_RADII, DVB_S2X, symbol_table
from amc_core.synthesis.file import write_file
from amc_core.synthesis.frames import Recipe, synthesise_frames
from amc_core.synthesis.pulses import gaussian_frequency_pulse, root_raised_cosine

PLAIN = Recipe(roll_off=(0.25, 0.25), half_span=(8, 8))  # the pulse that the tests' matched filter knows
Real = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
Signal = np.ndarray[tuple[int, ...], np.dtype[np.complex128]]


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


def recovered_symbols(modulation: str, snr_db: float) -> Signal:
    """Return symbols with timing found by the largest eye opening; the phase stays unknown."""
    frames = synthesise_frames(modulation, snr_db, 8, np.random.default_rng(0), PLAIN).astype(np.float64)
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
    reported: list[int] = []
    written = write_file(
        path, modulations=["OQPSK", "BPSK"], levels_db=[2, -2], frames_per_cell=3, seed=0, advance=reported.append
    )
    with h5py.File(path) as file:
        x_dataset, one_hot, snr_db = file["X"], file["Y"][:], file["Z"]
        assert (x_dataset.dtype, x_dataset.shape, x_dataset.chunks) == (np.float32, (12, 1024, 2), None)
        assert x_dataset.id.get_offset() is not None
        assert (one_hot.dtype, one_hot.shape) == (np.int64, (12, 24))
        assert (snr_db.dtype, snr_db.shape) == (np.int64, (12, 1))
        assert [CLASSES[column] for column in one_hot.argmax(axis=1)] == ["BPSK"] * 6 + ["OQPSK"] * 6
        assert snr_db[:, 0].tolist() == [-2, -2, -2, 2, 2, 2] * 2
    assert written == sum(reported) == 12


def test_the_same_seed_writes_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_file(tmp_path / name, modulations=["QPSK"], levels_db=[0], frames_per_cell=5, seed=seed)
    first, again, other = ((tmp_path / name).read_bytes() for name in "abc")
    assert first == again != other


def test_a_cell_does_not_depend_on_the_other_cells(tmp_path: Path) -> None:
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


def test_a_disk_that_is_too_small_is_refused_before_the_first_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _folder: SimpleNamespace(free=100_000))
    reported: list[int] = []
    with pytest.raises(OSError, match=r"needs 1 MiB, only 0 MiB is free"):
        write_file(
            tmp_path / "a", modulations=["QPSK"], levels_db=[0], frames_per_cell=64, seed=0, advance=reported.append
        )
    assert not reported
    assert [path for path in tmp_path.iterdir() if path.is_file()] == []


@pytest.mark.parametrize(
    ("moment", "message"),
    [
        ("at once", "needs 1 MiB, which cannot be reserved: File too large"),
        ("while frames are written", "[Errno 27] File too large"),
    ],
)
def test_a_file_that_cannot_grow_is_an_error_and_leaves_nothing(tmp_path: Path, moment: str, message: str) -> None:
    # A limit of the process replaces the full disk: both make a write fail. In its own process, which HDF5 might
    # end.
    code = """
import resource, sys
from pathlib import Path
from amc_core.synthesis import file as synthetic_file

def limit(*_):
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))

advance = limit if sys.argv[2] == "while frames are written" else lambda _: None
if sys.argv[2] == "at once":
    limit()
try:
    synthetic_file.write_file(
        Path(sys.argv[1]), modulations=["QPSK"], levels_db=[0, 2], frames_per_cell=64, seed=0, advance=advance
    )
except OSError as error:
    print(error)
"""
    ended = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a"), moment], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert message in ended.stdout
    assert [path for path in tmp_path.iterdir() if path.is_file()] == []


def test_the_number_of_processes_changes_no_byte(tmp_path: Path) -> None:
    facts = {"modulations": ["OOK", "FM", "256QAM"], "levels_db": [-20, 30], "frames_per_cell": 5, "seed": 7}
    reported: list[int] = []
    write_file(tmp_path / "one", **facts)  # type: ignore[arg-type]
    write_file(tmp_path / "many", processes=3, advance=reported.append, **facts)  # type: ignore[arg-type]
    assert (tmp_path / "one").read_bytes() == (tmp_path / "many").read_bytes()
    assert sum(reported) == 30


def test_an_error_in_a_process_reaches_the_caller_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The child opens a file that is not there: a folder that vanished, say.
    monkeypatch.setattr("amc_core.synthesis.file._write_labels", lambda path, *_: path.unlink() or 0)
    with pytest.raises(FileNotFoundError):
        write_file(tmp_path / "a", modulations=["BPSK"], levels_db=[0, 2], frames_per_cell=2, seed=0, processes=2)
    assert [path for path in tmp_path.iterdir() if path.is_file()] == []


def test_a_block_is_the_same_in_a_larger_file(tmp_path: Path) -> None:
    for name, frames_per_cell in (("small", 1024), ("large", 1030)):
        write_file(tmp_path / name, modulations=["8PSK"], levels_db=[0], frames_per_cell=frames_per_cell, seed=0)
    with h5py.File(tmp_path / "small") as small, h5py.File(tmp_path / "large") as large:
        assert np.array_equal(small["X"][:], large["X"][:1024])
        assert not np.array_equal(large["X"][1024:], small["X"][:6])  # the next block has numbers of its own


def signals(modulation: str, recipe: Recipe = PLAIN, *, snr_db: float = 60, n_frames: int = 40) -> Signal:
    frames = synthesise_frames(modulation, snr_db, n_frames, np.random.default_rng(5), recipe).astype(np.float64)
    return frames[..., 0] + 1j * frames[..., 1]


def spectrum(signal: Signal) -> tuple[Real, Real]:
    power = (np.abs(np.fft.fft(signal * np.blackman(1024), axis=1)) ** 2).mean(axis=0)
    return np.fft.fftfreq(1024), power / power.sum()


@pytest.mark.parametrize("modulation", CLASSES)
def test_every_class_makes_finite_frames_of_unit_power_within_the_band(modulation: str) -> None:
    signal = signals(modulation, Recipe())
    assert np.isfinite(signal).all()
    np.testing.assert_allclose(np.mean(np.abs(signal) ** 2, axis=1), 1.0, rtol=1e-4)
    frequency, power = spectrum(signal)
    assert power[np.abs(frequency) > 0.15].sum() < 2e-3
    assert len(np.unique(signal[:, 0].round(6))) == len(signal)


@pytest.mark.parametrize("modulation", ["FM", "GMSK"])
def test_fm_and_gmsk_have_a_constant_envelope(modulation: str) -> None:
    assert np.abs(signals(modulation)).std(axis=1).max() < 0.01


def test_gmsk_turns_by_a_quarter_turn_a_symbol() -> None:
    moments = np.arange(-4096, 4097) / 512
    assert gaussian_frequency_pulse(moments, 0.3).sum() / 512 == pytest.approx(1.0, abs=1e-6)
    # With modulation index 1/2 the square of the signal has its lines half a symbol rate to either side of zero.
    squared = np.abs(np.fft.fft(signals("GMSK") ** 2, axis=1)).mean(axis=0)
    lines = set(np.abs(np.fft.fftfreq(1024)[np.argsort(squared)[-2:]]).tolist())
    assert lines == {1 / 16}


def test_double_sidebands_lie_on_one_line_and_single_ones_on_one_side() -> None:
    for modulation in ("AM-DSB-WC", "AM-DSB-SC", "OOK"):
        still = signals(modulation, Recipe(cfo_sd=0.0))
        turned = still * np.exp(-0.5j * np.angle(np.sum(still**2, axis=1)))[:, None]
        assert np.abs(turned.imag).max() < 0.02
    for modulation in ("AM-SSB-WC", "AM-SSB-SC"):
        frequency, power = spectrum(signals(modulation, Recipe(cfo_sd=0.0)))
        assert power[frequency < -0.004].sum() < 1e-3


def test_only_modulations_with_carrier_have_a_line() -> None:
    def carrier(modulation: str) -> float:
        still = signals(modulation, Recipe(cfo_sd=0.0))
        return float(np.median(np.abs(still.mean(axis=1))))

    assert carrier("AM-DSB-WC") > 0.9
    assert carrier("AM-SSB-WC") > 0.8
    assert carrier("AM-DSB-SC") < 0.1
    assert carrier("AM-SSB-SC") < 0.1
    assert carrier("OOK") == pytest.approx(2**-0.5, abs=0.1)  # half of the symbols, at root 2


def test_the_pulse_varies_in_roll_off_and_span() -> None:
    def edge(roll_off: float) -> float:
        frequency, power = spectrum(signals("QPSK", Recipe(roll_off=(roll_off, roll_off), half_span=(8, 8))))
        return float(power[np.abs(frequency) > 1.25 / 16].sum())

    assert edge(0.5) > 5 * edge(0.1)

    def sidelobes(half_span: int) -> float:
        frequency, power = spectrum(signals("QPSK", Recipe(roll_off=(0.1, 0.1), half_span=(half_span, half_span))))
        return float(power[(np.abs(frequency) > 0.10) & (np.abs(frequency) < 0.15)].sum())

    assert sidelobes(2) > 5 * sidelobes(8)


def test_a_carrier_offset_turns_the_frame_by_its_angle() -> None:
    fourth = [np.abs(np.fft.fft(signals("QPSK", Recipe(cfo_sd=sd)) ** 4, axis=1)).argmax(axis=1) for sd in (0.0, 0.01)]
    assert set(fourth[0].tolist()) == {0}
    offset = np.fft.fftfreq(1024)[fourth[1]] / 4
    assert 0.005 < offset.std() < 0.015


def tilt_db(fading: str) -> float:
    """Return the spread over frames of the power ratio of the two halves of the band, in dB."""
    faded = signals("QPSK", Recipe(roll_off=(0.25, 0.25), half_span=(8, 8), fading=fading), n_frames=400)
    np.testing.assert_allclose(np.mean(np.abs(faded) ** 2, axis=1), 1.0, rtol=1e-4)
    power = np.abs(np.fft.fft(faded * np.blackman(1024), axis=1)) ** 2
    frequency = np.fft.fftfreq(1024)
    upper = power[:, (frequency > 0.02) & (frequency < 0.05)].sum(axis=1)
    lower = power[:, (frequency < -0.02) & (frequency > -0.05)].sum(axis=1)
    return float(np.std(10 * np.log10(upper / lower)))


def test_fading_tilts_the_band_more_with_a_smaller_constant_part() -> None:
    assert 1.1 * tilt_db("none") < tilt_db("rician") < tilt_db("rayleigh") / 1.1


@pytest.mark.parametrize("fading", ["rayleigh", "rician"])
def test_the_snr_is_that_of_the_faded_frame(fading: str) -> None:
    frequency, density = spectrum(signals("QPSK", Recipe(fading=fading), snr_db=10, n_frames=200))
    assert 10 * np.log10(density[np.abs(frequency) > 0.25].mean() * 1024 * 11) == pytest.approx(0.0, abs=0.15)


def test_the_gain_is_uniform_in_db_and_only_scales() -> None:
    gained = signals("QPSK", Recipe(gain_db=10), n_frames=300)
    power_db = 10 * np.log10(np.mean(np.abs(gained) ** 2, axis=1))
    assert -10 <= power_db.min() < -9 < 9 < power_db.max() <= 10
    assert power_db.std() == pytest.approx(20 / 12**0.5, rel=0.1)


@pytest.mark.parametrize(
    ("modulation", "name"), [(modulation, name) for modulation, tables in DVB_S2X.items() for name in tables]
)
def test_a_table_of_dvb_s2x_has_its_rings_and_the_symmetry_of_a_quarter_turn(modulation: str, name: str) -> None:
    table = symbol_table(modulation, {modulation: name})
    rings = DVB_S2X[modulation][name]
    assert "+".join(map(str, rings.counts)) == name
    assert len(table) == sum(rings.counts) == int(modulation.removesuffix("APSK"))
    assert np.mean(np.abs(table) ** 2) == pytest.approx(1.0, rel=1e-5)
    sizes = np.sort(np.abs(table))
    radii = np.repeat(rings.radii, rings.counts)
    assert sizes / sizes[0] == pytest.approx(radii, rel=1e-5)
    distances = np.abs(table[:, None] - table[None, :]) + 2 * np.eye(len(table))
    assert distances.min() > 0.7 * np.sqrt(2 / len(table))  # no two points lie together
    for turned in (table * 1j, table.conj()):  # 128APSK's published angles are rounded
        assert np.abs(turned[:, None] - table[None, :]).min(axis=1).max() < 2e-3


def test_rings_of_dvb_s2x_are_told_from_the_ratios_of_radii() -> None:
    assert Recipe(radii={"64APSK": "4+12+20+28"}).to_mapping()["radii"]["64APSK"] == "4+12+20+28"
    with pytest.raises(ValueError, match=r"64APSK: 1\+63 is no table of rings; DVB-S2X has 16\+16\+16\+16, "):
        Recipe(radii={"64APSK": "1+63"})
    with pytest.raises(ValueError, match=r"16APSK: 4\+12 is no table of rings; or give ratios"):
        Recipe(radii={"16APSK": "4+12"})
    frames = synthesise_frames(
        "128APSK", 30.0, 2, np.random.default_rng(0), Recipe(radii={"128APSK": "16+16+16+16+16+48"})
    )
    assert np.isfinite(frames).all()


def test_rings_are_a_parameter_and_whole_radii_or_ratios_mean_the_same() -> None:
    assert np.abs(symbol_table("16APSK")).max() / np.abs(symbol_table("16APSK")).min() == pytest.approx(2.85, rel=1e-5)
    wide = symbol_table("16APSK", {"16APSK": (3.15,)})
    assert np.abs(wide).max() / np.abs(wide).min() == pytest.approx(3.15, rel=1e-5)
    assert np.array_equal(wide, symbol_table("16APSK", {"16APSK": (2.0, 6.3)}))
    assert set(APSK_RADII) == {name for name in CLASSES if "APSK" in name}


def test_a_recipe_is_refused_with_all_violations() -> None:
    with pytest.raises(ValueError, match="roll_off") as caught:
        Recipe(
            roll_off=(0.5, 0.1),
            half_span=(0, 9),
            cfo_sd=-1,
            fading="fog",
            gain_db=-1,
            radii={"16APSK": (2.0, 1.0), "QPSK": (1.0,)},
        )
    message = str(caught.value)
    assert all(name in message for name in ("half_span", "cfo_sd", "fog", "gain_db", "16APSK", "QPSK: has no rings"))
    with pytest.raises(ValueError, match="QPSKK: no such modulation"):
        synthesise_frames("QPSKK", 0, 1, np.random.default_rng(0))
