"""Accuracy of ``synced`` by the frames' carrier offset and by ``carrier_range``: what a wider search costs.

Network, optimiser, steps and frames are those of study_input.py, AWGN. Training and test frames have the same offsets,
normally distributed.

Run by hand:  python tests/benchmarks/study_carrier.py   (about 4 CPU minutes a seed; one thread)
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace

import torch
from machine import add_write_options, describe_machine, keep_table, unlike_committed
from study_input import (
    BATCH,
    CHANNELS,
    FRAMES_PER_CELL,
    STEPS,
    TEST_FRAMES_PER_CELL,
    TEST_SEED,
    synthesise,
    train_and_test,
)

from amc_core.config import TrialConfig

OFFSETS = (1e-4, 1e-3)  # standard deviations, cycles per sample
RANGES = (1 / 1600, 2.5e-3)


def main() -> None:
    """Train every pair, print as it goes, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    add_write_options(parser, "carrier")
    options = parser.parse_args()
    torch.set_num_threads(1)
    started = time.process_time()
    joint: dict[tuple[float, float], list[float]] = {(sd, reach): [] for sd in OFFSETS for reach in RANGES}
    for seed in range(options.seeds):
        for sd in OFFSETS:
            recipe = replace(CHANNELS["AWGN"], cfo_sd=sd)
            training = synthesise(recipe, FRAMES_PER_CELL, seed)
            test = synthesise(recipe, TEST_FRAMES_PER_CELL, TEST_SEED + seed)
            for reach in RANGES:
                given = {"representation": "synced", "model_type": "amc_convnet", "dropout": 0.0}
                config = TrialConfig.from_mapping({**given, "carrier_range": reach})
                joint[sd, reach].append(train_and_test(config, training, test, seed).joint)
                print(f"offsets {sd:g}, carrier_range {reach:g}, seed {seed}: {joint[sd, reach][-1]:.2f}%", flush=True)
    minutes = (time.process_time() - started) / 60
    text = f"{table(joint)}\n\n{minutes:.0f} CPU minutes. {describe_machine()}"
    print(text)
    keep_table("carrier", text, options, worse=unlike_committed(parser, options))


def table(joint: dict[tuple[float, float], list[float]]) -> str:
    """Return the mean over seeds of every pair, with the lowest and the highest, in Markdown."""
    lines = [
        f"**Synthetic** frames, AWGN, 17 modulations x 16 SNR levels, {STEPS} steps of {BATCH}. Joint accuracy on test "
        "frames, mean over seeds (lowest to highest). Rows: standard deviation of the frames' carrier offsets, cycles "
        "per sample.",
        "",
        f"| offsets | {' | '.join(f'`carrier_range` {reach:g}' for reach in RANGES)} |",
        "|---|" + "---|" * len(RANGES),
    ]
    for sd in OFFSETS:
        cells = [joint[sd, reach] for reach in RANGES]
        texts = [f"{statistics.mean(cell):.1f}% ({min(cell):.1f} to {max(cell):.1f})" for cell in cells]
        lines.append(f"| {sd:g} | {' | '.join(texts)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
