"""Confusion matrices, which a trial keeps as files beside its checkpoints: W&B's history holds numbers only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amc_analysis.ranking import RankedRun

MOST_RUNS = 6


@dataclass(frozen=True)
class Matrix:
    """Frames by truth (rows) and guess (columns)."""

    names: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Confusion:
    """What one run confuses in one epoch of its validation."""

    run_id: str
    epoch: int
    modulation: Matrix
    snr: Matrix  # names in dB


def read_confusions(folder: Path, ranked: Sequence[RankedRun]) -> tuple[Confusion, ...]:
    """Read the evaluations of the best runs' peak epochs, as far as they lie under ``FOLDER/RUN_ID/evaluation``."""
    found: list[Confusion] = []
    for entry in ranked:
        if entry.peak_epoch is None or len(found) == MOST_RUNS:
            continue
        epoch = int(entry.peak_epoch)
        path = folder / entry.run.run_id / "evaluation" / f"epoch_{epoch:04d}.json"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            found.append(
                Confusion(
                    run_id=entry.run.run_id,
                    epoch=epoch,
                    modulation=_matrix(content["modulations"], content["modulation_confusion"]),
                    snr=_matrix(content["snr_levels_db"], content["snr_confusion"]),
                )
            )
        except (OSError, ValueError, KeyError, TypeError):
            continue  # of another machine, or of another program: there is no picture of it then
    return tuple(found)


def _matrix(names: Sequence[Any], rows: Sequence[Sequence[int]]) -> Matrix:
    counts = tuple(tuple(int(count) for count in row) for row in rows)
    if any(len(row) != len(names) for row in counts) or len(counts) != len(names):
        raise ValueError("a confusion matrix is square")
    return Matrix(tuple(str(name) for name in names), counts)
