"""Generate frames: by class and channel, and TorchSig where it is installed; frames per second of one core.

    python tests/benchmarks/bench_generation.py [--frames 1024] [--rounds 10] [--torchsig PYTHON]

Every frame has its own roll-off, span, timing, phase, carrier offset and noise. Seconds are processor time, all threads
together, so that the figures are those of one core on a busy machine, too. TorchSig needs many other packages: it is
measured in its own environment, whose interpreter --torchsig names. Without it nothing is written.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time

import numpy as np
from machine import add_write_options, describe_machine, keep_table, unlike_committed

from amc_core.modulations import CLASSES, DIGITAL17
from amc_core.synthesis.frames import Recipe, synthesise_frames

AIM = 15_000  # frames/s/core, digital modulations in white noise

# TorchSig's own generator of single signals: 1024 samples, 8 a symbol, no impairment but noise.
TORCHSIG = """
import json, sys, time
import torch, torchsig
from torchsig.datasets.datasets import TorchSigIterableDataset
from torchsig.utils.defaults import TorchSigDefaults
torch.set_num_threads(1)
metadata = TorchSigDefaults().default_dataset_metadata | {
    "num_iq_samples_dataset": 1024, "signal_duration_in_samples_min": 1024, "signal_duration_in_samples_max": 1024,
    "fft_size": 64, "fft_stride": 64, "snr_db_max": 30.0, "bandwidth_min": 1250000, "bandwidth_max": 1250000,
    "signal_center_freq_min": -1000, "signal_center_freq_max": 1000,
}
names = ["bpsk", "qpsk", "8psk", "16psk", "16qam", "64qam", "256qam"]
source = iter(TorchSigIterableDataset(signal_generators=names, metadata=metadata))
for _ in range(20):
    next(source)
n, started = int(sys.argv[1]), time.process_time()
for _ in range(n):
    next(source)
print(json.dumps({"version": torchsig.__version__, "rate": n / (time.process_time() - started)}))
"""


def main() -> None:
    """Print a line a case, write the table, and fail when the digital modulations are too slow."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--torchsig", metavar="PYTHON", help="interpreter of an environment that has TorchSig")
    add_write_options(parser, "generation")
    options = parser.parse_args()
    digital = [CLASSES[column] for column in DIGITAL17]
    cases = {
        "17 digital modulations, AWGN": (digital, Recipe()),
        "17 digital modulations, 3-tap Rayleigh": (digital, Recipe(fading="rayleigh")),
        "all 24 classes, AWGN": (list(CLASSES), Recipe()),
        **{f"{name}, AWGN": ([name], Recipe()) for name in ("QPSK", "256QAM", "GMSK", "FM", "AM-SSB-SC")},
    }
    rates = {name: frames_per_s(*case, options.frames, options.rounds) for name, case in cases.items()}
    rates["the noise alone (numpy)"] = noise_per_s(options.frames, options.rounds)
    lines = [
        f"{options.frames} frames a round, per second of processor time, fastest of {options.rounds} rounds. "
        f"{describe_machine()}",
        "",
        "| case | frames/s |",
        "|---|---|",
        *(f"| {name} | {rate:,.0f} |" for name, rate in rates.items()),
    ]
    if options.torchsig:
        reply = subprocess.run(
            [options.torchsig, "-c", TORCHSIG, "300"], capture_output=True, text=True, check=True
        ).stdout
        facts = json.loads(reply.splitlines()[-1])
        lines.append(f"| TorchSig {facts['version']}, 7 linear modulations, AWGN | {facts['rate']:,.0f} |")
    else:
        lines += ["", "TorchSig was not measured: name an interpreter that has it with --torchsig."]
    print("\n".join(lines))
    worse = unlike_committed(parser, options, {"torchsig": options.torchsig or "PYTHON"})
    keep_table("generation", "\n".join(lines), options, worse=worse, hidden={str(options.torchsig): "PYTHON"})
    if (rate := next(iter(rates.values()))) < AIM:
        raise SystemExit(f"{rate:,.0f} frames/s a core, aimed at are {AIM:,}")


def frames_per_s(modulations: list[str], recipe: Recipe, n_frames: int, rounds: int) -> float:
    """Return the fastest of several rounds over the modulations, after one that fills the tables of pulses."""
    rng = np.random.default_rng(0)
    n_each = -(-n_frames // len(modulations))
    best = float("inf")
    for _ in range(rounds + 1):
        started = time.process_time()
        for modulation in modulations:
            synthesise_frames(modulation, 10, n_each, rng, recipe)
        best = min(best, time.process_time() - started)
    return n_each * len(modulations) / best


def noise_per_s(n_frames: int, rounds: int) -> float:
    """Return frames/s of drawing noise only, which is the upper limit."""
    rng = np.random.default_rng(0)
    best = float("inf")
    for _ in range(rounds):
        started = time.process_time()
        for _ in range(0, n_frames, 64):
            rng.standard_normal((64, 1024, 2), dtype=np.float32)
        best = min(best, time.process_time() - started)
    return n_frames / best


if __name__ == "__main__":
    main()
