"""A sweep of 40 runs for the pictures: made up, the same every time, and written straight into a data folder."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stored_sweeps import StoredRun, store_sweep

from amc_core.modulations import class_names
from amc_server.ids import global_id
from amc_server.store.records import Line
from amc_server.store.storage import Storage

CONFIG = """
program: amc-train
name: resnets on constellations
method: bayes
metric: {name: val/combined_acc, goal: maximize}
early_terminate: {type: hyperband, min_iter: 5, eta: 3}
parameters:
  max_lr: {distribution: log_uniform_values, min: 0.0001, max: 0.1}
  dropout: {min: 0.0, max: 0.5}
  batch_size: {values: [128, 256, 512]}
  model_type: {values: [resnet18, resnet50, vit_small_patch16_224]}
  epochs: {value: 40}
"""
METRIC = "val/combined_acc"
EPOCHS, RUNS, RUNNING = 40, 40, 3
HOSTS = ("gpu-a", "gpu-b", "gpu-c")
LEVELS_DB = range(-20, 31, 2)
OUT_OF_MEMORY = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"


def store_demo_sweep(data: Path) -> tuple[str, StoredRun, dict[str, str]]:
    """Write the sweep into a data folder; return its id, the run whose page is shown, and the living runs by agent."""
    runs = _runs()
    sweep_id = store_sweep(data, runs, CONFIG)
    best = max((run for run in runs if run.state == "finished"), key=lambda run: max(run.values))
    now = time.time()
    at_work = {}
    storage = Storage(data)
    with storage.write() as store:
        sweep = store.sweep_by_id(sweep_id)
        assert sweep is not None
        store.update("sweeps", sweep.pk, display_name="resnets on constellations")
        agents = [
            store.insert("agents", sweep=sweep.pk, name=f"agent-{number}", host=host, created_at=now, heartbeat_at=now)
            for number, host in enumerate(HOSTS, 1)
        ]
        for run in store.runs_of_sweep(sweep.pk):
            agent = agents[HOSTS.index(run.host or "")]
            alive = {"heartbeat_at": now} if run.state.is_alive else {}
            store.update("runs", run.pk, agent=agent, **alive)
            if alive:
                at_work[global_id("Agent", agent)] = run.id
            if run.id == best.id:
                rows = _rows(best.values)
                store.put_history(run.pk, [Line(step, json.dumps(row), step) for step, row in enumerate(rows)])
                load = [{"_runtime": 60 * step, "system.gpu.0.gpu": 88 + 9 * math.sin(step)} for step in range(EPOCHS)]
                store.put_lines("events", run.pk, [Line(step, json.dumps(row)) for step, row in enumerate(load)])
                lines = [_log_line(row) for row in rows]
                store.put_lines("console", run.pk, [Line(number, line) for number, line in enumerate(lines)])
                store.update("runs", run.pk, event_lines=len(load), console_lines=len(lines))
    storage.close()
    return sweep_id, best, at_work


def evaluation(values: Sequence[float]) -> dict[str, Any]:
    """Return what a trial writes of its best epoch, for a run with these values of the metric."""
    names = class_names("digital17")
    random_ = random.Random(2)
    by_snr, snr_confusion, modulation_confusion = [], [], [[0.0] * len(names) for _ in names]
    for level in LEVELS_DB:
        right = 1 / (1 + math.exp(-(level - 1.5) / 3.6))
        mod_acc = 0.06 + 0.92 * right
        snr_acc = 0.25 + 0.7 / (1 + math.exp(-(level + 6) / 3))
        by_snr.append({"snr_db": level, "mod_acc": mod_acc, "combined_acc": mod_acc * snr_acc})
        near = {other: math.exp(-abs(other - level) / (0.6 + 2.5 * (1 - snr_acc))) for other in LEVELS_DB}
        snr_confusion.append([1000 * share / sum(near.values()) for share in near.values()])
        for true, row in enumerate(modulation_confusion):
            for guess in range(len(names)):
                wrong = math.exp(-abs(guess - true) / 2) * random_.uniform(0.5, 1) * (1 - mod_acc)
                row[guess] += mod_acc if guess == true else wrong / 3
    return {
        "epoch": values.index(max(values)) + 1,
        "modulations": names,
        "modulation_confusion": modulation_confusion,
        "snr_levels_db": list(LEVELS_DB),
        "snr_confusion": snr_confusion,
        "by_snr": by_snr,
    }


def _runs() -> list[StoredRun]:
    random_ = random.Random(7)
    runs = []
    for place in range(RUNS):
        parameters: dict[str, Any] = {
            "max_lr": 10 ** random_.uniform(-4, -1),
            "dropout": random_.uniform(0, 0.5),
            "batch_size": random_.choice([128, 256, 512]),
            "model_type": random_.choice(["resnet18", "resnet50", "vit_small_patch16_224"]),
            "epochs": EPOCHS,
        }
        top = (
            0.52 - 0.08 * abs(math.log10(parameters["max_lr"]) + 2.5) + 0.02 * (parameters["model_type"] == "resnet50")
        )
        top += random_.gauss(0, 0.012) - 0.06 * abs(parameters["dropout"] - 0.2)
        curve = [top * (1 - 0.9 * math.exp(-(epoch + 1) / 7)) + random_.gauss(0, 0.005) for epoch in range(EPOCHS)]
        common: dict[str, Any] = {"parameters": parameters, "host": HOSTS[place % len(HOSTS)]}
        stopped = {"state": "killed", "exit_code": 255, "stop_reason": "hyperband"}
        run_id = f"{random_.getrandbits(32):08x}"
        is_heavy = parameters["batch_size"] == 512 and parameters["model_type"] != "resnet18"
        if place >= RUNS - RUNNING:
            run = StoredRun(run_id, curve[: 9 + 8 * (RUNS - place)], "running", None, **common)
        elif is_heavy and common["host"] == "gpu-c":
            run = StoredRun(run_id, curve[: place % 3], "failed", 1, log=["epoch 1", OUT_OF_MEMORY], **common)
        elif place == 22:
            parameters |= {"max_lr": 0.0031, "dropout": 0.17, "model_type": "resnet50", "batch_size": 256}
            best = [0.565 * (1 - 0.9 * math.exp(-(epoch + 1) / 7)) for epoch in range(31)]
            run = StoredRun(run_id, best, "crashed", None, log=["epoch 31 of 40"], **common)
        elif top < 0.42:
            run = StoredRun(run_id, curve[:5], **stopped, **common)
        elif top < 0.47:
            run = StoredRun(run_id, curve[:15], **stopped, **common)
        else:
            run = StoredRun(run_id, curve, summary={"end_reason": "completed"}, **common)
        runs.append(run)
    return runs


def _rows(values: Sequence[float]) -> list[dict[str, float]]:
    random_ = random.Random(3)
    return [
        {
            "epoch": step + 1,
            "lr": 0.003 * (1 + math.cos(math.pi * step / EPOCHS)) / 2,
            "train/loss": 3.1 * math.exp(-step / 12) + 1.1 + random_.gauss(0, 0.02),
            "val/loss": 2.9 * math.exp(-step / 12) + 1.3 + random_.gauss(0, 0.03),
            "train/combined_acc": value * 1.04,
            METRIC: value,
            "val/mod_acc": min(0.68, value * 1.22),
            "val/snr_acc": min(0.9, value * 1.5),
            "throughput/frames_per_s": 21_400 + random_.gauss(0, 150),
        }
        for step, value in enumerate(values)
    ]


def _log_line(row: dict[str, float]) -> str:
    return (
        f"2026-01-01T00:00:00.0 epoch {row['epoch']:.0f} of {EPOCHS}: train/loss {row['train/loss']:.3f}, "
        f"val/loss {row['val/loss']:.3f}, {METRIC} {row[METRIC]:.2%}"
    )
