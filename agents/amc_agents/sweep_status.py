"""Where a sweep stands: what ran, what is alive, what failed where, and how long it may still take.

Reading it is one analysis by peak (``amc_analysis``) and one question for the agents; every conclusion here is a pure
function of what was read, so that it can be tested without a server.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from amc_agents.sweep_control import fresh_sweep
from amc_sweeps.runs.causes import FAILURES, Cause
from amc_sweeps.runs.run_states import RunState, SweepState

if TYPE_CHECKING:
    from amc_analysis.reading.sources import RunSource
    from amc_analysis.runs.findings import Findings
    from amc_sweeps.runs.records import SweepRecord

Progress = Callable[[int, int], None]

# An agent reports every 5 s; W&B keeps no word of its end, so silence may be either.
AGENT_SILENT_AFTER_S = 60.0


@dataclass(frozen=True)
class AgentSeen:
    """An agent of the sweep. None stands for unknown."""

    name: str
    host: str
    runs: int  # handed out to it in all
    silent_s: float | None  # since its last heartbeat

    @property
    def is_alive(self) -> bool:
        """Whether it reported lately."""
        return self.silent_s is not None and self.silent_s < AGENT_SILENT_AFTER_S


@dataclass(frozen=True)
class HostFailures:
    """What failed on one host."""

    host: str
    failed: int
    ended: int
    causes: Mapping[str, int]


@dataclass(frozen=True)
class Best:
    """The run with the best peak so far."""

    run_id: str
    name: str
    peak: float
    peak_epoch: float | None
    cause: str
    shown: str  # the peak as a person reads it


@dataclass(frozen=True)
class TimeLeft:
    """An estimate with what it rests on; ``seconds`` is None where it cannot be told, and ``because`` says why."""

    seconds: float | None
    because: str


@dataclass(frozen=True)
class Status:
    """Everything that ``amc-sweep status`` says."""

    path: str
    name: str
    state: str
    url: str | None
    metric: str | None
    goal: str | None
    read_at: datetime
    runs: int
    runs_expected: int | None  # None: the sweep has no end of its own
    by_state: Mapping[str, int]
    by_cause: Mapping[str, int]
    best: Best | None
    agents: tuple[AgentSeen, ...]
    failures: tuple[HostFailures, ...]
    epochs_spent: int
    epochs_saved: int | None  # by Hyperband, against every stopped run going to its planned end
    time_left: TimeLeft
    unread: int  # runs whose history the server did not give

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen by itself."""
        living = sum(self.by_state.get(state.value, 0) for state in RunState if state.is_alive)
        return self.state in {SweepState.FINISHED, SweepState.CANCELED} and living == 0

    def to_mapping(self) -> dict[str, Any]:
        """Return plain JSON types: the schema of ``--json``."""
        return {
            "schema": "amc-sweep status",
            "version": 1,
            "read_at": self.read_at.isoformat(),
            "sweep": {
                **{name: getattr(self, name) for name in ("path", "name", "state", "url", "metric", "goal")},
                "is_over": self.is_over,
            },
            "runs": {
                "total": self.runs,
                "expected": self.runs_expected,
                "by_state": dict(self.by_state),
                "by_cause": dict(self.by_cause),
                "unread": self.unread,
            },
            "best": None if self.best is None else {k: v for k, v in asdict(self.best).items() if k != "shown"},
            "agents": [{**asdict(agent), "is_alive": agent.is_alive} for agent in self.agents],
            "failures_by_host": [asdict(host) for host in self.failures],
            "epochs": {"spent": self.epochs_spent, "saved_by_hyperband": self.epochs_saved},
            "time_left": asdict(self.time_left),
        }


def read_status(
    api: Any, path: str, progress: Progress = lambda _done, _total: None, *, sources: Sequence[RunSource]
) -> Status:
    """Read a sweep anew and say where it stands.

    Args:
        api: a ``wandb.Api``.
        path: ENTITY/PROJECT/ID.
        sources: where the histories come from, the best first: one that a server does not know is passed over.
        progress: told (runs read, runs in all) after every run, from any thread.

    Raises:
        NoSuchSweepError: when there is no such sweep.
        SweepUnreadableError: when its runs cannot be read.
        wandb.Error: when the server does not answer as it should.
    """
    from amc_analysis.runs.findings import analyse
    from amc_sweeps.runs.records import MetricError

    sweep = fresh_sweep(api, path)
    try:
        record, has_metric = _record(sources, path, progress), True
    except MetricError:  # a sweep may do without: then nothing is best, and epochs are counted by their own name
        record, has_metric = _record(sources, path, progress, metric="epoch", goal="maximize"), False
    agents = agents_seen(sweep.agents(), record.read_at)
    return conclude(path, analyse(record), agents, expected=sweep.expected_run_count, has_metric=has_metric)


def _record(
    sources: Sequence[RunSource], path: str, progress: Progress, *, metric: str | None = None, goal: str | None = None
) -> SweepRecord:
    from amc_analysis.reading.bulk import NoBulkError
    from amc_analysis.reading.reader import read
    from amc_analysis.reading.sources import Selection

    entity, project, sweep_id = path.split("/")
    wanted = Selection(entity, project, sweep_id)
    *better, last = sources
    for source in better:
        with suppress(NoBulkError):
            return read(source, wanted, metric=metric, goal=goal, progress=progress)
    return read(last, wanted, metric=metric, goal=goal, progress=progress)


def agents_seen(agents: Iterable[Any], now: datetime) -> tuple[AgentSeen, ...]:
    """Return what is known of W&B's agents, those heard last first."""
    from amc_sweeps.runs.records import parse_time

    seen = []
    for agent in agents:
        heard = parse_time(getattr(agent, "heartbeatAt", None))
        silent_s = None if heard is None else max((now - heard).total_seconds(), 0.0)
        seen.append(AgentSeen(agent.name, agent.host, int(agent.totalRuns or 0), silent_s))
    return tuple(sorted(seen, key=lambda agent: (agent.silent_s is None, agent.silent_s or 0.0, agent.host)))


def conclude(
    path: str, findings: Findings, agents: tuple[AgentSeen, ...], *, expected: int | None, has_metric: bool = True
) -> Status:
    """Put together what was read."""
    from amc_analysis.runs.findings import shown_as_percentage

    record, ranked = findings.sweep, findings.ranked
    best = findings.best if has_metric else None
    running = [entry.run for entry in ranked if entry.cause is Cause.RUNNING]
    ended = [entry.run for entry in ranked if entry.cause is not Cause.RUNNING]
    percentage = shown_as_percentage(findings)
    return Status(
        path=path,
        name=record.name or path.rpartition("/")[2],
        state=record.state,
        url=record.url,
        metric=record.metric.name if has_metric else None,
        goal=record.metric.goal if has_metric else None,
        read_at=record.read_at,
        runs=len(ranked),
        runs_expected=expected,
        by_state=dict(sorted(_counts(entry.run.state for entry in ranked).items(), key=_in_a_runs_life)),
        by_cause=_counts(entry.cause.value for entry in ranked if entry.cause is not Cause.RUNNING),
        best=None
        if best is None or best.peak is None
        else Best(
            run_id=best.run.run_id,
            name=best.run.name,
            peak=best.peak,
            peak_epoch=best.peak_epoch,
            cause=best.cause.value,
            shown=f"{best.peak:.2%}" if percentage else f"{best.peak:.5g}",
        ),
        agents=agents,
        failures=failures_by_host([(entry.run.host, entry.cause) for entry in ranked]),
        epochs_spent=sum(entry.epochs for entry in ranked),
        epochs_saved=findings.early_stops.epochs_saved,
        time_left=time_left(
            state=record.state,
            expected=expected,
            begun=len(ranked),
            ended_s=[seconds for run in ended if (seconds := _duration_s(run)) is not None],
            running_s=[_duration_s(run) or 0.0 for run in running],
            agents=sum(agent.is_alive for agent in agents),
        ),
        unread=len(findings.unread),
    )


def failures_by_host(ends: Sequence[tuple[str | None, Cause]]) -> tuple[HostFailures, ...]:
    """Count failures among the runs that ended, host by host; the host with most of them first."""
    by_host: dict[str, list[Cause]] = {}
    for host, cause in ends:
        if cause is not Cause.RUNNING:
            by_host.setdefault(host or "unknown host", []).append(cause)
    found = [
        HostFailures(host, len(failed), len(causes), _counts(cause.value for cause in failed))
        for host, causes in by_host.items()
        if (failed := [cause for cause in causes if cause in FAILURES])
    ]
    return tuple(sorted(found, key=lambda host: (-host.failed, host.host)))


def time_left(
    *, state: str, expected: int | None, begun: int, ended_s: Sequence[float], running_s: Sequence[float], agents: int
) -> TimeLeft:
    """Estimate how long a sweep will still take: what is to come takes the median of what has ended.

    Args:
        state: the sweep's.
        expected: how many runs it will begin in all; None for no end.
        begun: how many it has begun.
        ended_s: how long each run took that has ended, failed and stopped ones too: so will some of those to come.
        running_s: for how long each living run has been running.
        agents: how many are alive.
    """
    to_come = 0 if state in {SweepState.FINISHED, SweepState.CANCELED} else None
    if to_come == 0 and not running_s:
        return TimeLeft(0.0, "the sweep is over")
    if state == SweepState.PAUSED:
        return TimeLeft(None, "the sweep is paused")
    if to_come is None and expected is None:
        return TimeLeft(None, "the sweep has no run_cap and its search no end")
    if not ended_s:
        return TimeLeft(None, "no run has ended yet")
    if not agents:
        return TimeLeft(None, "no agent is alive")
    to_come = max(expected - begun, 0) if to_come is None and expected is not None else 0
    median_s = statistics.median(ended_s)
    rest_s = [max(median_s - seconds, 0.0) for seconds in running_s]
    seconds = max((to_come * median_s + sum(rest_s)) / agents, *rest_s, 0.0)
    plural = "s" if agents > 1 else ""
    return TimeLeft(
        seconds,
        f"{to_come} runs to come and {len(running_s)} alive, if each takes {duration(median_s)}, the median of the "
        f"{len(ended_s)} that ended, on {agents} agent{plural}",
    )


def duration(seconds: float) -> str:
    """Return a length of time as people say it: two units at most."""
    whole = round(seconds)
    for unit_s, unit, part_s, part in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= unit_s:
            rest = whole % unit_s // part_s
            return f"{whole // unit_s} {unit}" + (f" {rest} {part}" if rest and whole < 10 * unit_s else "")
    return f"{whole} s"


def _duration_s(run: Any) -> float | None:
    """Return for how long a run's trial ran: its own clock, else from its creation to its last sign of life."""
    own = run.summary.get("_runtime")
    if isinstance(own, int | float) and own >= 0:
        return float(own)
    if run.created_at is None or run.heartbeat_at is None:
        return None
    return max(float((run.heartbeat_at - run.created_at).total_seconds()), 0.0)


def _in_a_runs_life(count: tuple[str, int]) -> int:
    states = [state.value for state in RunState]
    return states.index(count[0]) if count[0] in states else len(states)


def _counts(words: Iterable[str]) -> dict[str, int]:
    return dict(Counter(words).most_common())
