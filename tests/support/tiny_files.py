"""Small real files and configurations that several tests train on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from amc_core.config import TrialConfig
from amc_core.modulations import CLASSES, DIGITAL17
from amc_core.synthesis.file import write_file

DIGITAL_NAMES = [CLASSES[column] for column in DIGITAL17]


def synthetic_file(folder: Path, *, levels_db: tuple[int, ...] = (0, 20), frames_per_cell: int = 10) -> Path:
    """Write the 17 digital classes at a few levels."""
    path = folder / "frames.hdf5"
    write_file(path, modulations=DIGITAL_NAMES, levels_db=levels_db, frames_per_cell=frames_per_cell, seed=0)
    return path


def raw_file(path: Path, **replacements: Any) -> Path:
    """Write four rows of noise with valid labels; datasets may be replaced, or left out with None."""
    rng = np.random.default_rng(0)
    datasets: dict[str, Any] = {
        "X": rng.normal(size=(4, 1024, 2)).astype(np.float32),
        "Y": np.eye(24, dtype=np.int64)[[3, 4, 4, 23]],
        "Z": np.array([[0], [2], [0], [2]], dtype=np.int64),
    }
    datasets |= replacements
    with h5py.File(path, "w") as file:
        for name, content in datasets.items():
            if content is not None:
                file[name] = content
    return path


def tiny_trial(data: Path, **changes: Any) -> TrialConfig:
    """Return a configuration with very short epochs."""
    values: dict[str, Any] = {
        "data": str(data),
        "image_size": 32,
        "model_type": "test_vit",
        "batch_size": 64,
        "epochs": 2,
        "epochs_per_cycle": 2,
        "base_lr": 1.0e-5,
        "max_lr": 1.0e-3,
        "dropout": 0.1,
    }
    return TrialConfig.from_mapping(values | changes)


class Memory:
    """Stores the reports of a trial."""

    def __init__(self) -> None:
        self.facts: dict[str, Any] = {}
        self.history: list[Mapping[str, float]] = []
        self.last: dict[str, Any] = {}

    def config(self, facts: Mapping[str, Any]) -> None:
        """Store facts about the whole run."""
        self.facts.update(facts)

    def log(self, metrics: Mapping[str, float]) -> None:
        """Store the metrics of an epoch."""
        self.history.append(metrics)

    def summary(self, facts: Mapping[str, Any]) -> None:
        """Store facts of the end of the run."""
        self.last.update(facts)


def without_time(history: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """Return the rows without times, which differ between any two runs."""
    return [{name: value for name, value in row.items() if not name.startswith("throughput/")} for row in history]
