"""Simulated sweeps in which some parameters matter, some do not, and some values are identical: the truth is known.

Accuracy depends on the learning rate (log scale), on the width and on the optimizer. Adam and rmsprop are identical.
Dropout does nothing up to a half and harms beyond it. Flips and scales (listed) and crops (a range) do nothing. Runs
with a far too high learning rate diverge, and machines lose runs of any configuration.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml
from sweep_records import completed, run, sweep

from amc_sweeps.runs.records import RunRecord, SweepRecord

EPOCHS = 12
SWEEP = yaml.safe_load("""
program: train.py
method: random
metric: {name: val/combined_acc, goal: maximize}
parameters:
  lr: {distribution: log_uniform_values, min: 1.0e-4, max: 1.0}
  hidden: {values: [8, 16, 32]}
  optimizer: {values: [adam, sgd, rmsprop]}
  dropout: {min: 0.0, max: 1.0}
  flip: {values: [true, false]}
  scale: {values: [1, 2, 4, 8]}
  crop: {min: 0.0, max: 1.0}
""")
INERT = ("flip", "scale", "crop")  # whole parameters
HARMLESS_DROPOUT = 0.5
BEST_LOG_LR = -2.0


@dataclass(frozen=True)
class Truth:
    """One truth: sd between equal runs, size of the effects, and crashes."""

    noise: float
    effect: float  # 0: nothing matters
    machine: float  # share of runs lost with their machine
    diverges: bool  # runs with a far too large learning rate

    def accuracy(self, config: Mapping[str, Any]) -> float:
        """Return the final accuracy without noise."""
        away = math.log10(config["lr"]) - BEST_LOG_LR
        loss = 0.05 * away**2 + 0.03 * abs(math.log2(config["hidden"] / 16)) + 0.12 * (config["optimizer"] == "sgd")
        loss += 0.3 * max(0.0, config["dropout"] - HARMLESS_DROPOUT)
        return max(0.9 - self.effect * loss, 0.1)


def random_truth(rng: np.random.Generator) -> Truth:
    """Draw a truth: noise from small to as large as the effects."""
    return Truth(
        noise=float(rng.choice([0.003, 0.01, 0.03])),
        effect=float(rng.choice([0.0, 0.5, 1.0, 1.0])),
        machine=float(rng.choice([0.0, 0.15, 0.4])),
        diverges=bool(rng.integers(2)),
    )


def simulate(truth: Truth, n: int, rng: np.random.Generator) -> SweepRecord:
    """Return a sweep of n runs."""
    return sweep(
        *(_train(f"run{number:02}", _draw(rng), truth, rng) for number in range(n)), config=SWEEP, state="FINISHED"
    )


def _draw(rng: np.random.Generator) -> dict[str, Any]:
    config: dict[str, Any] = {"lr": float(10 ** rng.uniform(-4, 0))}
    for name, section in SWEEP["parameters"].items():
        if "values" in section:
            config[name] = section["values"][int(rng.integers(len(section["values"])))]
        elif name != "lr":
            config[name] = float(rng.uniform())
    return config


def _train(run_id: str, config: dict[str, Any], truth: Truth, rng: np.random.Generator) -> RunRecord:
    rise = 1 - np.exp(-np.arange(1, EPOCHS + 1) / 3)
    final = truth.accuracy(config) + rng.normal(0, truth.noise)
    curve = (final * rise + rng.normal(0, truth.noise / 2, EPOCHS)).tolist()
    cut = int(rng.integers(1, EPOCHS))
    if truth.diverges and rng.uniform() < 1 / (1 + math.exp(-(math.log10(config["lr"]) + 0.7) / 0.15)):
        return run(run_id, [*curve[:cut], math.nan], "failed", exit_code=3, not_finite=("acc",), config=config)
    if rng.uniform() < truth.machine:
        return run(run_id, curve[:cut], "crashed", config=config)
    return completed(run_id, curve, config=config)
