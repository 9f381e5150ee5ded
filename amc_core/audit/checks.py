"""Checks of a data file: its layout, its values, and whether its labels agree with its signals.

In names: N rows of the file, B frames, T = 1024 samples, C = I and Q, K columns of Y.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from amc_core.audit.ceilings import estimate_snr_db
from amc_core.audit.check import Check, judged, skipped
from amc_core.audit.label_order import PUBLISHED_ORDER, channel, follows_published, label_order
from amc_core.audit.signal_statistics import carrier_offset, mean_spectrum, symbol_rate
from amc_core.audit.snr_labels import FRAMES_PER_LEVEL, LOWEST_MEASURED_DB, snr_labels
from amc_core.config import FIELDS
from amc_core.data.radioml import FRAME_LENGTH, DataError, RadioMLFile
from amc_core.modulations import complete_label_sets
from amc_core.synthesis.constellations import LINEAR
from amc_core.synthesis.pulses import SAMPLES_PER_SYMBOL
from amc_core.verdicts import Verdict
from amc_sweeps.number_formats import counted

_CHUNK = 4096  # rows read at once
_CLEAR_SNR_DB = 16  # lowest SNR for statistics of single frames
_CLEAR_SPAN_DB = 10  # levels at most this far below the highest one are used for them
_FRAMES_PER_COLUMN = 64
_POWER_TOLERANCE = 0.1
_LINE_HEIGHT = 3.0  # least height of a cyclic line over its surroundings
_WAVEFORM = ("samples per symbol", "band", "carrier", "channel")
_CARRIER = FIELDS["carrier_range"]  # cycles per sample: the largest offset that the representation synced finds
_CARRIER_SHARE = 0.9  # share of the frames that must have a smaller offset
_OUT_OF_BAND = 0.02  # largest share of power beyond 0.125 cycles per sample: a pulse's sidelobes

_Frames = npt.NDArray[np.float32]


def audit_file(
    path: Path, *, every_frame: bool = True, advance: Callable[[int, int], None] = lambda _done, _all: None
) -> list[Check]:
    """Read the whole file once and return every check; a file that cannot be opened gets one failed check.

    Without ``every_frame`` only a sample is read, which takes seconds. ``advance`` is called with the number of frames
    read so far and the number of all frames.
    """
    try:
        with RadioMLFile(path) as data:
            values = _values(data, advance) if every_frame else []
            checks = [_layout(path, data), _cells(data), *values, *_signals(data)]
            return [*checks, _synced(checks)]
    except DataError as error:
        return [Check("layout", Verdict.FAIL, str(error))]


def _layout(path: Path, data: RadioMLFile) -> Check:
    """Compare types with the original's; shapes were checked on opening."""
    with h5py.File(path, "r") as file:
        shapes = {name: f"{file[name].dtype} {file[name].shape}" for name in ("X", "Y", "Z")}
        types = [str(file[name].dtype) for name in ("X", "Y", "Z")]
    passed = types == ["float32", "int64", "int64"]
    text = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
    text += "" if passed else "; the original has float32, int64, int64"
    text += ", memory-mapped" if data.is_memory_mapped else ", chunked or compressed: reading is slow, see h5repack"
    return judged("layout", passed, text, {"memory_mapped": data.is_memory_mapped, **shapes})


def _cells(data: RadioMLFile) -> Check:
    columns, levels = np.unique(data.column_N), np.unique(data.snr_db_N)
    cell_N = np.searchsorted(columns, data.column_N) * len(levels) + np.searchsorted(levels, data.snr_db_N)
    count = np.bincount(cell_N, minlength=len(columns) * len(levels))
    fewest, most = int(count.min()), int(count.max())
    frames = counted(fewest, "frame") if fewest == most else f"{fewest:,} to {most:,} frames"
    text = (
        f"{counted(len(columns), 'class', 'classes')} x {counted(len(levels), 'SNR level')} "
        f"({levels.min()}..{levels.max()} dB) x {frames}; the original has 24 x 26 x 4,096"
    )
    if fewest != most:
        column, level = divmod(int(count.argmin()), len(levels))
        text += f"; fewest: {data.classes[columns[column]]} at {levels[level]} dB"
    label_sets = complete_label_sets(data.present)
    if len(columns) < 2:
        text += "; no trial can train on 1 class"
    elif not label_sets:
        text += "; a trial needs label_set file, or a list of these classes"
    measured = {
        "classes": list(data.present),
        "label_sets": label_sets,
        "levels_db": levels.tolist(),
        "fewest": fewest,
        "most": most,
    }
    return judged("frames per cell", fewest == most, text, measured)


def _values(data: RadioMLFile, advance: Callable[[int, int], None]) -> list[Check]:
    power_N = np.empty(data.n_frames)
    bad_N = np.empty(data.n_frames, dtype=bool)
    hash_N = np.empty(data.n_frames, dtype=np.uint64)
    advance(0, data.n_frames)
    factor_T = np.random.default_rng(0).integers(0, 2**63, size=FRAME_LENGTH, dtype=np.uint64) * 2 + 1
    for start in range(0, data.n_frames, _CHUNK):
        part = slice(start, min(start + _CHUNK, data.n_frames))
        frames_BTC = data.frames(np.arange(part.start, part.stop))
        bad_N[part] = ~np.isfinite(frames_BTC).all(axis=(1, 2))
        flat_BX = frames_BTC.reshape(len(frames_BTC), -1)
        power_N[part] = np.einsum("bx,bx->b", flat_BX, flat_BX, dtype=np.float64) / FRAME_LENGTH
        hash_N[part] = flat_BX.view(np.uint64) @ factor_T  # one sample a word; modulo 2**64
        advance(part.stop, data.n_frames)
    return [_finite(bad_N), _power(power_N[~bad_N]), _duplicates(data, hash_N)]


def _finite(bad_N: npt.NDArray[np.bool_]) -> Check:
    rows = np.flatnonzero(bad_N)
    if not len(rows):
        return Check("NaN and infinity", Verdict.PASS, "none", {"rows": 0})
    text = f"in {counted(len(rows), 'frame')}, the first in row {rows[0]}; a model sees zeros instead of such a frame"
    return Check("NaN and infinity", Verdict.FAIL, text, {"rows": len(rows), "first": int(rows[0])})


def _power(power_M: npt.NDArray[np.float64]) -> Check:
    if not len(power_M):
        return Check("frame power", Verdict.FAIL, "no frame is finite")
    low, median, high = (float(value) for value in np.quantile(power_M, [0.005, 0.5, 0.995]))
    passed = 1 - _POWER_TOLERANCE <= low <= high <= 1 + _POWER_TOLERANCE
    text = f"mean of I^2 + Q^2: median {median:.4g}, 99% of the frames within {low:.4g}..{high:.4g}"
    text += "" if passed else f"; the original's frames have 1, within {_POWER_TOLERANCE:g}"
    return judged("frame power", passed, text, {"median": median, "low": low, "high": high})


def _duplicates(data: RadioMLFile, hash_N: npt.NDArray[np.uint64]) -> Check:
    order_N = np.argsort(hash_N, kind="stable")
    same_N = np.flatnonzero(hash_N[order_N][1:] == hash_N[order_N][:-1])
    candidates = [(int(order_N[place]), int(order_N[place + 1])) for place in same_N]
    pairs = [pair for pair in candidates if _equal(data, *pair)]  # two different frames may have the same hash
    if not pairs:
        return Check("duplicates", Verdict.PASS, "no frame occurs twice", {"pairs": 0})
    first, second = pairs[0]
    text = (
        f"repeated frames: {len(pairs):,}, such as row {second} (equal to row {first}); a split may put one copy into "
        "train and the other into test"
    )
    return Check("duplicates", Verdict.FAIL, text, {"pairs": len(pairs), "first": [first, second]})


def _equal(data: RadioMLFile, first: int, second: int) -> bool:
    return data.frames(np.array([first])).tobytes() == data.frames(np.array([second])).tobytes()


def _signals(data: RadioMLFile) -> list[Check]:
    snr = _snr_labels(data)
    highest = int(data.snr_db_N.max())
    if highest < _CLEAR_SNR_DB:
        reason = f"needs frames at {_CLEAR_SNR_DB} dB or more; the highest level is {highest} dB"
        return [*skipped(reason, "label order", *_WAVEFORM), snr]
    clear_db = max(_CLEAR_SNR_DB, highest - _CLEAR_SPAN_DB)
    by_column = {}
    for column in np.unique(data.column_N):
        mask_N = (data.snr_db_N >= clear_db) & (data.column_N == column)
        frames_BTC = _sample(data, mask_N, _FRAMES_PER_COLUMN)
        if len(frames_BTC):
            by_column[int(column)] = frames_BTC
    if not by_column:
        reason = f"no usable frame: those at {clear_db} dB or more are zero or have NaN or infinity"
        return [*skipped(reason, "label order", *_WAVEFORM), snr]
    names = data.classes
    through = channel(by_column, names)
    order = label_order(by_column, names, through_channel=through.verdict is Verdict.WARN)
    # A file in the published order has one fault, so the other checks use the true classes of its columns.
    published = follows_published(order)
    names = PUBLISHED_ORDER if published else names
    carrier = _carrier({names[column]: frames_BTC for column, frames_BTC in by_column.items()})
    if carrier.verdict == order.verdict is Verdict.FAIL and not published:
        reason = "a large carrier offset hides the order of the classes: see carrier"
        order = Check("label order", Verdict.SKIP, reason, order.measured)
    linear = [frames for column, frames in by_column.items() if names[column] in LINEAR]
    if not linear:
        return [order, *skipped("no class with a linear modulation", *_WAVEFORM), snr]
    linear_BTC = np.concatenate(linear)
    return [order, _samples_per_symbol(linear_BTC), _band(linear_BTC), carrier, through, snr]


def _samples_per_symbol(linear_BTC: _Frames) -> Check:
    rate, height = symbol_rate(linear_BTC)
    if height < _LINE_HEIGHT:
        text = (
            f"no cyclic line: the highest peak, at {1 / max(rate, 1e-9):.2f} samples per symbol, is {height:.1f} times "
            "its surroundings"
        )
        return Check("samples per symbol", Verdict.FAIL, text, {"height": height})
    passed = abs(1 / rate / SAMPLES_PER_SYMBOL - 1) < 0.01
    text = f"{1 / rate:.2f} samples per symbol, from a cyclic line {height:.0f} times its surroundings"
    text += "" if passed else f"; the original has {SAMPLES_PER_SYMBOL}"
    return judged("samples per symbol", passed, text, {"samples_per_symbol": 1 / rate, "height": height})


def _band(linear_BTC: _Frames) -> Check:
    """Compare the spectrum with a root raised cosine's: half its power at half the symbol rate, for every roll-off.

    Beyond the symbol rate such a pulse has sidelobes only.
    """
    frequency_F, power_F = mean_spectrum(linear_BTC)
    middle = power_F[np.abs(frequency_F) < 0.25 / SAMPLES_PER_SYMBOL].mean()
    half_F = np.abs(frequency_F[power_F > middle / 2])
    edge = float(half_F.max()) * SAMPLES_PER_SYMBOL
    outside = float(np.maximum(power_F[np.abs(frequency_F) > 1 / SAMPLES_PER_SYMBOL], 0).sum())
    passed = abs(edge - 0.5) < 0.05 and outside < _OUT_OF_BAND
    text = f"half power at {edge:.2f} of the symbol rate, {outside:.2%} of the power beyond the symbol rate"
    text += "" if passed else f"; a root raised cosine has 0.50 and less than {_OUT_OF_BAND:.0%}"
    return judged("band", passed, text, {"half_power_edge": edge, "outside": outside})


def _carrier(by_name: Mapping[str, _Frames]) -> Check:
    by_class = {name: carrier_offset(frames_BTC, name) for name, frames_BTC in by_name.items()}
    offset_B = np.abs(np.concatenate([*by_class.values(), np.empty(0)]))
    if not len(offset_B):
        return Check("carrier", Verdict.SKIP, "no frames of OOK, 4ASK, 8ASK, BPSK or QPSK with a clear carrier")
    reach, widest = float(np.quantile(offset_B, _CARRIER_SHARE)), float(offset_B.max())
    names = ", ".join(name for name, offset_B in by_class.items() if len(offset_B))
    text = (
        f"offsets of {names}: at most {reach:.1e} cycles per sample in {_CARRIER_SHARE:.0%} of the frames, "
        f"{widest:.1e} in all"
    )
    if reach > _CARRIER.default:
        text += f"; the representation synced finds offsets up to {_CARRIER.default:.1e}"
        needed = math.ceil(widest * 1e4) / 1e4
        text += f": set carrier_range: {needed:.4f}" if needed <= (_CARRIER.maximum or 0) else ""
    return judged("carrier", reach <= _CARRIER.default, text, {"cycles_a_sample": reach, "widest": widest})


def _snr_labels(data: RadioMLFile) -> Check:
    """Compare Z with the SNR that the noise out of band gives."""
    estimates = {}
    for level in np.unique(data.snr_db_N[data.snr_db_N >= LOWEST_MEASURED_DB]).tolist():
        frames_BTC = _sample(data, data.snr_db_N == level, FRAMES_PER_LEVEL)
        if len(frames_BTC):
            estimates[int(level)] = estimate_snr_db(frames_BTC)
    return snr_labels(estimates)


def _synced(checks: Sequence[Check]) -> Check:
    """Check whether the file has the signals that the representation ``synced`` assumes."""
    assumptions = {
        "samples per symbol": "8 samples per symbol",
        "band": "the band of a root raised cosine",
        "carrier": f"a carrier within 1/{1 / _CARRIER.default:.0f} cycles per sample",
    }
    verdicts = {check.name: check.verdict for check in checks}
    broken = [text for name, text in assumptions.items() if verdicts.get(name) == Verdict.FAIL]
    unknown = [text for name, text in assumptions.items() if verdicts.get(name, Verdict.SKIP) == Verdict.SKIP]
    if unknown and not broken:
        return Check("synced", Verdict.SKIP, f"not measured: {', '.join(unknown)}")
    text = f"the file fits the representation synced: {', '.join(assumptions.values())}"
    if broken:
        text = f"the representation synced assumes {', '.join(broken)}, which does not hold here"
    return judged("synced", not broken, text, {"broken": broken})


def _sample(data: RadioMLFile, mask_N: npt.NDArray[np.bool_], n_frames: int) -> _Frames:
    """Return frames spread evenly over the rows of a mask, at unit power and without bad ones."""
    rows = np.flatnonzero(mask_N)
    if len(rows) > n_frames:
        rows = rows[np.linspace(0, len(rows) - 1, n_frames).astype(np.int64)]
    frames_BTC = data.frames(rows.astype(np.int64))
    frames_BTC = frames_BTC[np.isfinite(frames_BTC).all(axis=(1, 2)) & (np.abs(frames_BTC) > 0).any(axis=(1, 2))]
    # In float64: the square of a float32 may not fit into float32.
    power_B = np.square(frames_BTC, dtype=np.float64).sum(axis=(1, 2)) / FRAME_LENGTH
    unit_BTC: _Frames = (frames_BTC / np.sqrt(power_B)[:, None, None]).astype(np.float32)
    return unit_BTC
