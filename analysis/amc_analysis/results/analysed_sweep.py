"""A sweep with every conclusion: the input of the integrity rules and of every report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from amc_analysis.results.dynamics import Dynamics
from amc_analysis.results.effects import ConfoundedPair, Effect, Importance
from amc_analysis.results.finalists import Finalists
from amc_analysis.results.finding import Finding
from amc_analysis.results.next_sweep import NextSweep
from amc_analysis.runs.confusion import Confusion
from amc_analysis.runs.failure_rates import EarlyStops, FailureRate, RunGroup, early_stops, failure_rate, group_runs
from amc_analysis.runs.outcomes import Outcomes
from amc_analysis.runs.parameters import Parameter, flat_config
from amc_sweeps.grammar.searched_parameters import searched_parameters
from amc_sweeps.runs.causes import Cause
from amc_sweeps.runs.claims import Claim, ClaimKind
from amc_sweeps.runs.crashed_runs import Treatment
from amc_sweeps.runs.metric_scale import MetricScale, metric_scale
from amc_sweeps.runs.ranked_run import RankedRun, best_ended_well
from amc_sweeps.runs.records import Metric, SweepRecord, summary_number


@dataclass(frozen=True)
class AnalysedSweep:
    """A sweep, or runs of a project, with its runs ranked; ``analyse`` fills the other fields in their order."""

    record: SweepRecord
    ranked: tuple[RankedRun, ...]  # best peak first
    outcomes: Outcomes  # in the order of the ranking
    parameters: tuple[Parameter, ...]  # the searched ones with the value of every run, in that order; without seeds
    seed: int = 0  # of permutations, simulations and the forest
    effects: tuple[Effect, ...] = ()  # one a parameter that took at least two values, strongest evidence first
    confounded: tuple[ConfoundedPair, ...] = ()  # most strongly tied first
    importance: Importance | None = None  # None: not computed
    dynamics: Dynamics = field(default_factory=Dynamics)
    findings: tuple[Finding, ...] = ()  # of the integrity rules, errors first
    finalists: Finalists = field(default_factory=Finalists)  # the configurations that ran with several seeds
    next_sweep: NextSweep | None = None  # with --next
    confusions: tuple[Confusion, ...] = ()  # of the best runs; for the page only

    @property
    def metric(self) -> Metric:
        """The metric of the ranking."""
        return self.record.metric

    @property
    def peak_name(self) -> str:
        """The word for the best value of a run: the peak, or the lowest value of a minimised metric."""
        return "peak" if self.metric.goal == "maximize" else "lowest"

    @property
    def best_value_name(self) -> str:
        """The same in a sentence, where "lowest" needs its noun."""
        return "peak" if self.metric.goal == "maximize" else "lowest value"

    @property
    def config(self) -> Mapping[str, Any]:
        return self.record.config

    @property
    def title(self) -> str:
        """The sweep's id, else the project."""
        record = self.record
        if record.sweep_id:
            return record.sweep_id
        return record.project if record.kind == "project" else f"{len(record.runs)} runs of {record.project}"

    @cached_property
    def scale(self) -> MetricScale:
        return metric_scale(self.metric.name, self.ranked)

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """The searched parameters in the order of the sweep's file; nested ones dotted."""
        return searched_parameters(flat_config(self.config))

    @property
    def best(self) -> RankedRun | None:
        """The run with the best peak; an excluded one only where there is no other."""
        valued = [entry for entry in self.ranked if entry.peak is not None]
        return next((entry for entry in valued if entry.excluded_by is None), valued[0] if valued else None)

    @property
    def best_ended_well(self) -> RankedRun | None:
        """The best run that completed or ended by patience."""
        return best_ended_well(self.ranked)

    @property
    def gems(self) -> tuple[RankedRun, ...]:
        """The hidden gems, best first."""
        return tuple(entry for entry in self.ranked if entry.is_gem)

    @property
    def causes(self) -> dict[Cause, int]:
        """How many runs ended in each way, most frequent first."""
        return dict(Counter(entry.cause for entry in self.ranked).most_common())

    @property
    def treatments(self) -> dict[Treatment, int]:
        """How many runs a bayes search was told of in each way, most frequent first; empty for any other search."""
        return dict(Counter(entry.treatment for entry in self.ranked if entry.treatment is not None).most_common())

    @property
    def failure_rate(self) -> FailureRate:
        return failure_rate(self.ranked)

    @property
    def early_stops(self) -> EarlyStops:
        return early_stops(self.ranked)

    @property
    def hosts(self) -> tuple[RunGroup, ...]:
        """How the runs of each host ended, most failures first."""
        return group_runs(self.ranked, lambda run: run.host)

    @property
    def agents(self) -> tuple[RunGroup, ...]:
        """How the runs of each ``wandb agent`` ended, where the server names agents."""
        return group_runs(self.ranked, lambda run: run.agent)

    @property
    def unread(self) -> tuple[RankedRun, ...]:
        """Runs whose history could not be read."""
        return tuple(entry for entry in self.ranked if entry.run.unread)

    @property
    def is_complete(self) -> bool:
        """Whether every run of the sweep is on record.

        Records with claims beside them were written down from a text, which may leave out any number of runs.
        """
        total = self.record.runs_total
        return not self.record.claims if total is None else total <= len(self.ranked)

    @property
    def has_metric(self) -> bool:
        """Whether some run logged the metric, in its history or in its summary; True without runs."""
        return not self.ranked or any(entry.run.points or entry.last is not None for entry in self.ranked)

    @property
    def logged_metrics(self) -> list[str]:
        """The names of the numbers in the runs' summaries, those of most runs first."""
        names = Counter(
            name
            for run in self.record.runs
            for name in run.summary
            if not name.startswith("_") and summary_number(run.summary, name, self.metric.goal) is not None
        )
        return [name for name, _ in names.most_common()]

    def claims(self, *kinds: ClaimKind) -> list[Claim]:
        """Return the claims of some kinds that were made about the sweep and its runs."""
        return [claim for claim in self.record.claims if claim.kind in kinds]


def run_label(entry: RankedRun) -> str:
    """Return a run's display name and id."""
    run = entry.run
    return run.run_id if run.name == run.run_id else f"{run.name} ({run.run_id})"
