"""Write synthetic frames into a file in the layout of RadioML 2018.01A.

Every block of frames has its own random stream, named by (seed, class, SNR, block). So a file depends on its seed and
its recipe and not on the number of processes, and a cell does not depend on the other cells.

In names: N rows of the file.
"""

from __future__ import annotations

import contextlib
import errno
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from amc_core.data.radioml import FRAME_LENGTH
from amc_core.files import whole_file
from amc_core.modulations import CLASSES
from amc_core.synthesis.frames import Recipe, synthesise_frames
from amc_core.synthesis.pulses import SAMPLES_PER_SYMBOL

_BLOCK = 1024  # frames with one random stream
_FRAME_BYTES = FRAME_LENGTH * 2 * 4
_LABEL_BYTES = len(CLASSES) * 8 + 8


@dataclass(frozen=True)
class _Block:
    modulation: str
    snr_db: int
    n_frames: int
    stream: tuple[int, ...]  # seed of its random numbers
    offset: int  # byte in the file


def write_file(
    path: Path,
    *,
    modulations: Sequence[str],
    levels_db: Sequence[int],
    frames_per_cell: int,
    seed: int,
    recipe: Recipe | None = None,
    processes: int = 1,
    advance: Callable[[int], None] = lambda _: None,
) -> int:
    """Write a whole file and return its number of rows, which are sorted by class, then by SNR.

    The file gets its name when it is complete. ``advance`` is called with the number of frames of every written block.

    Raises:
        ValueError: a modulation is unknown.
        OSError: the folder does not exist or cannot be written, or the disk is full; nothing is left behind.
    """
    recipe = recipe or Recipe()
    columns = sorted(CLASSES.index(modulation) for modulation in modulations)
    cells = [(column, level) for column in columns for level in sorted(levels_db)]
    n_rows = len(cells) * frames_per_cell
    facts = {"seed": seed, "frames_per_cell": frames_per_cell, "samples_per_symbol": SAMPLES_PER_SYMBOL}
    facts |= recipe.to_mapping()
    with whole_file(path) as partial:
        _require_space(partial, n_rows)
        offset = _write_labels(partial, np.repeat(cells, frames_per_cell, axis=0), facts)
        blocks = _blocks(cells, frames_per_cell, seed, offset)
        if processes == 1:
            for block in blocks:
                advance(_write_block(partial, block, recipe))
        else:
            _write_in_parallel(partial, blocks, recipe, processes, advance)
    return n_rows


def _blocks(cells: Sequence[tuple[int, int]], frames_per_cell: int, seed: int, offset: int) -> list[_Block]:
    blocks = []
    for number, (column, level) in enumerate(cells):
        for start in range(0, frames_per_cell, _BLOCK):
            row = number * frames_per_cell + start
            blocks.append(
                _Block(
                    modulation=CLASSES[column],
                    snr_db=level,
                    n_frames=min(_BLOCK, frames_per_cell - start),
                    # + 1000, because a seed sequence takes no negative numbers.
                    stream=(seed, column, level + 1000, start // _BLOCK),
                    offset=offset + row * _FRAME_BYTES,
                )
            )
    return blocks


def _write_block(path: Path, block: _Block, recipe: Recipe) -> int:
    """Compute one block, and write it into its reserved space without HDF5, which ends the process on a full disk."""
    frames = synthesise_frames(
        block.modulation, block.snr_db, block.n_frames, np.random.default_rng(block.stream), recipe
    )
    with path.open("r+b") as file:
        file.seek(block.offset)
        file.write(frames.astype("<f4", copy=False).data)
    return block.n_frames


def _write_in_parallel(
    path: Path, blocks: Sequence[_Block], recipe: Recipe, processes: int, advance: Callable[[int], None]
) -> None:
    # Not forked, because a progress bar's thread may hold a lock.
    context = multiprocessing.get_context("spawn")
    with _one_thread_each(), ProcessPoolExecutor(min(processes, len(blocks)), mp_context=context) as pool:
        futures = [pool.submit(_write_block, path, block, recipe) for block in blocks]
        try:
            for future in as_completed(futures):
                advance(future.result())
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)  # before the file is removed
            raise


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """Give every child process one thread: the user chose the number of processes."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    values = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in values.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _write_labels(path: Path, cells_N2: npt.NDArray[np.int64], facts: dict[str, Any]) -> int:
    """Write the file without the frames, and return the byte where they start."""
    with h5py.File(path, "w") as file:
        layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        layout.set_obj_track_times(False)  # the same file at every hour
        shape = h5py.h5s.create_simple((len(cells_N2), FRAME_LENGTH, 2))
        frames = h5py.h5d.create(file.id, b"X", h5py.h5t.IEEE_F32LE, shape, layout)
        file["Y"] = np.eye(len(CLASSES), dtype="<i8")[cells_N2[:, 0]]
        file["Z"] = cells_N2[:, 1:].astype("<i8")
        file.attrs["synthesis"] = np.bytes_(json.dumps(facts))  # of fixed length: damage to it crashes no reader
        return int(frames.get_offset())


def _require_space(file: Path, n_rows: int) -> None:
    """Check for space first, because HDF5 1.14 ends the process when it cannot close a file."""
    n_bytes, free_bytes = n_rows * (_FRAME_BYTES + _LABEL_BYTES), shutil.disk_usage(file.parent).free
    need = f"the file needs {n_bytes / 2**20:,.0f} MiB"
    if n_bytes > free_bytes:
        raise OSError(errno.ENOSPC, f"{need}, only {free_bytes / 2**20:,.0f} MiB is free")
    try:
        with file.open("r+b") as partial:
            os.ftruncate(partial.fileno(), n_bytes)  # takes no space, but ulimit -f applies
            os.posix_fallocate(partial.fileno(), 0, n_rows * _LABEL_BYTES)  # HDF5's own part; quotas apply
    except OSError as error:
        raise OSError(
            error.errno, f"{need}, which cannot be reserved: {error.strerror} (see df, quota, ulimit -f)"
        ) from error
