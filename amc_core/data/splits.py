"""Divide the selected frames into train, validation and test parts, the same way on every machine.

Every (modulation, SNR) cell is divided in the same ratios. A hash of the seed and the row's number in the file decides
its place in the cell. A random generator would not do: a library may change its stream, and a fingerprint must name the
same rows for years.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from amc_core.data.radioml import DataError, Selection
from amc_sweeps.number_formats import quoted


@dataclass(frozen=True)
class Split:
    """Positions in a Selection (0..M-1, increasing); every position is in exactly one part."""

    train: npt.NDArray[np.int64]
    val: npt.NDArray[np.int64]
    test: npt.NDArray[np.int64]


def stratified_split(selection: Selection, fractions: tuple[float, float, float], seed: int) -> Split:
    """Return three parts, every cell cut at the cumulative fractions.

    Rounding carries over from cell to cell. So a part differs from its fraction by less than one frame in total
    (891,289 / 111,411 / 111,412 for 80/10/10 of the 1,114,112 digital frames at 0..30 dB), and by less than two in a
    cell.

    Raises:
        DataError: too few frames: a part would be empty.
    """
    cell_M = selection.modulation * len(selection.levels_db) + selection.snr
    order_M = np.lexsort((_hash(selection.rows, seed), cell_M))  # by cell, within a cell by hash
    start_M, end_M = _cell_bounds(cell_M[order_M])
    train_end_M = start_M + _quota(end_M, fractions[0]) - _quota(start_M, fractions[0])
    val_end_M = start_M + _quota(end_M, sum(fractions[:2])) - _quota(start_M, sum(fractions[:2]))
    place_M = np.arange(len(order_M))
    part_M = np.where(place_M < train_end_M, 0, np.where(place_M < val_end_M, 1, 2))
    parts = [np.sort(order_M[part_M == part]).astype(np.int64) for part in range(3)]
    if not all(len(part) for part in parts):
        sizes = " / ".join(str(len(part)) for part in parts)
        raise DataError(
            f"split {list(fractions)} of {len(order_M)} frames gives {sizes} frames (train / val / test): every part "
            "needs some; use more frames, a wider SNR range or other fractions"
        )
    return Split(*parts)


def split_fingerprint(
    data_fingerprint: str, selection: Selection, fractions: tuple[float, float, float], seed: int
) -> str:
    """Return 16 hex digits, equal for the same file, classes, SNR levels, fractions and seed."""
    parts = [f"{part:.9f}" for part in fractions]
    facts = [data_fingerprint, selection.label_set, selection.levels_db, parts, seed]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def manifest(
    data_fingerprint: str,
    selection: Selection,
    fractions: tuple[float, float, float],
    seed: int,
    *,
    with_rows: bool = False,
) -> dict[str, Any]:
    """Return a description of a split in plain JSON types, the same on every machine and for every path of the file.

    Every part has its number of frames and a SHA-256 of its row numbers (increasing, little-endian int64);
    ``with_rows`` adds the row numbers, for programs that cannot compute them.

    Raises:
        DataError: too few frames for three parts.
    """
    split = stratified_split(selection, fractions, seed)
    parts: dict[str, dict[str, Any]] = {}
    for name, positions in (("train", split.train), ("val", split.val), ("test", split.test)):
        rows = selection.rows[positions]
        parts[name] = {"frames": len(rows), "sha256": hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()}
        if with_rows:
            parts[name]["rows"] = rows.tolist()
    return {
        "split_fingerprint": split_fingerprint(data_fingerprint, selection, fractions, seed),
        "data_fingerprint": data_fingerprint,
        "label_set": selection.label_set,
        "modulations": list(selection.modulations),
        "levels_db": list(selection.levels_db),
        "split": list(fractions),
        "split_seed": seed,
        "parts": parts,
    }


def manifest_differences(reference: Mapping[str, Any], computed: Mapping[str, Any]) -> list[str]:
    """Return how a manifest differs from one that was computed here; row numbers are compared by their SHA-256."""
    names = ("data_fingerprint", "label_set", "modulations", "levels_db", "split", "split_seed", "split_fingerprint")
    pairs = [(name, reference.get(name), computed[name]) for name in names]
    for part, facts in computed["parts"].items():
        reference_facts = reference.get("parts", {}).get(part, {})
        pairs += [(f"{part}, {name}", reference_facts.get(name), facts[name]) for name in ("frames", "sha256")]
    return [f"{name}: {quoted(old)} in the manifest, {quoted(new)} here" for name, old, new in pairs if old != new]


def _quota(n_frames: npt.NDArray[np.float64], fraction: float) -> npt.NDArray[np.float64]:
    """Return how many of the first n frames lie before a cut; the slack allows for 0.7 + 0.2 = 0.8999999."""
    return np.floor(n_frames * fraction + 1e-6)


def _cell_bounds(
    sorted_cell_M: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    _, start, count = np.unique(sorted_cell_M, return_index=True, return_counts=True)
    return np.repeat(start, count).astype(np.float64), np.repeat(start + count, count).astype(np.float64)


def _hash(rows: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.uint64]:
    """Return splitmix64 of (row, seed): Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014."""
    seed_hash = int.from_bytes(hashlib.sha256(str(seed).encode()).digest()[:8], "little")
    z = rows.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed_hash)  # wraps modulo 2**64
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    hashed: npt.NDArray[np.uint64] = z ^ (z >> np.uint64(31))
    return hashed
