"""IQ to image: frames per second of the torch histogram against a loop over np.histogram2d.

Run by hand:  python tests/benchmarks/histogram.py [--size 64] [--frames 512] [--threads 1]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from amc_core.config import TrialConfig
from amc_core.representations import Representation, histogram, unit_power


def frames_per_s(work: Callable[[], object], n_frames: int, repeats: int, device: torch.device) -> float:
    """Return the best of several timings, after one warming call."""
    work()
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return n_frames / best


def main() -> None:
    """Print one line a method; fail when torch and numpy disagree."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--frames", type=int, default=512)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    frames = unit_power(torch.randn(options.frames, 1024, 2, generator=torch.Generator().manual_seed(0)))
    arrays = frames.numpy()
    square = [[-2.5, 2.5], [-2.5, 2.5]]

    def by_numpy() -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        return np.stack([np.histogram2d(f[:, 0], f[:, 1], bins=options.size, range=square)[0] for f in arrays])

    if not np.array_equal(by_numpy(), histogram(frames, size=options.size, half_range=2.5)):
        raise SystemExit("torch and numpy disagree")

    on_device = frames.to(device)
    rates = {
        "np.histogram2d loop": frames_per_s(by_numpy, options.frames, 3, torch.device("cpu")),
        f"torch histogram ({device.type})": frames_per_s(
            lambda: histogram(on_device, size=options.size, half_range=2.5), options.frames, 10, device
        ),
    }
    for name in ("constellation", "constellation_psd"):
        representation = Representation(TrialConfig(representation=name, image_size=options.size)).to(device)
        rates[f"{name}, whole ({device.type})"] = frames_per_s(
            lambda representation=representation: representation(on_device), options.frames, 10, device
        )
    for name, rate in rates.items():
        print(f"{name:32} {rate:>12,.0f} frames/s")


if __name__ == "__main__":
    main()
