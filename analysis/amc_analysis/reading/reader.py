"""Read what is wanted, whole: from a source through the cache, or from the cache alone."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Literal

from amc_analysis.reading.cache import Cache
from amc_analysis.reading.sources import Progress, Selection, Source, SweepHead
from amc_analysis.runs.history import History
from amc_analysis.runs.records import SweepUnreadableError, history_of, with_history, with_metric
from amc_sweeps.runs.claims import ClaimError, Recorded, read_recorded
from amc_sweeps.runs.records import Metric, MetricError, RunRecord, SweepRecord, choose_metric

PREFERRED = "val/combined_acc"  # of runs without a sweep, where they log it
_RISES = re.compile(r"(?:^|[^a-z])(?:acc|accuracy|f1|auc|map|iou|score|reward|precision|recall|r2)(?:$|[^a-z])", re.I)
_FALLS = re.compile(r"(?:^|[^a-z])(?:loss|err|error|mae|mse|rmse|nll|perplexity)(?:$|[^a-z])", re.I)
_HELD_OUT = re.compile(r"(?:^|[^a-z])(?:val|valid|validation|eval|dev)(?:$|[^a-z])", re.I)
_TRAINING = re.compile(r"(?:^|[^a-z])train(?:ing)?(?:$|[^a-z])", re.I)
_DISLIKED = 9
_TEST = re.compile(r"(?:^|[^a-z])test(?:$|[^a-z])", re.I)


def read(
    source: Source,
    wanted: Selection,
    *,
    cache: Cache | None = None,
    metric: str | None = None,
    goal: str | None = None,
    progress: Progress = lambda _done, _total: None,
) -> SweepRecord:
    """Read a selection of runs with the whole history of every one.

    Args:
        source: where from.
        wanted: which runs.
        cache: what is known before and what to add to; None reads everything.
        metric: another metric than the sweep's own.
        goal: ``minimize`` or ``maximize``, where it is not the sweep's own.
        progress: told (runs read, runs in all) after every run.

    Raises:
        NotFoundError: when there is no such sweep or project.
        SweepUnreadableError: when the server does not answer.
        MetricError: see choose_metric and common_metric.
    """
    try:
        return _read(source, wanted, cache, metric=metric, goal=goal, progress=progress, trusting=True)
    except _StaleError:
        return _read(source, wanted, cache, metric=metric, goal=goal, progress=progress, trusting=False)


class _StaleError(Exception):
    """What the cache said it has is not there any more: another process was at work, or the file is damaged."""


def _read(
    source: Source,
    wanted: Selection,
    cache: Cache | None,
    *,
    metric: str | None,
    goal: str | None,
    progress: Progress,
    trusting: bool,
) -> SweepRecord:
    before = cache.projects(wanted) if cache is not None else []
    known = cache.marks(before[0]) if cache is not None and trusting and len(before) == 1 else {}
    reading = source.read(wanted, known)
    project = f"{reading.head.entity}/{reading.head.project}"
    runs: list[RunRecord] = []
    with contextlib.ExitStack() as until_read:
        writing = until_read.enter_context(cache.writing(wanted, reading.head)) if cache is not None else None
        until_read.callback(reading.close)
        progress(0, reading.total)
        for part in reading.parts:
            history = part.rows or History()
            if not part.whole:
                run_id = part.head.run_id
                kept = cache.history(project, run_id, known[run_id]) if cache is not None else None
                if kept is None:
                    raise _StaleError
                history = kept.extended(history) if part.rows is not None else kept
            if writing is not None:
                writing.put(part, history)
            runs.append(with_history(part.head, history))
            progress(len(runs), reading.total)
        now = datetime.now(UTC)
        if writing is not None:
            writing.finish([run.run_id for run in runs], now)
    return assemble(reading.head, runs, wanted, metric=metric, goal=goal, read_at=now)


def read_offline(
    caches: Iterable[Cache], wanted: Selection, *, metric: str | None = None, goal: str | None = None
) -> SweepRecord:
    """Return what was last read of a selection, from the one of several caches that has it.

    Raises:
        SweepUnreadableError: when none has it, or several places have one of that name.
        MetricError: see choose_metric and common_metric.
    """
    places = [(cache, project) for cache in caches for project in cache.projects(wanted, whole=True)]
    if len(places) > 1:
        listed = "\n".join(f"  {project}    {cache.path.name}" for cache, project in places)
        raise SweepUnreadableError(f"{wanted.path} was read from several places; write ENTITY/PROJECT too:\n{listed}")
    found = places[0][0].selection(places[0][1], wanted) if places else None
    if found is None:
        raise SweepUnreadableError(f"{wanted.path} was never read on this machine: leave --offline out once")
    head, runs, read_at = found
    return assemble(head, runs, wanted, metric=metric, goal=goal, read_at=read_at)


def assemble(
    head: SweepHead,
    runs: Sequence[RunRecord],
    wanted: Selection,
    *,
    metric: str | None,
    goal: str | None,
    read_at: datetime,
) -> SweepRecord:
    """Put together what was read: choose the metric, draw its points, read what was claimed.

    Raises:
        MetricError: see choose_metric and common_metric.
    """
    config = dict(head.config)
    kind: Literal["sweep", "project", "runs"] = "sweep"
    if wanted.sweep_id is None:
        kind = "project" if wanted.run_ids is None else "runs"
        chosen = common_metric(runs, metric, goal)
        config = {"metric": {"name": chosen.name, "goal": chosen.goal}}
    else:
        chosen = choose_metric(config, metric, goal)
    recorded = _recorded(head.description)
    noted = [found for run in runs if (found := _recorded(run.notes, run.run_id)) is not None]
    return SweepRecord(
        sweep_id=head.sweep_id,
        entity=head.entity,
        project=head.project,
        config=config,
        state=head.state,
        metric=chosen,
        runs=tuple(with_metric(run, chosen.name) for run in runs),
        read_at=read_at,
        name=head.name or (head.project if kind == "project" else ""),
        url=head.url,
        updated_at=head.updated_at,
        kind=kind,
        description=head.description,
        claims=(recorded.claims if recorded else ()) + tuple(claim for found in noted for claim in found.claims),
        runs_total=recorded.runs_total if recorded else None,
    )


def _recorded(text: str, run_id: str | None = None) -> Recorded | None:
    """Read a record; a text that only begins like one is somebody's ordinary text."""
    try:
        return read_recorded(text, run_id=run_id)
    except ClaimError:
        return None


def common_metric(runs: Iterable[RunRecord], name: str | None = None, goal: str | None = None) -> Metric:
    """Choose what runs without a sweep are ranked by: what is given, else what most of them log.

    ``val/combined_acc`` goes first; then held-out accuracies and the like, then held-out losses, then an
    accuracy that does not say of what; never a training or a test value.

    Raises:
        MetricError: when they have nothing of the kind in common, or a goal cannot be told from the name.
    """
    if name is None:
        counts: Counter[str] = Counter()
        for run in runs:
            logged = set(history_of(run).columns) | {key for key, value in run.summary.items() if _is_number(value)}
            counts.update(key for key in logged if not key.startswith("_") and not _TEST.search(key))
        ranked = sorted(counts.items(), key=lambda item: (_liking(item[0]), -item[1], item[0]))
        name = next((key for key, count in ranked if _liking(key) < _DISLIKED), None)
        if name is None:
            logged_names = ", ".join(key for key, _ in counts.most_common(8)) or "nothing"
            raise MetricError(
                f"these runs belong to no sweep that would say what they are ranked by: give --metric NAME --goal "
                f"maximize|minimize; logged: {logged_names}"
            )
    if goal is None:
        goal = "minimize" if _FALLS.search(name) else "maximize" if _RISES.search(name) else None
    if goal is None:
        raise MetricError(f"whether {name} should rise or fall cannot be told from its name: give --goal")
    return Metric(name, "maximize" if goal == "maximize" else "minimize")


def _liking(name: str) -> int:
    if name == PREFERRED:
        return 0
    if _HELD_OUT.search(name):
        return 1 if _RISES.search(name) else 2 if _FALLS.search(name) else _DISLIKED
    return 3 if _RISES.search(name) and not _TRAINING.search(name) else _DISLIKED


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
