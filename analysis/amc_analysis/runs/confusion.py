"""Confusion matrices, read from the evaluation files of a trial; W&B's history holds only numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from amc_core.training.evaluation_files import read_epoch
from amc_sweeps.bounded_texts import read_json
from amc_sweeps.runs.ranked_run import RankedRun
from amc_sweeps.runs.records import SweepRecord
from amc_sweeps.values import as_finite

MAX_RUNS = 6
MAX_CLASSES = 100  # of one matrix; a larger one cannot be read on a page


@dataclass(frozen=True)
class Matrix:
    """Numbers of frames by true class (rows) and predicted class (columns)."""

    names: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Confusion:
    """The confusion matrices of one run on its validation data after one epoch."""

    run_id: str
    epoch: int
    modulation: Matrix
    snr: Matrix  # names in dB


# Returns the matrices of some runs of a record by run id, of any epoch.
FetchConfusions = Callable[[SweepRecord, Sequence[RankedRun]], Mapping[str, Confusion]]


def read_confusions(
    folder: Path, record: SweepRecord, ranked: Sequence[RankedRun], fetch: FetchConfusions | None = None
) -> tuple[Confusion, ...]:
    """Return the confusion matrices of the best runs in their peak epochs, for at most MAX_RUNS runs.

    Args:
        folder: has the folders of this machine's runs, see ``amc_core.training.evaluation_files``.
        record: the record with the runs.
        ranked: the runs, best first.
        fetch: called for the best MAX_RUNS runs without an evaluation in ``folder``; None leaves them out.
    """
    with_peak = [entry for entry in ranked if peak_epoch(entry) is not None]
    local = {confusion.run_id: confusion for confusion in islice(_in_folder(folder, with_peak), MAX_RUNS)}
    missing = [entry for entry in with_peak[:MAX_RUNS] if entry.run.run_id not in local]
    confusions = local | dict(fetch(record, missing) if fetch is not None else {})
    return tuple(confusions[entry.run.run_id] for entry in with_peak if entry.run.run_id in confusions)[:MAX_RUNS]


def peak_epoch(entry: RankedRun) -> int | None:
    """Return the epoch of a run's peak; None where it is unknown."""
    epoch = as_finite(entry.peak_epoch)
    return None if epoch is None else int(epoch)


def confusion_of(run_id: str, text: bytes, epoch: int | None = None) -> Confusion | None:
    """Return the matrices of an evaluation file; None where it is another kind of file.

    Args:
        run_id: its run.
        text: JSON, see ``amc_core.training.evaluation``.
        epoch: its epoch; None takes the one in the text.
    """
    try:
        content = read_json(text)
        return Confusion(
            run_id=run_id,
            epoch=int(content["epoch"]) if epoch is None else epoch,
            modulation=_matrix(content["modulations"], content["modulation_confusion"]),
            snr=_matrix(content["snr_levels_db"], content["snr_confusion"]),
        )
    except (ValueError, KeyError, TypeError, OverflowError):
        return None  # another program wrote it


def _in_folder(folder: Path, with_peak: Sequence[RankedRun]) -> Iterator[Confusion]:
    for entry in with_peak:
        epoch = peak_epoch(entry)
        assert epoch is not None
        try:
            text = read_epoch(folder / entry.run.run_id, epoch)
        except ValueError:  # no path can be made of the run's id
            continue
        # Without a text the run was on another machine.
        if text is not None and (confusion := confusion_of(entry.run.run_id, text, epoch)) is not None:
            yield confusion


def _matrix(names: Sequence[Any], rows: Sequence[Sequence[int]]) -> Matrix:
    counts = tuple(tuple(int(count) for count in row) for row in rows)
    if any(len(row) != len(names) for row in counts) or len(counts) != len(names):
        raise ValueError("the matrix is not square")
    if len(names) > MAX_CLASSES or any(count < 0 for row in counts for count in row):
        raise ValueError(f"the matrix has more than {MAX_CLASSES} classes, or a negative count")
    return Matrix(tuple(str(name) for name in names), counts)
