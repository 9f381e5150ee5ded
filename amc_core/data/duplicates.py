"""Frames that occur more than once in a file, with the same label.

In names: M rows that are looked for, R rows that they are looked for in.
"""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from amc_core.data.radioml import RadioMLFile, Selection
from amc_core.data.splits import Split
from amc_sweeps.number_formats import counted

_CHUNK = 4096  # rows read at once

Rows = npt.NDArray[np.int64]


def copies(
    data: RadioMLFile, rows_M: Rows, among_R: Rows, *, other: RadioMLFile | None = None
) -> npt.NDArray[np.bool_] | None:
    """Return which rows have an equal frame with the same label among other rows, or among rows of another file: (M,).

    The first samples decide who is compared as a whole. A row that is in both counts, too. None where even the first
    samples cost a reading of the whole file: one that is chunked or compressed, and not held in memory.

    Raises:
        DataError: reading failed.
    """
    other = other or data
    key_M, key_R = _keys(data, rows_M), _keys(other, among_R)
    if key_M is None or key_R is None:
        return None
    copy_M = np.isin(key_M, key_R)
    if copy_M.any():
        known = set(_digests(other, among_R[np.isin(key_R, key_M[copy_M])]))
        copy_M[copy_M] = [digest in known for digest in _digests(data, rows_M[copy_M])]
    return copy_M


def duplicates_across_parts(data: RadioMLFile, selection: Selection, split: Split) -> int | None:
    """Return how many validation and test frames are training frames, too; None where ``copies`` knows nothing."""
    heldout_M = selection.rows[np.concatenate([split.val, split.test])]
    copy_M = copies(data, heldout_M, selection.rows[split.train])
    return None if copy_M is None else int(copy_M.sum())


def duplicates_warning(n_duplicates: int | None, n_heldout: int, path: Path | str) -> str | None:
    """Return a warning about held-out frames that are training frames, too; None where there are none."""
    if not n_duplicates:
        return None
    return (
        f"{n_duplicates:,} of {counted(n_heldout, 'validation and test frame')} are training frames, too, so these "
        f"scores are too high. Write the file again without repeated frames; amc-data audit {path} counts them"
    )


def _keys(data: RadioMLFile, rows_M: Rows) -> npt.NDArray[np.uint64] | None:
    """Return a hash of every row's label and first samples."""
    key_M = np.empty(len(rows_M), dtype=np.uint64)
    for start in range(0, len(rows_M), _CHUNK):
        rows_B = rows_M[start : start + _CHUNK]
        head_BTC = data.heads(rows_B)
        if head_BTC is None:
            return None
        word_BX = head_BTC.reshape(len(rows_B), -1).view(np.uint64)  # one sample a word
        label_B = (_class_codes(data, rows_B).astype(np.uint64) << np.uint64(32)) ^ data.snr_db_N[rows_B].astype(
            np.uint64
        )
        factor_X = np.random.default_rng(0).integers(0, 2**63, size=word_BX.shape[1] + 1, dtype=np.uint64) * 2 + 1
        key_M[start : start + _CHUNK] = word_BX @ factor_X[1:] + label_B * factor_X[0]  # modulo 2**64
    return key_M


def _digests(data: RadioMLFile, rows_M: Rows) -> list[bytes]:
    return [
        hashlib.blake2b(frame_TC.tobytes(), digest_size=16).digest() + label.tobytes()
        for start in range(0, len(rows_M), _CHUNK)
        for frame_TC, label in zip(*_labelled(data, rows_M[start : start + _CHUNK]), strict=True)
    ]


def _labelled(data: RadioMLFile, rows_B: Rows) -> tuple[npt.NDArray[np.float32], Rows]:
    return data.frames(rows_B), np.stack([_class_codes(data, rows_B), data.snr_db_N[rows_B]], axis=1)


def _class_codes(data: RadioMLFile, rows_B: Rows) -> Rows:
    """Return a number for every row's class that is the same in a file with other columns."""
    return np.array([zlib.crc32(name.encode()) for name in data.classes], dtype=np.int64)[data.column_N[rows_B]]
