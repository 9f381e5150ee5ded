"""What a validation in a learning-rate cycle measures: batch norm's statistics, and averaged weights.

A network trains over one whole cycle (triangular2). After some epochs the same weights are validated several times:
with the running statistics as training left them, and with statistics renewed on samples of training frames. The
reference is the statistics of all training frames. The averaged weights (`ema_decay`) are validated beside them.

Run by hand:  python tests/benchmarks/study_validation.py --folder FOLDER   (about 8 CPU minutes; one thread a process)
"""

from __future__ import annotations

import argparse
import functools
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from finished import add_folder_options, finished_jobs, not_done
from machine import add_write_options, describe_machine, keep_table, unlike_committed

from amc_core.config import TrialConfig
from amc_core.data.radioml import RadioMLFile
from amc_core.modulations import CLASSES, DIGITAL17
from amc_core.synthesis.file import write_file
from amc_core.training.averaged_weights import AveragedWeights
from amc_core.training.preparation import prepare
from amc_core.training.state import TrainingState
from amc_core.training.steps import evaluate, renew_batch_statistics, train_epoch

FRAMES_PER_CELL = {"amc_convnet": 100, "resnet18": 25}  # fewer for the network that is eight times as slow
LEVELS_DB = tuple(range(0, 31, 2))
BATCH, STEPS, EPOCHS = 128, 32, 6  # of one cycle; its highest learning rate comes after epoch 3
MAX_LR = 1e-2  # ten times that of the sweeps, because the cycle has 192 steps and not 26,100
MEASURED = (2, 3, 4, 6)  # epochs
SIZES = (256, 1024, 2048, 4096, 8192)
AVERAGED_SIZE = 4096
REAL_STEPS, REAL_BATCH = 1740, 512  # an epoch of the 2025 research log


@dataclass
class Cycle:
    """What was measured over one cycle of one seed: accuracies in percent by epoch, seconds of the processor."""

    lagging: dict[int, float] = field(default_factory=dict)
    reference: dict[int, float] = field(default_factory=dict)
    averaged: dict[int, float] = field(default_factory=dict)
    averaged_reference: dict[int, float] = field(default_factory=dict)  # with statistics of all training frames
    renewed: dict[int, dict[int, float]] = field(default_factory=lambda: {size: {} for size in SIZES})
    training_s: float = 0.0  # all steps
    renewal_s: float = 0.0  # all renewals with all training frames
    n_renewed: int = 0  # frames of these renewals
    n_train: int = 0
    n_val: int = 0
    total_s: float = 0.0

    @property
    def cost_ratio(self) -> float:
        """Seconds of a renewal's frame over those of a frame in training."""
        return (self.renewal_s / self.n_renewed) / (self.training_s / (EPOCHS * STEPS * BATCH))


def main() -> None:
    """Print the tables; with the default arguments write them to results/validation.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(FRAMES_PER_CELL), choices=list(FRAMES_PER_CELL))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ema-decay", type=float, default=0.98, help="an average over about 50 steps")
    add_folder_options(parser)
    add_write_options(parser, "validation")
    options = parser.parse_args()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    names, cycles = [CLASSES[column] for column in DIGITAL17], dict[str, list[Cycle]]()
    with tempfile.TemporaryDirectory() as folder:
        paths = {model: Path(folder) / f"{model}.hdf5" for model in options.models}
        for model, path in paths.items() if not options.finished_only else ():
            write_file(path, modulations=names, levels_db=LEVELS_DB, frames_per_cell=FRAMES_PER_CELL[model], seed=0)
        jobs = {
            f"{model}, seed {seed}": functools.partial(one_cycle, paths[model], model, seed, options.ema_decay)
            for seed in range(options.seeds)
            for model in options.models
        }
        results = finished_jobs(options, jobs, lambda job, result: print(f"{job}: {result}", flush=True))
    for job, result in results.items():
        cycles.setdefault(jobs[job].args[1], []).append(cycle_of(result))
    minutes = sum(result["total_s"] for result in results.values()) / 60
    parts = [introduction(), *(tables(model, own, options.ema_decay) for model, own in cycles.items())]
    text = "\n\n".join([*parts, f"{minutes:.0f} CPU minutes. {describe_machine()}{not_done(jobs, results)}"])
    print(text)
    worse = unlike_committed(parser, options, {"folder": options.folder}) + not_done(jobs, results)
    keep_table("validation", text, options, worse=worse, hidden={str(options.folder): "FOLDER"})


def one_cycle(path: Path, model: str, seed: int, ema_decay: float) -> dict[str, Any]:
    """Train one network over a cycle and validate it after the measured epochs; return the fields of Cycle."""
    begun = time.process_time()
    given = {"data": str(path), "representation": "synced", "image_size": 32, "model_type": model, "seed": seed}
    given |= {"batch_size": BATCH, "max_lr": MAX_LR, "epochs": EPOCHS, "epochs_per_cycle": EPOCHS}
    config = TrialConfig.from_mapping(given | {"dropout": 0.0, "storage": "ram"})
    cycle = Cycle()
    with RadioMLFile(config.data, storage=config.storage) as data:
        state = TrainingState(prepare(config, data)[0])
        cycle.n_train, cycle.n_val = len(state.context.split.train), len(state.context.split.val)
        average = AveragedWeights(state.context.model, ema_decay)
        state.optimiser.register_step_post_hook(lambda *_: average.update())
        for epoch in range(1, EPOCHS + 1):
            order_M = np.random.default_rng([seed, epoch]).permutation(state.context.split.train)
            started = time.process_time()
            train_epoch(state, order_M[: STEPS * BATCH], should_stop=lambda: None, show=lambda done: None)
            cycle.training_s += time.process_time() - started
            if epoch in MEASURED:
                measure(cycle, state, average, epoch, order_M)
            state.progress = state.progress.after_epoch(config, combined_acc=0.0, loss=0.0)
            state.start_epoch()
    cycle.total_s = time.process_time() - begun
    return asdict(cycle)


def cycle_of(result: Mapping[str, Any]) -> Cycle:
    """Return a cycle from its fields as JSON, in which all keys are text."""
    names = ("lagging", "reference", "averaged", "averaged_reference")
    curves = {name: {int(epoch): value for epoch, value in result[name].items()} for name in names}
    renewed = {
        int(size): {int(epoch): value for epoch, value in own.items()} for size, own in result["renewed"].items()
    }
    return Cycle(**{**result, **curves, "renewed": renewed})


def measure(
    cycle: Cycle,
    state: TrainingState,
    average: AveragedWeights,
    epoch: int,
    order_M: np.ndarray[tuple[int], np.dtype[np.int64]],
) -> None:
    """Validate the epoch's weights with every kind of statistics; leave those of training."""
    network = state.context.model
    lagging = {name: buffer.clone() for name, buffer in network.named_buffers()}
    cycle.lagging[epoch] = accuracy(state)
    for size in (size for size in SIZES if size < len(order_M)):
        renew_batch_statistics(state, order_M[:size], should_stop=lambda: None)
        cycle.renewed[size][epoch] = accuracy(state)
    started = time.process_time()
    renew_batch_statistics(state, order_M, should_stop=lambda: None)
    cycle.renewal_s += time.process_time() - started
    cycle.n_renewed += len(order_M)
    cycle.reference[epoch] = accuracy(state)
    with average.in_model():
        renew_batch_statistics(state, order_M[:AVERAGED_SIZE], should_stop=lambda: None)
        cycle.averaged[epoch] = accuracy(state)
        renew_batch_statistics(state, order_M, should_stop=lambda: None)
        cycle.averaged_reference[epoch] = accuracy(state)
    network.load_state_dict(lagging, strict=False)


def accuracy(state: TrainingState) -> float:
    """Return the joint accuracy on the validation part, percent."""
    evaluation = evaluate(state, state.context.split.val, should_stop=lambda: None)
    assert not isinstance(evaluation, str)
    return 100 * evaluation.combined_acc


def introduction() -> str:
    """Return what was done, in Markdown."""
    return (
        f"**Synthetic** frames, `synced` at 32 px, {len(DIGITAL17)} modulations x {len(LEVELS_DB)} SNR levels. One "
        f"cycle of {EPOCHS} epochs, each of {STEPS} steps of {BATCH} frames; the learning rate rises to {MAX_LR:g} "
        f"after epoch {EPOCHS // 2}. Joint accuracy on the validation part.\n\n"
        "The error of a number of frames is the distance from the accuracy of the same weights with the statistics of "
        f"all N training frames, after epochs {', '.join(map(str, MEASURED))}. The samples are part of these N frames. "
        "Against endlessly many frames the error of n is about 1 / √(1 - n/N) times as large, which is the last column "
        f"of errors. The cost is the share of an epoch of {REAL_STEPS:,} steps of {REAL_BATCH} frames, from the "
        "measured processor seconds per frame."
    )


def tables(model: str, cycles: Sequence[Cycle], ema_decay: float) -> str:
    """Return one network's tables, in Markdown."""
    ratio = statistics.mean(cycle.cost_ratio for cycle in cycles)
    n_train, n_val = cycles[0].n_train, cycles[0].n_val
    lines = [f"## {model}, {n_train:,} training frames, {n_val:,} validation frames, {len(cycles)} seeds", ""]
    lines += [
        "| `batch_norm_frames` | mean error, points | largest error, points | mean error, endless frames | cost |"
    ]
    lines += ["|---:|---:|---:|---:|---:|"]
    for size in (0, *(size for size in SIZES if size < n_train)):
        errors = list(_errors(cycles, size))
        endless = statistics.mean(errors) / (1 - size / n_train) ** 0.5
        cost = ratio * size / (REAL_STEPS * REAL_BATCH)
        lines.append(f"| {size:,} | {statistics.mean(errors):.1f} | {max(errors):.1f} | {endless:.1f} | {cost:.2%} |")
    averaged = [abs(cycle.averaged[epoch] - cycle.averaged_reference[epoch]) for cycle in cycles for epoch in MEASURED]
    mean, worst, n = statistics.mean(averaged), max(averaged), f"{AVERAGED_SIZE:,}"
    lines.append(
        f"| {n}, averaged weights | {mean:.1f} | {worst:.1f} | {mean / (1 - AVERAGED_SIZE / n_train) ** 0.5:.1f} | |"
    )
    lines += ["", f"A frame of the renewal takes {ratio:.2f} times as long as a frame in training.", ""]
    lines += [f"| mean accuracy, % | {' | '.join(f'epoch {epoch}' for epoch in MEASURED)} |"]
    lines += ["|---" + "|---:" * len(MEASURED) + "|"]
    curves = {
        "as training left them (`batch_norm_frames` 0)": [cycle.lagging for cycle in cycles],
        "statistics of all training frames": [cycle.reference for cycle in cycles],
        f"averaged weights (`ema_decay` {ema_decay:g}), {AVERAGED_SIZE:,} frames": [cycle.averaged for cycle in cycles],
    }
    for name, values in curves.items():
        means = [statistics.mean(own[epoch] for own in values) for epoch in MEASURED]
        lines.append(f"| {name} | {' | '.join(f'{value:.1f}' for value in means)} |")
    return "\n".join(lines)


def _errors(cycles: Sequence[Cycle], size: int) -> Iterator[float]:
    for cycle in cycles:
        values = cycle.renewed[size] if size else cycle.lagging
        yield from (abs(values[epoch] - cycle.reference[epoch]) for epoch in MEASURED)


if __name__ == "__main__":
    main()
