"""Confusion matrices of runs that were trained on other machines: from the evaluations on W&B, or from the cache.

A few runs are read in parallel, within a time limit. A run whose evaluation does not arrive gets no matrix; the report
is written without it.
"""

from __future__ import annotations

import contextlib
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
from amc_sweeps.bounded_texts import read_json
from amc_sweeps.number_formats import counted
from amc_sweeps.runs.ranked_run import RankedRun
from amc_sweeps.runs.records import SweepRecord

TIME_LIMIT_S = 120.0  # for all runs together


def fetch_confusions(
    files: Callable[[], FileSource],
    cache_file: Path | None,
    record: SweepRecord,
    runs: Sequence[RankedRun],
    *,
    report: Callable[[str], None] = lambda _text: None,
    limit_s: float = TIME_LIMIT_S,
) -> dict[str, Confusion]:
    """Return the confusion matrices of some runs by run id, as far as W&B or the cache has them.

    Args:
        files: returns the source of files; called only when something has to be read.
        cache_file: the cache, which is read first and gets what was read; None uses no cache.
        record: the record with the runs.
        runs: the runs. The evaluation of the peak is preferred to the one of the best ``val/combined_acc``, and is not
            read again once it is cached.
        report: called with a sentence about what is read, and about what could not be read.
        limit_s: the time limit.
    """
    project = f"{record.entity}/{record.project}"
    cached = {} if cache_file is None else _cached_texts([cache_file], project, runs)
    missing = [entry for entry in runs if not _is_of_peak(cached.get(entry.run.run_id), entry, record.metric.name)]
    if not missing:
        return _confusions(cached)
    report(f"reading the evaluations of {counted(len(missing), 'run')}")
    source = files()
    texts, errors = _call_in_parallel(
        {entry.run.run_id: partial(source.file, project, entry.run.run_id, _file_names(entry)) for entry in missing},
        limit_s,
    )
    if errors:
        report(f"the evaluations of {', '.join(sorted(errors))} could not be read: {next(iter(errors.values()))}")
    confusions = _confusions(texts)
    if cache_file is not None:
        with contextlib.suppress(OSError, sqlite3.Error), Cache(cache_file) as cache:  # else they are read again
            for run_id in confusions:
                cache.put_evaluation(project, run_id, texts[run_id])
    return _confusions({run_id: text for run_id, text in cached.items() if run_id not in texts}) | confusions


def cached_confusions(
    cache_files: Iterable[Path], record: SweepRecord, runs: Sequence[RankedRun]
) -> dict[str, Confusion]:
    """Return the confusion matrices of some runs by run id, as far as a cache has them."""
    return _confusions(_cached_texts(cache_files, f"{record.entity}/{record.project}", runs))


def _confusions(texts: Mapping[str, bytes]) -> dict[str, Confusion]:
    confusions = {run_id: confusion_of(run_id, text) for run_id, text in texts.items()}
    return {run_id: confusion for run_id, confusion in confusions.items() if confusion is not None}


def _file_names(entry: RankedRun) -> tuple[str, ...]:
    """Return the names to try: a trial that has ended also uploaded the evaluation of its peak under its epoch."""
    epoch = peak_epoch(entry)
    return (BEST_FILE,) if epoch is None else (epoch_file(epoch), BEST_FILE)


def _is_of_peak(text: bytes | None, entry: RankedRun, metric: str) -> bool:
    """Return whether an evaluation has the epoch and the value of the run's peak."""
    try:
        content: Any = read_json(text or b"null")
    except ValueError:
        return False
    if not isinstance(content, Mapping) or entry.peak is None:
        return False
    return bool(content.get("epoch") == entry.peak_epoch and content.get(metric) == entry.peak)


def _cached_texts(cache_files: Iterable[Path], project: str, runs: Sequence[RankedRun]) -> dict[str, bytes]:
    texts: dict[str, bytes] = {}
    for path in cache_files:
        with contextlib.suppress(OSError, sqlite3.Error), Cache(path) as cache:
            for entry in runs:
                text = cache.evaluation(project, entry.run.run_id)
                if text is not None:
                    texts.setdefault(entry.run.run_id, text)
    return texts


def _call_in_parallel(
    calls: Mapping[str, Callable[[], bytes | None]], limit_s: float
) -> tuple[dict[str, bytes], dict[str, str]]:
    """Call all functions at the same time; return the results and the reasons for failures, both by name.

    The threads are daemons: the process can exit while a server leaves a request unanswered.
    """
    results: dict[str, bytes | None] = {}
    errors: dict[str, str] = {}

    def call(name: str, function: Callable[[], bytes | None]) -> None:
        try:
            results[name] = function()
        except Exception as error:  # noqa: BLE001 - a missing picture must not end the report
            errors[name] = f"{type(error).__name__}: {error}"

    threads = [threading.Thread(target=call, args=item, daemon=True) for item in calls.items()]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + limit_s
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0.0))
    texts, failed = dict(results), dict(errors)  # a late thread may still write
    late = {name: f"no answer within {limit_s:g} s" for name in calls if name not in texts and name not in failed}
    return {name: text for name, text in texts.items() if text is not None}, failed | late
