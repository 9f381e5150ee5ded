"""What a sweep's records say, in one object that every kind of report is written from. Pure: no I/O, no clock."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from amc_sweeps.runs.causes import CENSORED, FAILURES, Cause, classify
from amc_sweeps.runs.evidence import epochs_planned, evidence_of
from amc_sweeps.runs.ranking import RankedRun, best_ended_well, rank
from amc_sweeps.runs.records import Metric, RunRecord, SweepRecord, summary_number
from amc_sweeps.runs.run_states import RunState
from amc_sweeps.runs.statistics import wilson_interval

SMALL_GROUP = 5  # under this many runs a rate gets its interval and no adjective


@dataclass(frozen=True)
class FailureRate:
    """Failures among the runs that ended. Runs cut short from outside are no failures, yet they are in ``ended``."""

    failures: int
    ended: int
    interval: tuple[float, float]  # Wilson, 95 %
    censored: Mapping[Cause, int]  # early stops, cancellations and the like: in `ended`, never in `failures`
    unknown: int  # ended nobody knows how: in `ended`, not in `failures`
    not_finished: int  # the naive count: every ended run whose state is not W&B's "finished"

    @property
    def rate(self) -> float | None:
        """Failures per ended run; None when none has ended."""
        return self.failures / self.ended if self.ended else None

    @property
    def naive_rate(self) -> float | None:
        """What W&B's table of states suggests."""
        return self.not_finished / self.ended if self.ended else None


@dataclass(frozen=True)
class Place:
    """How the runs of one host, or of one agent, ended."""

    name: str
    rate: FailureRate
    causes: Mapping[Cause, int]  # of the failures, most frequent first


@dataclass(frozen=True)
class EarlyStops:
    """What the sweep's Hyperband did."""

    runs: int
    epochs_saved: int | None  # against every such run going to its planned end; None where no end is planned


@dataclass(frozen=True)
class Findings:
    """Everything a report says about a sweep."""

    sweep: SweepRecord
    ranked: tuple[RankedRun, ...]
    failure_rate: FailureRate
    early_stops: EarlyStops
    parameters: tuple[str, ...]  # searched ones, in the order of the sweep's file; nested ones dotted

    @property
    def metric(self) -> Metric:
        """What the runs are ranked by."""
        return self.sweep.metric

    @property
    def best(self) -> RankedRun | None:
        """The run with the best peak; one that was set aside only where there is no other."""
        valued = [entry for entry in self.ranked if entry.peak is not None]
        return next((entry for entry in valued if entry.excluded_by is None), valued[0] if valued else None)

    @property
    def best_whole(self) -> RankedRun | None:
        """The best run that ended as it was meant to."""
        return best_ended_well(self.ranked)

    @property
    def gems(self) -> tuple[RankedRun, ...]:
        """Runs cut short whose peak says that they deserve a second look."""
        return tuple(entry for entry in self.ranked if entry.is_gem)

    @property
    def causes(self) -> dict[Cause, int]:
        """How many runs ended in each way, most frequent first."""
        return dict(Counter(entry.cause for entry in self.ranked).most_common())

    @property
    def hosts(self) -> tuple[Place, ...]:
        """How the runs of each host ended, most failures first; runs whose host is not known are in none."""
        return _places(self.ranked, lambda run: run.host)

    @property
    def agents(self) -> tuple[Place, ...]:
        """The same of each ``wandb agent``, where the server tells them."""
        return _places(self.ranked, lambda run: run.agent)

    @property
    def unread(self) -> tuple[RankedRun, ...]:
        """Runs whose history the server did not give."""
        return tuple(entry for entry in self.ranked if entry.run.unread)


def analyse(sweep: SweepRecord) -> Findings:
    """Say how every run ended, rank them by peak and count failures."""
    verdicts = {run_id: classify(evidence) for run_id, evidence in evidence_of(sweep).items()}
    ranked = rank(sweep.runs, verdicts, sweep.metric)
    return Findings(
        sweep=sweep,
        ranked=ranked,
        failure_rate=failure_rate(ranked),
        early_stops=early_stops(ranked),
        parameters=searched_parameters(sweep.config),
    )


def failure_rate(ranked: Sequence[RankedRun]) -> FailureRate:
    """Count failures among ended runs, with those cut short from outside apart."""
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


def _places(ranked: Sequence[RankedRun], name_of: Callable[[RunRecord], str | None]) -> tuple[Place, ...]:
    members: dict[str, list[RankedRun]] = {}
    for entry in ranked:
        name = name_of(entry.run)
        if name:
            members.setdefault(name, []).append(entry)
    found = [
        Place(
            name,
            failure_rate(entries),
            dict(Counter(entry.cause for entry in entries if entry.cause in FAILURES).most_common()),
        )
        for name, entries in members.items()
    ]
    return tuple(sorted(found, key=lambda place: (-place.rate.failures, place.name)))


def early_stops(ranked: Sequence[RankedRun]) -> EarlyStops:
    """Count the runs that Hyperband ended and the epochs that they did not take."""
    stopped = [entry for entry in ranked if entry.cause is Cause.EARLY_STOPPED]
    saved = [
        max(planned - entry.epochs, 0) for entry in stopped if (planned := epochs_planned(entry.run.config)) is not None
    ]
    return EarlyStops(runs=len(stopped), epochs_saved=sum(saved) if saved else None)


def searched_parameters(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the parameters that a sweep varies, nested ones as dotted paths."""
    return tuple(name for name, section in _flat(config.get("parameters")) if not _is_constant(section))


def _flat(parameters: Any, prefix: str = "") -> list[tuple[str, Mapping[str, Any]]]:
    found: list[tuple[str, Mapping[str, Any]]] = []
    for name, section in parameters.items() if isinstance(parameters, Mapping) else ():
        if isinstance(section, Mapping) and isinstance(section.get("parameters"), Mapping):
            found.extend(_flat(section["parameters"], f"{prefix}{name}."))
        elif isinstance(section, Mapping):
            found.append((prefix + name, section))
    return found


def _is_constant(section: Mapping[str, Any]) -> bool:
    values = section.get("values")
    return "value" in section or (isinstance(values, list) and len(values) == 1)


def logged_metrics(sweep: SweepRecord) -> list[str]:
    """Return the names of the numbers that the runs' summaries hold, those of most runs first."""
    names = Counter(
        name
        for run in sweep.runs
        for name in run.summary
        if not name.startswith("_") and summary_number(run.summary, name, sweep.metric.goal) is not None
    )
    return [name for name, _ in names.most_common()]


def nobody_logged(findings: Findings) -> bool:
    """Tell whether no run has the metric at all, neither in its history nor in its summary."""
    return bool(findings.ranked) and all(not entry.run.points and entry.last is None for entry in findings.ranked)


def shown_as_percentage(findings: Findings) -> bool:
    """Tell whether the metric is an accuracy kept as a fraction, which people read as a percentage."""
    named = re.search(r"(?:^|[^A-Za-z])acc(?:uracy)?$", findings.metric.name, re.IGNORECASE)
    values = [value for entry in findings.ranked for value in entry.run.curve]
    values += [entry.peak for entry in findings.ranked if entry.peak is not None]
    return named is not None and bool(values) and all(0 <= value <= 1 for value in values)
