"""Accuracy by input: one small network, equal steps, synthetic frames, several seeds.

For every input and channel the network of small_network.py takes 700 steps of 128 fresh frames, 17 modulations x 16 SNR
levels of 0..30 dB, receiver gain uniform in +-10 dB, and is tested once on 6,800 other frames. Two rows have a tenth of
the frames, each of which is then seen ten times: with and without augmentation.

The data is synthetic, and `synced` knows its symbol rate and kind of pulse: expect less from real recordings.

Run by hand:  python tests/benchmarks/study_input.py --folder FOLDER   (about 25 CPU minutes; one thread)
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from finished import add_folder_options, finished_jobs, not_done
from machine import RESULTS, add_write_options, describe_machine, keep_table, unlike_committed
from small_network import (
    BATCH,
    FRAMES_PER_CELL,
    LEVELS_DB,
    NAMES,
    STEPS,
    TEST_FRAMES_PER_CELL,
    TEST_SEED,
    Frames,
    score,
    small_config,
    synthesise,
    train,
)

from amc_core.config import TrialConfig
from amc_core.synthesis.frames import Recipe
from amc_core.training.model_summary import Summary, summarise

COST_HEADING = "Cost, one thread:"

# The pulse is cut so far out that the spectrum beyond it is noise alone; "wild" is the generator's own recipe, whose
# pulses are also cut at 2 to 8 symbols and have roll-offs up to 0.5.
CHANNELS = {
    "AWGN": Recipe(roll_off=(0.1, 0.4), half_span=(8, 8), gain_db=10.0),
    "3-tap Rayleigh": Recipe(roll_off=(0.1, 0.4), half_span=(8, 8), gain_db=10.0, fading="rayleigh"),
    "AWGN, wild pulses": Recipe(gain_db=10.0),
}


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    input: str
    channel: str
    n_seeds: int
    changes: Mapping[str, Any] = field(default_factory=dict)
    frames_per_cell: int = FRAMES_PER_CELL

    @property
    def config(self) -> TrialConfig:
        """Return the configuration of the network and its input."""
        return small_config(self.input, **self.changes)

    @property
    def name(self) -> str:
        """Return the input with its changes."""
        changes = [f"{name} {value}" for name, value in self.changes.items()]
        share = ["a tenth of the frames"] if self.frames_per_cell < FRAMES_PER_CELL else []
        return ", ".join([self.input, *changes, *share])


TENTH = FRAMES_PER_CELL // 10
ROWS = (
    Row("synced", "AWGN", 3),
    Row("synced", "AWGN", 1, {"image_size": 32}),
    Row("synced", "3-tap Rayleigh", 3),
    Row("constellation", "AWGN", 1, frames_per_cell=TENTH),
    Row("constellation", "AWGN", 1, {"augment": True}, frames_per_cell=TENTH),
    Row("constellation", "AWGN", 3),
    Row("constellation", "3-tap Rayleigh", 1),
    Row("synced", "AWGN, wild pulses", 1),
    Row("constellation", "AWGN", 1, {"histogram_range": "auto"}),
    Row("constellation_psd", "AWGN", 1),
    Row("iq", "AWGN", 1),
)


@functools.lru_cache(maxsize=1)
def training_frames(channel: str, frames_per_cell: int, seed: int) -> Frames:
    """Return the frames of a training; the last ones are kept for the next row."""
    return synthesise(CHANNELS[channel], frames_per_cell, seed)


def main() -> None:
    """Run every row, print as it goes, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=len(ROWS), help="only the first so many rows of the table")
    parser.add_argument(
        "--costs", action="store_true", help="only measure the costs in that file again: they want calm"
    )
    add_folder_options(parser)
    add_write_options(parser, "input_study")
    options = parser.parse_args()
    if options.costs:
        torch.set_num_threads(1)
        print(renew_costs())
        return
    jobs = {
        f"{row.name}; {row.channel}; seed {seed}": functools.partial(train_and_test, row, seed)
        for row in ROWS[: options.rows]
        for seed in range(row.n_seeds)
    }
    results = finished_jobs(options, jobs, show)
    by_row = [(row, [each for job, each in results.items() if jobs[job].args[0] is row]) for row in ROWS]
    measured = [(row, outcomes) for row, outcomes in by_row if outcomes]
    costs = {row.input: summarise(row.config) for row, _ in measured if not row.changes}
    minutes = sum(outcome["cpu_s"] for outcome in results.values()) / 60
    text = f"{accuracy_tables(measured)}\n\n{cost_table(costs)}"
    text += f"\n\nThis took {minutes:.0f} CPU minutes. {describe_machine()}"
    text += not_done(jobs, results)
    print(text)
    worse = unlike_committed(parser, options, {"folder": options.folder}) + not_done(jobs, results)
    keep_table("input_study", text, options, worse=worse, hidden={str(options.folder): "FOLDER"})


def show(job: str, outcome: Mapping[str, Any]) -> None:
    """Print a finished training."""
    values = ", ".join(f"{name} {outcome[name]:.2f}%" for name in ("joint", "modulation", "snr"))
    print(f"{job}: {values}; {outcome['cpu_s']:.0f} CPU seconds", flush=True)


def train_and_test(row: Row, seed: int) -> dict[str, Any]:
    """Train one network; return its accuracies on other frames, and the processor's seconds."""
    begun = time.process_time()
    frames = training_frames(row.channel, row.frames_per_cell, seed)
    network = train(row.config, frames, seed)
    outcome = score(network, synthesise(CHANNELS[row.channel], TEST_FRAMES_PER_CELL, TEST_SEED + seed))
    return {**asdict(outcome), "cpu_s": time.process_time() - begun}


def accuracy_tables(measured: Sequence[tuple[Row, Sequence[Mapping[str, Any]]]]) -> str:
    """Return the accuracy of every input, in Markdown."""
    lines = [
        "Synthetic frames of the project's own generator: 8 samples per symbol, root-raised-cosine pulses, random "
        "timing, phase, carrier offset (standard deviation 1e-4 cycles per sample) and receiver gain (+-10 dB). "
        "`synced` knows the symbol rate and the family of pulses; the other inputs use neither. On recordings that "
        "break these assumptions the gain will be smaller: measure it there.",
        "",
        f"The same network (`iq` alone has one of its own) and {STEPS} steps of {BATCH} frames for every row; "
        f"{TEST_FRAMES_PER_CELL * len(NAMES) * len(LEVELS_DB):,} test frames, {len(NAMES)} modulations x "
        f"{len(LEVELS_DB)} SNR levels. Every step has fresh frames, or a tenth of them is seen ten times. Mean over "
        "seeds, with the lowest and the highest joint accuracy in brackets; the sampling error of one seed is about "
        "0.4 points.",
        "",
        "| input | channel | seeds | modulation % | SNR % | joint % |",
        "|---|---|---|---|---|---|",
    ]
    for row, results in measured:
        joint = [outcome["joint"] for outcome in results]
        spread = f" ({min(joint):.1f} to {max(joint):.1f})" if len(results) > 1 else ""
        means = [statistics.mean(outcome[name] for outcome in results) for name in ("modulation", "snr", "joint")]
        lines.append(
            f"| {row.name} | {row.channel} | {len(results)} | {means[0]:.1f} | {means[1]:.1f} | "
            f"**{means[2]:.1f}**{spread} |"
        )
    lines += ["", "Joint accuracy by SNR, %:", "", f"| input, channel | {' | '.join(f'{d} dB' for d in LEVELS_DB)} |"]
    lines.append("|---" * (len(LEVELS_DB) + 1) + "|")
    for row, results in measured:
        if not row.changes and row.frames_per_cell == FRAMES_PER_CELL:
            by_level = np.mean([outcome["joint_by_level"] for outcome in results], axis=0)
            lines.append(f"| {row.input}, {row.channel} | {' | '.join(f'{value:.0f}' for value in by_level)} |")
    return "\n".join(lines)


def renew_costs() -> str:
    """Measure the costs only, write them into the file of a whole study, and return them."""
    path = RESULTS / "input_study.md"
    before, heading, rest = path.read_text(encoding="utf-8").partition(COST_HEADING)
    table = cost_table({row.input: summarise(row.config) for row in ROWS if not row.changes})
    last_paragraph = rest[rest.rindex("\n\n") :] if heading else ""
    path.write_text(before + table + last_paragraph, encoding="utf-8")
    return table


def cost_table(costs: Mapping[str, Summary]) -> str:
    """Return the cost of every input and its network, in Markdown."""
    lines = [COST_HEADING, ""]
    lines += ["| input | network | parameters | MMAC a frame | IQ to input, frames/s | forward pass, frames/s |"]
    lines += ["|---|---|---|---|---|---|"]
    for name, cost in costs.items():
        network = "iq_convnet" if name == "iq" else "amc_convnet"
        lines.append(
            f"| {name} | {network} | {cost.n_parameters:,} | {cost.macs / 1e6:.1f} | {cost.input_frames_per_s:,.0f} | "
            f"{cost.model_frames_per_s:,.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
