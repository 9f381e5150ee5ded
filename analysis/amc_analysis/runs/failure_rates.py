"""Failure rates with intervals, in all, by host and by agent, and the epochs that early stopping saved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from amc_sweeps.runs.causes import CENSORED, FAILURES, Cause
from amc_sweeps.runs.evidence import epochs_planned
from amc_sweeps.runs.ranked_run import RankedRun
from amc_sweeps.runs.records import RunRecord
from amc_sweeps.runs.run_states import RunState
from amc_sweeps.runs.statistics import wilson_interval

SMALL_GROUP = 5  # runs; smaller groups are too small for words such as "best"


@dataclass(frozen=True)
class FailureRate:
    """Failures among the runs that ended. Runs that were cut short from outside count as ended, not as failed."""

    failures: int
    ended: int
    interval: tuple[float, float]  # Wilson, 95%
    censored: Mapping[Cause, int]  # early stops, cancellations and the like: in `ended`, not in `failures`
    unknown: int  # runs whose end is unknown: in `ended`, not in `failures`
    not_finished: int  # ended runs whose state is not W&B's "finished"

    @property
    def rate(self) -> float | None:
        """Failures per ended run; None when no run has ended."""
        return self.failures / self.ended if self.ended else None

    @property
    def naive_rate(self) -> float | None:
        """The rate that W&B's states alone suggest."""
        return self.not_finished / self.ended if self.ended else None


@dataclass(frozen=True)
class RunGroup:
    """How the runs of one host, or of one agent, ended."""

    name: str
    rate: FailureRate
    causes: Mapping[Cause, int]  # of the failures, most frequent first


@dataclass(frozen=True)
class EarlyStops:
    """The runs that the sweep's Hyperband stopped."""

    runs: int
    epochs_saved: int | None  # planned epochs that these runs did not take; None where no run has a plan


def failure_rate(ranked: Sequence[RankedRun]) -> FailureRate:
    """Count the failures among the ended runs, and apart from them the runs that were cut short from outside."""
    ended = [entry for entry in ranked if entry.cause is not Cause.RUNNING]
    failures = sum(entry.cause in FAILURES for entry in ended)
    return FailureRate(
        failures=failures,
        ended=len(ended),
        interval=wilson_interval(failures, len(ended)),
        censored=dict(Counter(entry.cause for entry in ended if entry.cause in CENSORED).most_common()),
        unknown=sum(entry.cause is Cause.UNKNOWN for entry in ended),
        not_finished=sum(entry.run.state != RunState.FINISHED for entry in ended),
    )


def group_runs(ranked: Sequence[RankedRun], name_of: Callable[[RunRecord], str | None]) -> tuple[RunGroup, ...]:
    """Group runs by name, most failures first; runs without a name are in no group."""
    members: dict[str, list[RankedRun]] = {}
    for entry in ranked:
        name = name_of(entry.run)
        if name:
            members.setdefault(name, []).append(entry)
    groups = [
        RunGroup(
            name,
            failure_rate(entries),
            dict(Counter(entry.cause for entry in entries if entry.cause in FAILURES).most_common()),
        )
        for name, entries in members.items()
    ]
    return tuple(sorted(groups, key=lambda group: (-group.rate.failures, group.name)))


def early_stops(ranked: Sequence[RankedRun]) -> EarlyStops:
    """Count the runs that Hyperband stopped and the epochs that they did not take."""
    stopped = [entry for entry in ranked if entry.cause is Cause.EARLY_STOPPED]
    saved = [
        max(planned - entry.epochs, 0)
        for entry in stopped
        if entry.epochs is not None and (planned := epochs_planned(entry.run.config)) is not None
    ]
    return EarlyStops(runs=len(stopped), epochs_saved=sum(saved) if saved else None)
