"""Evaluations of runs that were trained on other machines: from W&B, where trials put them up, or as they were kept.

They are asked for side by side, of a few runs only. What cannot be had in time is no picture, and no error.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from amc_analysis.reading.cache import Cache
from amc_analysis.reading.sources import FileSource
from amc_analysis.runs.confusion import Confusion, confusion_of, peak_epoch
from amc_core.training.evaluation_files import BEST_FILE, epoch_file
from amc_sweeps.runs.ranking import RankedRun
from amc_sweeps.runs.records import SweepRecord

TIME_LIMIT_S = 120.0  # for all of them


def fetch(
    files: Callable[[], FileSource],
    cache_file: Path | None,
    record: SweepRecord,
    wanted: Sequence[RankedRun],
    *,
    tell: Callable[[str], None] = lambda _text: None,
    limit_s: float = TIME_LIMIT_S,
) -> dict[str, Confusion]:
    """Return what some runs confuse, by their id, as far as it can be had.

    Args:
        files: gives the place to ask; called only where something has to be asked for.
        cache_file: what is known before and what to add to. A kept evaluation of the very peak is not asked for again.
        record: where the runs belong.
        wanted: the runs; of each the evaluation of its peak, else the one of its best ``val/combined_acc``.
        tell: told in a sentence what is read, and what could not be.
        limit_s: seconds after which no answer is waited for any more.
    """
    project = f"{record.entity}/{record.project}"
    known = {} if cache_file is None else _kept([cache_file], project, wanted)
    lacking = [entry for entry in wanted if not _is_of_peak(known.get(entry.run.run_id), entry, record.metric.name)]
    if not lacking:
        return _confusions(known)
    tell(f"reading the evaluations of {len(lacking)} {'run' if len(lacking) == 1 else 'runs'}")
    source = files()
    read, errors = _side_by_side(
        {entry.run.run_id: partial(source.file, project, entry.run.run_id, _names(entry)) for entry in lacking}, limit_s
    )
    if errors:
        tell(f"the confusion of {', '.join(sorted(errors))} could not be read: {next(iter(errors.values()))}")
    found = _confusions(read)
    if cache_file is not None:
        _keep(cache_file, project, {run_id: read[run_id] for run_id in found})
    stays = {run_id: text for run_id, text in known.items() if run_id not in read}
    return _confusions(stays) | found


def kept(cache_files: Iterable[Path], record: SweepRecord, wanted: Sequence[RankedRun]) -> dict[str, Confusion]:
    """Return what some runs confuse, by their id, as it was read before."""
    return _confusions(_kept(cache_files, f"{record.entity}/{record.project}", wanted))


def _confusions(texts: Mapping[str, bytes]) -> dict[str, Confusion]:
    read = {run_id: confusion_of(run_id, text) for run_id, text in texts.items()}
    return {run_id: one for run_id, one in read.items() if one is not None}


def _names(entry: RankedRun) -> tuple[str, ...]:
    """Return what the file may be called: a trial that has ended put up the epoch's own, too, under its number."""
    epoch = peak_epoch(entry)
    return (BEST_FILE,) if epoch is None else (epoch_file(epoch), BEST_FILE)


def _is_of_peak(text: bytes | None, entry: RankedRun, metric: str) -> bool:
    """Tell whether an evaluation is of a run's peak: what is in it says the same as the history."""
    try:
        facts: Any = json.loads(text or b"null")
    except ValueError:
        return False
    if not isinstance(facts, Mapping) or entry.peak is None:
        return False
    return bool(facts.get("epoch") == entry.peak_epoch and facts.get(metric) == entry.peak)


def _kept(cache_files: Iterable[Path], project: str, wanted: Sequence[RankedRun]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for path in cache_files:
        with contextlib.suppress(OSError, sqlite3.Error), Cache(path) as cache:
            for entry in wanted:
                text = cache.evaluation(project, entry.run.run_id)
                if text is not None:
                    found.setdefault(entry.run.run_id, text)
    return found


def _keep(cache_file: Path, project: str, texts: Mapping[str, bytes]) -> None:
    with contextlib.suppress(OSError, sqlite3.Error), Cache(cache_file) as cache:  # else they are asked for again
        for run_id, text in texts.items():
            cache.keep_evaluation(project, run_id, text)


def _side_by_side(
    reads: Mapping[str, Callable[[], bytes | None]], limit_s: float
) -> tuple[dict[str, bytes], dict[str, str]]:
    """Call all at once; return by name what came back, and why something did not.

    In threads that the process does not wait for at its end: a server that stays silent holds nobody up.
    """
    answers: dict[str, bytes | None] = {}
    errors: dict[str, str] = {}

    def call(name: str, read: Callable[[], bytes | None]) -> None:
        try:
            answers[name] = read()
        except Exception as error:  # noqa: BLE001 - whatever a server or the client has to say about a picture
            errors[name] = f"{type(error).__name__}: {error}"

    threads = [threading.Thread(target=call, args=item, daemon=True) for item in reads.items()]
    for thread in threads:
        thread.start()
    until = time.monotonic() + limit_s
    for thread in threads:
        thread.join(max(until - time.monotonic(), 0.0))
    answered, failed = dict(answers), dict(errors)  # a late thread may still write
    late = {name: f"no answer within {limit_s:g} s" for name in reads if name not in answered and name not in failed}
    return {name: text for name, text in answered.items() if text is not None}, failed | late
