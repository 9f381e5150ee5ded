"""Seeded synthetic frames in the layout of RadioML 2018.01A: 17 linear digital modulations in white noise.

A frame is ``x(n) = exp(j (2 pi f n + phi)) * sum_k s_k g(n / 8 - k - tau) + noise``: uniform symbols s, a
root-raised-cosine pulse g with a random roll-off, a random timing tau in 0..1 symbol, phase phi and carrier offset f,
and white noise over the full band at the SNR of the label. Frames are written with unit power, as the original is.

Every block of frames has its own random stream, named by (seed, class, SNR, block): a file depends on its seed alone,
and a cell is the same whichever other cells are written.

In names: B frames of a block, S symbols of a frame, L taps a phase, P = 8 samples a symbol, T = 1024 samples, C = I, Q.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from amc_core.modulations import CLASSES, DIGITAL17
from amc_core.radioml import FRAME_LENGTH

__all__ = ["NOT_BUILT", "symbol_table", "synthesise_frames", "write_file"]

SAMPLES_PER_SYMBOL = 8
ROLL_OFF = (0.1, 0.4)  # uniform
CFO_SD = 1e-4  # cycles a sample, normal
PULSE_HALF_SPAN = 8  # symbols; the pulse is cut there
BLOCK = 1024  # frames with one random stream

NOT_BUILT: tuple[str, ...] = tuple(name for column, name in enumerate(CLASSES) if column not in DIGITAL17)

# Rings of the APSK constellations as (points, radius); every ring starts at half its angular step.
# 16 and 32: DVB-S2, ETSI EN 302 307-1, code rate 3/4 (gamma = 2.85; 2.84 and 5.27).
# 64 and 128: the tables of liquid-dsp (J. Gaeddert), whose rings start at angle 0.
_APSK_RINGS: dict[str, tuple[tuple[int, float], ...]] = {
    "16APSK": ((4, 1.0), (12, 2.85)),
    "32APSK": ((4, 1.0), (12, 2.84), (16, 5.27)),
    "64APSK": ((4, 0.18916586), (14, 0.52466476), (20, 0.88613129), (26, 1.30529201)),
    "128APSK": ((8, 0.20241030), (18, 0.46255755), (24, 0.70972824), (36, 0.99172282), (42, 1.34806108)),
}
_RINGS_FROM_ZERO = frozenset({"64APSK", "128APSK"})
_PSK_ORDER = {"BPSK": 2, "QPSK": 4, "OQPSK": 4, "8PSK": 8, "16PSK": 16, "32PSK": 32}


def symbol_table(modulation: str) -> npt.NDArray[np.complex64]:
    """Return the constellation's points with unit mean power.

    Raises:
        ValueError: the modulation has no symbol table here.
    """
    if modulation in _PSK_ORDER:
        order = _PSK_ORDER[modulation]
        offset = math.pi / order if order == 4 else 0.0
        points = np.exp(1j * (2 * math.pi * np.arange(order) / order + offset))
    elif modulation in _APSK_RINGS:
        points = np.concatenate(
            [
                radius * np.exp(2j * math.pi * (np.arange(count) + _ring_offset(modulation)) / count)
                for count, radius in _APSK_RINGS[modulation]
            ]
        )
    elif modulation.endswith("QAM"):
        points = _qam(int(modulation.removesuffix("QAM")))
    elif modulation in {"4ASK", "8ASK"}:
        points = _levels(int(modulation.removesuffix("ASK"))).astype(np.complex128)
    else:
        raise ValueError(f"{modulation}: no symbol table; built: {', '.join(CLASSES[c] for c in DIGITAL17)}")
    table: npt.NDArray[np.complex64] = (points / np.sqrt(np.mean(np.abs(points) ** 2))).astype(np.complex64)
    return table


def synthesise_frames(
    modulation: str, snr_db: float, n_frames: int, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Return frames of one class at one SNR: float32 (n_frames, 1024, 2), each with a mean of I^2 + Q^2 of 1.

    The SNR is that of the frame itself: its measured signal power against the noise's expected power, per sample over
    the full band.
    """
    table = symbol_table(modulation)
    n_symbols = FRAME_LENGTH // SAMPLES_PER_SYMBOL
    # The pulse reaches into its neighbours; the taps below cover one symbol more, for a delay of up to 1.5 symbols.
    n_taps = 2 * PULSE_HALF_SPAN + 2
    symbols_BS = table[rng.integers(0, len(table), size=(n_frames, n_symbols + n_taps - 1))]
    roll_off_B = rng.uniform(*ROLL_OFF, size=n_frames)
    delay_B = rng.uniform(0.0, 1.0, size=n_frames)
    phase_B = rng.uniform(0.0, 2 * math.pi, size=n_frames)
    cfo_B = rng.normal(0.0, CFO_SD, size=n_frames)

    # x[8m + p] = sum_l s[m + l] g((8 (l0 - l) + p) / 8 - tau): one small matrix product a frame and component.
    in_phase_BT = _shape(symbols_BS.real, roll_off_B, delay_B, n_taps)
    offset = 0.5 if modulation == "OQPSK" else 0.0
    quadrature_BT = _shape(symbols_BS.imag, roll_off_B, delay_B + offset, n_taps)
    signal_BT = in_phase_BT + 1j * quadrature_BT

    angle_BT = 2 * math.pi * cfo_B[:, None] * np.arange(FRAME_LENGTH) + phase_B[:, None]
    signal_BT *= _phasor(angle_BT.astype(np.float32))
    signal_BT /= np.sqrt(_power(signal_BT))[:, None]

    noise_BTC = rng.standard_normal((n_frames, FRAME_LENGTH, 2), dtype=np.float32)
    received_BT = signal_BT + np.float32(math.sqrt(10 ** (-snr_db / 10) / 2)) * noise_BTC.view(np.complex64)[..., 0]
    received_BT /= np.sqrt(_power(received_BT))[:, None]
    frames_BTC: npt.NDArray[np.float32] = received_BT.astype(np.complex64).view(np.float32)
    return frames_BTC.reshape(n_frames, FRAME_LENGTH, 2)


def write_file(
    path: Path,
    *,
    modulations: Sequence[str],
    levels_db: Sequence[int],
    frames_per_cell: int,
    seed: int,
    advance: Callable[[int], None] = lambda _: None,
) -> int:
    """Write a whole file and return its number of rows; rows are class-major, then by increasing SNR.

    The file appears under its name when it is complete; ``advance`` hears of every written block of frames.

    Raises:
        ValueError: a class that is not built.
        OSError: the folder does not exist or cannot be written, or the disk is full; nothing is left behind.
    """
    columns = sorted(CLASSES.index(modulation) for modulation in modulations)
    for column in columns:
        symbol_table(CLASSES[column])  # refuse before the first byte
    cells = [(column, level) for column in columns for level in sorted(levels_db)]
    n_rows = len(cells) * frames_per_cell
    facts = {"seed": seed, "frames_per_cell": frames_per_cell, "samples_per_symbol": SAMPLES_PER_SYMBOL}
    with _complete_or_absent(path) as partial:
        _require_space(path.parent, n_rows * (FRAME_LENGTH * 8 + len(CLASSES) * 8 + 8))
        offset = _write_labels(partial, np.repeat(cells, frames_per_cell, axis=0), facts)
        # Frames go past HDF5 into the space that it left for them: a full disk is then an error, and not the end of the
        # process, which HDF5 1.14 makes of a file that it cannot close.
        with partial.open("r+b") as file:
            file.seek(offset)
            for column, level in cells:
                for start in range(0, frames_per_cell, BLOCK):
                    # 1000 keeps negative SNRs out of the seed sequence, which takes natural numbers only.
                    rng = np.random.default_rng([seed, column, level + 1000, start // BLOCK])
                    n_frames = min(BLOCK, frames_per_cell - start)
                    file.write(synthesise_frames(CLASSES[column], level, n_frames, rng).astype("<f4").tobytes())
                    advance(n_frames)
    return n_rows


def _write_labels(path: Path, cells_N2: npt.NDArray[np.int64], facts: dict[str, int]) -> int:
    """Write the file but for the frames, and return the byte where they belong."""
    with h5py.File(path, "w") as file:
        layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        shape = h5py.h5s.create_simple((len(cells_N2), FRAME_LENGTH, 2))
        frames = h5py.h5d.create(file.id, b"X", h5py.h5t.IEEE_F32LE, shape, layout)
        file["Y"] = np.eye(len(CLASSES), dtype="<i8")[cells_N2[:, 0]]
        file["Z"] = cells_N2[:, 1:].astype("<i8")
        file.attrs["synthesis"] = json.dumps(facts)
        return int(frames.get_offset())


def _require_space(folder: Path, n_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        raise OSError(errno.ENOSPC, f"{n_bytes / 2**20:,.0f} MiB are needed and {free / 2**20:,.0f} MiB free")


def _levels(order: int) -> npt.NDArray[np.float64]:
    """Return the amplitudes -(M-1), ..., -1, 1, ..., M-1 (bipolar, as pulse-amplitude modulation has them)."""
    return np.arange(1 - order, order, 2, dtype=np.float64)


def _qam(order: int) -> npt.NDArray[np.complex128]:
    """Return a square grid, or a cross where the order is an odd power of 2: a square without its corners."""
    bits = order.bit_length() - 1
    if bits % 2 == 0:
        levels = _levels(1 << (bits // 2))
        square: npt.NDArray[np.complex128] = (levels[:, None] + 1j * levels).ravel()
        return square
    side = 3 << ((bits - 3) // 2)  # 6 for 32QAM, 12 for 128QAM
    levels = _levels(side)
    grid: npt.NDArray[np.complex128] = (levels[:, None] + 1j * levels).ravel()
    corner = side - side // 3  # a corner is a square of side/6 points each way
    return grid[~((np.abs(grid.real) > corner) & (np.abs(grid.imag) > corner))]


def _ring_offset(modulation: str) -> float:
    return 0.0 if modulation in _RINGS_FROM_ZERO else 0.5


def _shape(
    symbols_BS: npt.NDArray[np.float32],
    roll_off_B: npt.NDArray[np.float64],
    delay_B: npt.NDArray[np.float64],
    n_taps: int,
) -> npt.NDArray[np.float32]:
    """Filter real symbols with every frame's own delayed pulse, 8 samples a symbol: (B, 1024)."""
    lag_L = PULSE_HALF_SPAN - np.arange(n_taps) + 1
    phase_P = np.arange(SAMPLES_PER_SYMBOL) / SAMPLES_PER_SYMBOL
    time_BLP = lag_L[:, None] + phase_P - delay_B[:, None, None]
    taps_BLP = root_raised_cosine(time_BLP, roll_off_B[:, None, None]).astype(np.float32)
    windows_BML = np.lib.stride_tricks.sliding_window_view(np.ascontiguousarray(symbols_BS), n_taps, axis=1)
    shaped_BMP = windows_BML @ taps_BLP
    return shaped_BMP.reshape(len(symbols_BS), FRAME_LENGTH)


def root_raised_cosine(time: npt.NDArray[np.float64], roll_off: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Evaluate the root-raised-cosine pulse of unit energy; time in symbols, zero beyond the half span.

    J. Proakis, M. Salehi, "Digital Communications", 5th edition, section 9.2.
    """
    time, roll_off = np.broadcast_arrays(time, roll_off)
    # The formula is 0/0 at t = 0 and |t| = 1 / (4 roll_off); a shift of 1e-6 symbols costs less than float32 resolves.
    singular = (np.abs(time) < 1e-6) | (np.abs(np.abs(4 * roll_off * time) - 1) < 1e-6)
    time = np.where(singular, time + 3e-6, time)
    angle = math.pi * time
    numerator = np.sin(angle * (1 - roll_off)) + 4 * roll_off * time * np.cos(angle * (1 + roll_off))
    pulse = numerator / (angle * (1 - (4 * roll_off * time) ** 2))
    return np.where(np.abs(time) <= PULSE_HALF_SPAN, pulse, 0.0)


def _phasor(angle: npt.NDArray[np.float32]) -> npt.NDArray[np.complex64]:
    phasor = np.empty(angle.shape, dtype=np.complex64)
    phasor.real, phasor.imag = np.cos(angle), np.sin(angle)
    return phasor


def _power(signal_BT: npt.NDArray[np.complex64]) -> npt.NDArray[np.float32]:
    power_B: npt.NDArray[np.float32] = np.mean(signal_BT.real**2 + signal_BT.imag**2, axis=1)
    return power_B


@contextlib.contextmanager
def _complete_or_absent(path: Path) -> Iterator[Path]:
    """Lend a temporary file beside the target; rename it at the end, remove it on any error or interrupt."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        partial.chmod(0o666 & ~_umask())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
