"""One run of a ranking, and the comparisons that ranking and hidden gems share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from amc_sweeps.runs.causes import ENDED_WELL, Cause, Diagnosis
from amc_sweeps.runs.crashed_runs import Policy, Treatment, treatment_of
from amc_sweeps.runs.records import Goal, RunRecord


@dataclass(frozen=True)
class RankedRun:
    """A run and what its history shows. ``peak`` is the best of many epochs, hence optimistic: see ``noise_sd``."""

    run: RunRecord
    diagnosis: Diagnosis
    rank: int | None  # 1 is best; equal peaks share a rank; None without any finite value
    peak: float | None  # best finite value by the goal
    peak_epoch: float | None
    smoothed_peak: float | None  # best median of three neighbouring values; None where epochs are missing
    last: float | None  # the final logged value, NaN and infinities included
    epochs: int | None  # completed; None: unknown
    epochs_planned: int | None
    noise_sd: float | None  # epoch to epoch, from second differences
    test: float | None  # displayed only; the ranking does not use it
    is_gem: bool = False
    treatment: Treatment | None = None  # what a bayes search is told of it; None: no such search, or not ended
    excluded_by: str | None = None  # the integrity rule that keeps the run's values out of every comparison

    @property
    def cause(self) -> Cause:
        return self.diagnosis.cause


def with_treatment(entry: RankedRun, policy: Policy | None) -> RankedRun:
    """Return a run with what a bayes search of this policy is told of it; None: the search is another one."""
    if policy is None:
        return entry
    has_values = bool(entry.run.curve)
    return replace(entry, treatment=treatment_of(policy, entry.run.state, entry.diagnosis, has_values=has_values))


def best_ended_well(ranked: Sequence[RankedRun]) -> RankedRun | None:
    """Return the best run that completed or ran out of patience, if one has a peak and is not excluded."""
    candidates = (entry for entry in ranked if entry.peak is not None and entry.excluded_by is None)
    return next((entry for entry in candidates if entry.cause in ENDED_WELL), None)


def is_better(value: float, other: float, goal: Goal) -> bool:
    """Return whether a value beats another one."""
    return value > other if goal == "maximize" else value < other
