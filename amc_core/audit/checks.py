"""Is this file what it claims to be? One verdict a check, from the frames themselves where labels could lie.

In names: N rows of the file, B frames, T = 1024 samples, C = I and Q, K columns of Y.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from amc_core.audit.ceilings import estimate_snr_db
from amc_core.audit.signal_statistics import TRAITS, carrier_offset, mean_spectrum, symbol_rate, traits
from amc_core.data.radioml import FRAME_LENGTH, DataError, RadioMLFile
from amc_core.modulations import CLASSES
from amc_core.synthesis.constellations import LINEAR
from amc_core.synthesis.pulses import SAMPLES_PER_SYMBOL
from amc_core.verdicts import Verdict

# The classes.txt in the published archive. It names the columns wrongly: see amc_core.modulations.
PUBLISHED_ORDER: tuple[str, ...] = (
    *("32PSK", "16APSK", "32QAM", "FM", "GMSK", "32APSK", "OQPSK", "8ASK", "BPSK", "8PSK", "AM-SSB-SC", "4ASK"),
    *("16PSK", "64APSK", "128QAM", "128APSK", "AM-DSB-SC", "AM-SSB-WC", "64QAM", "QPSK", "256QAM", "AM-DSB-WC"),
    *("OOK", "16QAM"),
)

_CHUNK = 4096  # rows read at once
_CLEAR_SNR_DB = 16  # statistics of single frames need no less
_CLEAR_SPAN_DB = 10  # below the highest level, frames that count as clear too
_FRAMES_PER_COLUMN = 64
_FRAMES_PER_LEVEL = 256
_LOWEST_MEASURED_DB = -10  # below, the signal drowns in the uncertainty of the noise floor
_SNR_TOLERANCE_DB = 1.0  # half the distance of two levels
_POWER_TOLERANCE = 0.1
_AGREEMENT = 0.9  # share of traits that must be as the labels say: another modulator may differ in some
_LINE_HEIGHT = 3.0  # of a cyclic line over its surroundings
_WAVEFORM = ("samples per symbol", "band", "carrier")
_CARRIER = 1 / 1600  # cycles a sample: what synchronisation.carrier_free finds
_CARRIER_SHARE = 0.9  # of the frames that must keep within
_OUT_OF_BAND = 0.02  # share of power beyond 0.125 cycles a sample that a pulse's sidelobes may have


@dataclass(frozen=True)
class Check:
    """One verdict, with what was seen; ``measured`` holds plain JSON types."""

    name: str
    verdict: Verdict
    said: str
    measured: Mapping[str, Any] = field(default_factory=dict)

    def to_mapping(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self)


def audit_file(
    path: Path, *, every_frame: bool = True, advance: Callable[[int, int], None] = lambda _done, _all: None
) -> list[Check]:
    """Read the whole file once and judge it; a file that cannot be opened gets a single, failed check.

    Without ``every_frame`` only what samples can say is judged, in seconds. ``advance`` hears how many of how many
    frames were read.
    """
    try:
        with RadioMLFile(path) as data:
            values = _values(data, advance) if every_frame else []
            checks = [_layout(path, data), _cells(data), *values, *_signals(data)]
            return [*checks, _synced(checks)]
    except DataError as error:
        return [Check("layout", Verdict.FAIL, str(error))]


def _layout(path: Path, data: RadioMLFile) -> Check:
    """Shapes were checked on opening; other integers than the original's are read all the same, and said."""
    with h5py.File(path, "r") as file:
        found = {name: f"{file[name].dtype} {file[name].shape}" for name in ("X", "Y", "Z")}
        types = {name: str(file[name].dtype) for name in ("X", "Y", "Z")}
    exact = types == {"X": "float32", "Y": "int64", "Z": "int64"}
    said = ", ".join(f"{name} {what}" for name, what in found.items())
    said += "" if exact else "; the original has float32, int64, int64"
    said += ", memory-mapped" if data.is_memory_mapped else ", chunked or compressed: gathers are slow, see h5repack"
    return Check(
        "layout", Verdict.PASS if exact else Verdict.FAIL, said, {"memory_mapped": data.is_memory_mapped, **found}
    )


def _cells(data: RadioMLFile) -> Check:
    columns, levels = np.unique(data.column_N), np.unique(data.snr_db_N)
    place_N = np.searchsorted(columns, data.column_N) * len(levels) + np.searchsorted(levels, data.snr_db_N)
    count = np.bincount(place_N, minlength=len(columns) * len(levels))
    fewest, most = int(count.min()), int(count.max())
    said = (
        f"{len(columns)} classes x {len(levels)} SNR levels ({levels.min()}..{levels.max()} dB) x "
        f"{fewest if fewest == most else f'{fewest} to {most}'} frames; the original has 24 x 26 x 4096"
    )
    if fewest != most:
        worst = divmod(int(count.argmin()), len(levels))
        said += f"; fewest: {CLASSES[columns[worst[0]]]} at {levels[worst[1]]} dB"
    measured = {
        "classes": [CLASSES[column] for column in columns],
        "levels_db": levels.tolist(),
        "fewest": fewest,
        "most": most,
    }
    return Check("frames per cell", Verdict.PASS if fewest == most else Verdict.FAIL, said, measured)


def _values(data: RadioMLFile, advance: Callable[[int, int], None]) -> list[Check]:
    """Read every frame: bad samples, power, frames that occur twice."""
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
    return [_finite(bad_N), _power(power_N[~bad_N]), _twice(data, hash_N)]


def _finite(bad_N: npt.NDArray[np.bool_]) -> Check:
    rows = np.flatnonzero(bad_N)
    if not len(rows):
        return Check("NaN and infinity", Verdict.PASS, "none", {"rows": 0})
    said = f"in {len(rows):,} frames, the first in row {rows[0]}; representations make zeros of them"
    return Check("NaN and infinity", Verdict.FAIL, said, {"rows": len(rows), "first": int(rows[0])})


def _power(power_M: npt.NDArray[np.float64]) -> Check:
    if not len(power_M):
        return Check("frame power", Verdict.FAIL, "no frame is finite")
    low, middle, high = (float(value) for value in np.quantile(power_M, [0.005, 0.5, 0.995]))
    unit = 1 - _POWER_TOLERANCE <= low <= high <= 1 + _POWER_TOLERANCE
    said = f"mean of I^2 + Q^2: {middle:.4g} in the median, 99 % within {low:.4g}..{high:.4g}"
    if not unit:
        said += f"; the original's frames have 1, within {_POWER_TOLERANCE:g}"
    return Check(
        "frame power", Verdict.PASS if unit else Verdict.FAIL, said, {"median": middle, "low": low, "high": high}
    )


def _twice(data: RadioMLFile, hash_N: npt.NDArray[np.uint64]) -> Check:
    order_N = np.argsort(hash_N, kind="stable")
    same_N = np.flatnonzero(hash_N[order_N][1:] == hash_N[order_N][:-1])
    pairs = [(int(order_N[place]), int(order_N[place + 1])) for place in same_N]
    found = [pair for pair in pairs if _equal(data, *pair)]  # two frames may have one hash
    if not found:
        return Check("duplicates", Verdict.PASS, "no frame occurs twice", {"pairs": 0})
    first, second = found[0]
    said = f"{len(found):,} frames occur again, such as row {first} in row {second}: a split leaks between its parts"
    return Check("duplicates", Verdict.FAIL, said, {"pairs": len(found), "first": [first, second]})


def _equal(data: RadioMLFile, first: int, second: int) -> bool:
    return data.frames(np.array([first])).tobytes() == data.frames(np.array([second])).tobytes()


def _signals(data: RadioMLFile) -> list[Check]:
    """Check labels and waveforms on a sample of frames."""
    snr = _snr_labels(data)
    highest = int(data.snr_db_N.max())
    if highest < _CLEAR_SNR_DB:
        why = f"needs frames at {_CLEAR_SNR_DB} dB or more; the highest level is {highest} dB"
        return [*_skipped(why, "label order", *_WAVEFORM), snr]
    clear_db = max(_CLEAR_SNR_DB, highest - _CLEAR_SPAN_DB)
    by_column = {}
    for column in np.unique(data.column_N):
        mask_N = (data.snr_db_N >= clear_db) & (data.column_N == column)
        frames_BTC = _sample(data, mask_N, _FRAMES_PER_COLUMN)
        if len(frames_BTC):
            by_column[int(column)] = frames_BTC
    if not by_column:
        why = f"no usable frame: those at {clear_db} dB or more are zero or have NaN or infinity"
        return [*_skipped(why, "label order", *_WAVEFORM), snr]
    order = _label_order(by_column)
    # A file in the published order has one fault and not three: its other checks go by what its columns really are.
    published = order.verdict is Verdict.FAIL and _follows_published(
        order.measured["corrected"], order.measured["published"]
    )
    names = PUBLISHED_ORDER if published else CLASSES
    carrier = _carrier({names[column]: frames_BTC for column, frames_BTC in by_column.items()})
    if carrier.verdict == order.verdict is Verdict.FAIL and not published:
        why = f"{order.said.partition(';')[0].partition(':')[0]}; a large carrier offset hides them: see carrier"
        order = Check("label order", Verdict.SKIP, why, order.measured)
    linear = [frames for column, frames in by_column.items() if names[column] in LINEAR]
    if not linear:
        return [order, *_skipped("no class with symbols of its own", *_WAVEFORM), snr]
    linear_BTC = np.concatenate(linear)
    return [order, _samples_per_symbol(linear_BTC), _band(linear_BTC), carrier, snr]


def _skipped(why: str, *names: str) -> list[Check]:
    return [Check(name, Verdict.SKIP, why) for name in names]


def _follows_published(share: float, share_published: float) -> bool:
    return share_published >= _AGREEMENT and share_published > share


def _label_order(by_column: Mapping[int, npt.NDArray[np.float32]]) -> Check:
    """Compare what the frames of every column show with what both orders say of it.

    A column that shows one trait too many may be another modulator's choice. Columns that were exchanged show each
    other's traits: that is what fails, however few they are.
    """
    seen = {column: traits(frames_BTC) for column, frames_BTC in by_column.items()}
    against = {column: _contradictions(CLASSES[column], shown) for column, shown in seen.items()}
    share = _agreement(seen, CLASSES)
    share_published = _agreement(seen, PUBLISHED_ORDER)
    contradicted = [
        f"column {column}, {CLASSES[column]}, shows {', '.join(traits_)}"
        for column, traits_ in against.items()
        if traits_
    ]
    exchanged = [
        f"column {column}, {CLASSES[column]}, looks like {CLASSES[other]}"
        for column in seen
        for other in seen
        if against[column] and against[other] and not _contradictions(CLASSES[other], seen[column])
    ]
    measured = {
        "corrected": share,
        "published": share_published,
        "contradicted": contradicted,
        "exchanged": exchanged,
    }
    said = (
        f"{share:.0%} of the traits are as the corrected order has them, {share_published:.0%} as the wrong published "
        "one (classes.txt)"
    )
    if share == share_published >= _AGREEMENT and not exchanged:
        said += ": these classes cannot tell the two apart"
        return Check("label order", Verdict.SKIP, "; ".join([said, *contradicted]), measured)
    if share >= _AGREEMENT and share > share_published and not exchanged:
        return Check("label order", Verdict.PASS, "; ".join([said, *contradicted]), measured)
    if _follows_published(share, share_published):
        said += ": the columns of Y follow classes.txt, permute them"
    else:
        said += ": the columns follow neither"
    named = exchanged or contradicted
    return Check(
        "label order", Verdict.FAIL, "; ".join([said, *named[:4]]) + ("; ..." if len(named) > 4 else ""), measured
    )


def _agreement(seen: Mapping[int, Mapping[str, bool]], order: Sequence[str]) -> float:
    """Return the share of traits that an order of the classes expects and that are so."""
    claims = sum(len(_expected(order[column])) for column in seen)
    wrong = sum(len(_contradictions(order[column], shown)) for column, shown in seen.items())
    return 1 - wrong / max(claims, 1)


def _contradictions(name: str, shown: Mapping[str, bool]) -> list[str]:
    expected = _expected(name)
    return [f"{'' if shown[trait] else 'not '}{trait}" for trait in expected if shown[trait] != expected[trait]]


def _expected(name: str) -> dict[str, bool]:
    return {trait: name in having for trait, (having, lacking) in TRAITS.items() if name in having | lacking}


def _samples_per_symbol(linear_BTC: npt.NDArray[np.float32]) -> Check:
    rate, height = symbol_rate(linear_BTC)
    if height < _LINE_HEIGHT:
        said = f"no cyclic line: the strongest is {height:.1f} times its surroundings, at {1 / max(rate, 1e-9):.2f}"
        return Check("samples per symbol", Verdict.FAIL, said, {"height": height})
    period = 1 / rate
    measured = {"samples_per_symbol": period, "height": height}
    said = f"{period:.2f}, by a cyclic line {height:.0f} times its surroundings"
    if abs(period / SAMPLES_PER_SYMBOL - 1) < 0.01:
        return Check("samples per symbol", Verdict.PASS, said, measured)
    return Check("samples per symbol", Verdict.FAIL, f"{said}; the original has {SAMPLES_PER_SYMBOL}", measured)


def _band(linear_BTC: npt.NDArray[np.float32]) -> Check:
    """Compare the spectrum with a root raised cosine's, which has half its power at half the symbol rate.

    That holds for every roll-off; beyond the symbol rate itself there is nothing but sidelobes.
    """
    frequency_F, power_F = mean_spectrum(linear_BTC)
    middle = power_F[np.abs(frequency_F) < 0.25 / SAMPLES_PER_SYMBOL].mean()
    half_F = np.abs(frequency_F[power_F > middle / 2])
    edge = float(half_F.max()) * SAMPLES_PER_SYMBOL
    outside = float(np.maximum(power_F[np.abs(frequency_F) > 1 / SAMPLES_PER_SYMBOL], 0).sum())
    said = f"half power at {edge:.2f} symbol rates, {outside:.2%} of the power beyond 1"
    like_rrc = abs(edge - 0.5) < 0.05 and outside < _OUT_OF_BAND
    if not like_rrc:
        said += f"; a root raised cosine has 0.50 and less than {_OUT_OF_BAND:.0%}"
    return Check(
        "band", Verdict.PASS if like_rrc else Verdict.FAIL, said, {"half_power_edge": edge, "outside": outside}
    )


def _carrier(by_name: Mapping[str, npt.NDArray[np.float32]]) -> Check:
    """Measure the carrier of the classes that show it."""
    by_class = {name: carrier_offset(frames_BTC, name) for name, frames_BTC in by_name.items()}
    offset_B = np.abs(np.concatenate([*by_class.values(), np.empty(0)]))
    if not len(offset_B):
        return Check("carrier", Verdict.SKIP, "no class shows its carrier; OOK, 4ASK, 8ASK, BPSK and QPSK can")
    reach, widest = float(np.quantile(offset_B, _CARRIER_SHARE)), float(offset_B.max())
    shown = ", ".join(name for name, found_B in by_class.items() if len(found_B))
    said = (
        f"{_CARRIER_SHARE:.0%} of the frames of {shown} are within {reach:.1e} cycles a sample, all within {widest:.1e}"
    )
    verdict: Verdict = Verdict.PASS if reach <= _CARRIER else Verdict.FAIL
    said += f"; synced finds it up to {_CARRIER:.1e}" if verdict == Verdict.FAIL else ""
    return Check("carrier", verdict, said, {"cycles_a_sample": reach, "widest": widest})


def _snr_labels(data: RadioMLFile) -> Check:
    """Compare Z with the noise floor out of band."""
    measured: dict[str, float] = {}
    for level in np.unique(data.snr_db_N[data.snr_db_N >= _LOWEST_MEASURED_DB]):
        frames_BTC = _sample(data, data.snr_db_N == level, _FRAMES_PER_LEVEL)
        if len(frames_BTC):
            measured[str(int(level))] = float(np.median(estimate_snr_db(frames_BTC)))
    if not measured:
        return Check("SNR labels", Verdict.SKIP, f"no usable frame at {_LOWEST_MEASURED_DB} dB or more")
    off = {int(level): estimate - int(level) for level, estimate in measured.items()}
    worst = max(off, key=lambda level: abs(off[level]))
    middle = float(np.median(list(off.values())))
    said = f"the noise floor out of band says {off[worst]:+.1f} dB at most ({worst} dB), {middle:+.1f} in the median"
    facts = {"measured_db": {level: round(value, 3) for level, value in measured.items()}}
    if abs(off[worst]) <= _SNR_TOLERANCE_DB:
        return Check("SNR labels", Verdict.PASS, said, facts)
    symbol_db = 10 * math.log10(SAMPLES_PER_SYMBOL)
    if max(abs(value - middle) for value in off.values()) <= _SNR_TOLERANCE_DB:
        said += f"; all levels are shifted alike (Es/N0 would be {-symbol_db:+.1f} dB)"
    else:
        said += "; the labels are no SNR per sample over the full band"
    return Check("SNR labels", Verdict.FAIL, said, facts)


def _synced(checks: Sequence[Check]) -> Check:
    """Say whether the representation of that name knows this file's signals; their power does not matter to it."""
    assumed = {
        "samples per symbol": "8 samples per symbol",
        "band": "a band like an RRC's",
        "carrier": "a carrier within 1/1600 cycles a sample",
    }
    verdicts = {check.name: check.verdict for check in checks}
    broken = [what for name, what in assumed.items() if verdicts.get(name) == Verdict.FAIL]
    unknown = [what for name, what in assumed.items() if verdicts.get(name, Verdict.SKIP) == Verdict.SKIP]
    if broken:
        said = f"the representation synced assumes {', '.join(broken)}, which does not hold here"
        return Check("synced", Verdict.FAIL, said, {"broken": broken})
    if unknown:
        return Check("synced", Verdict.SKIP, f"not known: {', '.join(unknown)}")
    said = f"its assumptions hold: {', '.join(assumed.values())}"
    return Check("synced", Verdict.PASS, said, {"broken": []})


def _sample(data: RadioMLFile, mask_N: npt.NDArray[np.bool_], n_frames: int) -> npt.NDArray[np.float32]:
    """Gather frames spread evenly over the rows of a mask, with unit power; those with bad samples are left out."""
    rows = np.flatnonzero(mask_N)
    if len(rows) > n_frames:
        rows = rows[np.linspace(0, len(rows) - 1, n_frames).astype(np.int64)]
    frames_BTC = data.frames(rows.astype(np.int64))
    frames_BTC = frames_BTC[np.isfinite(frames_BTC).all(axis=(1, 2)) & (np.abs(frames_BTC) > 0).any(axis=(1, 2))]
    # In float64: squares of what float32 can hold may lie outside of what float32 can hold.
    power_B = np.square(frames_BTC, dtype=np.float64).sum(axis=(1, 2)) / FRAME_LENGTH
    unit_BTC: npt.NDArray[np.float32] = (frames_BTC / np.sqrt(power_B)[:, None, None]).astype(np.float32)
    return unit_BTC
