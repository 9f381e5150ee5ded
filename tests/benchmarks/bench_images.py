"""IQ to image: frames per second of every path, against pipelines with other libraries.

A pipeline takes 512 frames of 1024 samples at any power and gives log1p histograms of the unit-power frames over +-2.5.
Libraries that are not installed are left out and named; ``make`` installs them with the extra ``dev``.

    python tests/benchmarks/bench_images.py [--size 64] [--frames 512] [--threads 1] [--write | --no-write]

Exit code 1, and nothing written, when a path of amc_core is too slow or moves too many points.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from machine import add_write_options, describe_machine, keep_table, unlike_committed

from amc_core.config import TrialConfig
from amc_core.inputs.representations import Representation

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from reference_images import reference_images

RANGE = 2.5
ROUNDS = 7  # all methods take turns, so that a busy moment of the machine does not hit one of them alone
SECONDS = 0.25  # of a method in a round, at least one call

# What must be reached, at the default size and with one thread.
AIMS = {"np.histogram2d": 30.0, "fast-histogram": 3.0}  # times the pipeline of that name
AIM_SYNCED = 15_000  # frames/s
AIM_MOVED = 1e-5  # share of the points

Images = Callable[[], Any]


def pipelines(iq: npt.NDArray[np.float32], size: int) -> tuple[dict[str, Images], list[str]]:
    """Return the methods by name, and which cannot be run here."""
    missing = []

    def by(histogram: Callable[..., npt.NDArray[Any]]) -> Images:
        def pipeline() -> npt.NDArray[np.float32]:
            # Everything but the histogram is done for all frames at once, as fast as numpy does it.
            power = np.einsum("btc,btc->b", iq, iq) / np.float32(iq.shape[1])
            points = np.ascontiguousarray((iq / np.sqrt(power)[:, None, None]).transpose(2, 0, 1))
            images = np.empty((len(iq), size, size), np.float32)
            for image, in_phase, quadrature in zip(images, *points, strict=True):
                image[:] = histogram(in_phase, quadrature)
            return np.log1p(images, out=images)

        return pipeline

    square = [[-RANGE, RANGE]] * 2
    methods = {"np.histogram2d": by(lambda i, q: np.histogram2d(i, q, bins=size, range=square)[0])}
    try:
        fast_histogram = importlib.import_module("fast_histogram").histogram2d
        methods["fast-histogram"] = by(lambda i, q: fast_histogram(i, q, bins=size, range=square))
    except ImportError:
        missing.append("fast-histogram (not installed)")
    try:
        boost = importlib.import_module("boost_histogram")
        axis = boost.axis.Regular(size, -RANGE, RANGE)

        def by_boost(i: npt.NDArray[np.float32], q: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
            counts: npt.NDArray[Any] = boost.Histogram(axis, axis, storage=boost.storage.Double()).fill(i, q).view()
            return counts

        methods["boost-histogram"] = by(by_boost)
    except ImportError:
        missing.append("boost-histogram (not installed)")

    frames = torch.from_numpy(iq)
    paths = [("cpu, torch", "cpu", False), ("cpu, numba", "cpu", True)]
    if torch.cuda.is_available():
        paths.append(("cuda", "cuda", False))
    else:
        missing.append("cuda (no NVIDIA GPU)")
    for name in ("constellation", "constellation_psd", "synced", "iq", "amplitude_phase"):
        model = {"iq": "iq_convnet", "amplitude_phase": "lstm2"}.get(name, "amc_convnet")
        config = TrialConfig(representation=name, model_type=model, image_size=size, histogram_range=RANGE)
        for label, device, compiled in paths:
            if compiled and name not in {"constellation", "synced", "amplitude_phase"}:
                continue
            represent = Representation(config, compiled=compiled).to(device)
            methods[f"{name} ({label})"] = functools.partial(represent, frames.to(device))
    return methods, missing


def seconds(work: Images) -> float:
    """Return the shortest time of a call within a round."""
    best, end = float("inf"), time.perf_counter() + SECONDS
    while best == float("inf") or time.perf_counter() < end:
        started = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return best


def points_moved(images: npt.NDArray[Any], expected: npt.NDArray[Any], n_points: int) -> float:
    """Return the share of points that another pipeline puts into other bins."""
    counts, expected_counts = (np.rint(np.expm1(logs.astype(np.float64))) for logs in (images, expected))
    return float(np.abs(counts - expected_counts).sum() / 2 / n_points)


def main() -> None:
    """Time all methods in turns, compare their images, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--frames", type=int, default=512)
    parser.add_argument("--threads", type=int, default=1)
    add_write_options(parser, "images")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    rng = np.random.default_rng(0)
    iq = 3 * rng.standard_normal((options.frames, 1024, 2), dtype=np.float32)
    methods, missing = pipelines(iq, options.size)

    expected, _ = reference_images(iq, size=options.size, half_range=RANGE)
    moved = {}
    for name, work in methods.items():  # also the first call, which compiles
        images = work()
        if name.startswith(("np.", "fast", "boost", "constellation (")):
            counts = images if isinstance(images, np.ndarray) else images[:, 0].cpu().numpy()
            moved[name] = points_moved(counts, expected, iq.size // 2)
    best = dict.fromkeys(methods, float("inf"))
    for _ in range(ROUNDS):
        for name, work in methods.items():
            best[name] = min(best[name], seconds(work))

    frames_per_s = {name: options.frames / time_s for name, time_s in best.items()}
    text = as_table(frames_per_s, moved)
    text += f"\n\n{options.frames} frames to {options.size} x {options.size}, {options.threads} thread(s). "
    text += f"Left out: {', '.join(missing) or 'nothing'}. {describe_machine()}"
    print(text)
    unlike = unlike_committed(parser, options)
    if missed := missed_aims({} if unlike else frames_per_s, moved):
        raise SystemExit("\n".join(missed))
    without = [name for name in missing if not name.startswith("cuda")]
    keep_table(
        "images", text, options, worse=", ".join(filter(None, [unlike, *(f"without {name}" for name in without)]))
    )


def missed_aims(frames_per_s: Mapping[str, float], moved: Mapping[str, float]) -> list[str]:
    """Return which methods are too slow or not exact enough; pipelines that were not measured are left out."""
    ours = "constellation (cpu, numba)"
    missed = [
        f"{ours} is {frames_per_s[ours] / frames_per_s[other]:.1f} times as fast as {other}, wanted are {aim:g}"
        for other, aim in AIMS.items()
        if other in frames_per_s and frames_per_s[ours] < aim * frames_per_s[other]
    ]
    synced = "synced (cpu, numba)"
    if frames_per_s.get(synced, AIM_SYNCED) < AIM_SYNCED:
        missed.append(f"{synced} makes {frames_per_s[synced]:,.0f} frames/s, wanted are {AIM_SYNCED:,}")
    missed += [
        f"{name} puts {share:.1e} of the points elsewhere than np.histogram2d, allowed are {AIM_MOVED:g}"
        for name, share in moved.items()
        if name.startswith("constellation (") and share > AIM_MOVED
    ]
    return missed


def as_table(frames_per_s: dict[str, float], moved: dict[str, float]) -> str:
    """Return the results in Markdown, with ratios to the two usual pipelines."""
    rows = ["| method | frames/s | x np.histogram2d | x fast-histogram | points moved |", "|---|---|---|---|---|"]
    for name, rate in frames_per_s.items():
        ratios = [
            f"{rate / frames_per_s[other]:.1f}" if other in frames_per_s else ""
            for other in ("np.histogram2d", "fast-histogram")
        ]
        shown = f"{moved[name]:.1e}" if name in moved else ""
        rows.append(f"| {name} | {rate:,.0f} | {' | '.join(ratios)} | {shown} |")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
