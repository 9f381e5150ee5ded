"""A sweep's record with whole histories: read from a source through the cache, or from the cache alone."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Literal

from amc_analysis.reading.cache import Cache
from amc_analysis.reading.sources import Progress, RunSource, Selection, SweepMetadata
from amc_analysis.runs.records import SweepUnreadableError, history_of, with_history, with_metric
from amc_core.config import current_value
from amc_sweeps.runs.claims import ClaimError, RecordedClaims, read_recorded
from amc_sweeps.runs.records import Metric, MetricError, RunRecord, SweepRecord, choose_metric
from amc_sweeps.values import as_number

PREFERRED_METRIC = "val/combined_acc"  # of runs without a sweep, where they log it


def _word(*words: str) -> re.Pattern[str]:
    return re.compile(rf"(?:^|[^a-z])(?:{'|'.join(words)})(?:$|[^a-z])", re.IGNORECASE)


_RISES = _word("acc", "accuracy", "f1", "auc", "map", "iou", "score", "reward", "precision", "recall", "r2")
_FALLS = _word("loss", "err", "error", "mae", "mse", "rmse", "nll", "perplexity")
_HELD_OUT = _word("val", "valid", "validation", "eval", "dev")
_TRAINING = _word("train", "training")
_TEST = _word("test")
_UNFIT = 9  # the preference of a metric that is not used for ranking


def read(
    source: RunSource,
    selection: Selection,
    *,
    cache: Cache | None = None,
    metric: str | None = None,
    goal: str | None = None,
    progress: Progress = lambda _runs, _total: None,
) -> SweepRecord:
    """Return the selected runs with the whole history of every one.

    Args:
        source: where the runs are.
        selection: which runs.
        cache: holds the rows that were read before, and gets the new ones; None reads everything.
        metric: another metric than the sweep's own.
        goal: ``minimize`` or ``maximize``, where it is not the sweep's own.
        progress: called with (runs read, runs in all) after every run.

    Raises:
        NotFoundError: when there is no such sweep or project.
        SweepUnreadableError: when the server does not answer.
        MetricError: see choose_metric and common_metric.
    """
    try:
        sweep, runs, read_at = _read_runs(source, selection, cache, progress, use_cached=True)
    except _StaleCacheError:
        sweep, runs, read_at = _read_runs(source, selection, cache, progress, use_cached=False)
    return assemble(sweep, runs, selection, metric=metric, goal=goal, read_at=read_at)


class _StaleCacheError(Exception):
    """A cached history is gone: another process changed it, or the file is damaged."""


def _read_runs(
    source: RunSource, selection: Selection, cache: Cache | None, progress: Progress, *, use_cached: bool
) -> tuple[SweepMetadata, list[RunRecord], datetime]:
    projects = cache.projects(selection) if cache is not None else []
    positions = cache.positions(projects[0]) if cache is not None and use_cached and len(projects) == 1 else {}
    reply = source.read(selection, positions)
    project = f"{reply.sweep.entity}/{reply.sweep.project}"
    runs: list[RunRecord] = []
    if cache is not None:
        cache.begin(selection, reply.sweep)
    progress(0, reply.run_count)
    with contextlib.closing(reply.updates):
        for update in reply.updates:
            history, run_id = update.rows, update.run.run_id
            if not update.is_whole:
                cached = cache.history(project, run_id, positions[run_id]) if cache is not None else None
                if cached is None:
                    raise _StaleCacheError
                history = cached.extended(update.rows)
            if cache is not None:
                cache.put(project, update, history)
            runs.append(with_history(update.run, history))
            progress(len(runs), reply.run_count)
    read_at = datetime.now(UTC)
    if cache is not None:
        cache.finish(selection, reply.sweep, [run.run_id for run in runs], read_at)
    return reply.sweep, runs, read_at


def read_offline(
    caches: Iterable[Cache], selection: Selection, *, metric: str | None = None, goal: str | None = None
) -> SweepRecord:
    """Return a selection as it was last read, from the cache that has it.

    Raises:
        SweepUnreadableError: when no cache has it, or more than one place fits the selection.
        MetricError: see choose_metric and common_metric.
    """
    places = [(cache, project) for cache in caches for project in cache.projects(selection, only_complete=True)]
    if len(places) > 1:
        lines = "\n".join(f"  {project}    {cache.path.name}" for cache, project in places)
        raise SweepUnreadableError(f"{selection.path} was read from several places; write ENTITY/PROJECT too:\n{lines}")
    cached = places[0][0].selection(places[0][1], selection) if places else None
    if cached is None:
        raise SweepUnreadableError(f"{selection.path} was never read on this machine: read it once without --offline")
    sweep, runs, read_at = cached
    return assemble(sweep, runs, selection, metric=metric, goal=goal, read_at=read_at)


def assemble(
    sweep: SweepMetadata,
    runs: Sequence[RunRecord],
    selection: Selection,
    *,
    metric: str | None,
    goal: str | None,
    read_at: datetime,
) -> SweepRecord:
    """Return the record of a sweep and its runs: with the metric, its points, and the claims in their texts.

    Raises:
        MetricError: see choose_metric and common_metric.
    """
    config = _config_with_current_words(sweep.config)
    updates = tuple(replace(update, config=_config_with_current_words(update.config)) for update in sweep.updates)
    kind: Literal["sweep", "project", "runs"] = "sweep"
    if selection.sweep_id is None:
        kind = "project" if selection.run_ids is None else "runs"
        ranked_by = common_metric(runs, metric, goal)
        config = {"metric": {"name": ranked_by.name, "goal": ranked_by.goal}}
    else:
        ranked_by = choose_metric(config, metric, goal)
    described = _recorded(sweep.description)
    texts = [described, *(_recorded(run.notes, run.run_id) for run in runs)]
    metadata = {
        **vars(sweep),
        "config": config,
        "updates": updates,
        "name": sweep.name or (sweep.project if kind == "project" else ""),
    }
    return SweepRecord(
        **metadata,
        metric=ranked_by,
        runs=tuple(with_metric(run, ranked_by.name, config=_with_current_words(run.config)) for run in runs),
        read_at=read_at,
        kind=kind,
        claims=tuple(claim for text in texts if text is not None for claim in text.claims),
        runs_total=described.runs_total if described else None,
    )


def _current_words(name: str, value: Any) -> Any:
    """Return a parameter's value, or the lists and mappings around its values, with renamed words replaced."""
    if isinstance(value, Mapping):
        return {key: _current_words(name, inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_current_words(name, item) for item in value]
    return current_value(name, value)


def _with_current_words(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _current_words(name, value) for name, value in values.items()}


def _config_with_current_words(config: Mapping[str, Any]) -> dict[str, Any]:
    parameters = config.get("parameters")
    current = {"parameters": _with_current_words(parameters)} if isinstance(parameters, Mapping) else {}
    return {**config, **current}


def _recorded(text: str, run_id: str | None = None) -> RecordedClaims | None:
    """Return the claims in a text; None for an ordinary text, also where it begins like a record by accident."""
    try:
        return read_recorded(text, run_id=run_id)
    except ClaimError:
        return None


def common_metric(runs: Iterable[RunRecord], name: str | None = None, goal: str | None = None) -> Metric:
    """Return the metric to rank runs without a sweep by: the given one, else one that most of them log.

    ``val/combined_acc`` is preferred; then held-out accuracies and the like, then held-out losses, then an accuracy
    whose name does not say on which data. Training and test values are never used.

    Raises:
        MetricError: when no logged metric is fit, or the goal is neither given nor clear from the name.
    """
    if name is None:
        counts: Counter[str] = Counter()
        for run in runs:
            numbers = {key for key, value in run.summary.items() if as_number(value) is not None}
            logged = numbers.union(history_of(run).columns)
            counts.update(key for key in logged if not key.startswith("_") and not _TEST.search(key))
        ranked = sorted(counts.items(), key=lambda item: (_preference(item[0]), -item[1], item[0]))
        name = next((key for key, _count in ranked if _preference(key) < _UNFIT), None)
        if name is None:
            logged_names = ", ".join(key for key, _count in counts.most_common(8)) or "nothing"
            raise MetricError(
                f"these runs belong to no sweep, so no metric is set for their ranking: give --metric NAME --goal "
                f"maximize|minimize; logged: {logged_names}"
            )
    if goal is None:
        goal = "minimize" if _FALLS.search(name) else "maximize" if _RISES.search(name) else None
    if goal is None:
        raise MetricError(f"the name {name} does not show whether higher or lower is better: give --goal")
    return Metric(name, "maximize" if goal == "maximize" else "minimize")


def _preference(name: str) -> int:
    if name == PREFERRED_METRIC:
        return 0
    if _HELD_OUT.search(name):
        return 1 if _RISES.search(name) else 2 if _FALLS.search(name) else _UNFIT
    return 3 if _RISES.search(name) and not _TRAINING.search(name) else _UNFIT
