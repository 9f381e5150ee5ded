"""Accuracy of ``synced`` by the frames' carrier offset and by ``carrier_range``: what a wider search costs.

The network of small_network.py takes 350 steps of fresh frames, AWGN, images of 32 px. Training and test frames have
the same offsets, normally distributed.

Run by hand:  python tests/benchmarks/study_carrier.py --folder FOLDER   (about a CPU minute a seed; one thread)
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from finished import add_folder_options, finished_jobs, not_done
from machine import add_write_options, describe_machine, keep_table, unlike_committed
from small_network import (
    BATCH,
    LEVELS_DB,
    NAMES,
    TEST_FRAMES_PER_CELL,
    TEST_SEED,
    Frames,
    score,
    small_config,
    synthesise,
    train,
)
from study_input import CHANNELS

OFFSETS = (1e-4, 1e-3)  # standard deviations, cycles per sample
RANGES = (1 / 3200, 1 / 1600, 2.5e-3)
IMAGE_SIZE, STEPS = 32, 350  # smaller than in study_input.py: 12 networks are compared with each other only
FRAMES_PER_CELL = -(-STEPS * BATCH // (len(NAMES) * len(LEVELS_DB)))
Joint = Mapping[tuple[float, float], Sequence[float]]  # percent, by standard deviation and range


def main() -> None:
    """Train every pair, print as it goes, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    add_folder_options(parser)
    add_write_options(parser, "carrier")
    options = parser.parse_args()
    jobs = {
        f"offsets {sd:g}, carrier_range {reach:g}, seed {seed}": functools.partial(train_and_test, sd, reach, seed)
        for seed in range(options.seeds)
        for sd in OFFSETS
        for reach in RANGES
    }
    results = finished_jobs(options, jobs, show)
    joint: dict[tuple[float, float], list[float]] = {}
    for job, result in results.items():
        sd, reach, _ = jobs[job].args
        joint.setdefault((sd, reach), []).append(result["joint"])
    minutes = sum(result["cpu_s"] for result in results.values()) / 60
    text = f"{table(joint)}\n\n{minutes:.0f} CPU minutes. {describe_machine()}{not_done(jobs, results)}"
    print(text)
    worse = unlike_committed(parser, options, {"folder": options.folder}) + not_done(jobs, results)
    keep_table("carrier", text, options, worse=worse, hidden={str(options.folder): "FOLDER"})


def show(job: str, result: Mapping[str, float]) -> None:
    """Print a finished training."""
    print(f"{job}: {result['joint']:.2f}%; {result['cpu_s']:.0f} CPU seconds", flush=True)


@functools.lru_cache(maxsize=1)
def frames_of(sd: float, frames_per_cell: int, seed: int) -> Frames:
    """Return frames with these offsets; the last ones are kept."""
    return synthesise(replace(CHANNELS["AWGN"], cfo_sd=sd), frames_per_cell, seed)


def train_and_test(sd: float, reach: float, seed: int) -> dict[str, float]:
    """Return the joint accuracy on other frames, percent, and the processor's seconds."""
    begun = time.process_time()
    config = small_config("synced", carrier_range=reach, image_size=IMAGE_SIZE)
    network = train(config, frames_of(sd, FRAMES_PER_CELL, seed), seed, steps=STEPS)
    test_frames = synthesise(replace(CHANNELS["AWGN"], cfo_sd=sd), TEST_FRAMES_PER_CELL, TEST_SEED + seed)
    return {"joint": score(network, test_frames).joint, "cpu_s": time.process_time() - begun}


def table(joint: Joint) -> str:
    """Return the mean over seeds of every pair, with the lowest and the highest, in Markdown."""
    lines = [
        f"**Synthetic** frames, AWGN, 17 modulations x 16 SNR levels, {IMAGE_SIZE} px, "
        f"{STEPS} steps of {BATCH}. Joint accuracy on test frames, mean over seeds (lowest to highest). "
        "Rows: standard deviation of the frames' carrier offsets, cycles "
        "per sample.",
        "",
        f"| offsets | {' | '.join(f'`carrier_range` {reach:g}' for reach in RANGES)} |",
        "|---|" + "---|" * len(RANGES),
    ]
    for sd in OFFSETS:
        cells = [joint.get((sd, reach), []) for reach in RANGES]
        lines.append(f"| {sd:g} | {' | '.join(map(_cell, cells))} |")
    return "\n".join(lines)


def _cell(values: Sequence[float]) -> str:
    if not values:
        return "not run"
    return f"{statistics.mean(values):.1f}% ({min(values):.1f} to {max(values):.1f}; seeds: {len(values)})"


if __name__ == "__main__":
    main()
