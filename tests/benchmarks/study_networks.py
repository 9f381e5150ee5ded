"""What the networks for samples reach in a fixed time: equal processor minutes, synthetic frames, AWGN, one seed.

Every network trains on endless fresh frames, 17 modulations x 16 SNR levels of 0..30 dB, until its processor minutes
are used: forward and backward passes and optimiser steps count, making the frames does not. The learning rate rises
over 15% of the time and falls on a cosine to 0. With --easy the classes are four and the levels two: do all of them
learn at all?

Run by hand:  python tests/benchmarks/study_networks.py --folder FOLDER   (7 networks, 60 CPU minutes each; one thread)
              python tests/benchmarks/study_networks.py --folder FOLDER --easy --minutes 3
Ended and started again, it goes on from the network's last minute.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from finished import add_folder_options, finished_jobs, not_done
from machine import add_write_options, describe_machine, keep_table, unlike_committed
from small_network import (
    BATCH,
    LEVELS_DB,
    NAMES,
    TEST_SEED,
    Batch,
    Network,
    new_network,
    score,
    small_config,
    synthesise,
    take_step,
)
from study_input import CHANNELS

from amc_core.config import RECURRENT_NETWORKS, SIGNAL_NETWORKS
from amc_core.training.losses import MultiTaskLoss

EASY_NAMES, EASY_LEVELS_DB, EASY_BATCH = ("OOK", "4ASK", "QPSK", "FM"), (0, 30), 32  # told apart by size alone
POOL = 12_800  # frames made at once
SAVE_S = 60.0  # of the processor between two checkpoints
RISE = 0.15  # of the time
MAX_LR = {name: 1e-3 if name in RECURRENT_NETWORKS else 3e-3 for name in SIGNAL_NETWORKS}
MAX_LR["iq_transformer"] = MAX_LR["iq_resnet"] = 1e-3  # neither has batch norm
PARTS = 10  # of the curve of the loss


def main() -> None:
    """Train what is missing, print as it goes, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0, help="of the processor, for each network")
    parser.add_argument("--networks", nargs="+", default=list(SIGNAL_NETWORKS), choices=list(SIGNAL_NETWORKS))
    parser.add_argument("--easy", action="store_true", help="four classes, two levels")
    add_folder_options(parser)
    add_write_options(parser, "networks or networks_easy")
    options = parser.parse_args()
    if options.folder is None:
        parser.error("--folder is needed: for the checkpoints")
    options.folder.mkdir(parents=True, exist_ok=True)
    jobs = {
        f"{name}, {options.minutes:g} CPU minutes{', easy' * options.easy}": functools.partial(
            train_and_test, options.folder, name, options.minutes, easy=options.easy
        )
        for name in options.networks
    }
    results = finished_jobs(options, jobs, show)
    by_network = {jobs[job].args[1]: result for job, result in results.items()}
    text = "\n".join([introduction(options), "", *table(by_network)])
    text += f"\n\n{describe_machine()}{not_done(jobs, results)}"
    print(text)
    committed = {"folder": options.folder, "easy": options.easy}
    worse = unlike_committed(parser, options, committed) + not_done(jobs, results)
    name = "networks_easy" if options.easy else "networks"
    keep_table(name, text, options, worse=worse, hidden={str(options.folder): "FOLDER"})


def show(job: str, result: Mapping[str, Any]) -> None:
    """Print a finished training."""
    curve = ", ".join(f"{loss:.2f}" for loss in curve_of(result["losses"]))
    print(f"{job}: {len(result['losses'])} steps, joint {result['outcome']['joint']:.1f}%, loss {curve}", flush=True)


def train_and_test(folder: Path, name: str, minutes: float, *, easy: bool) -> dict[str, Any]:
    """Train one network for so long, on from its checkpoint; return its losses, its seconds and its accuracies."""
    names, levels_db, size = (EASY_NAMES, EASY_LEVELS_DB, EASY_BATCH) if easy else (NAMES, LEVELS_DB, BATCH)
    config = small_config(SIGNAL_NETWORKS[name], model_type=name, max_lr=MAX_LR[name])
    network = new_network(config, 0, names, len(levels_db))
    optimiser = torch.optim.AdamW(network.model.parameters(), lr=config.max_lr, weight_decay=1e-3)
    criterion, draws = MultiTaskLoss(config, levels_db), torch.Generator()
    checkpoint = folder / f"{name}-{minutes:g}{'-easy' * easy}.pt"
    if checkpoint.exists():
        load(checkpoint, network, optimiser)
    saved_s = network.cpu_s
    for batch in endless_batches(names, levels_db, size, first=len(network.losses)):
        if (share := network.cpu_s / (60 * minutes)) >= 1:
            break
        for group in optimiser.param_groups:
            group["lr"] = config.max_lr * rate(share)
        begun = time.process_time()
        take_step(network, criterion, optimiser, batch, draws)
        network.cpu_s += time.process_time() - begun
        if network.cpu_s - saved_s > SAVE_S:
            saved_s = network.cpu_s
            save(checkpoint, network, optimiser)
    save(checkpoint, network, optimiser)
    frames = synthesise(CHANNELS["AWGN"], 50 if easy else 10, TEST_SEED, names, levels_db)
    outcome = score(network, frames, n_classes=len(names), n_levels=len(levels_db))
    n_parameters = sum(parameter.numel() for parameter in network.model.parameters())
    result = {"losses": network.losses, "cpu_s": network.cpu_s, "n_parameters": n_parameters}
    return {**result, "outcome": asdict(outcome)}


def endless_batches(names: Sequence[str], levels_db: Sequence[int], size: int, *, first: int) -> Iterator[Batch]:
    """Yield batches of fresh frames; ``first`` is the number of steps done, which names the first pool."""
    per_cell = POOL // (len(names) * len(levels_db))
    for pool in itertools.count():
        frames = synthesise(CHANNELS["AWGN"], per_cell, 1000 + first + pool * POOL // size, names, levels_db)
        yield from itertools.islice(frames.batches(pool, size), len(frames.iq) // size)


def rate(share: float) -> float:
    """Return the part of the highest learning rate after this share of the time."""
    return share / RISE if share < RISE else (1 + math.cos(math.pi * (share - RISE) / (1 - RISE))) / 2


def save(path: Path, network: Network, optimiser: torch.optim.Optimizer) -> None:
    """Write all that a training goes on from."""
    state = {"model": network.model.state_dict(), "optimiser": optimiser.state_dict()}
    partial = path.with_suffix(".partial")
    torch.save({**state, "losses": network.losses, "cpu_s": network.cpu_s}, partial)
    partial.replace(path)


def load(path: Path, network: Network, optimiser: torch.optim.Optimizer) -> None:
    """Read what ``save`` wrote."""
    state = torch.load(path, weights_only=True)
    network.model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    network.losses, network.cpu_s = state["losses"], state["cpu_s"]


def curve_of(losses: Sequence[float]) -> list[float]:
    """Return the mean loss of each tenth of the steps."""
    return [float(part.mean()) for part in np.array_split(np.array(losses), PARTS)]


def introduction(options: argparse.Namespace) -> str:
    """Return what was done, in Markdown."""
    names, levels_db, size = (EASY_NAMES, EASY_LEVELS_DB, EASY_BATCH) if options.easy else (NAMES, LEVELS_DB, BATCH)
    chance = math.log(len(names)) + math.log(len(levels_db))
    what = f"classes {', '.join(names)}" if options.easy else f"{len(names)} linear digital modulations"
    return (
        f"**Synthetic** frames, AWGN, {what}, {len(levels_db)} SNR levels from {levels_db[0]} to {levels_db[-1]} dB. "
        f"Each network trained for {options.minutes:g} minutes of one processor core, seed 0, in steps of {size} fresh "
        "frames. The loss is the sum of both tasks' cross-entropies, as the mean of each tenth of the steps: an "
        f"untrained network has about {chance:.2f}."
    )


def table(results: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield the lines of the table, in Markdown."""
    yield "| network | input | parameters | steps | modulation % | SNR % | joint % | loss by tenths of the steps |"
    yield "|---|---|---:|---:|---:|---:|---:|---|"
    for name, result in results.items():
        scores = " | ".join(f"{result['outcome'][what]:.1f}" for what in ("modulation", "snr", "joint"))
        curve = ", ".join(f"{loss:.2f}" for loss in curve_of(result["losses"]))
        facts = f"{result['n_parameters']:,} | {len(result['losses']):,}"
        yield f"| `{name}` | `{SIGNAL_NETWORKS[name]}` | {facts} | {scores} | {curve} |"


if __name__ == "__main__":
    main()
