"""The next sweep: the decisions about every parameter and about the sweep."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from amc_analysis.results.finding import Finding

ParameterPath = tuple[str, ...]

WHOLE = "all of it"  # the label of a range that is kept whole


@dataclass(frozen=True)
class ValueEvidence:
    """The evidence about one listed value, or one part of a range."""

    label: Any  # the value; of a range "below 0.0013"
    n: int  # runs there with a value of the metric, or that show by their end whether the configuration fails
    best: float | None
    share: float  # of the draws that have the optimum there
    failures: int  # runs that failed, those that failed with their machine left out
    ended: int  # those and the runs that ended as they were meant to


@dataclass(frozen=True)
class FailingEnd:
    """One end of a range where most runs fail."""

    beyond: float  # where it begins: a coordinate in 0..1, in a Decision the value
    upper: bool
    failures: int
    n: int
    interval: tuple[float, float]  # of the failure rate there: Wilson, 95%
    failures_elsewhere: int
    n_elsewhere: int
    p: float  # permutation test over every place where an end might begin


@dataclass(frozen=True)
class Decision:
    """The decision about one searched parameter."""

    path: ParameterPath
    section: dict[str, Any]  # of the YAML; empty: as in the old sweep
    share: float  # that is kept
    kept: tuple[ValueEvidence, ...]
    dropped: tuple[ValueEvidence, ...] = ()
    never_ran: tuple[Any, ...] = ()  # kept as exploration: listed values, or parts of a range as text
    uncompared: tuple[Any, ...] = ()  # listed values of runs that cannot be compared
    failing: FailingEnd | None = None  # an end that failures exclude
    rises: Finding | None = None  # BEST_AT_BOUNDARY: the reason why an end is kept
    is_range: bool = False
    is_bounded: bool = True  # False: a distribution without ends, which is kept whole
    is_clear: bool = True  # False: the report finds no clear effect, so everything is kept

    @property
    def name(self) -> str:
        return ".".join(self.path)

    @property
    def is_compared(self) -> bool:
        """Whether there were values to compare; if not, everything is kept."""
        if self.is_range:
            return bool(self.kept[0].label != WHOLE)
        return bool(self.dropped) or len(self.kept) > 1


@dataclass(frozen=True)
class Narrowing:
    """The decisions about the searched space."""

    decisions: tuple[Decision, ...]
    runs: int  # that were compared
    left_out: int  # runs with a value whose configuration is not wholly within the sweep's space
    horizon: int | None = None  # epoch at which runs were compared; None: too few runs, nothing is excluded
    carried: int = 0  # runs that ended before the horizon
    noise_sd: float = 0.0  # between equal runs
    equals: int = 0  # runs within noise of the best, the best included

    @property
    def shrinks(self) -> float:
        """How many times smaller the space becomes."""
        return 1 / math.prod(decision.share for decision in self.decisions)


@dataclass(frozen=True)
class Seeds:
    """Repeats of every configuration, because the best runs are equal within noise."""

    reason: str
    path: ParameterPath | None  # of the parameter that seeds a run; None: no run has such a parameter
    values: tuple[int, ...] | None  # None: the sweep searches seeds already


@dataclass(frozen=True)
class SweepPlan:
    """Everything that is decided about the next sweep before its file is written."""

    narrowing: Narrowing
    seeds: Seeds | None
    sections: dict[ParameterPath, dict[str, Any]]  # of the YAML, one for every parameter
    method: str
    configurations: int | None  # None: infinitely many
    run_cap: int
    run_cap_reason: str
    epochs: int | None  # about; for runs as long as this sweep's were on average
    epochs_at_most: int | None  # if no run is cut short


@dataclass(frozen=True)
class NextSweep:
    """The next sweep's plan and its file."""

    plan: SweepPlan
    text: str  # the YAML
    summary: str  # one sentence: configurations, runs, epochs, how much smaller the space is
