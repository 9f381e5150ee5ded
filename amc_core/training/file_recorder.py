"""A trial's numbers as plain files, without W&B."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from amc_core.files import write_whole
from amc_sweeps.number_formats import counted


class FileRecorder:
    """Write config.json, history.jsonl (one line per epoch) and summary.json; print start and epochs on stderr.

    A reader never sees half a JSON value. A second trial in the same folder starts a new history.
    """

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self._config: dict[str, Any] = {}
        self._summary: dict[str, Any] = {}
        run_dir.mkdir(parents=True, exist_ok=True)
        (run_dir / "history.jsonl").write_text("", encoding="utf-8")

    def config(self, facts: Mapping[str, Any]) -> None:
        """Add facts that hold for the whole run."""
        self._config.update(facts)
        _replace(self.run_dir / "config.json", self._config)
        if "frames_in" in facts:
            sys.stderr.write(_start_line(facts) + "\n")

    def log(self, metrics: Mapping[str, float]) -> None:
        """Append one epoch."""
        with (self.run_dir / "history.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(dict(metrics)) + "\n")
        sys.stderr.write(_epoch_line(metrics) + "\n")
        sys.stderr.flush()
        self.summary(metrics)

    def summary(self, facts: Mapping[str, Any]) -> None:
        """Add values to the summary, or replace them."""
        self._summary.update(facts)
        _replace(self.run_dir / "summary.json", self._summary)


def _start_line(facts: Mapping[str, Any]) -> str:
    return (
        f"{facts['n_train']:,} / {facts['n_val']:,} / {facts['n_test']:,} frames (train / val / test) from "
        f"{facts['frames_in']}, {facts['n_parameters']:,} parameters, "
        f"{counted(facts['micro_batch_frames'], 'frame')} per forward pass, on {facts['device_name']}"
    )


def _epoch_line(metrics: Mapping[str, float]) -> str:
    names = ("train/combined_acc", "val/combined_acc", "val/mod_acc", "val/snr_acc")
    accuracies = "  ".join(f"{name} {metrics[name]:.2%}" for name in names)
    return f"epoch {metrics['epoch']:.0f}  lr {metrics['lr']:.2e}  val/loss {metrics['val/loss']:.4f}  {accuracies}"


def _replace(path: Path, values: Mapping[str, Any]) -> None:
    write_whole(path, json.dumps(dict(values), indent=2) + "\n")
