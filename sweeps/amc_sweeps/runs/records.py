"""A sweep and its runs as they were read, from a server or a file.

None means unknown throughout: not every server tells everything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, Literal, NamedTuple

from amc_sweeps.runs.causes import BandDecision
from amc_sweeps.runs.claims import Claim
from amc_sweeps.values import as_number, look_up

Goal = Literal["minimize", "maximize"]


class MetricError(ValueError):
    """No metric, or no goal, can be told; the message says what to give."""


@dataclass(frozen=True)
class Metric:
    """What the runs are ranked by."""

    name: str
    goal: Goal


class Point(NamedTuple):
    """One logged value of the metric; a tuple, for there are a hundred thousand of them."""

    value: float  # may be NaN or infinite
    epoch: float | None = None  # the `epoch` metric of the same row
    step: int | None = None
    time_s: float | None = None  # Unix time


@dataclass(frozen=True)
class RunRecord:
    """One run as the server tells it. None stands for unknown."""

    run_id: str
    name: str
    state: str  # W&B's word, see RunState
    config: Mapping[str, Any] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)
    points: tuple[Point, ...] = ()  # of the metric, in the order of logging
    not_finite: tuple[str, ...] = ()  # metrics whose last logged value is NaN or infinite
    exit_code: int | None = None
    stop_recorded: bool | None = None
    stop_reason: str | None = None  # who asked, where the server keeps it: hyperband, user, cancelled
    stop_decision: BandDecision | None = None  # Hyperband's, where the server keeps it
    host: str | None = None
    created_at: datetime | None = None
    heartbeat_at: datetime | None = None
    alive_when_exported: bool | None = None  # a copy of a run that had not ended, see amc_sweeps.runs.causes.Evidence
    log_tail: str | None = None
    unread: str | None = None  # why the history could not be read
    agent: str | None = None  # which `wandb agent` started it, where the server tells
    project: str = ""
    sweep_id: str | None = None  # that it belongs to
    notes: str = ""

    @property
    def curve(self) -> list[float]:
        """The logged finite values: what Hyperband counts and what a peak is taken from."""
        return [point.value for point in self.points if math.isfinite(point.value)]


@dataclass(frozen=True)
class SweepRecord:
    """A sweep with its runs, in the order of their creation; or runs of a project that belong to none."""

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
    kind: Literal["sweep", "project", "runs"] = "sweep"  # for the others sweep_id is empty and config has the metric
    description: str = ""
    claims: tuple[Claim, ...] = ()  # what its description and its runs' notes say, see amc_sweeps.runs.claims
    runs_total: int | None = None  # where the records are known to be fewer: "4 documented of 12"


def choose_metric(config: Mapping[str, Any], name: str | None = None, goal: str | None = None) -> Metric:
    """Take the metric from the sweep's configuration, unless it is given.

    Raises:
        MetricError: when neither names a metric, or the goal of another metric than the sweep's is not given.
    """
    own = config.get("metric")
    own = own if isinstance(own, Mapping) else {}
    if name is None and not own.get("name"):
        raise MetricError("the sweep's configuration names no metric: give --metric NAME --goal maximize|minimize")
    if name is not None and name != own.get("name") and goal is None:
        raise MetricError(f"{name} is not the sweep's own metric: give its --goal, maximize or minimize")
    chosen = goal or str(own.get("goal") or "minimize")  # W&B's default
    if chosen not in {"minimize", "maximize"}:
        raise MetricError(f"goal {chosen!r} is not allowed; allowed: maximize, minimize")
    return Metric(name or str(own["name"]), "maximize" if chosen == "maximize" else "minimize")


def summary_number(summary: Mapping[str, Any], name: str, goal: Goal) -> float | None:
    """Return a summary's value; ``define_metric(summary=...)`` makes it a mapping, of which the best one is taken."""
    found = look_up(summary, name)
    if isinstance(found, Mapping):
        preferred = ("best", "max" if goal == "maximize" else "min", "last", "mean")
        found = next((found[key] for key in preferred if key in found), None)
    return as_number(found)


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
