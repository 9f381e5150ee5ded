"""The first epochs of a curriculum: accuracy on all SNR levels, against a training without one.

`amc_convnet` trains three epochs on the same frames without a curriculum, with the sliding one (as many steps) and with
the strict one (shorter epochs). After each epoch the validation part, which has all levels alike, is scored twice: with
batch norm's statistics renewed on frames in the curriculum's shares, and on frames of all levels alike.

Run by hand:  python tests/benchmarks/study_curriculum.py --folder FOLDER   (about 5 CPU minutes; one thread a process)
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
import numpy.typing as npt
from finished import add_folder_options, finished_jobs, not_done
from machine import add_write_options, describe_machine, keep_table, unlike_committed

from amc_core.config import TrialConfig
from amc_core.data.radioml import RadioMLFile
from amc_core.modulations import CLASSES, DIGITAL17
from amc_core.synthesis.file import write_file
from amc_core.training.preparation import prepare
from amc_core.training.schedules import epoch_positions, level_draws
from amc_core.training.state import TrainingState
from amc_core.training.steps import evaluate, renew_batch_statistics, train_epoch

LEVELS_DB = tuple(range(0, 31, 2))
FRAMES_PER_CELL, BATCH, EPOCHS, RENEWED = 60, 128, 3, 2048
REPRESENTATIONS = ("constellation", "synced")
CURRICULA: Mapping[str, Mapping[str, Any]] = {
    "none": {},
    "sliding": {"curriculum": True},
    "strict": {"curriculum": True, "curriculum_mode": "strict"},
}


@dataclass
class Epochs:
    """What one training measured: a value for every epoch, accuracies as fractions."""

    steps: list[int] = field(default_factory=list)
    highest_to_lowest: list[float] = field(default_factory=list)  # frames of 30 dB for one of 0 dB
    snr: list[float] = field(default_factory=list)
    joint: list[float] = field(default_factory=list)
    snr_alike: list[float] = field(default_factory=list)  # batch norm's statistics of all levels alike
    joint_alike: list[float] = field(default_factory=list)
    cpu_s: float = 0.0


def main() -> None:
    """Print the tables; with the default arguments write them to results/curriculum.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    add_folder_options(parser)
    add_write_options(parser, "curriculum")
    options = parser.parse_args()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    names, measured = [CLASSES[column] for column in DIGITAL17], dict[tuple[str, str], list[Epochs]]()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frames.hdf5"
        if not options.finished_only:
            write_file(path, modulations=names, levels_db=LEVELS_DB, frames_per_cell=FRAMES_PER_CELL, seed=0)
        jobs = {
            f"{name}, {kind}, seed {seed}": functools.partial(train, path, name, kind, seed)
            for seed in range(options.seeds)
            for name in REPRESENTATIONS
            for kind in CURRICULA
        }
        results = finished_jobs(options, jobs, lambda job, result: print(f"{job}: {result}", flush=True))
    for job, result in results.items():
        _, name, kind, seed = jobs[job].args
        if all(f"{name}, {other}, seed {seed}" in results for other in CURRICULA):  # to compare the same seeds
            measured.setdefault((name, kind), []).append(Epochs(**result))
    minutes = sum(result["cpu_s"] for result in results.values()) / 60
    parts = [introduction(), "\n".join(table(measured))]
    text = "\n\n".join([*parts, f"{minutes:.0f} CPU minutes. {describe_machine()}{not_done(jobs, results)}"])
    print(text)
    worse = unlike_committed(parser, options, {"folder": options.folder}) + not_done(jobs, results)
    keep_table("curriculum", text, options, worse=worse, hidden={str(options.folder): "FOLDER"})


def train(path: Path, representation: str, kind: str, seed: int) -> dict[str, Any]:
    """Train one network and validate it after every epoch; return the fields of Epochs."""
    result, begun = Epochs(), time.process_time()
    given: dict[str, Any] = {"data": str(path), "representation": representation, "image_size": 32, "seed": seed}
    given |= {"model_type": "amc_convnet", "batch_size": BATCH, "dropout": 0.0, "storage": "ram"}
    given |= {"lr_schedule": "constant", "base_lr": 1e-5, "max_lr": 2e-3, "epochs": EPOCHS}
    config = TrialConfig.from_mapping({**given, **CURRICULA[kind]})
    with RadioMLFile(path, storage=config.storage) as data:
        state = TrainingState(prepare(config, data)[0])
        split, snr_M = state.context.split, state.context.selection.snr
        for epoch in range(1, EPOCHS + 1):
            rng = np.random.default_rng([seed, epoch])
            frames_L = np.bincount(snr_M[split.train], minlength=len(LEVELS_DB))
            draws_L = level_draws(config, epoch=epoch, frames_L=frames_L)
            order_M = split.train[epoch_positions(snr_M[split.train], draws_L, rng)]
            train_epoch(state, order_M, should_stop=lambda: None, show=lambda done: None)
            result.steps.append(state.tally.steps_done)
            result.highest_to_lowest.append(float(draws_L[-1] / draws_L[0]) if draws_L[0] else float("inf"))
            snr, joint = accuracies(state, order_M[:RENEWED])
            snr_alike, joint_alike = accuracies(state, rng.permutation(split.train)[:RENEWED])
            result.snr.append(snr)
            result.joint.append(joint)
            result.snr_alike.append(snr_alike)
            result.joint_alike.append(joint_alike)
            state.progress = state.progress.after_epoch(config, combined_acc=0.0, loss=0.0)
            state.start_epoch()
    result.cpu_s = time.process_time() - begun
    return asdict(result)


def accuracies(state: TrainingState, renewed_M: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Return SNR and joint accuracy on the validation part with batch norm's statistics of these frames."""
    renew_batch_statistics(state, renewed_M, should_stop=lambda: None)
    evaluation = evaluate(state, state.context.split.val, should_stop=lambda: None)
    assert not isinstance(evaluation, str)
    return evaluation.snr_acc, evaluation.combined_acc


def introduction() -> str:
    """Return what was done, in Markdown."""
    return (
        f"**Synthetic** frames, 32 px, {len(DIGITAL17)} modulations x {len(LEVELS_DB)} SNR levels, `amc_convnet`, "
        f"steps of {BATCH} frames, mean over seeds. The share is that of the SNR accuracy without a curriculum "
        "after the same epoch. Validation has all levels alike. Before it, batch norm's statistics are renewed on "
        f"{RENEWED:,} training frames: in the curriculum's shares of levels, and with all levels alike."
    )


def table(measured: Mapping[tuple[str, str], Sequence[Epochs]]) -> Iterator[str]:
    """Yield the lines of the table, in Markdown."""
    yield (
        "| input | curriculum | seeds | epoch | steps | 30 dB : 0 dB | SNR accuracy | share | lowest share of a seed "
        "| joint accuracy | SNR, levels alike | joint, levels alike |"
    )
    yield "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
    for (name, kind), own in measured.items():
        plain = measured[name, "none"]
        for epoch in range(EPOCHS):
            ratios = [run.snr[epoch] / other.snr[epoch] for run, other in zip(own, plain, strict=True)]
            share = _mean(own, "snr", epoch) / _mean(plain, "snr", epoch)
            values = [f"{_mean(own, what, epoch):.1%}" for what in ("joint", "snr_alike", "joint_alike")]
            yield (
                f"| `{name}` | {kind} | {len(own)} | {epoch + 1} | {own[0].steps[epoch]} "
                f"| {own[0].highest_to_lowest[epoch]:.1f} | {_mean(own, 'snr', epoch):.1%} | {share:.2f} "
                f"| {min(ratios):.2f} | {' | '.join(values)} |"
            )


def _mean(own: Sequence[Epochs], what: str, epoch: int) -> float:
    return statistics.mean(getattr(run, what)[epoch] for run in own)


if __name__ == "__main__":
    main()
