"""Sweeps that are written straight into a data folder, so that a thousand runs take a second."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from amc_server.store.records import ENTITY, Line
from amc_server.store.storage import Storage
from amc_server.store.writer import Writer

CONFIG = """
program: amc-train
method: random
metric: {name: val/combined_acc, goal: maximize}
early_terminate: {type: hyperband, min_iter: 3}
parameters:
  max_lr: {distribution: log_uniform_values, min: 0.0001, max: 0.1}
  dropout: {min: 0.0, max: 0.5}
  batch_size: {values: [128, 256, 512]}
  model_type: {values: [resnet18, resnet50, vit_small_patch16_224]}
  epochs: {value: 12}
"""
METRIC = "val/combined_acc"
NOW = 1_760_000_000.0


@dataclass(frozen=True)
class StoredRun:
    """A run as it lies in the database."""

    id: str
    values: Sequence[float] = ()  # of the metric, one an epoch
    state: str = "finished"
    exit_code: int | None = 0
    parameters: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    host: str = "box"
    stop_reason: str | None = None
    log: Sequence[str] = ()
    name: str | None = None


def store_sweep(folder: Path, runs: Sequence[StoredRun], config: str = CONFIG, *, state: str = "RUNNING") -> str:
    """Write a sweep into project ``p`` and return its id."""
    storage = Storage(folder)
    with storage.write() as store:
        project = store.project_or_new("p", NOW)
        sweep = store.insert(
            "sweeps",
            project=project.pk,
            id=f"sweep{len(runs):04}",
            state=state,
            config=config,
            seed=1,
            created_at=NOW,
            updated_at=NOW,
        )
        for place, run in enumerate(runs):
            _store_run(store, project.pk, sweep, place, run)
        sweep_id = store.sweep_by_key(sweep)
        assert sweep_id is not None
    storage.close()
    return sweep_id.id


def address_of(base_url: str, sweep: str) -> str:
    """Return the address of a sweep's page."""
    return f"{base_url}/{ENTITY}/p/sweeps/{sweep}"


def _store_run(store: Writer, project: int, sweep: int, place: int, run: StoredRun) -> None:
    rows = [{"_step": step, METRIC: value, "epoch": step + 1} for step, value in enumerate(run.values)]
    config = {"epochs": 12, **run.parameters}
    pk = store.insert(
        "runs",
        project=project,
        id=run.id,
        sweep=sweep,
        origin="search",
        number=place,
        parameters=json.dumps(run.parameters),
        state=run.state,
        exit_code=run.exit_code,
        started=1,
        config=json.dumps({name: {"value": value} for name, value in config.items()}),
        summary=json.dumps({"epoch": len(rows), "_runtime": 60 * len(rows), **run.summary}),
        display_name=run.name or f"calm-sweep-{place + 1}",
        host=run.host,
        stop_reason=run.stop_reason,
        history_lines=len(rows),
        console_lines=len(run.log),
        created_at=NOW + place,
        heartbeat_at=NOW + place + 60 * len(rows),
    )
    store.put_history(pk, [Line(step, json.dumps(row), step) for step, row in enumerate(rows)])
    points = [(step, value) for step, value in enumerate(run.values) if math.isfinite(value)]
    store.put_points(sweep, pk, 0, len(rows), points)
    store.put_lines("console", pk, [Line(number, line) for number, line in enumerate(run.log)])


def many_runs(count: int, epochs: int = 12, seed: int = 0) -> list[StoredRun]:
    """Return runs of which three in four ended well."""
    random_ = random.Random(seed)
    runs = []
    for place in range(count):
        parameters = {
            "max_lr": 10 ** random_.uniform(-4, -1),
            "dropout": random_.uniform(0, 0.5),
            "batch_size": random_.choice([128, 256, 512]),
            "model_type": random_.choice(["resnet18", "resnet50", "vit_small_patch16_224"]),
        }
        top = 0.55 - 0.06 * abs(math.log10(parameters["max_lr"]) + 2.3) + random_.gauss(0, 0.02)
        curve = [
            max(top * (1 - math.exp(-(epoch + 1) * 4 / epochs)) + random_.gauss(0, 0.006), 0) for epoch in range(epochs)
        ]
        kind = random_.random()
        host = f"gpu-{place % 4}"
        common: dict[str, Any] = {"parameters": parameters, "host": host}
        if kind < 0.75:
            runs.append(StoredRun(f"run{count}-{place}", curve, summary={"end_reason": "completed"}, **common))
        elif kind < 0.88:
            stop = {"state": "killed", "exit_code": 255, "stop_reason": "hyperband"}
            runs.append(StoredRun(f"run{count}-{place}", curve[:3], **stop, **common))
        else:
            log = ["epoch 1", "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"]
            ended = {"state": "failed", "exit_code": 1}
            runs.append(StoredRun(f"run{count}-{place}", curve[: place % 5], log=log, **ended, **common))
    return runs
