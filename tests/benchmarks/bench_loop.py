"""One training epoch, from the file to the optimiser step, against the bare model step on ready tensors.

Both run in turns in one process on the same network, so that a busy machine slows both. The difference is then split
into reading, the representation, and the loop's own work.

Run by hand:  python tests/benchmarks/bench_loop.py [--representation synced] [--model amc_convnet] [--threads 2]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from machine import add_write_options, describe_machine, keep_table, unlike_committed
from ready_input import ready, with_ready_input

from amc_core.config import TrialConfig
from amc_core.data.feed import Batch, Feed
from amc_core.data.radioml import RadioMLFile
from amc_core.machine.memory import keep_freed_memory
from amc_core.modulations import CLASSES, LABEL_SETS
from amc_core.synthesis.file import write_file
from amc_core.training import preparation
from amc_core.training.preparation import prepare
from amc_core.training.state import TrainingContext, TrainingState
from amc_core.training.step.counts import Counts
from amc_core.training.steps import train_epoch

LEVELS_DB = tuple(range(0, 32, 2))
READY = 8  # batches that the bare step takes in turn


def main() -> None:
    """Print the table; with the default arguments write it to results/loop.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--representation", default="synced")
    parser.add_argument("--model", default="amc_convnet")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=40, help="optimiser steps of one measured epoch")
    parser.add_argument("--rounds", type=int, default=7, help="how often each of the two is measured")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--plain", action="store_true", help="only print the seconds of the bare steps in a plain script"
    )
    add_write_options(parser, "loop")
    options = parser.parse_args()
    if options.steps < READY:
        parser.error(f"--steps {options.steps}: give at least {READY}")
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # on the CPU, whatever the machine has
    if options.plain:
        preparation.keep_freed_memory = lambda: False
    else:
        keep_freed_memory()  # before anything is freed, as train() does
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        text = measure(options, Path(folder))
    print(text)
    if not options.plain:
        keep_table("loop", text, options, worse=unlike_committed(parser, options))


def measure(options: argparse.Namespace, folder: Path) -> str:
    """Write a file, measure, return the table."""
    n_frames = options.batch * options.steps
    path = folder / "frames.hdf5"
    names = [CLASSES[column] for column in LABEL_SETS["digital17"]]
    per_cell = -(-n_frames // (len(names) * len(LEVELS_DB)))
    write_file(path, modulations=names, levels_db=LEVELS_DB, frames_per_cell=per_cell, seed=0)
    config = TrialConfig(
        data=str(path),
        representation=options.representation,
        model_type=options.model,
        batch_size=options.batch,
        base_lr=1e-4,
        max_lr=1e-3,
    )
    data = RadioMLFile(path)
    state = TrainingState(prepare(config, data)[0])
    context = state.context
    rng = np.random.default_rng(0)
    positions_M = rng.permutation(len(context.selection.rows))[:n_frames]
    chunks = [positions_M[k * options.batch : (k + 1) * options.batch] for k in range(READY)]
    batches = [ready(context, batch) for batch in context.feed.batches(chunks)]

    def epoch() -> None:
        train_first_epoch(state, positions_M)

    def bare() -> None:
        bare_steps(context, state.optimiser, batches, options.steps)

    if options.plain:
        bare()
        return str(min(seconds(bare) for _ in range(options.rounds)))

    def in_turns() -> tuple[list[float], list[float]]:
        epoch(), bare()  # warm: caches, compiled kernels, memory
        pairs = [(seconds(epoch), seconds(bare)) for _ in range(options.rounds)]
        return [pair[0] for pair in pairs], [pair[1] for pair in pairs]

    whole, model_only = in_turns()
    parts = profile(state, positions_M, batches, options)
    plain = float(subprocess.check_output([sys.executable, __file__, *sys.argv[1:], "--plain"]))
    ms = 1e3 / options.steps
    n_parameters = sum(parameter.numel() for parameter in context.model.parameters())
    rows = [
        ("epoch, file to optimiser step", f"{min(whole) * ms:.2f}", f"{n_frames / min(whole):,.0f}"),
        ("bare model step, ready tensors", f"{min(model_only) * ms:.2f}", f"{n_frames / min(model_only):,.0f}"),
        *((name, f"{value:.2f}", "") for name, value in parts.items()),
        (
            "bare model step in a plain script, which gives freed memory back",
            f"{plain * ms:.2f}",
            f"{n_frames / plain:,.0f}",
        ),
    ]
    overhead = (
        f"Overhead: {min(whole) / min(model_only) - 1:+.1%} (fastest against fastest of {options.rounds}), "
        f"{_median_ratio(whole, model_only) - 1:+.1%} (median of {options.rounds} ratios). Both keep freed memory, as "
        f"train() does; against the plain script {min(whole) / plain - 1:+.1%}."
    )
    title = (
        f"{options.model} ({n_parameters:,} parameters), {options.representation}, {config.image_size} px, "
        f"batch {options.batch}, {options.steps} steps, {options.threads} threads"
    )
    load = f"Load average {os.getloadavg()[0]:.1f}: other work disturbs both sides, waiting threads most."
    table = ["| | ms a step | frames/s |", "|---|---:|---:|", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join([f"## {title}", "", f"{describe_machine()} {load}", "", *table, "", overhead, ""])


def _median_ratio(one: list[float], other: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(one, other, strict=True))


def train_first_epoch(state: TrainingState, positions_M: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
    """Train the first epoch (again)."""
    state.start_epoch()
    train_epoch(state, positions_M, should_stop=lambda: None, show=lambda _: None)


def bare_steps(context: TrainingContext, optimiser: torch.optim.Optimizer, batches: list[Batch], n_steps: int) -> None:
    """Step the model on ready tensors, without anything else."""
    context.model.train()
    for step in range(n_steps):
        batch = batches[step % len(batches)]
        optimiser.zero_grad(set_to_none=True)
        output = context.model(batch.frames)
        context.criterion(*output, batch.modulation, batch.snr).backward()
        optimiser.step()


def profile(
    state: TrainingState,
    positions_M: np.ndarray[tuple[int], np.dtype[np.int64]],
    batches: list[Batch],
    options: argparse.Namespace,
) -> dict[str, float]:
    """Return ms a step of each part alone, and of the loop on ready tensors."""
    chunk_B = np.sort(positions_M[: options.batch])
    context = state.context
    rows_B = context.selection.rows[chunk_B]
    data, step = context.feed._data, context.training_step
    frames = Batch(torch.from_numpy(data.frames(rows_B)), batches[0].modulation, batches[0].snr)

    class Ready(Feed):
        def batches(self, chunks, **_):  # type: ignore[no-untyped-def]
            yield from (batches[number % len(batches)] for number in range(len(chunks)))

    in_memory = TrainingState(with_ready_input(context, Ready(data, context.selection, context.device)))

    def loop() -> None:
        train_first_epoch(in_memory, positions_M)

    def bare() -> None:
        bare_steps(context, state.optimiser, batches, options.steps)

    def after_a_step() -> float:
        bare_steps(context, state.optimiser, batches, 1)
        return seconds(lambda: step.model_input(frames))

    batch = batches[0]
    output = tuple(part.detach() for part in context.model(batch.frames))
    counts, loss, measured = Counts(context.selection), torch.tensor(1.0), torch.ones(3)
    together = [(seconds(loop), seconds(bare)) for _ in range(options.rounds)]
    difference = statistics.median(one - other for one, other in together) / options.steps * 1e3
    return {
        "  reading a batch, alone (a thread does it meanwhile)": best_ms(lambda: data.frames(rows_B)),
        "  its representation, again and again": best_ms(lambda: step.model_input(frames)),
        "  its representation, right after a model step, whose data have filled the caches": 1e3
        * statistics.median(after_a_step() for _ in range(15)),
        "  counting a step's guesses, alone": best_ms(
            lambda: counts.add(loss, measured, context.criterion.guess(*output), batch.modulation, batch.snr)
        ),
        "  counting, guards, learning rate: median of the loop on ready tensors minus the bare step": difference,
    }


def seconds(work: Callable[[], object]) -> float:
    """Time one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def best_ms(work: Callable[[], object], repeats: int = 15) -> float:
    """Time the fastest of several calls."""
    return min(seconds(work) for _ in range(repeats)) * 1e3


if __name__ == "__main__":
    main()
