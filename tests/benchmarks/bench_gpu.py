"""One training epoch on a GPU: ResNet50 at 64 px, batches of 128 and 512, compiled and not, and a checkpoint's stall.

Frames lie on the GPU. After an epoch that compiles and warms up, one is timed and ten steps of another are profiled.
Where the share of time in which a kernel runs is below 100%, the GPU waits for the CPU.

Run by hand:  python tests/benchmarks/bench_gpu.py   (needs an NVIDIA GPU; without one it says so and measures nothing)
``--try`` runs the script on the CPU with a small network, to see that it works; it writes no table.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import numpy as np
import torch
from machine import add_write_options, describe_machine, keep_table, unlike_committed
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from amc_core.config import TrialConfig
from amc_core.data.feed import Positions
from amc_core.data.radioml import RadioMLFile
from amc_core.modulations import CLASSES, LABEL_SETS
from amc_core.synthesis.file import write_file
from amc_core.training.preparation import prepare
from amc_core.training.save_and_resume import EpochWriter
from amc_core.training.state import TrainingState
from amc_core.training.steps import train_epoch

LEVELS_DB = tuple(range(0, 32, 2))
PROFILED = 10  # steps


def main() -> None:
    """Print the table; with the default arguments write it to results/gpu.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--representation", default="constellation")
    parser.add_argument("--batches", type=lambda text: [int(size) for size in text.split(",")], default=[128, 512])
    parser.add_argument("--steps", type=int, default=200, help="optimiser steps of the timed epoch")
    parser.add_argument("--try", dest="tries", action="store_true", help="a small network on the CPU; no table")
    add_write_options(parser, "gpu")
    options = parser.parse_args()
    if options.tries:
        options.model, options.batches, options.steps, options.no_write = "amc_convnet", [16], PROFILED, True
    elif not torch.cuda.is_available():
        print("bench_gpu.py needs an NVIDIA GPU. There is none here: nothing was measured.")
        return
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frames.hdf5"
        names = [CLASSES[column] for column in LABEL_SETS["digital17"]]
        per_cell = -(-max(options.batches) * PROFILED // (len(names) * len(LEVELS_DB)))
        write_file(path, modulations=names, levels_db=LEVELS_DB, frames_per_cell=max(per_cell, 10), seed=0)
        rows = [row(path, options, size, compiled) for size, compiled in product(options.batches, (False, True))]
        stall = checkpoint_stall(path, options, Path(folder))
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "the CPU"
    text = "\n".join(
        [
            f"## {options.model}, {options.representation}, 64 px, {options.steps} steps, on {card}",
            *("", describe_machine(), ""),
            "| batch | compile | ms a step | frames/s | kernels a step | a kernel runs | compile, s | peak, GiB |",
            "|---:|---|---:|---:|---:|---:|---:|---:|",
            *(*rows, "", stall, ""),
        ]
    )
    print(text)
    keep_table("gpu", text, options, worse=unlike_committed(parser, options))


def config_of(path: Path, options: argparse.Namespace, batch_size: int, *, compiled: bool) -> TrialConfig:
    """Return the configuration of a row."""
    return TrialConfig(
        data=str(path),
        model_type=options.model,
        representation=options.representation,
        batch_size=batch_size,
        micro_batch_size=None,
        compile=compiled,
        storage="memmap" if options.tries else "device",
    )


def row(path: Path, options: argparse.Namespace, batch_size: int, compiled: bool) -> str:
    """Train, and return a row of the table."""
    config = config_of(path, options, batch_size, compiled=compiled)
    with RadioMLFile(path, storage=config.storage) as data:
        state = TrainingState(prepare(config, data)[0])
        if on_cuda := state.context.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        drawn = np.random.default_rng(0).integers(len(state.context.selection.rows), size=batch_size * options.steps)
        train(state, drawn[: batch_size * PROFILED])
        compile_s = state.tally.compile_s
        began_s = time.perf_counter()
        train(state, drawn)
        step_s = (time.perf_counter() - began_s) / options.steps
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_cuda else [])]
        with profile(activities=activities) as profiled:
            began_s = time.perf_counter()
            train(state, drawn[: batch_size * PROFILED])
            profiled_s = time.perf_counter() - began_s
    kernels = [event for event in profiled.events() if event.device_type == DeviceType.CUDA]
    busy = sum(event.device_time_total for event in kernels) / 1e6 / profiled_s
    peak = torch.cuda.max_memory_allocated() / 2**30 if on_cuda else 0.0
    return (
        f"| {batch_size} | {'on' if compiled else 'off'} | {1e3 * step_s:.2f} | {batch_size / step_s:,.0f} | "
        f"{len(kernels) / PROFILED:.0f} | {busy:.0%} | {compile_s:.0f} | {peak:.1f} |"
    )


def train(state: TrainingState, positions_M: Positions) -> None:
    """Train on these frames, and wait for the GPU."""
    state.start_epoch()
    train_epoch(state, positions_M, should_stop=lambda: None, show=lambda _: None)
    if state.context.device.type == "cuda":
        torch.cuda.synchronize()


def checkpoint_stall(path: Path, options: argparse.Namespace, folder: Path) -> str:
    """Return how long training waits for the checkpoint of an epoch, and how long writing it takes."""
    config = config_of(path, options, options.batches[0], compiled=False)
    with RadioMLFile(path, storage=config.storage) as data, contextlib.ExitStack() as stack:
        state = TrainingState(prepare(config, data)[0])
        train(state, np.arange(2 * config.batch_size))
        writer = EpochWriter(folder, stack.enter_context(ThreadPoolExecutor(max_workers=1)))
        began_s = time.perf_counter()
        writer.write(state, lambda: None)
        stalled_s = time.perf_counter() - began_s
        writer.finish()
        written_s = time.perf_counter() - began_s
    return f"A checkpoint stops training for {stalled_s:.2f} s. It is on the disk after {written_s:.2f} s."


if __name__ == "__main__":
    main()
