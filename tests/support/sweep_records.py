"""Small records of runs and sweeps, as amc_analysis reads them from a server."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from amc_analysis.runs.history import History
from amc_analysis.runs.records import RunWithHistory
from amc_sweeps.runs.records import Metric, Point, RunRecord, SweepRecord

START = datetime(2025, 7, 1, 12, tzinfo=UTC)
MAXIMISE = Metric("val/combined_acc", "maximize")


def points(
    values: Sequence[float], *, named: bool = True, start_s: float = 0, apart_s: float = 60
) -> tuple[Point, ...]:
    """Return one point an epoch, ``apart_s`` seconds apart."""
    begin = START.timestamp() + start_s
    return tuple(
        Point(value, epoch=float(count) if named else None, step=count - 1, time_s=begin + count * 60)
        for count, value in enumerate(values, start=1)
    )


def run(run_id: str, values: Sequence[float] = (), state: str = "finished", **fields: Any) -> RunRecord:
    """Return a run with its last heartbeat at its last point."""
    named = fields.pop("named", True)
    start_s = fields.pop("start_s", 0.0)
    fields.setdefault("points", points(values, named=named, start_s=start_s))
    fields.setdefault("created_at", START)
    fields.setdefault("heartbeat_at", START + timedelta(seconds=start_s + 60 * len(values)))
    return RunWithHistory(run_id=run_id, name=fields.pop("name", run_id), state=state, **fields)


def completed(run_id: str, values: Sequence[float], **fields: Any) -> RunRecord:
    """Return a run whose end reason is completed."""
    return run(run_id, values, exit_code=0, summary={"end_reason": "completed"}, **fields)


def sweep(*runs: RunRecord, config: Mapping[str, Any] | None = None, **fields: Any) -> SweepRecord:
    """Return a sweep that was read an hour after its start."""
    fields.setdefault("state", "RUNNING")
    fields.setdefault("metric", MAXIMISE)
    fields.setdefault("read_at", START + timedelta(hours=1))
    fields.setdefault("name", "a sweep")
    return SweepRecord(
        sweep_id="94fqx0gz", entity="local", project="amc-sweeps", config=config or {}, runs=tuple(runs), **fields
    )


STORY_CONFIG = {
    "method": "bayes",
    "program": "amc-train",
    "metric": {"name": "val/combined_acc", "goal": "maximize"},
    "early_terminate": {"type": "hyperband", "min_iter": 3, "eta": 3, "strict": True},
    "parameters": {
        "max_lr": {"min": 1e-4, "max": 1e-2, "distribution": "log_uniform_values"},
        "snr_layer": {"values": ["standard", "bottleneck_64"]},
        "curriculum": {"value": True},
        "optimizer": {"parameters": {"beta": {"values": [0.9, 0.99]}}},
    },
}


def configured(max_lr: float) -> dict[str, object]:
    """Return a configuration of that sweep."""
    return {"max_lr": max_lr, "snr_layer": "standard", "curriculum": True, "optimizer": {"beta": 0.9}, "epochs": 20}


def story() -> SweepRecord:
    """Return a sweep with a lost gem, two ended well, an early stop, a divergence, one out of memory, one running."""
    return sweep(
        completed("whole", [0.02 * e for e in range(1, 21)], config=configured(1e-3), stop_recorded=False),
        run("gem", [0.05 * e for e in range(1, 11)], "crashed", config=configured(2e-3), stop_recorded=False),
        run("patient", [0.3, 0.2], summary={"end_reason": "patience"}, config=configured(3e-3), stop_recorded=False),
        run("poor", [0.001] * 3, "killed", config=configured(4e-3), stop_recorded=True),
        run("nan", [0.03, math.nan], "failed", exit_code=80, config=configured(9e-3), stop_recorded=False),
        run("memory", state="failed", exit_code=1, log_tail="CUDA out of memory", stop_recorded=False),
        run("alive", [0.1] * 59, "running", config=configured(5e-3), stop_recorded=False),
        config=STORY_CONFIG,
    )


def amc_sweep() -> SweepRecord:
    """Return three runs with the metrics of modulation classification; the best one is called best."""
    runs = []
    for number, name in enumerate(("best", "second", "third")):
        rows = []
        for epoch in range(1, 9):
            value = 0.05 * epoch - 0.02 * number
            rows.append(
                {"epoch": epoch, "lr": 1e-3, "val/combined_acc": value, "weight/mod": 0.5, "weight/snr": 0.5}
                | {"f1/mod/QPSK": value, "f1/mod/BPSK": value + 0.1, "f1/family/PSK": value, "attractor/share": 0.2}
                | {
                    "attractor/snr_db": 26,
                    "f1/snr/0": value,
                    "f1/snr/10": value,
                    "acc/snr/0": value,
                    "acc/snr/10": value,
                }
            )
        history = History.from_rows(rows)
        runs.append(completed(name, [row["val/combined_acc"] for row in rows], history=history))
    return sweep(*runs, config=STORY_CONFIG)
