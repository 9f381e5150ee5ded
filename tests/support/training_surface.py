"""A simulated training sweep with a known truth: accuracy over 150 epochs as a function of four parameters.

The best learning rate depends on the batch size and the SNR layer. Runs far above it crash; others crash with any
configuration, as machines do. A crashed run has the beginning of its curve.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from sweep_records import completed, run, sweep

from amc_sweeps.runs.records import RunRecord, SweepRecord

EPOCHS = 150
LAYER_GAIN = {"none": 0.0, "pre": 1.2, "post": -1.5}  # points
LAYER_SHIFT = {"none": 0.0, "pre": 0.2, "post": -0.2}  # of the best learning rate, in decades
BATCH_GAIN = {256: 0.3, 512: 0.6, 1024: 0.3, 2048: -0.6}

SWEEP = yaml.safe_load("""
program: train.py
method: random
metric: {name: val/combined_acc, goal: maximize}
parameters:
  max_lr: {distribution: log_uniform_values, min: 1.0e-4, max: 3.0e-2}
  snr_layer: {values: [none, pre, post]}
  batch: {values: [256, 512, 1024, 2048]}
  curriculum: {values: [true, false]}
  epochs: {value: 150}
""")

OPTIMUM = {"max_lr": 10**-2.4, "snr_layer": "pre", "batch": 512, "curriculum": True}


@dataclass(frozen=True)
class Crashes:
    """Shares of runs that crash: ``machine`` of all runs, ``config`` of those far above the best learning rate."""

    machine: float = 0.35
    config: float = 0.9


MIXED = Crashes()


def best_log_lr(config: Mapping[str, Any]) -> float:
    """Return log10 of the best learning rate for the rest of a configuration."""
    return -2.6 + 0.15 * math.log2(config["batch"] / 512) + LAYER_SHIFT[config["snr_layer"]]


def final_accuracy(config: Mapping[str, Any]) -> float:
    """Return the accuracy in points after all epochs, without noise."""
    layer, batch = config["snr_layer"], config["batch"]
    points = 76 + LAYER_GAIN[layer] + BATCH_GAIN[batch]
    if config["curriculum"]:
        points += 0.6 + 0.5 * (layer == "pre") - 0.8 * (batch == 2048)
    return max(points - 5 * (math.log10(config["max_lr"]) - best_log_lr(config)) ** 2, 20.0)


def draw_config(rng: np.random.Generator) -> dict[str, Any]:
    """Draw a configuration as ``method: random`` does."""
    return {
        "max_lr": float(10 ** rng.uniform(-4, math.log10(3e-2))),
        "snr_layer": str(rng.choice(list(LAYER_GAIN))),
        "batch": int(rng.choice(list(BATCH_GAIN))),
        "curriculum": bool(rng.integers(2)),
        "epochs": EPOCHS,
    }


def clean_curve(config: Mapping[str, Any]) -> NDArray[np.float64]:
    """Return the accuracy in points after every epoch, without noise."""
    away = math.log10(config["max_lr"]) - best_log_lr(config)
    epoch = np.arange(1, EPOCHS + 1)
    slowness = 12 * (1 + 1.5 * max(0.0, -away) + 0.5 * abs(away))
    rise = 0.75 * (1 - np.exp(-epoch / slowness)) + 0.25 * (epoch / EPOCHS) ** 2
    return np.asarray(final_accuracy(config) * rise / rise[-1], np.float64)


def noisy(clean: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a curve as a run logs it: one offset for the run, and noise in every epoch."""
    return clean + rng.normal(0, 0.3) + rng.uniform(-0.5, 0.5, len(clean))


def crash_probability(config: Mapping[str, Any], crashes: Crashes) -> float:
    """Return how likely the learning rate makes a run crash."""
    away = math.log10(config["max_lr"]) - best_log_lr(config)
    edge = 0.25 + (0.15 if config["snr_layer"] == "pre" else 0.0)
    return crashes.config / (1 + math.exp(-(away - edge) / 0.12))


def train(run_id: str, config: Mapping[str, Any], rng: np.random.Generator, crashes: Crashes = MIXED) -> RunRecord:
    """Return the record of one run: finished, or crashed without a reason."""
    curve = noisy(clean_curve(config), rng) / 100
    crashed = rng.uniform() < crash_probability(config, crashes)
    crashed = rng.uniform() < crashes.machine or crashed
    if not crashed:
        return completed(run_id, curve.tolist(), config=dict(config))
    return run(run_id, curve[: int(rng.integers(15, EPOCHS))].tolist(), "crashed", config=dict(config))


def simulate(seed: int, n: int, crashes: Crashes = MIXED) -> SweepRecord:
    """Return a sweep of n runs."""
    rng = np.random.default_rng(seed)
    return sweep(
        *(train(f"run{number:02}", draw_config(rng), rng, crashes) for number in range(n)),
        config=SWEEP,
        state="FINISHED",
    )
