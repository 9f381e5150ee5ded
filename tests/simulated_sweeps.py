"""Sweeps with a known truth: what the statistics and the rules are calibrated on.

Runs are curves that rise and flatten, plus an offset of the run (its seed) and epoch noise; they crash at random
epochs, Hyperband stops them as it would, some are cancelled. Nothing depends on the configuration unless planted.
Records are built as they are read from a server; ends are given, for how ends are concluded is tested elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np

from amc_analysis.findings import Findings, early_stops, failure_rate, searched_parameters
from amc_analysis.history import Column, History
from amc_analysis.ranking import rank
from amc_analysis.runs import Metric, Point, RunRecord, SweepRecord
from amc_sweeps.causes import Cause, Verdict

METRIC = Metric("val/combined_acc", "maximize")
START = datetime(2026, 1, 1, tzinfo=UTC)
EPOCHS = 30
TOP, RISE_EPOCHS = 0.5, 4.0
RUN_SD, EPOCH_SD = 0.02, 0.01
HYPERBAND = {"type": "hyperband", "min_iter": 5, "eta": 3, "strict": True}
BANDS = (5, 15)

PARAMETERS: Mapping[str, Mapping[str, Any]] = {
    "max_lr": {"distribution": "log_uniform_values", "min": 1.0e-5, "max": 1.0e-2},
    "dropout": {"values": [0.1, 0.2, 0.3, 0.4, 0.5]},
    "snr_layer": {"values": ["standard", "bottleneck_64", "bottleneck_128"]},
    "curriculum": {"values": [True, False]},
}
# The same in every run: what makes runs comparable.
SHARED = {
    "label_set": "digital17", "snr_min_db": 0, "snr_max_db": 30, "split_fingerprint": "s1", "epochs": EPOCHS,
    "split": [0.8, 0.1, 0.1], "n_train": 891_289, "n_val": 111_411, "n_test": 111_412, "select_by": "combined_acc",
}  # fmt: skip


@dataclass
class Simulated:
    """One run before it is a record; plants change it."""

    config: dict[str, Any]
    values: list[float]  # one an epoch
    cause: Cause
    host: str
    summary: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Setting:
    """What befalls the runs of one sweep."""

    n: int
    crash: float  # probability that a run crashes, at a random epoch
    hyperband: bool
    cancel: float  # probability that a run is cut short by a cancellation
    top_shift: Callable[[Mapping[str, Any]], float] = lambda _config: 0.0  # the planted effect, in the metric's unit


def random_setting(rng: np.random.Generator) -> Setting:
    """Draw what befalls a sweep: 8 to 60 runs, with and without crashes, early stops and cancellations."""
    return Setting(
        n=int(rng.integers(8, 61)),
        crash=float(rng.choice([0.0, 0.15, 0.4])),
        hyperband=bool(rng.integers(2)),
        cancel=float(rng.choice([0.0, 0.0, 0.15])),
    )


def draw_config(rng: np.random.Generator) -> dict[str, Any]:
    """Draw one configuration, every parameter by itself."""
    config: dict[str, Any] = {"max_lr": float(10 ** rng.uniform(-5, -2))}
    for name in ("dropout", "snr_layer", "curriculum"):
        values = PARAMETERS[name]["values"]
        config[name] = values[int(rng.integers(len(values)))]
    return config


def curve(rng: np.random.Generator, top: float = TOP) -> np.ndarray:
    """Draw the values of one run, one an epoch."""
    epochs = np.arange(1, EPOCHS + 1)
    rise = 1 - np.exp(-epochs / RISE_EPOCHS)
    return top * rise + rng.normal(0, RUN_SD) + rng.normal(0, EPOCH_SD, EPOCHS)


def simulate(setting: Setting, rng: np.random.Generator) -> list[Simulated]:
    """Draw the runs of one sweep, one after the other."""
    runs: list[Simulated] = []
    reached: dict[int, list[float]] = {band: [] for band in BANDS}
    for _ in range(setting.n):
        config = draw_config(rng)
        values = curve(rng, TOP + setting.top_shift(config))
        end, cause = EPOCHS, Cause.COMPLETED
        if rng.random() < setting.crash:
            end, cause = int(rng.integers(1, EPOCHS)), Cause.LOST
        elif rng.random() < setting.cancel:
            end, cause = int(rng.integers(1, EPOCHS)), Cause.CANCELLED
        for band in BANDS if setting.hyperband else ():
            if band >= end:
                break
            reached[band].append(values[band - 1])
            others = sorted(reached[band], reverse=True)
            if values[band - 1] < others[int(len(others) / 3)]:
                end, cause = band, Cause.EARLY_STOPPED
        runs.append(Simulated({**SHARED, **config}, values[:end].tolist(), cause, f"gpu-{rng.integers(4)}"))
    for run in runs:
        _evaluate(run, rng)
    return runs


def _evaluate(run: Simulated, rng: np.random.Generator) -> None:
    """Add what a run says of its checkpoint and of its test: the checkpoint is the peak's, test is like validation."""
    best = int(np.argmax(run.values))
    run.summary["checkpoint_epoch"] = best + 1
    if run.cause is Cause.COMPLETED:
        n_test = int(run.config["n_test"])
        # What the validation value says of the true rate, and what a test sample says of it.
        n_val = int(run.config["n_val"])
        truth = run.values[best] + rng.normal(0, (run.values[best] * (1 - run.values[best]) / n_val) ** 0.5)
        run.summary["test/combined_acc"] = float(rng.binomial(n_test, min(max(truth, 0), 1)) / n_test)


def findings_of(runs: Sequence[Simulated], config: Mapping[str, Any] | None = None, **sweep: Any) -> Findings:
    """Return the findings of simulated runs; their ends are taken as concluded."""
    records, verdicts = [], {}
    for index, run in enumerate(runs):
        run_id = f"run{index:04d}"
        records.append(_record(run_id, run))
        verdicts[run_id] = Verdict(run.cause, "certain", "simulated")
    full = {
        "method": "random",
        "metric": {"name": METRIC.name, "goal": METRIC.goal},
        "parameters": PARAMETERS,
        **(config or {}),
    }
    record = SweepRecord(
        sweep_id="sim", entity="local", project="sim", config=full, state="FINISHED", metric=METRIC,
        runs=tuple(records), read_at=START, **sweep,
    )  # fmt: skip
    ranked = rank(record.runs, verdicts, METRIC)
    return Findings(
        sweep=record, ranked=ranked, failure_rate=failure_rate(ranked), early_stops=early_stops(ranked),
        parameters=searched_parameters(full),
    )  # fmt: skip


def _record(run_id: str, run: Simulated) -> RunRecord:
    rows = np.arange(len(run.values))
    columns = {METRIC.name: Column(rows, np.array(run.values)), "epoch": Column(rows, rows + 1.0)}
    return RunRecord(
        run_id=run_id,
        name=run_id,
        state="finished" if run.cause is Cause.COMPLETED else "crashed",
        config=run.config,
        summary=run.summary,
        points=tuple(Point(value, epoch=float(epoch)) for epoch, value in enumerate(run.values, start=1)),
        history=History(len(rows), columns),
        host=run.host,
    )
