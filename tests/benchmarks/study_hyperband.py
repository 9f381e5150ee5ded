"""What Hyperband stops among real trials: by raw or honest validation, on or off the ends of cycles, and curricula.

`amc_convnet` trains on synthetic frames with the shipped sweeps scaled down by 3: 20 epochs, four triangular cycles of
5 epochs, bands at epochs 5 and 15, 6 SNR levels. Every drawn configuration is trained twice, with and without the
(sliding) curriculum. After each epoch the same weights are validated twice: with batch norm's statistics as training
left them (raw), and with statistics renewed on training frames (honest). Hyperband is then replayed over these curves.

Run by hand:  nice -n 19 python tests/benchmarks/study_hyperband.py --folder FOLDER   (about 10 CPU minutes; one thread)
It appends every finished trial to FOLDER/trials.jsonl. Started again, it goes on with the missing ones.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from machine import add_write_options, describe_machine, keep_table, unlike_committed
from ready_input import ready, with_ready_input
from replay import AGENTS, replay
from torch import Tensor

from amc_core.config import TrialConfig
from amc_core.data.feed import Batch, Feed
from amc_core.data.radioml import RadioMLFile
from amc_core.inputs.representations import laid_out
from amc_core.modulations import CLASSES, DIGITAL17
from amc_core.synthesis.file import write_file
from amc_core.training.preparation import prepare
from amc_core.training.schedules import epoch_positions, level_draws
from amc_core.training.state import TrainingState
from amc_core.training.steps import evaluate, renew_batch_statistics, train_epoch
from amc_sweeps.grammar.hyperband import HyperbandConfig, bands

LEVELS_DB = tuple(range(0, 31, 6))
FRAMES_PER_CELL = 70
EPOCHS, CYCLE, FRAMES_PER_EPOCH, RENEWED = 20, 5, 1024, 1024
BUDGET = 400  # epochs of all runs of a replay, of 1,280
ORDERS = 200  # random orders of the trials, of which each is one replay
# (min_iter, eta) and what its bands are.
POLICIES = (
    (5, 3, "ends of cycles, as shipped"),
    (5, 2, "ends of cycles"),
    (10, 2, "end of a cycle"),
    (6, 3, "6 in a rising half"),
    (7, 3, "in a rising half"),
    (6, 2, "in rising halves"),
    (2, 3, "2 and 6 in rising halves"),
    (1, 3, "1 in a rising half"),
)


class CachedFeed(Feed):
    """Model input of all frames, computed once for all trials: without augmentation it never changes."""

    def __init__(self, inputs: Tensor, modulation: Tensor, snr: Tensor) -> None:
        self._inputs, self._modulation, self._snr = inputs, modulation, snr

    def batches(self, chunks: Sequence[npt.NDArray[np.int64]], **_: Any) -> Generator[Batch, None, None]:
        """Yield a batch for every chunk."""
        for positions_B in chunks:
            index_B = torch.from_numpy(positions_B)
            yield Batch(laid_out(self._inputs[index_B]), self._modulation[index_B], self._snr[index_B])


def main() -> None:
    """Train what is missing, then print the tables; with the default arguments write them to results/hyperband.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=32, help="configurations, each with and without curriculum")
    parser.add_argument("--folder", type=Path, required=True, help="for the data file and the finished trials")
    add_write_options(parser, "hyperband")
    options = parser.parse_args()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    torch.set_num_threads(1)
    options.folder.mkdir(parents=True, exist_ok=True)
    finished = options.folder / "trials.jsonl"
    trials = [json.loads(line) for line in finished.read_text().splitlines()] if finished.exists() else []
    missing = sorted(set(range(2 * options.pairs)) - {trial["number"] for trial in trials})
    if missing:
        path = data_file(options.folder)
        with feed_of(path) as feed:
            for number in missing:
                trials.append(train(path, number, feed))
                with finished.open("a") as file:
                    file.write(json.dumps(trials[-1]) + "\n")
                values = f"{trials[-1]['raw'][-1]:.3f} raw, {trials[-1]['honest'][-1]:.3f} honest"
                print(f"{len(trials)} of {2 * options.pairs}: {trials[-1]['changes']}: {values}", flush=True)
    trials = sorted(trials, key=lambda trial: int(trial["number"]))[: 2 * options.pairs]
    minutes = sum(trial["cpu_s"] for trial in trials) / 60
    text = "\n\n".join([introduction(trials), *tables(trials), f"{minutes:.0f} CPU minutes. {describe_machine()}"])
    print(text)
    worse = unlike_committed(parser, options, {"folder": options.folder})
    keep_table("hyperband", text, options, worse=worse, hidden={str(options.folder): "FOLDER"})


def data_file(folder: Path) -> Path:
    """Return the file of frames, written if it is missing."""
    path = folder / "frames.hdf5"
    if not path.exists():
        names = [CLASSES[column] for column in DIGITAL17]
        write_file(path, modulations=names, levels_db=LEVELS_DB, frames_per_cell=FRAMES_PER_CELL, seed=0)
    return path


def settings(number: int) -> dict[str, Any]:
    """Return what a trial is trained with: two consecutive ones differ in the curriculum only."""
    rng = np.random.default_rng([2025, number // 2])
    return {
        "max_lr": float(10 ** rng.uniform(-3.5, -1.3)),
        "batch_size": int(rng.choice([64, 128])),
        "dropout": float(rng.choice([0.0, 0.25, 0.5])),
        "snr_layer": str(rng.choice(["standard", "bottleneck_64", "bottleneck_128"])),
        "weight_decay": float(rng.choice([0.0, 1e-4, 1e-2])),
        "seed": number // 2,
        "curriculum": number % 2 == 1,
    }


def trial_config(path: Path, changes: Mapping[str, Any]) -> TrialConfig:
    """Return a trial's configuration; the curriculum's window of 3 levels is scaled by 3, too."""
    given: dict[str, Any] = {"data": str(path), "representation": "synced", "image_size": 16, "storage": "memmap"}
    given |= {"model_type": "amc_convnet", "epochs": EPOCHS, "epochs_per_cycle": CYCLE, "base_lr": 1e-5}
    given |= {"split": [0.8, 0.1, 0.1], "curriculum_window": 1}
    return TrialConfig.from_mapping({**given, **changes})


@contextmanager
def feed_of(path: Path) -> Iterator[CachedFeed]:
    """Lend the model input of the whole file."""
    config = trial_config(path, {})
    with RadioMLFile(path, storage=config.storage) as data:
        context = prepare(config, data)[0]
        every = np.arange(len(context.selection.rows))
        parts = [ready(context, batch) for batch in context.feed.batches(np.array_split(every, 20))]
    inputs = torch.cat([part.frames.contiguous() for part in parts])
    yield CachedFeed(inputs, torch.cat([part.modulation for part in parts]), torch.cat([part.snr for part in parts]))


def train(path: Path, number: int, feed: CachedFeed) -> dict[str, Any]:
    """Train one trial; return its settings, its validations by epoch (fractions), and its true value.

    The true value is the joint accuracy of the last weights on all held-out frames, with the statistics of all training
    frames. A trial that diverges has 0 from there on.
    """
    changes, begun = settings(number), time.process_time()
    config = trial_config(path, changes)
    result: dict[str, Any] = {"number": number, "changes": changes, "raw": [], "honest": [], "snr": [], "truth": 0.0}
    with RadioMLFile(path, storage=config.storage) as data:
        state = TrainingState(with_ready_input(prepare(config, data)[0], feed))
        selection, split = state.context.selection, state.context.split
        level_M = selection.snr[split.train]
        for epoch in range(1, EPOCHS + 1):
            rng = np.random.default_rng([config.seed, epoch])
            draws_L = level_draws(config, epoch=epoch, frames_L=np.bincount(level_M, minlength=len(LEVELS_DB)))
            order_M = split.train[epoch_positions(level_M, draws_L, rng)]
            try:
                train_epoch(state, order_M[:FRAMES_PER_EPOCH], should_stop=lambda: None, show=lambda done: None)
            except RuntimeError as error:
                print(f"{changes}: {error}", flush=True)
                break
            lagging = {name: buffer.clone() for name, buffer in state.context.model.named_buffers()}
            result["raw"].append(accuracies(state, split.val)[0])
            renew_batch_statistics(state, order_M[:RENEWED], should_stop=lambda: None)
            honest, snr = accuracies(state, split.val)
            result["honest"].append(honest)
            result["snr"].append(snr)
            if epoch == EPOCHS:
                renew_batch_statistics(state, split.train, should_stop=lambda: None)
                result["truth"] = accuracies(state, np.concatenate([split.val, split.test]))[0]
            state.context.model.load_state_dict(lagging, strict=False)
            state.progress = state.progress.after_epoch(config, combined_acc=0.0, loss=0.0)
            state.start_epoch()
    for name in ("raw", "honest", "snr"):
        result[name] += [0.0] * (EPOCHS - len(result[name]))
    return {**result, "cpu_s": time.process_time() - begun}


def accuracies(state: TrainingState, positions_M: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Return the joint and the SNR accuracy, fractions; 0 where the outputs are not finite."""
    evaluation = evaluate(state, positions_M, should_stop=lambda: None)
    assert not isinstance(evaluation, str)
    if not np.isfinite(evaluation.loss):
        return 0.0, 0.0
    return evaluation.combined_acc, evaluation.snr_acc


def introduction(trials: Sequence[Mapping[str, Any]]) -> str:
    """Return what was done, in Markdown."""
    n_cells = len(DIGITAL17) * len(LEVELS_DB)
    return (
        f"**Synthetic** frames, `synced` at 16 px, {len(DIGITAL17)} modulations x {len(LEVELS_DB)} SNR levels = "
        f"{n_cells} joint classes. {len(trials)} trials of `amc_convnet`: {len(trials) // 2} random configurations "
        "(max_lr, batch size, dropout, SNR head, weight decay), each with and without the sliding curriculum. "
        f"{EPOCHS} epochs of {FRAMES_PER_EPOCH:,} frames, triangular cycles of {CYCLE} epochs. After each epoch the "
        "same weights are validated with batch norm's statistics as training left them (`raw`) and renewed on "
        f"{RENEWED:,} training frames (`honest`). The true value of a trial is the joint accuracy of its last weights "
        "on all held-out frames, with the statistics of all training frames."
    )


def tables(trials: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the tables, in Markdown."""
    yield _dips(trials)
    yield _policies(trials)
    yield _survivors(trials)


def _dips(trials: Sequence[Mapping[str, Any]]) -> str:
    best = sorted(trials, key=lambda trial: -trial["truth"])[: len(trials) // 10]
    epochs = (1, 2, 3, 4, 5, 6, 8, 10, 15, 20)
    lines = [f"| mean joint accuracy, % | {' | '.join(f'epoch {epoch}' for epoch in epochs)} | true |"]
    lines += ["|---" + "|---:" * (len(epochs) + 1) + "|"]
    for name, group in (("all", trials), ("true top 10%", best)):
        for kind in ("raw", "honest"):
            means = [statistics.mean(trial[kind][epoch - 1] for trial in group) for epoch in epochs]
            truth = statistics.mean(trial["truth"] for trial in group)
            lines.append(f"| {name}, {kind} | {' | '.join(f'{100 * value:.1f}' for value in [*means, truth])} |")
    return "\n".join(lines)


def _policies(trials: Sequence[Mapping[str, Any]]) -> str:
    kinds = [(validation, strict) for validation in ("raw", "honest") for strict in (True, False)]
    names = " | ".join(f"{validation}, strict: {str(strict).lower()}" for validation, strict in kinds)
    lines = [
        f"Share of the true top 10% of the started trials that Hyperband stops, mean of {ORDERS} random orders, "
        f"{AGENTS} agents. Everything ends after {BUDGET} epochs, so the rows compare at equal epochs. `started` is "
        "the mean number of trials of the columns.",
        "",
        f"| bands | eta | what they are | {names} | started |",
        "|---|---:|---" + "|---:" * (len(kinds) + 1) + "|",
    ]
    for min_iter, eta, name in POLICIES:
        shares, started = [], []
        for validation, strict in kinds:
            config = HyperbandConfig(min_iter=min_iter, eta=eta, strict=strict)
            share, count, _ = replays(trials, validation, config, BUDGET)
            shares.append(f"{share:.1%}")
            started.append(count)
        epochs = ", ".join(str(band) for band in bands(config) if band < EPOCHS)
        lines.append(f"| {epochs} | {eta} | {name} | {' | '.join(shares)} | {statistics.mean(started):.0f} |")
    return "\n".join(lines)


def replays(
    trials: Sequence[Mapping[str, Any]], validation: str, config: HyperbandConfig, budget: int | None
) -> tuple[float, float, dict[bool, float]]:
    """Return the share of the true top 10% that was stopped, the trials started, and survivors by curriculum."""
    curves = {trial["number"]: trial[validation] for trial in trials}
    truth = {trial["number"]: trial["truth"] for trial in trials}
    stopped, best, started = 0, 0, 0
    survivors = {True: 0, False: 0}
    for number in range(ORDERS):
        order = np.random.default_rng(number).permutation(list(curves)).tolist()
        result = replay(curves, config, order, budget=budget)
        counts = result.top_stopped(truth)
        stopped, best, started = stopped + counts[0], best + counts[1], started + len(result.started)
        for run in set(result.started) - result.stopped:
            survivors[run % 2 == 1] += 1
    return stopped / best, started / ORDERS, {kind: count / ORDERS for kind, count in survivors.items()}


def _survivors(trials: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        "Trials that survive the shipped bands scaled down by 3 (epochs 5 and 15, eta 3), all trials in one sweep. "
        f"A trial that is not stopped is trained to its end; mean of {ORDERS} random orders.",
        "",
        "| validation | strict | with curriculum | without | ratio |",
        "|---|---|---:|---:|---:|",
    ]
    for validation in ("raw", "honest"):
        for strict in (True, False):
            config = HyperbandConfig(min_iter=5, eta=3, strict=strict)
            counts = replays(trials, validation, config, None)[2]
            ratio = counts[True] / counts[False]
            lines.append(
                f"| {validation} | {str(strict).lower()} | {counts[True]:.1f} | {counts[False]:.1f} | {ratio:.2f} |"
            )
    pairs = {kind: [trial for trial in trials if trial["changes"]["curriculum"] is kind] for kind in (True, False)}
    truth = {kind: statistics.mean(trial["truth"] for trial in group) for kind, group in pairs.items()}
    ratios = [
        statistics.mean(trial["snr"][epoch] for trial in pairs[True])
        / statistics.mean(trial["snr"][epoch] for trial in pairs[False])
        for epoch in range(3)
    ]
    lines += [
        "",
        f"Mean true value: {truth[True]:.1%} with the curriculum, {truth[False]:.1%} without. Mean SNR accuracy with "
        f"it, as a share of that without, after epochs 1, 2, 3: {', '.join(f'{ratio:.2f}' for ratio in ratios)}.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
