"""What each searched parameter did to performance and to failures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class ValueOutcome:
    """What the runs of one value, or of one part of a range, came to."""

    label: str  # "0.001", "true", "0.0001 to 0.00046"
    value: Any  # the value; None for a part of a range
    low: float | None  # ends of a part of a range; None for a value
    high: float | None
    n: int  # runs whose outcome counts in best, mean and expected best
    runs: int  # runs of this value in all
    best: float | None
    best_run: str | None  # its id
    mean: float | None
    interval: tuple[float, float] | None  # of the mean: Student's t, 95 %, from 8 runs on; None under that
    spread: tuple[float, float] | None  # lowest and highest outcome: what to show where there is no interval
    expected_best: float | None  # of Effect.k runs drawn from these: comparable between values of unequal n
    standing: float | None  # mean share of all other runs that its runs beat, each pair at equal epochs; 0.5 is par
    failures: int
    ended: int  # runs that ended, those cut short from outside included
    failure_interval: tuple[float, float]  # Wilson, 95 %
    cut_short: int  # early stopped, cancelled, ...: in `ended`, never in `failures`


@dataclass(frozen=True)
class MatchedPairs:
    """Runs that differ in this parameter alone, value `second` against value `first`."""

    first: Any
    second: Any
    n: int  # configurations of everything else that both values have runs of
    difference: float  # mean outcome of second minus that of first
    interval: tuple[float, float] | None  # Student's t, 95 %, from 8 pairs on
    better: int  # pairs in which `second` is the better one
    ties: int


@dataclass(frozen=True)
class Effect:
    """One searched parameter."""

    parameter: str
    kind: Literal["nominal", "ordered"]
    scale: Literal["linear", "log"] | None  # of an ordered one
    values: tuple[ValueOutcome, ...]  # ordered ones ascending; a range in up to four parts of about equal n
    n: int  # runs that the test of performance rests on
    where: str | None  # the condition under which the parameter exists ("optimizer = sgd"); None: everywhere
    n_elsewhere: int  # runs that lack the parameter
    k: int  # of expected_best: the smallest n among the values
    equal_epochs: int | None  # outcomes are the best of the first so many epochs, for runs differ in length by being
    #                           cut short; None: outcomes are peaks
    left_out: int  # runs that did not get that far
    explained: float | None  # share of the variance of the runs' standing that the parameter accounts for
    p: float | None  # permutation test that performance does not depend on it; None where it cannot be tested
    p_corrected: float | None  # the same for the number of looks: every parameter, performance and failures
    failure_p: float | None
    failure_p_corrected: float | None
    trend: Literal["rises", "falls", "peaks inside", "dips inside"] | None  # of an ordered one whose effect is called
    pairs: tuple[MatchedPairs, ...]

    @property
    def called(self) -> bool:
        """Whether performance depends on it, at 5 % over all looks together."""
        return self.p_corrected is not None and self.p_corrected < SIGNIFICANT

    @property
    def failures_called(self) -> bool:
        """Whether failing depends on it, at 5 % over all looks together."""
        return self.failure_p_corrected is not None and self.failure_p_corrected < SIGNIFICANT


SIGNIFICANT = 0.05
