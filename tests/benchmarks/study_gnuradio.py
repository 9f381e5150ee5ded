"""An independent judge: what networks reach on frames that GNU Radio makes, and what they keep from our own frames.

gnuradio_frames.py makes frames of RadioML's 24 classes with GNU Radio's modulators and channel models. A label is each
frame's own SNR behind the channel, or in one test the nominal SNR, which fading leaves. `synced`, `constellation` and
`iq` with the networks of small_network.py train on frames of our own generator or of GNU Radio, and are tested on all.

It needs GNU Radio in the system's Python:  apt-get install --no-install-recommends gnuradio
Run by hand:  python tests/benchmarks/study_gnuradio.py --folder FOLDER   (about 8 CPU minutes, 2 GB in FOLDER)
"""

from __future__ import annotations

import argparse
import fcntl
import functools
import json
import subprocess
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
    TEST_SEED,
    Frames,
    score,
    small_config,
    synthesise,
    train,
)
from study_input import CHANNELS

from amc_core.modulations import CLASSES, DIGITAL17
from amc_core.synthesis.constellations import APSK_RADII
from amc_core.synthesis.frames import Recipe
from amc_sweeps.number_formats import listed

PYTHON = "/usr/bin/python3"  # of the system: it has GNU Radio's modules
MAKER = Path(__file__).with_name("gnuradio_frames.py")
INPUTS = ("synced", "constellation", "iq")
OWN, MODULATORS, CHANNEL, NOMINAL = "ours", "GNU Radio, AWGN", "GNU Radio, fading", "GNU Radio, fading, nominal SNR"
FLAGS: Mapping[str, tuple[str, ...]] = {MODULATORS: (), CHANNEL: ("--fading",), NOMINAL: ("--fading", "--nominal")}
# With DVB-S2X's tables, which GNU Radio has.
DVB = {**APSK_RADII, "64APSK": "16+16+16+16", "128APSK": "16+16+16+16+16+48"}
OWN_RECIPE = Recipe(roll_off=(0.1, 0.4), half_span=(8, 8), gain_db=10.0, radii=DVB)
# Trainings, the most telling ones first.
TRAININGS = (
    *((OWN, name) for name in INPUTS),
    *((CHANNEL, name) for name in INPUTS),
    (MODULATORS, "synced"),
    (NOMINAL, "synced"),
    *((MODULATORS, name) for name in INPUTS[1:]),
)
TESTS = (OWN, MODULATORS, CHANNEL, NOMINAL)
POOR = 50.0  # percent of a class: below it the class is named as not recognised


def main() -> None:
    """Train what is missing, print as it goes, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=350)
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--test-frames", type=int, default=15, help="of each class and level")
    parser.add_argument("--seed", type=int, default=0)
    add_folder_options(parser)
    add_write_options(parser, "gnuradio")
    options = parser.parse_args()
    if options.folder is None:
        parser.error("--folder is needed: for the frames and the finished trainings")
    options.folder.mkdir(parents=True, exist_ok=True)
    jobs = {
        job_name(options, source, name): functools.partial(train_and_test, options, source, name)
        for source, name in TRAININGS
    }
    results = finished_jobs(options, jobs, show)
    by_training = {jobs[job].args[1:]: result for job, result in results.items()}
    minutes = sum(result["cpu_s"] for result in results.values()) / 60
    text = "\n".join([introduction(options), "", *table(by_training), "", *by_class(by_training)])
    text += f"\n\n{minutes:.0f} CPU minutes, without making the frames. {describe_machine()}"
    text += not_done(jobs, results)
    print(text)
    worse = unlike_committed(parser, options, {"folder": options.folder}) + not_done(jobs, results)
    keep_table("gnuradio", text, options, worse=worse, hidden={str(options.folder): "FOLDER"})


def job_name(options: argparse.Namespace, source: str, name: str) -> str:
    """Return what a training is kept under."""
    settings = f"{options.image_size} px, {options.steps} steps, {options.test_frames} test frames, seed {options.seed}"
    return f"{name} trained on {source}, {settings}"


def show(job: str, result: Mapping[str, Any]) -> None:
    """Print a finished training."""
    joint = ", ".join(f"{place} {outcome['joint']:.1f}%" for place, outcome in result["tests"].items())
    print(f"{job}: {joint}; {result['cpu_s']:.0f} CPU seconds", flush=True)


def train_and_test(options: argparse.Namespace, source: str, name: str) -> dict[str, Any]:
    """Train one network on frames of one source, and test it on frames of each."""
    training = frames_of(options.folder, source, _frames_per_cell(options), options.seed)
    begun = time.process_time()
    config = small_config(name, image_size=options.image_size)
    network = train(config, training, options.seed, names=CLASSES, steps=options.steps)
    tests = {}
    for place in TESTS:
        test_frames = frames_of(options.folder, place, options.test_frames, TEST_SEED + options.seed)
        tests[place] = asdict(score(network, test_frames, n_classes=len(CLASSES)))
    return {"tests": tests, "cpu_s": time.process_time() - begun}


def frames_of(folder: Path, source: str, frames_per_cell: int, seed: int) -> Frames:
    """Return frames of one source; GNU Radio's are made where they are missing, and stay on the disk."""
    if source == OWN:
        return synthesise(OWN_RECIPE, frames_per_cell, seed, CLASSES)
    place = folder / f"{source.replace(', ', '-').replace(' ', '-')}-{frames_per_cell}-{seed}"
    with (folder / "making").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be making the same frames
        if not (place / "facts.json").exists():  # written last
            levels = ",".join(map(str, LEVELS_DB))
            command = [PYTHON, str(MAKER), str(place), "--classes", ",".join(CLASSES), "--levels", levels]
            command += ["--frames-per-cell", str(frames_per_cell), "--seed", str(seed), *FLAGS[source]]
            subprocess.run(command, check=True)
    iq = np.load(place / "X.npy", mmap_mode="c")
    modulation, snr = (
        np.load(place / "Y.npy").argmax(axis=1),
        np.searchsorted(LEVELS_DB, np.load(place / "Z.npy")[:, 0]),
    )
    return Frames(torch.from_numpy(iq), torch.from_numpy(modulation), torch.from_numpy(snr))


def _frames_per_cell(options: argparse.Namespace) -> int:
    """Return as many frames of each class and level as the steps need once."""
    return -(-int(options.steps) * BATCH // (len(CLASSES) * len(LEVELS_DB)))


def introduction(options: argparse.Namespace) -> str:
    """Return what was done, in Markdown."""
    place = options.folder / f"GNU-Radio-fading-nominal-SNR-{options.test_frames}-{TEST_SEED + options.seed}/facts.json"
    facts = json.loads(place.read_text(encoding="utf-8")) if place.exists() else None
    version = f" {facts['gnuradio']}" if facts else ""
    scatter = f" ({facts['own_snr_from_label_db']:.1f} dB, root mean square)" if facts else ""
    roll_off, drawn = CHANNELS["AWGN"].roll_off, f"{options.steps} steps of {BATCH} frames"
    return (
        f"Frames of GNU Radio{version}, of {len(CLASSES)} classes x {len(LEVELS_DB)} SNR levels, 0 to 30 dB. Linear "
        "modulations come from its generic modulator (root-raised cosine, roll-off 0.35, 8 samples per symbol), GMSK, "
        "AM and FM from its blocks, APSK's tables from its DVB-S2X modulator. It has no tables for ASK, OOK, 32QAM and "
        "128QAM: these are the usual grids. AWGN has a random phase and a carrier offset with a standard deviation of "
        "1e-4 cycles per sample. Fading adds its dynamic channel model with the settings of RadioML 2016: Rician paths "
        f"(K = 4) at delays of 0, 0.9 and 1.7 samples. Our own frames have AWGN, roll-offs of {roll_off[0]} to "
        f"{roll_off[1]}, and DVB-S2X's tables.\n\n"
        "A label is each frame's own SNR behind the channel: the power of its signal over that of its noise. With "
        f"*nominal SNR* the noise is the same for all frames, so a frame's own SNR differs from the label{scatter}.\n\n"
        f"Images have {options.image_size} px. Each network took {drawn}, seed {options.seed}, "
        f"with one head of {len(CLASSES)} classes, and was tested on "
        f"{options.test_frames * len(CLASSES) * len(LEVELS_DB):,} other frames. A cell: joint accuracy (modulation, "
        "SNR), %. In the second table only frames of the 17 linear digital modulations count; the network still knows "
        "all classes."
    )


def table(results: Mapping[tuple[str, str], Mapping[str, Any]]) -> Iterator[str]:
    """Yield the lines of the tables, in Markdown."""
    head = f"| input | trained on | {' | '.join(f'tested on {place}' for place in TESTS)} |"
    yield from (head, "|---|---" + "|---" * len(TESTS) + "|")
    for (source, name), result in results.items():
        cells = [
            f"**{outcome['joint']:.1f}** ({outcome['modulation']:.1f}, {outcome['snr']:.1f})"
            for outcome in (result["tests"][place] for place in TESTS)
        ]
        yield f"| `{name}` | {source} | {' | '.join(cells)} |"
    yield from (
        "",
        "17 linear digital modulations, joint accuracy, %:",
        "",
        head,
        "|---|---" + "|---:" * len(TESTS) + "|",
    )
    for (source, name), result in results.items():
        digital = [[result["tests"][place]["joint_by_class"][column] for column in DIGITAL17] for place in TESTS]
        yield f"| `{name}` | {source} | {' | '.join(f'{np.mean(values):.1f}' for values in digital)} |"


def by_class(results: Mapping[tuple[str, str], Mapping[str, Any]]) -> Iterator[str]:
    """Yield which classes a network of our own frames does not recognise among GNU Radio's, in Markdown."""
    for name in INPUTS:
        if (OWN, name) in results:
            for place in (MODULATORS, CHANNEL):
                shares = results[OWN, name]["tests"][place]["modulation_by_class"]
                yield f"`{name}`, trained on ours, tested on {place}: {poor_classes(shares)}\n"


def poor_classes(shares: Sequence[float]) -> str:
    """Return the classes of which less than half is recognised, given percents in the order of the classes."""
    poor = [f"{name} {share:.0f}%" for name, share in zip(CLASSES, shares, strict=True) if share < POOR]
    return f"of these less than half is recognised: {listed(poor, len(CLASSES))}." if poor else "no class below half."


if __name__ == "__main__":
    main()
