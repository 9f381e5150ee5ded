"""A sweep and its runs as they were read from a server or a file.

None means unknown throughout, because not every server records everything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import cached_property
from typing import Any, Literal, NamedTuple

from amc_sweeps.grammar.hyperband import BandDecision
from amc_sweeps.number_formats import quoted
from amc_sweeps.runs.claims import Claim
from amc_sweeps.runs.slurm_jobs import SlurmJob
from amc_sweeps.values import as_finite, as_number, look_up, printable

LATEST_TIME = 253_402_128_000.0  # Unix time of 30 December 9999: one day before the last date of Python, for time zones

Goal = Literal["minimize", "maximize"]


class MetricError(ValueError):
    """The metric or its goal is unknown; the message says what to give."""


@dataclass(frozen=True)
class Metric:
    """The metric by which runs are ranked."""

    name: str
    goal: Goal


class Point(NamedTuple):
    """One logged value of the metric; a tuple, because there are a hundred thousand of them."""

    value: float  # may be NaN or infinite
    epoch: float | None = None  # the `epoch` metric of the same row
    step: int | None = None
    time_s: float | None = None  # Unix time


@dataclass(frozen=True)
class RunRecord:
    """One run as the server records it."""

    run_id: str
    name: str
    state: str  # W&B's word, see RunState
    config: Mapping[str, Any] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)
    points: tuple[Point, ...] = ()  # of the metric, in the order of logging
    not_finite: tuple[str, ...] = ()  # metrics whose last logged value is NaN or infinite
    exit_code: int | None = None
    stop_recorded: bool | None = None
    stop_reason: str | None = None  # who asked, if the server records it: hyperband, user, cancelled
    stop_decision: BandDecision | None = None  # of Hyperband, if the server records it
    host: str | None = None
    created_at: datetime | None = None
    heartbeat_at: datetime | None = None
    alive_when_exported: bool | None = None  # the record is a copy made before the run ended
    log_tail: str | None = None
    unread: str | None = None  # why the history could not be read
    agent: str | None = None  # id of the `wandb agent` that started it
    job: SlurmJob | None = None  # whose end ended the run; None: another end, or not looked for
    project: str = ""
    sweep_id: str | None = None
    notes: str = ""

    def __post_init__(self) -> None:
        _make_printable(
            *(self, "run_id", "name", "state", "config", "summary", "host", "log_tail", "unread", "notes", "agent"),
            *("project", "sweep_id", "stop_reason"),
        )

    @cached_property
    def curve(self) -> list[float]:
        """The logged finite values: Hyperband counts them, and the peak is one of them."""
        return [point.value for point in self.points if math.isfinite(point.value)]

    @cached_property
    def finite_epochs(self) -> list[float]:
        """The `epoch` metric of the points that have a finite one."""
        return [point.epoch for point in self.points if point.epoch is not None and math.isfinite(point.epoch)]


@dataclass(frozen=True)
class SweepUpdate:
    """A change of a sweep's config while the sweep was there."""

    at: datetime | None
    author: str | None
    config: Mapping[str, Any]  # before the change

    def __post_init__(self) -> None:
        _make_printable(self, "author", "config")


@dataclass(frozen=True)
class SweepRecord:
    """A sweep with its runs in the order of their creation, or runs of a project that belong to no sweep."""

    sweep_id: str
    entity: str
    project: str
    config: Mapping[str, Any]
    state: str
    metric: Metric
    runs: tuple[RunRecord, ...]
    read_at: datetime
    name: str = ""
    url: str | None = None
    updated_at: datetime | None = None
    kind: Literal["sweep", "project", "runs"] = (
        "sweep"  # "project", "runs": sweep_id is empty and config has only the metric
    )
    description: str = ""
    claims: tuple[Claim, ...] = ()  # in its description and its runs' notes, see amc_sweeps.runs.claims
    updates: tuple[SweepUpdate, ...] = ()  # oldest first
    crashed_runs: str | None = None  # the policy of its search, where an embedded server or its export tells it
    runs_total: int | None = None  # if the records are known to be fewer: "4 documented of 12"

    def __post_init__(self) -> None:
        _make_printable(self, "sweep_id", "entity", "project", "config", "state", "name", "description", "url")


def _make_printable(record: RunRecord | SweepRecord | SweepUpdate, *names: str) -> None:
    """Escape control characters in what reports and commands print."""
    for name in names:
        object.__setattr__(record, name, printable(getattr(record, name)))


def choose_metric(config: Mapping[str, Any], name: str | None = None, goal: str | None = None) -> Metric:
    """Return the metric that is given, else the one of the sweep's configuration.

    Raises:
        MetricError: neither names a metric, the goal is not a word of W&B, or the goal of another metric is missing.
    """
    section = config.get("metric")
    section = section if isinstance(section, Mapping) else {}
    if name is None and not section.get("name"):
        raise MetricError("the sweep's configuration names no metric: give --metric NAME --goal maximize|minimize")
    if name is not None and name != section.get("name") and goal is None:
        raise MetricError(f"{name} is not the sweep's own metric: give its --goal, maximize or minimize")
    goal = goal or str(section.get("goal") or "minimize")  # W&B's default
    if goal not in {"minimize", "maximize"}:
        raise MetricError(f"goal {quoted(goal)} is not allowed; allowed: maximize, minimize")
    return Metric(name or str(section["name"]), "maximize" if goal == "maximize" else "minimize")


def summary_number(summary: Mapping[str, Any], name: str, goal: Goal) -> float | None:
    """Return a summary's value; of the mapping that ``define_metric(summary=...)`` makes, the best one."""
    value = look_up(summary, name)
    if isinstance(value, Mapping):
        keys = ("best", "max" if goal == "maximize" else "min", "last", "mean")
        value = next((value[key] for key in keys if key in value), None)
    return as_number(value)


def run_time_s(run: RunRecord) -> float | None:
    """Return how long a run's trial ran: by its own clock, else from its creation to its last heartbeat."""
    by_own_clock = as_finite(run.summary.get("_runtime"))
    if by_own_clock is not None and by_own_clock >= 0:
        return by_own_clock
    if run.created_at is None or run.heartbeat_at is None:
        return None
    return max((run.heartbeat_at - run.created_at).total_seconds(), 0.0)


def parse_time(value: Any) -> datetime | None:
    """Read an ISO 8601 text, or the date that YAML makes of one; without a time zone it is UTC, as W&B's are."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    if not isinstance(value, datetime):
        return None
    return value if value.tzinfo else value.replace(tzinfo=UTC)
