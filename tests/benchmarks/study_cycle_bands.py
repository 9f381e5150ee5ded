"""Hyperband's bands and cyclic learning rates: how many of the truly best runs are stopped, on simulated curves.

Each simulated sweep has 120 runs of 60 epochs: four triangular cycles of 15 epochs, whose amplitudes halve. A run's
true value is what it reaches at the end. While the learning rate is high its score is lower, the more so the higher its
max_lr is: honest validation (`batch_norm_frames`) sees the weights as they are, raw validation also batch norm's
statistics, which lag behind. Eight agents train the runs, Hyperband stops some, and all ends after 1,500 epochs. So
every choice of bands is compared at equal epochs.

Run by hand:  python tests/benchmarks/study_cycle_bands.py   (about a CPU minute; one thread)
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from machine import add_write_options, describe_machine, keep_table, unlike_committed
from replay import AGENTS, replay

from amc_core.training.schedules import triangular2
from amc_sweeps.grammar.hyperband import HyperbandConfig, bands
from amc_sweeps.number_formats import duration

RUNS, EPOCHS, CYCLE, BUDGET = 120, 60, 15, 1500
HIGHEST = 3e-2  # max_lr, from two decades below it; its curve dips most
HONEST_DIP = 0.27  # share of the score that the highest max_lr costs at its peak: amc_convnet in validation.md
LAG_DIP = 0.58  # share of what is left that raw validation loses in addition, on average: there, too
NOISE = 0.01  # standard deviation of one validation
# (min_iter, eta) of each group; the bands of the first one are ends of cycles.
POLICIES = {
    "ends of cycles": ((15, 3), (15, 2), (30, 2)),
    "in a rising half": ((5, 3), (6, 3), (16, 3), (18, 3), (20, 3), (18, 2), (20, 2)),
    "only after the peak": ((8, 3), (10, 3), (13, 2), (25, 2)),
}


# Cycles of other lengths, in which the bands 15 and 45 lie elsewhere: the same bands, compared on and off the ends.
SHIFTED = {30: "at both peaks", 24: "after the peak, near an end", 20: "after the peak, in a rising half"}


@dataclass(frozen=True)
class Sweep:
    """Simulated runs: their true values (R,), and the curves (R, E) of two kinds of validation."""

    truth: npt.NDArray[np.float64]
    curves: dict[str, npt.NDArray[np.float64]]


@dataclass(frozen=True)
class Score:
    """Means over sweeps of one choice of bands and one kind of validation."""

    stopped: float  # share of the truly best tenth
    error: float  # its standard error
    started: float  # runs
    regret: float


def main() -> None:
    """Print the table; with the default arguments write it to results/cycle_bands.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", type=int, default=200)
    add_write_options(parser, "cycle_bands")
    options = parser.parse_args()
    begun = time.process_time()
    sweeps = {
        cycle: [simulate(np.random.default_rng([2025, number]), cycle) for number in range(options.sweeps)]
        for cycle in (CYCLE, *SHIFTED)
    }
    lines = list(table(sweeps))
    cost = f"{duration(time.process_time() - begun)} of one processor core."
    text = "\n".join([introduction(options.sweeps), "", *lines, "", f"{cost} {describe_machine()}"])
    print(text)
    keep_table("cycle_bands", text, options, worse=unlike_committed(parser, options))


def simulate(rng: np.random.Generator, cycle: int) -> Sweep:
    """Draw the runs of one sweep with cycles of this many epochs."""
    decades_R = rng.uniform(-2, 0, RUNS)  # of max_lr below HIGHEST
    truth_R = 0.85 - 0.06 * (decades_R + 0.7) ** 2 - np.abs(rng.normal(0, 0.05, RUNS))
    epoch_E = np.arange(1, EPOCHS + 1)
    slowness_R = 5 * np.exp(rng.normal(0, 0.3, RUNS)) * (1 - 0.3 * (decades_R + 1))
    rise_RE = 1 - np.exp(-epoch_E / slowness_R[:, None])
    height_E = np.array([triangular2(float(epoch), base_lr=0, max_lr=1, epochs_per_cycle=cycle) for epoch in epoch_E])
    # An assumption: the dip grows with the square root of the learning rate.
    height_RE = np.sqrt(height_E * 10 ** decades_R[:, None])
    honest_RE = truth_R[:, None] * rise_RE / rise_RE[:, -1:] * (1 - HONEST_DIP * height_RE)
    lag_RE = np.clip(LAG_DIP * height_RE * rng.uniform(0.4, 1.6, (RUNS, EPOCHS)), 0, 0.95)
    noise_RE = rng.normal(0, NOISE, (RUNS, EPOCHS))
    return Sweep(truth_R, {"raw": honest_RE * (1 - lag_RE) + noise_RE, "honest": honest_RE + noise_RE})


def judge(sweeps: Sequence[Sweep], validation: str, config: HyperbandConfig) -> Score:
    """Replay every sweep with these bands."""
    shares, started, regrets = [], [], []
    for sweep in sweeps:
        truth = dict(enumerate(sweep.truth.tolist()))
        curves = dict(enumerate(sweep.curves[validation].tolist()))
        result = replay(curves, config, range(RUNS), budget=BUDGET)
        n_stopped, n_best = result.top_stopped(truth)
        shares.append(n_stopped / n_best)
        started.append(len(result.started))
        regrets.append(result.regret(truth))
    error = statistics.stdev(shares) / len(shares) ** 0.5
    return Score(statistics.mean(shares), error, statistics.mean(started), statistics.mean(regrets))


def table(sweeps: Mapping[int, Sequence[Sweep]]) -> Iterator[str]:
    """Yield the lines of the table, in Markdown."""
    kinds = [(validation, strict) for validation in ("raw", "honest") for strict in (True, False)]
    names = " | ".join(f"{validation}, strict: {str(strict).lower()}" for validation, strict in kinds)
    yield f"| bands | eta | {names} | started | regret, points |"
    yield "|---|---:" + "|---:" * (len(kinds) + 2) + "|"
    for group, policies in POLICIES.items():
        means: list[list[Score]] = []
        for min_iter, eta in policies:
            configs = [HyperbandConfig(min_iter=min_iter, eta=eta, strict=strict) for _, strict in kinds]
            scores = [
                judge(sweeps[CYCLE], validation, config) for (validation, _), config in zip(kinds, configs, strict=True)
            ]
            means.append(scores)
            epochs = ", ".join(str(band) for band in bands(configs[0]) if band < EPOCHS)
            yield _line(f"{group}: {epochs}", f"{eta}", scores, errors=True)
            print(f"{group}: {epochs} done", flush=True)
        mean = [_mean(column) for column in zip(*means, strict=True)]
        yield _line(f"**{group}, mean**", "", mean, errors=False)
    for cycle, where in SHIFTED.items():
        configs = [HyperbandConfig(min_iter=15, eta=3, strict=strict) for _, strict in kinds]
        scores = [judge(sweeps[cycle], kind, config) for (kind, _), config in zip(kinds, configs, strict=True)]
        yield _line(f"15, 45 with cycles of {cycle} epochs: {where}", "3", scores, errors=True)


def _line(name: str, eta: str, scores: Sequence[Score], *, errors: bool) -> str:
    shares = [f"{score.stopped:.1%}" + (f" ± {score.error:.1%}" if errors else "") for score in scores]
    started = statistics.mean(score.started for score in scores)
    regret = " / ".join(f"{100 * score.regret:.1f}" for score in scores)
    return f"| {name} | {eta} | {' | '.join(shares)} | {started:.0f} | {regret} |"


def _mean(scores: Sequence[Score]) -> Score:
    return Score(
        statistics.mean(score.stopped for score in scores),
        statistics.mean(score.error for score in scores),
        statistics.mean(score.started for score in scores),
        statistics.mean(score.regret for score in scores),
    )


def introduction(n_sweeps: int) -> str:
    """Return what was done, in Markdown."""
    return (
        f"**Simulated** curves: {n_sweeps} sweeps of up to {RUNS} runs of {EPOCHS} epochs, four triangular cycles of "
        f"{CYCLE} epochs whose amplitudes halve, {AGENTS} agents, {BUDGET:,} epochs in all for every choice of bands. "
        "The numbers are the share of the truly best tenth of the started runs that Hyperband stopped, with standard "
        "errors. `raw` is validation with batch norm's statistics as training leaves them, `honest` with renewed ones "
        f"(`batch_norm_frames`). At its highest learning rate, the run with the highest max_lr loses {HONEST_DIP:.0%} "
        f"of its score, and raw validation {LAG_DIP:.0%} of the rest on average, as "
        "[amc_convnet did](validation.md). The regret is how far the best run that was not stopped lies below the best "
        "of all, in points, one number for each kind of validation. The last rows have cycles of other lengths, so "
        "that the same bands lie elsewhere in them."
    )


if __name__ == "__main__":
    main()
