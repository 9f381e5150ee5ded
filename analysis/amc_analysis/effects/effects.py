"""The effect of each searched parameter on performance and on failures.

Performance is tested on the runs' rank scores, which compare each pair of runs at equal epochs (see runs.outcomes). It
is shown in the metric's unit: as peaks, or as the best of the first epochs where runs were cut short.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from amc_analysis.effects.permutation import dependence, dependence_beside, explained, permutation_test, shuffles
from amc_analysis.effects.statistics import expected_best, mean_of, normal_scores, t_interval
from amc_analysis.results.effects import SIGNIFICANT, Effect, MatchedPairs, ValueOutcome
from amc_analysis.runs.outcomes import Outcomes
from amc_analysis.runs.parameters import Floats, Parameter
from amc_sweeps.runs.statistics import wilson_interval

PERMUTATIONS = 2000
STRONG = -math.log(0.001)  # score of a parameter from which on it may hide the effects of others
CLEARLY_INSIDE = 0.1  # of a fitted curve's range: an optimum in the middle must beat both ends by more


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
    tests = _tests(outcomes, varied, rng, permutations)
    effects = [
        Effect(
            parameter=parameter.name,
            kind=parameter.kind,
            scale=parameter.scale,
            values=tuple(_value(outcomes, parameter, part, k) for part in range(len(parameter.parts))),
            n=int((parameter.has & np.isfinite(outcomes.peak)).sum()),
            where=_where(parameter, parameters),
            n_elsewhere=int((~parameter.has).sum()),
            k=k,
            equal_epochs=outcomes.equal_epochs,
            left_out=int((parameter.has & np.isfinite(outcomes.peak) & ~np.isfinite(outcomes.reached)).sum()),
            explained=performance.explained,
            p=performance.p,
            p_corrected=performance.p_corrected,
            failure_p=failing.p,
            failure_p_corrected=failing.p_corrected,
            trend=_trend(outcomes, parameter, performance),
            pairs=_pairs(outcomes, parameter, parameters),
        )
        for parameter, (performance, failing) in zip(varied, tests, strict=True)
        for k in [_equal_n(outcomes, parameter)]
    ]
    return tuple(sorted(effects, key=lambda effect: 2.0 if effect.p_corrected is None else effect.p_corrected))


@dataclass(frozen=True)
class _Test:
    explained: float | None = None
    p: float | None = None
    p_corrected: float | None = None


def _tests(
    outcomes: Outcomes, parameters: Sequence[Parameter], rng: np.random.Generator, permutations: int
) -> list[tuple[_Test, _Test]]:
    if not parameters:
        return []
    order_BN = shuffles(outcomes.n, permutations, rng)
    score_N, has_value_N = np.full(outcomes.n, np.nan), np.isfinite(outcomes.rank_score)
    score_N[has_value_N] = normal_scores(outcomes.rank_score[has_value_N])
    readings = (_fill_with_mean(score_N), _fill_with_mean(outcomes.failed))
    tested: list[tuple[int, int]] = []  # (parameter, reading)
    strengths: list[Floats] = []
    shares: list[float] = []
    for reading, reading_N in enumerate(readings):
        if not np.ptp(reading_N):
            continue
        reading_BN = reading_N[order_BN]
        alone = {index: dependence(reading_BN, each) for index, each in enumerate(parameters) if each.basis.shape[1]}
        by_strength = sorted(alone, key=lambda index: -float(alone[index][0]))
        for index, alone_B in alone.items():
            parameter = parameters[index]
            beside = [other for other in by_strength if other != index]
            # Where no other one is strong, further tests would only weaken this one. And nothing is left out of
            # failures: few of them, in a model of many columns, give extreme values by chance.
            is_hidden = reading == 0 and bool(beside) and alone[beside[0]][0] >= STRONG
            others = [parameters[other] for other in beside] if is_hidden else []
            tested.append((index, reading))
            strengths.append(np.maximum(alone_B, dependence_beside(reading_BN, parameter, others)))
            shares.append(float(explained(reading_N[None], parameter.basis, parameter.has)[0]))
    p_L, corrected_L = permutation_test(strengths)
    results = {
        test: _Test(share, float(p), float(p_corrected))
        for test, share, p, p_corrected in zip(tested, shares, p_L, corrected_L, strict=True)
    }
    return [(results.get((index, 0), _Test()), results.get((index, 1), _Test())) for index in range(len(parameters))]


def _fill_with_mean(reading_N: Floats) -> Floats:
    """Replace missing values by the mean, so that they favour no parameter value."""
    finite_N = np.isfinite(reading_N)
    return np.where(finite_N, reading_N, reading_N[finite_N].mean() if finite_N.any() else 0.0)


def _equal_n(outcomes: Outcomes, parameter: Parameter) -> int:
    counts = (int(np.isfinite(outcomes.reached[runs]).sum()) for runs in parameter.parts)
    return max(1, min((count for count in counts if count), default=1))


def _value(outcomes: Outcomes, parameter: Parameter, part: int, k: int) -> ValueOutcome:
    runs = parameter.parts[part]
    counted_runs = runs[np.isfinite(outcomes.reached[runs])]
    values = outcomes.reached[counted_runs].tolist()
    peaked = runs[np.isfinite(outcomes.peak[runs])].tolist()
    best = max(peaked, key=lambda run: outcomes.sign * outcomes.peak[run]) if peaked else None
    failed = outcomes.failed[runs]
    failures, ended = int(np.nansum(failed)), int(np.isfinite(failed).sum())
    rank_score = outcomes.rank_score[runs]
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
        mean=mean_of(values),
        interval=t_interval(values) if outcomes.is_comparable else None,
        spread=(min(values), max(values)) if values else None,
        expected_best=outcomes.sign * expected_best([outcomes.sign * value for value in values], k) if values else None,
        rank_score=float(np.nanmean(rank_score)) if np.isfinite(rank_score).any() else None,
        failures=failures,
        ended=ended,
        failure_interval=wilson_interval(failures, ended),
        cut_short=int((outcomes.cut_short[runs] & np.isfinite(failed)).sum()),
    )


def _where(parameter: Parameter, others: Sequence[Parameter]) -> str | None:
    """Return the value of another parameter that all runs with this parameter have, and no run without it."""
    if parameter.has.all():
        return None
    for other in others:
        if other is parameter or not other.has.all():
            continue
        inside, outside = set(other.index[parameter.has].tolist()), set(other.index[~parameter.has].tolist())
        if not inside & outside:
            return f"{other.name} = {' or '.join(other.texts[level] for level in sorted(inside))}"
    return "an unknown condition holds"


def _trend(
    outcomes: Outcomes, parameter: Parameter, result: _Test
) -> Literal["rises", "falls", "peaks inside", "dips inside"] | None:
    """Return the shape of an ordered parameter's effect, from the polynomial that fits the rank scores."""
    if parameter.kind == "nominal" or result.p_corrected is None or result.p_corrected >= SIGNIFICANT:
        return None
    fitted_N = parameter.basis @ (_fill_with_mean(outcomes.rank_score) @ parameter.basis)
    fitted = fitted_N[parameter.has][np.argsort(parameter.index[parameter.has], kind="stable")]
    ends, clear = (fitted[0], fitted[-1]), CLEARLY_INSIDE * np.ptp(fitted)
    if fitted.max() - max(ends) > clear:
        return "peaks inside"
    if min(ends) - fitted.min() > clear:
        return "dips inside"
    return "rises" if ends[1] > ends[0] else "falls"


def _pairs(outcomes: Outcomes, parameter: Parameter, parameters: Sequence[Parameter]) -> tuple[MatchedPairs, ...]:
    """Compare every two values over the configurations of the other parameters that both have; average over seeds."""
    if parameter.is_range:
        return ()
    others = [other for other in parameters if other is not parameter]
    cells: dict[tuple[int, ...], dict[int, list[float]]] = {}
    for run in np.flatnonzero(parameter.has & np.isfinite(outcomes.reached)).tolist():
        key = tuple(int(other.index[run]) for other in others)
        cells.setdefault(key, {}).setdefault(int(parameter.index[run]), []).append(float(outcomes.reached[run]))
    means = [{level: math.fsum(values) / len(values) for level, values in cell.items()} for cell in cells.values()]
    pairs = []
    for first, second in itertools.combinations(range(len(parameter.levels)), 2):
        differences = [cell[second] - cell[first] for cell in means if first in cell and second in cell]
        if differences:
            pairs.append(
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
    return tuple(pairs)
