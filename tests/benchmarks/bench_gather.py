"""Gather random frames from a contiguous file: the reader's memory map against h5py, and copies in memory.

    python tests/benchmarks/bench_gather.py [--frames 20000] [--batch 512] [--rounds 30]

The file is written and read once before, so that it is in the page cache: the disk is not measured.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt
from machine import add_write_options, describe_machine, keep_table, unlike_committed

from amc_core.data.radioml import RadioMLFile
from amc_core.synthesis.file import write_file

AIM = 10.0  # times h5py's fancy indexing
Gather = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float32]]


def main() -> None:
    """Print a row a method, write the table, and fail when methods disagree or the map is too slow."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=30)
    add_write_options(parser, "gather")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frames.hdf5"
        per_cell = options.frames // 2
        write_file(path, modulations=["BPSK", "QPSK"], levels_db=[10], frames_per_cell=per_cell, seed=0)
        rates = measure(path, options.batch, options.rounds)
    by_h5py = rates["h5py, fancy indexing"]
    lines = [
        f"{2 * per_cell:,} frames of 8 KiB in the page cache, {options.batch} at random a batch, one thread, fastest "
        f"of {options.rounds} rounds that take turns. {describe_machine()}",
        "",
        "| way | frames/s | times h5py's fancy indexing |",
        "|---|---|---|",
        *(f"| {way} | {rate:,.0f} | {rate / by_h5py:.1f} |" for way, rate in rates.items()),
    ]
    print("\n".join(lines))
    keep_table("gather", "\n".join(lines), options, worse=unlike_committed(parser, options))
    ratio = rates["storage memmap"] / by_h5py
    if ratio < AIM:
        raise SystemExit(f"the memory map is {ratio:.1f} times as fast, aimed at is {AIM:g}")


def measure(path: Path, batch: int, rounds: int) -> dict[str, float]:
    """Return frames/s of every method, on the same rows."""
    rng = np.random.default_rng(0)
    readers = {storage: RadioMLFile(path, storage=storage) for storage in ("memmap", "ram", "ram_float16")}
    for reader in readers.values():
        reader.hold(np.arange(reader.n_frames))
    with h5py.File(path, "r") as file:
        x_dataset = file["X"]

        def one_by_one(rows_B: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
            return np.stack([x_dataset[row] for row in rows_B])

        def fancy(rows_B: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
            order_B = np.argsort(rows_B)  # h5py takes increasing rows only
            gathered = np.empty((len(rows_B), *x_dataset.shape[1:]), dtype=np.float32)
            gathered[order_B] = x_dataset[rows_B[order_B]]
            return gathered

        ways: dict[str, Gather] = {
            "h5py, row by row": one_by_one,
            "h5py, fancy indexing": fancy,
            **{f"storage {storage}": reader.frames for storage, reader in readers.items()},
        }
        best = dict.fromkeys(ways, float("inf"))
        for _ in range(rounds):
            rows_B = rng.choice(len(x_dataset), size=batch, replace=False)
            expected = fancy(rows_B)
            for way, gather in ways.items():
                started = time.perf_counter()
                frames = gather(rows_B)
                best[way] = min(best[way], time.perf_counter() - started)
                if np.abs(frames - expected).max() > (4e-3 if way.endswith("float16") else 0):
                    raise SystemExit(f"{way} gives other frames")
    for reader in readers.values():
        reader.close()
    return {way: batch / seconds for way, seconds in best.items()}


if __name__ == "__main__":
    main()
