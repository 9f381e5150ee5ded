"""Results about the searched parameters: effects, importance, and pairs whose effects cannot be separated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

SIGNIFICANT = 0.05  # over all tests of a sweep together

Measure = Literal["Cramér's V", "rank correlation", "correlation ratio"]


@dataclass(frozen=True)
class ValueOutcome:
    """The results of the runs with one value of a parameter, or in one part of its range."""

    label: str  # "0.001", "true", "0.0001 to 0.00046"
    value: Any  # None for a part of a range
    low: float | None  # ends of a part of a range; None for a value
    high: float | None
    n: int  # runs whose outcome counts in mean, interval and expected best
    runs: int  # runs of this value in all
    best: float | None  # peak of any of its runs, however it ended
    best_run: str | None  # its id
    mean: float | None
    interval: tuple[float, float] | None  # of the mean: Student's t, 95%, from 8 runs on; None where run lengths are
    #                                       unknown or very unequal
    spread: tuple[float, float] | None  # lowest and highest outcome
    expected_best: float | None  # of Effect.k runs drawn from these: comparable between values of unequal n
    rank_score: float | None  # mean share of the other runs that its runs beat, each pair at equal epochs
    failures: int
    ended: int  # runs that ended, those cut short from outside included
    failure_interval: tuple[float, float]  # Wilson, 95%
    cut_short: int  # early stopped, cancelled and the like: in `ended`, not in `failures`


@dataclass(frozen=True)
class MatchedPairs:
    """Runs that differ in one parameter only: value `second` against value `first`."""

    first: Any
    second: Any
    n: int  # configurations of the other parameters that both values have runs of
    difference: float  # mean outcome of second minus that of first
    interval: tuple[float, float] | None  # Student's t, 95%, from 8 pairs on
    better: int  # pairs in which `second` is the better one
    ties: int


@dataclass(frozen=True)
class Effect:
    """The effect of one searched parameter on performance and on failures."""

    parameter: str
    kind: Literal["nominal", "ordered"]
    scale: Literal["linear", "log"] | None  # of an ordered one
    values: tuple[ValueOutcome, ...]  # ordered ones ascending; a range in up to four parts of about equal n
    n: int  # runs in the test of performance
    where: str | None  # the condition under which the parameter exists ("optimizer = sgd"); None: everywhere
    n_elsewhere: int  # runs that lack the parameter
    k: int  # of expected_best: the smallest n among the values
    equal_epochs: int | None  # outcomes are the best of this many first epochs; None: outcomes are peaks
    left_out: int  # runs that failed or were cut short earlier: they count in best and rank score only
    explained: float | None  # share of the variance of the runs' rank scores
    p: float | None  # permutation test of performance; None where it cannot be tested
    p_corrected: float | None  # the same for the number of tests: every parameter, performance and failures
    failure_p: float | None
    failure_p_corrected: float | None
    trend: Literal["rises", "falls", "peaks inside", "dips inside"] | None  # of an ordered one with a clear effect
    pairs: tuple[MatchedPairs, ...]

    @property
    def is_clear(self) -> bool:
        """Whether performance depends on the parameter, at 5% over all tests together."""
        return self.p_corrected is not None and self.p_corrected < SIGNIFICANT

    @property
    def is_clear_for_failures(self) -> bool:
        """Whether failing depends on the parameter, at 5% over all tests together."""
        return self.failure_p_corrected is not None and self.failure_p_corrected < SIGNIFICANT


@dataclass(frozen=True)
class ParameterImportance:
    """How much a forest's prediction needs one parameter."""

    parameter: str
    importance: float  # fall of the out-of-bag R² when its values are shuffled; 0 or less: not needed


@dataclass(frozen=True)
class Importance:
    """How much a random forest's prediction needs every parameter; ``refused`` gives the reason for no forest."""

    n: int  # runs, those cut short included
    r2: float | None  # out of bag; None where no forest was grown
    shares: tuple[ParameterImportance, ...]  # most important first; empty where refused
    refused: str | None  # one sentence


@dataclass(frozen=True)
class ConfoundedPair:
    """Two searched parameters that moved together, and how closely."""

    first: str
    second: str
    strength: float  # 0: independent, 1: one follows from the other
    measure: Measure
    n: int
    p_corrected: float  # permutation test, corrected for the number of pairs
