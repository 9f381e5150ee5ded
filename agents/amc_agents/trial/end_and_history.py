"""What a trial writes into its run's folder besides checkpoints: how it ended, and every row that it logged.

Both are written before W&B gets them, so that another process can report them if the trial cannot. This module imports
neither torch nor wandb.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amc_core.files import write_whole
from amc_sweeps.runs.causes import EXIT_CODES, EndReason
from amc_sweeps.values import is_number

END_FILE = "end.json"
HISTORY_FILE = "history.jsonl"  # one line per epoch, as it was logged

Row = Mapping[str, Any]


@dataclass(frozen=True)
class End:
    """The end that a trial reports."""

    reason: EndReason
    run: str | None  # ENTITY/PROJECT/ID; None without W&B
    at: float  # seconds since 1970, by this machine's clock


def write_end(folder: Path, reason: EndReason, *, run: str | None = None) -> None:
    """Write ``end.json`` in one step.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {"end_reason": str(reason), "exit_code": EXIT_CODES[reason], "ended_at": time.time()}
    if run is not None:
        content["run"] = run
    write_whole(folder / END_FILE, json.dumps(content))


def read_end(folder: Path) -> End | None:
    """Return how the last trial in this folder ended; None where it left no readable ``end.json``."""
    try:
        content = json.loads((folder / END_FILE).read_text(encoding="utf-8"))
        return End(EndReason(content["end_reason"]), content.get("run"), float(content["ended_at"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remove_end(folder: Path) -> None:
    """Remove the ``end.json`` of an earlier trial, if there is one."""
    (folder / END_FILE).unlink(missing_ok=True)


def append_row(folder: Path, row: Row) -> None:
    """Add one epoch to the folder's history."""
    with (folder / HISTORY_FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(dict(row)) + "\n")


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """Return the folder's history without lines that a crash cut off or a disk damaged."""
    try:
        lines = (folder / HISTORY_FILE).read_bytes().splitlines()
    except OSError:
        return []
    rows = []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and is_number(row.get("epoch")):
            rows.append(row)
    return rows


def truncate_rows(folder: Path, *, epochs: int, last: Row) -> list[dict[str, Any]]:
    """Cut the folder's history back to the epochs of a checkpoint, and return it.

    Args:
        folder: the run's.
        epochs: how many complete epochs the checkpoint has.
        last: the metrics of the last of these epochs, from the checkpoint; empty if there is none. After a crash the
            history may lack that epoch.
    """
    by_epoch = {int(row["epoch"]): row for row in read_rows(folder)}
    if last:
        by_epoch.setdefault(int(last["epoch"]), dict(last))
    rows = [by_epoch[epoch] for epoch in sorted(by_epoch) if epoch <= epochs]
    write_rows(folder, rows)
    return rows


def write_rows(folder: Path, rows: Sequence[Row]) -> None:
    """Replace the folder's history."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / HISTORY_FILE, "".join(json.dumps(dict(row)) + "\n" for row in rows))
