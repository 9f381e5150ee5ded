"""What each searched parameter did to performance and to failures.

Performance is tested on the runs' standing (see outcomes), which compares each pair of runs at equal epochs, and shown
in the metric's unit: as peaks, or as the best of the first so many epochs where runs were cut short.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from amc_analysis.effects.outcomes import Outcomes
from amc_analysis.effects.parameters import Floats, Parameter, text_of
from amc_analysis.effects.permutation import dependence, explained, shuffles, test
from amc_analysis.effects.statistics import expected_best, t_interval
from amc_sweeps.runs.statistics import wilson_interval

PERMUTATIONS = 2000
SIGNIFICANT = 0.05  # over all looks together
CLEARLY_INSIDE = 0.1  # of a fitted curve's range, by which its extreme has to pass both ends


@dataclass(frozen=True)
class ValueOutcome:
    """What the runs of one value, or of one part of a range, came to."""

    label: str  # "0.001", "true", "0.0001 to 0.00046"
    value: Any  # the value; None for a part of a range
    low: float | None  # ends of a part of a range; None for a value
    high: float | None
    n: int  # runs whose outcome counts in mean, interval and expected best
    runs: int  # runs of this value in all
    best: float | None  # peak of any of its runs, however it ended
    best_run: str | None  # its id
    mean: float | None
    interval: tuple[float, float] | None  # of the mean: Student's t, 95 %; None under 8 runs, and
    #                                      where outcomes are peaks of runs of unknown or very unequal length
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
    equal_epochs: int | None  # outcomes are the best of the first so many epochs, for many runs were cut short from
    #                           outside; None: outcomes are peaks
    left_out: int  # runs with a value that failed, or were cut short, before that: in best and standing alone
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


def effects_of(
    outcomes: Outcomes, parameters: Sequence[Parameter], rng: np.random.Generator, *, permutations: int = PERMUTATIONS
) -> tuple[Effect, ...]:
    """Test and describe every parameter that took at least two values, strongest evidence first.

    Args:
        outcomes: the runs.
        parameters: searched ones, values in the order of the runs.
        rng: of the permutations.
        permutations: more of them resolve smaller p-values; 1 / (permutations + 1) is the smallest.
    """
    varied = [parameter for parameter in parameters if len(parameter.levels) > 1]
    looks = _looks(outcomes, varied, rng, permutations)
    found = [
        Effect(
            parameter=parameter.name,
            kind=parameter.kind,
            scale=parameter.scale,
            values=_values(outcomes, parameter, k),
            n=int((parameter.has & np.isfinite(outcomes.peak)).sum()),
            where=_where(parameter, parameters),
            n_elsewhere=int((~parameter.has).sum()),
            k=k,
            equal_epochs=outcomes.equal_epochs,
            left_out=_left_out(outcomes, parameter),
            explained=performance.explained,
            p=performance.p,
            p_corrected=performance.p_corrected,
            failure_p=failing.p,
            failure_p_corrected=failing.p_corrected,
            trend=_trend(outcomes, parameter, performance),
            pairs=_pairs(outcomes, parameter, parameters),
        )
        for parameter, (performance, failing) in zip(varied, looks, strict=True)
        for k in [_equal_n(outcomes, parameter)]
    ]
    return tuple(sorted(found, key=lambda effect: 2.0 if effect.p_corrected is None else effect.p_corrected))


@dataclass(frozen=True)
class _Look:
    explained: float | None = None
    p: float | None = None
    p_corrected: float | None = None


def _looks(
    outcomes: Outcomes, parameters: Sequence[Parameter], rng: np.random.Generator, permutations: int
) -> list[tuple[_Look, _Look]]:
    """Return (performance, failures) of every parameter, tested together."""
    if not parameters:
        return []
    order_BN = shuffles(outcomes.n, permutations, rng)
    readings = (_neutral(outcomes.standing), _neutral(outcomes.failed))
    places: list[tuple[int, int]] = []
    strengths: list[Floats] = []
    for which, reading_N in enumerate(readings):
        if not np.ptp(reading_N):
            continue
        reading_BN = reading_N[order_BN]
        for index, parameter in enumerate(parameters):
            if parameter.basis.shape[1]:
                places.append((index, which))
                strengths.append(dependence(reading_BN, parameter))
    p_L, corrected_L = test(strengths)
    found = {
        place: _Look(_share(readings[place[1]], parameters[place[0]]), float(p), float(p_corrected))
        for place, p, p_corrected in zip(places, p_L, corrected_L, strict=True)
    }
    return [(found.get((index, 0), _Look()), found.get((index, 1), _Look())) for index in range(len(parameters))]


def _share(reading_N: Floats, parameter: Parameter) -> float:
    return float(explained(reading_N[None], parameter.basis, parameter.has)[0])


def _neutral(reading_N: Floats) -> Floats:
    """Give runs of which nothing is known the mean of the others: they then speak for no value."""
    known_N = np.isfinite(reading_N)
    return np.where(known_N, reading_N, reading_N[known_N].mean() if known_N.any() else 0.0)


def _equal_n(outcomes: Outcomes, parameter: Parameter) -> int:
    known_N = np.isfinite(outcomes.reached)
    counts = [int(known_N[runs].sum()) for runs in parameter.parts]
    return max(1, min((count for count in counts if count), default=1))


def _left_out(outcomes: Outcomes, parameter: Parameter) -> int:
    return int((parameter.has & np.isfinite(outcomes.peak) & ~np.isfinite(outcomes.reached)).sum())


def _values(outcomes: Outcomes, parameter: Parameter, k: int) -> tuple[ValueOutcome, ...]:
    return tuple(_value(outcomes, parameter, part, runs, k) for part, runs in enumerate(parameter.parts))


def _value(outcomes: Outcomes, parameter: Parameter, part: int, runs: NDArray[np.int64], k: int) -> ValueOutcome:
    known = runs[np.isfinite(outcomes.reached[runs])]
    values = outcomes.reached[known].tolist()
    peaked = runs[np.isfinite(outcomes.peak[runs])].tolist()
    best = max(peaked, key=lambda run: outcomes.sign * outcomes.peak[run]) if peaked else None
    failed = outcomes.failed[runs]
    failures, ended = int(np.nansum(failed)), int(np.isfinite(failed).sum())
    standing = outcomes.standing[runs]
    low, high = parameter.ends(part) if parameter.is_range else (None, None)
    return ValueOutcome(
        label=parameter.label(part),
        value=None if parameter.is_range else parameter.levels[part],
        low=low,
        high=high,
        n=len(values),
        runs=len(runs),
        best=None if best is None else float(outcomes.peak[best]),
        best_run=None if best is None else outcomes.entries[best].run.run_id,
        mean=math.fsum(values) / len(values) if values else None,
        interval=t_interval(values) if outcomes.is_comparable else None,
        spread=(min(values), max(values)) if values else None,
        expected_best=outcomes.sign * expected_best([outcomes.sign * value for value in values], k) if values else None,
        standing=float(np.nanmean(standing)) if np.isfinite(standing).any() else None,
        failures=failures,
        ended=ended,
        failure_interval=wilson_interval(failures, ended),
        cut_short=int((outcomes.cut_short[runs] & np.isfinite(failed)).sum()),
    )


def _where(parameter: Parameter, others: Sequence[Parameter]) -> str | None:
    """Name the value of another parameter that all runs with this one share, and no run without it."""
    if parameter.has.all():
        return None
    for other in others:
        if other is parameter or not other.has.all():
            continue
        inside, outside = set(other.index[parameter.has].tolist()), set(other.index[~parameter.has].tolist())
        if not inside & outside:
            return f"{other.name} = {' or '.join(text_of(other.levels[level]) for level in sorted(inside))}"
    return "some runs, by no parameter of the sweep"


def _trend(
    outcomes: Outcomes, parameter: Parameter, look: _Look
) -> Literal["rises", "falls", "peaks inside", "dips inside"] | None:
    """Read the shape of an ordered parameter's effect off the polynomial that fits the runs' standing."""
    if parameter.kind == "nominal" or look.p_corrected is None or look.p_corrected >= SIGNIFICANT:
        return None
    fitted_N = parameter.basis @ (_neutral(outcomes.standing) @ parameter.basis)
    fitted = fitted_N[parameter.has][np.argsort(parameter.index[parameter.has], kind="stable")]
    ends, clear = (fitted[0], fitted[-1]), CLEARLY_INSIDE * np.ptp(fitted)
    if fitted.max() - max(ends) > clear:
        return "peaks inside"
    if min(ends) - fitted.min() > clear:
        return "dips inside"
    return "rises" if ends[1] > ends[0] else "falls"


def _pairs(outcomes: Outcomes, parameter: Parameter, parameters: Sequence[Parameter]) -> tuple[MatchedPairs, ...]:
    """Compare every two values over configurations of everything else that both have runs of; seeds are averaged."""
    if parameter.is_range:
        return ()
    others = [other for other in parameters if other is not parameter]
    cells: dict[tuple[int, ...], dict[int, list[float]]] = {}
    for run in np.flatnonzero(parameter.has & np.isfinite(outcomes.reached)).tolist():
        key = tuple(int(other.index[run]) for other in others)
        cells.setdefault(key, {}).setdefault(int(parameter.index[run]), []).append(float(outcomes.reached[run]))
    means = [{level: math.fsum(values) / len(values) for level, values in cell.items()} for cell in cells.values()]
    found = []
    for first, second in itertools.combinations(range(len(parameter.levels)), 2):
        differences = [cell[second] - cell[first] for cell in means if first in cell and second in cell]
        if differences:
            found.append(
                MatchedPairs(
                    first=parameter.levels[first],
                    second=parameter.levels[second],
                    n=len(differences),
                    difference=math.fsum(differences) / len(differences),
                    interval=t_interval(differences),
                    better=sum(outcomes.sign * difference > 0 for difference in differences),
                    ties=sum(difference == 0 for difference in differences),
                )
            )
    return tuple(found)
