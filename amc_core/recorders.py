"""Where a trial's numbers go when there is no W&B: plain files."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["FileRecorder"]


class FileRecorder:
    """Write config.json, history.jsonl (a line an epoch) and summary.json, and tell stderr of every epoch.

    The files are opened and replaced so that a reader never finds half a JSON value; a second trial in the same folder
    starts its history anew.
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

    def log(self, metrics: Mapping[str, float]) -> None:
        """Append one epoch."""
        with (self.run_dir / "history.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(dict(metrics)) + "\n")
        sys.stderr.write(_line(metrics) + "\n")
        sys.stderr.flush()
        self.summary(metrics)

    def summary(self, facts: Mapping[str, Any]) -> None:
        """Add or replace last values."""
        self._summary.update(facts)
        _replace(self.run_dir / "summary.json", self._summary)


def _line(metrics: Mapping[str, float]) -> str:
    shown = {name: metrics[name] for name in ("train/combined_acc", "val/combined_acc", "val/mod_acc", "val/snr_acc")}
    accuracies = "  ".join(f"{name} {value:.2%}" for name, value in shown.items())
    return f"epoch {metrics['epoch']:.0f}  lr {metrics['lr']:.2e}  val/loss {metrics['val/loss']:.4f}  {accuracies}"


def _replace(path: Path, values: Mapping[str, Any]) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(dict(values), indent=2) + "\n", encoding="utf-8")
    partial.replace(path)
