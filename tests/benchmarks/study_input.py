"""Accuracy by input: one small network, equal steps, synthetic frames, three seeds.

For every input and channel, `amc_convnet` (123 thousand parameters) takes 700 steps of 128 fresh frames, 17 modulations
x 16 SNR levels of 0..30 dB, receiver gain uniform in +-10 dB, and is tested once on 6,800 other frames. Optimiser:
AdamW (weight decay 1e-3), OneCycle to 3e-3 (15% rise), the plain sum of both cross-entropies. Nothing is selected on
the test frames.

The data is synthetic, and `synced` knows its symbol rate and kind of pulse: expect less from real recordings.

Run by hand:  python tests/benchmarks/study_input.py   (about 20 CPU minutes; one thread)
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from machine import RESULTS, describe_machine, write_table
from torch import Tensor
from torch.nn import functional

from amc_core.config import TrialConfig
from amc_core.inputs.representations import Representation
from amc_core.models.classifier import build_model
from amc_core.modulations import CLASSES, DIGITAL17
from amc_core.synthesis.frames import Recipe, synthesise_frames
from amc_core.training.model_summary import Summary, summarise

LEVELS_DB = tuple(range(0, 31, 2))
STEPS, BATCH = 700, 128
FRAMES_PER_CELL = -(-STEPS * BATCH // (len(DIGITAL17) * len(LEVELS_DB)))  # 330: 89,760 frames
TEST_FRAMES_PER_CELL = 25
TEST_SEED = 1_000_000
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
    changes: dict[str, object] = field(default_factory=dict)

    @property
    def config(self) -> TrialConfig:
        """Return the configuration of the network and its input."""
        model = "iq_convnet" if self.input == "iq" else "amc_convnet"
        given = {"representation": self.input, "model_type": model, "dropout": 0.0}
        return TrialConfig.from_mapping({**given, **self.changes})


ROWS = (
    Row("synced", "AWGN", 3),
    Row("constellation", "AWGN", 3),
    Row("synced", "3-tap Rayleigh", 3),
    Row("constellation", "3-tap Rayleigh", 1),
    Row("synced", "AWGN, wild pulses", 1),
    Row("constellation", "AWGN", 1, {"histogram_range": "auto"}),
    Row("constellation_psd", "AWGN", 1),
    Row("iq", "AWGN", 1),
)


@dataclass(frozen=True)
class Outcome:
    """One network's accuracies on the test frames, in percent."""

    modulation: float
    snr: float
    joint: float
    joint_by_level: tuple[float, ...]


@dataclass(frozen=True)
class Frames:
    """Frames in random order with their labels."""

    iq: Tensor  # (B, 1024, 2)
    modulation: Tensor  # (B,)
    snr: Tensor  # (B,)

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield the frames in their order."""
        for start in range(0, len(self.iq), size):
            part = slice(start, start + size)
            yield self.iq[part], self.modulation[part], self.snr[part]


def synthesise(recipe: Recipe, frames_per_cell: int, seed: int) -> Frames:
    """Make the same number of frames of every modulation and SNR level."""
    cells = [(index, column, level) for index, column in enumerate(DIGITAL17) for level in LEVELS_DB]
    frames = [
        synthesise_frames(CLASSES[column], level, frames_per_cell, np.random.default_rng([seed, column, level]), recipe)
        for _, column, level in cells
    ]
    order = torch.randperm(len(cells) * frames_per_cell, generator=torch.Generator().manual_seed(seed))
    modulation = torch.tensor([index for index, _, _ in cells]).repeat_interleave(frames_per_cell)
    snr = torch.tensor([LEVELS_DB.index(level) for _, _, level in cells]).repeat_interleave(frames_per_cell)
    return Frames(torch.from_numpy(np.concatenate(frames))[order], modulation[order], snr[order])


def train_and_test(config: TrialConfig, training: Frames, test: Frames, seed: int) -> Outcome:
    """Train one network and return its accuracies."""
    torch.manual_seed(seed)
    represent = Representation(config)
    model = build_model(config, n_modulations=len(DIGITAL17), n_levels=len(LEVELS_DB))
    model = model.to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=3e-3, total_steps=STEPS, pct_start=0.15)

    def laid_out(iq_BTC: Tensor) -> Tensor:
        input_BX = represent(iq_BTC)
        return input_BX.contiguous(memory_format=torch.channels_last) if input_BX.ndim == 4 else input_BX

    for _, (iq_BTC, modulation_B, snr_B) in zip(range(STEPS), training.batches(BATCH), strict=False):
        logits = model(laid_out(iq_BTC))
        loss = functional.cross_entropy(logits[0], modulation_B) + functional.cross_entropy(logits[1], snr_B)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()

    model.eval()
    right = torch.zeros(3, len(LEVELS_DB))
    number = torch.bincount(test.snr, minlength=len(LEVELS_DB))
    with torch.no_grad():
        for iq_BTC, modulation_B, snr_B in test.batches(512):
            logits = model(laid_out(iq_BTC))
            modulation_right = logits[0].argmax(dim=1) == modulation_B
            snr_right = logits[1].argmax(dim=1) == snr_B
            for index, hits in enumerate((modulation_right, snr_right, modulation_right & snr_right)):
                right[index] += torch.bincount(snr_B[hits], minlength=len(LEVELS_DB))
    modulation, snr, joint = (100 * right.sum(dim=1) / number.sum()).tolist()
    return Outcome(modulation, snr, joint, tuple((100 * right[2] / number).tolist()))


def main() -> None:
    """Run every row, print as it goes, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=len(ROWS), help="only the first so many rows of the table")
    parser.add_argument("--write", action="store_true", help="write results/input_study.md")
    parser.add_argument(
        "--costs", action="store_true", help="only measure the costs in that file again: they want calm"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.costs:
        print(renew_costs())
        return
    started = time.process_time()
    outcomes: dict[int, list[Outcome]] = {index: [] for index in range(options.rows)}
    rows = ROWS[: options.rows]
    for channel, recipe in CHANNELS.items():
        here = [index for index, row in enumerate(rows) if row.channel == channel]
        for seed in range(max((rows[index].n_seeds for index in here), default=0)):
            training = synthesise(recipe, FRAMES_PER_CELL, seed)
            test = synthesise(recipe, TEST_FRAMES_PER_CELL, TEST_SEED + seed)
            for index in here:
                if seed < rows[index].n_seeds:
                    outcome = train_and_test(rows[index].config, training, test, seed)
                    outcomes[index].append(outcome)
                    label = f"{rows[index].input} {rows[index].changes or ''} {channel}, seed {seed}"
                    print(
                        f"{label}: joint {outcome.joint:.2f}%, modulation {outcome.modulation:.2f}%, SNR "
                        f"{outcome.snr:.2f}%; {time.process_time() - started:.0f} CPU seconds",
                        flush=True,
                    )
    costs = {row.input: summarise(row.config) for row in rows if not row.changes}
    text = f"{accuracy_tables(rows, outcomes)}\n\n{cost_table(costs)}"
    text += f"\n\nThe whole study took {(time.process_time() - started) / 60:.0f} CPU minutes. {describe_machine()}"
    print(text)
    if options.write:
        write_table("input_study", text, command="python tests/benchmarks/study_input.py --write")


def accuracy_tables(rows: tuple[Row, ...], outcomes: dict[int, list[Outcome]]) -> str:
    """Return the accuracy of every input, in Markdown."""
    lines = [
        "Synthetic frames of the project's own generator: 8 samples per symbol, root-raised-cosine pulses, random "
        "timing, phase, carrier offset (standard deviation 1e-4 cycles per sample) and receiver gain (+-10 dB). "
        "`synced` knows the symbol rate and the family of pulses; the other inputs use neither. On recordings that "
        "break these assumptions the gain will be smaller: measure it there.",
        "",
        f"The same network (`iq` alone has one of its own) and {STEPS} steps of {BATCH} fresh frames for every row; "
        f"{TEST_FRAMES_PER_CELL * len(DIGITAL17) * len(LEVELS_DB):,} test frames, {len(DIGITAL17)} modulations x "
        f"{len(LEVELS_DB)} SNR levels. Mean over seeds, with the lowest and the highest joint accuracy in brackets; "
        "the sampling error of one seed is about 0.4 points.",
        "",
        "| input | channel | seeds | modulation % | SNR % | joint % |",
        "|---|---|---|---|---|---|",
    ]
    for index, row in enumerate(rows):
        results = outcomes[index]
        joint = [outcome.joint for outcome in results]
        spread = f" ({min(joint):.1f} to {max(joint):.1f})" if len(results) > 1 else ""
        changes = ", ".join(f"{name} {value}" for name, value in row.changes.items())
        lines.append(
            f"| {row.input}{f', {changes}' if changes else ''} | {row.channel} | {len(results)} | "
            f"{statistics.mean(outcome.modulation for outcome in results):.1f} | "
            f"{statistics.mean(outcome.snr for outcome in results):.1f} | "
            f"**{statistics.mean(joint):.1f}**{spread} |"
        )
    lines += ["", "Joint accuracy by SNR, %:", "", f"| input, channel | {' | '.join(f'{d} dB' for d in LEVELS_DB)} |"]
    lines.append("|---" * (len(LEVELS_DB) + 1) + "|")
    for index, row in enumerate(rows):
        if not row.changes:
            by_level = np.mean([outcome.joint_by_level for outcome in outcomes[index]], axis=0)
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


def cost_table(costs: dict[str, Summary]) -> str:
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
