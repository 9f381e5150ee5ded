"""Confusion matrices, from the evaluations that a trial keeps as files: W&B's history holds numbers only."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from amc_core.training.evaluation_files import epoch_file
from amc_sweeps.runs.ranking import RankedRun

MOST_RUNS = 6
MOST_CLASSES = 100  # of one matrix, beyond which nothing can be seen


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


Elsewhere = Callable[[Sequence[RankedRun]], Mapping[str, Confusion]]  # by run id


def _nowhere(_lacking: Sequence[RankedRun]) -> Mapping[str, Confusion]:
    return {}


def read_confusions(
    folder: Path, ranked: Sequence[RankedRun], elsewhere: Elsewhere = _nowhere
) -> tuple[Confusion, ...]:
    """Return what the best runs confuse in their peak epochs, at most MOST_RUNS of them.

    Args:
        folder: where evaluations of this machine's runs lie, ``RUN_ID/evaluation/epoch_NNNN.json``.
        ranked: the runs, best first.
        elsewhere: asked for those of the best MOST_RUNS whose evaluation does not lie there; it may have another epoch.
    """
    peaked = [entry for entry in ranked if peak_epoch(entry) is not None]
    here = {one.run_id: one for one in islice(_in_folder(folder, peaked), MOST_RUNS)}
    found = here | dict(elsewhere([entry for entry in peaked[:MOST_RUNS] if entry.run.run_id not in here]))
    return tuple(found[entry.run.run_id] for entry in peaked if entry.run.run_id in found)[:MOST_RUNS]


def peak_epoch(entry: RankedRun) -> int | None:
    """Return the epoch of a run's peak; None where nobody knows it."""
    known = entry.peak_epoch is not None and math.isfinite(entry.peak_epoch)
    return int(entry.peak_epoch or 0) if known else None


def confusion_of(run_id: str, text: bytes, epoch: int | None = None) -> Confusion | None:
    """Read an evaluation; None where it is something else.

    Args:
        run_id: whose it is.
        text: JSON, see ``amc_core.training.evaluation``.
        epoch: where it is known already; else the evaluation says it.
    """
    try:
        content = json.loads(text)
        return Confusion(
            run_id=run_id,
            epoch=int(content["epoch"]) if epoch is None else epoch,
            modulation=_matrix(content["modulations"], content["modulation_confusion"]),
            snr=_matrix(content["snr_levels_db"], content["snr_confusion"]),
        )
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None  # of another program


def _in_folder(folder: Path, peaked: Sequence[RankedRun]) -> Iterator[Confusion]:
    for entry in peaked:
        epoch = peak_epoch(entry)
        assert epoch is not None
        try:
            text = (folder / entry.run.run_id / epoch_file(epoch)).read_bytes()
        except (OSError, ValueError):
            continue  # of another machine
        if (found := confusion_of(entry.run.run_id, text, epoch)) is not None:
            yield found


def _matrix(names: Sequence[Any], rows: Sequence[Sequence[int]]) -> Matrix:
    counts = tuple(tuple(int(count) for count in row) for row in rows)
    if any(len(row) != len(names) for row in counts) or len(counts) != len(names):
        raise ValueError("a confusion matrix is square")
    if len(names) > MOST_CLASSES or any(count < 0 for row in counts for count in row):
        raise ValueError("no counts of classes that can be told apart")
    return Matrix(tuple(str(name) for name in names), counts)
