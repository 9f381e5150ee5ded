"""A trial's numbers as plain files, without W&B."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from amc_core.files import write_whole


class FileRecorder:
    """Write config.json, history.jsonl (one line per epoch) and summary.json.

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

    def log(self, metrics: Mapping[str, float]) -> None:
        """Append one epoch."""
        with (self.run_dir / "history.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(dict(metrics)) + "\n")
        self.summary(metrics)

    def summary(self, facts: Mapping[str, Any]) -> None:
        """Add values to the summary, or replace them."""
        self._summary.update(facts)
        _replace(self.run_dir / "summary.json", self._summary)


def _replace(path: Path, values: Mapping[str, Any]) -> None:
    write_whole(path, json.dumps(dict(values), indent=2) + "\n")
