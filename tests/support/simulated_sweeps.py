"""Sweeps with a known truth, for calibrating the statistics and the rules.

Runs are curves that rise and flatten, plus an offset of the run (its seed) and epoch noise. Some crash at random
epochs, are stopped by Hyperband, or are cancelled. Only planted effects depend on the configuration.
Records are built as they are read from a server. The causes of most ends are given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from amc_analysis.analyse import rank_runs
from amc_analysis.results.analysed_sweep import AnalysedSweep
from amc_analysis.runs.history import Column, History
from amc_analysis.runs.records import RunWithHistory
from amc_sweeps.runs.causes import Cause, Diagnosis, Evidence, classify
from amc_sweeps.runs.records import Metric, Point, RunRecord, SweepRecord

METRIC = Metric("val/combined_acc", "maximize")
START = datetime(2026, 1, 1, tzinfo=UTC)
EPOCHS = 30
TOP, RISE_EPOCHS = 0.5, 4.0
RUN_SD, EPOCH_SD = 0.02, 0.01
HYPERBAND = {"type": "hyperband", "min_iter": 5, "eta": 3, "strict": True}
BANDS = (5, 15)
HOSTS = 4
# Of the causes that are concluded here; the others are given.
EVIDENCE: Mapping[Cause, Evidence] = {
    Cause.DIVERGED: Evidence("failed", not_finite=(METRIC.name,)),
    Cause.ERROR: Evidence("failed", log_tail="RuntimeError: CUDA error: an illegal memory access was encountered"),
}

PARAMETERS: Mapping[str, Mapping[str, Any]] = {
    "max_lr": {"distribution": "log_uniform_values", "min": 1.0e-5, "max": 1.0e-2},
    "dropout": {"values": [0.1, 0.2, 0.3, 0.4, 0.5]},
    "snr_layer": {"values": ["standard", "bottleneck_64", "bottleneck_128"]},
    "curriculum": {"values": [True, False]},
}
# The same in every run, so that runs are comparable.
SHARED = {
    "label_set": "digital17", "snr_min_db": 0, "snr_max_db": 30, "split_fingerprint": "s1", "epochs": EPOCHS,
    "split": [0.8, 0.1, 0.1], "n_train": 891_289, "n_val": 111_411, "n_test": 111_412, "select_by": "combined_acc",
}  # fmt: skip


@dataclass
class Simulated:
    """One run before it is a record; planted defects change it."""

    config: dict[str, Any]
    values: list[float]  # one an epoch
    cause: Cause
    host: str
    summary: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Setting:
    """The conditions of the runs of one sweep."""

    n: int
    crash: float = 0.0  # probability that a run crashes, at a random epoch
    hyperband: bool = False
    cancel: float = 0.0  # probability that a run is cut short by a cancellation, at a random epoch
    balanced: bool = False  # listed values come equally often
    diverge: float = 0.0  # probability that a run ends by a NaN, at a random epoch
    last_error: float = 0.0  # probability that a complete run fails by a logged error after its last epoch
    cut_at_2: int = 0  # first runs, which are cancelled in epoch 2
    shift: Callable[[Mapping[str, Any]], float] = lambda _config: 0.0  # a planted effect on every value of a run


def random_setting(rng: np.random.Generator) -> Setting:
    """Draw a setting: 8 to 60 runs, with and without crashes, early stops, cancellations, and ends of known causes."""
    ends: dict[str, Any] = ({}, {"diverge": 0.3}, {"last_error": 0.3}, {"n": 9, "cut_at_2": 2})[int(rng.integers(4))]
    setting = Setting(
        n=int(rng.integers(8, 61)),
        crash=float(rng.choice([0.0, 0.15, 0.4])),
        hyperband=bool(rng.integers(2)),
        cancel=float(rng.choice([0.0, 0.0, 0.15])),
        balanced=bool(rng.integers(2)),
    )
    return replace(setting, **ends)


def simulate(setting: Setting, rng: np.random.Generator) -> list[Simulated]:
    """Draw the runs of one sweep, one after the other."""
    runs: list[Simulated] = []
    reached: dict[int, list[float]] = {band: [] for band in BANDS}
    shared = {name: value for name, value in SHARED.items() if name != "epochs" or not setting.last_error}
    for config in _configs(setting, rng):
        values = curve(rng) + setting.shift(config)
        end, cause = EPOCHS, Cause.COMPLETED
        if rng.random() < setting.crash:
            end, cause = int(rng.integers(1, EPOCHS)), Cause.LOST
        elif rng.random() < setting.cancel:
            end, cause = int(rng.integers(1, EPOCHS)), Cause.CANCELLED
        elif setting.diverge and rng.random() < setting.diverge:
            end, cause = int(rng.integers(2, EPOCHS)), Cause.DIVERGED
            values[end - 1] = np.nan
        if len(runs) < setting.cut_at_2:
            end, cause = 2, Cause.CANCELLED
        for band in BANDS if setting.hyperband else ():
            if band >= end:
                break
            reached[band].append(float(values[band - 1]))
            if values[band - 1] < sorted(reached[band], reverse=True)[int(len(reached[band]) / 3)]:
                end, cause = band, Cause.EARLY_STOPPED
        if setting.last_error and cause is Cause.COMPLETED and rng.random() < setting.last_error:
            cause = Cause.ERROR
        run = Simulated({**shared, **config}, values[:end].tolist(), cause, f"gpu-{rng.integers(HOSTS)}")
        run.summary = _evaluation(run, rng)
        runs.append(run)
    return runs


def curve(rng: np.random.Generator) -> np.ndarray:
    """Draw the values of one run, one an epoch."""
    rise = 1 - np.exp(-np.arange(1, EPOCHS + 1) / RISE_EPOCHS)
    return TOP * rise + rng.normal(0, RUN_SD) + rng.normal(0, EPOCH_SD, EPOCHS)


def _configs(setting: Setting, rng: np.random.Generator) -> list[dict[str, Any]]:
    listed = {name: spec["values"] for name, spec in PARAMETERS.items() if "values" in spec}
    columns = {
        name: [values[index % len(values)] for index in rng.permutation(setting.n)]
        if setting.balanced
        else [values[index] for index in rng.integers(len(values), size=setting.n)]
        for name, values in listed.items()
    }
    rates = (10 ** rng.uniform(-5, -2, setting.n)).tolist()
    rows = zip(rates, *columns.values(), strict=True)
    return [dict(zip(("max_lr", *columns), row, strict=True)) for row in rows]


def _evaluation(run: Simulated, rng: np.random.Generator) -> dict[str, Any]:
    """Return the summary of a run: the checkpoint is that of its peak, and test is like validation."""
    best = int(np.nanargmax(run.values))
    if run.cause is not Cause.COMPLETED:
        return {"checkpoint_epoch": best + 1}
    n_val, n_test, value = int(run.config["n_val"]), int(run.config["n_test"]), run.values[best]
    truth = value + rng.normal(0, (value * (1 - value) / n_val) ** 0.5)
    return {"checkpoint_epoch": best + 1, "test/combined_acc": float(rng.binomial(n_test, truth) / n_test)}


def simulated_sweep(
    runs: Sequence[Simulated], config: Mapping[str, Any] | None = None, metric: Metric = METRIC, **fields: Any
) -> AnalysedSweep:
    """Return a sweep of simulated runs with its runs ranked; the causes of their ends are given.

    Args:
        runs: named run0000, run0001, ... in this order.
        config: entries of the sweep's configuration, in addition to the usual ones or in their place.
        metric: the metric of the ranking.
        fields: of the SweepRecord.
    """
    full = {
        "method": "random",
        "metric": {"name": metric.name, "goal": metric.goal},
        "parameters": PARAMETERS,
        **(config or {}),
    }
    records = tuple(_record(f"run{index:04d}", run, metric) for index, run in enumerate(runs))
    diagnoses = {
        record.run_id: classify(EVIDENCE[run.cause])
        if run.cause in EVIDENCE
        else Diagnosis(run.cause, "certain", "simulated")
        for record, run in zip(records, runs, strict=True)
    }
    record = SweepRecord(
        sweep_id="simulated", entity="local", project="simulated", config=full, state="FINISHED", metric=metric,
        runs=records, read_at=START, **fields,
    )  # fmt: skip
    return rank_runs(record, diagnoses)


def _record(run_id: str, run: Simulated, metric: Metric) -> RunRecord:
    rows = np.arange(len(run.values))
    return RunWithHistory(
        run_id=run_id,
        name=run_id,
        state="finished" if run.cause is Cause.COMPLETED else "crashed",
        config=run.config,
        summary=run.summary,
        points=tuple(Point(value, epoch=float(epoch)) for epoch, value in enumerate(run.values, start=1)),
        history=History(
            len(rows), {metric.name: Column(rows, np.array(run.values)), "epoch": Column(rows, rows + 1.0)}
        ),
        host=run.host,
    )
