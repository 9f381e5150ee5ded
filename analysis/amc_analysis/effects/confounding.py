"""Pairs of parameters that moved together: their effects cannot be separated."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from amc_analysis.effects.permutation import DIGITS, permutation_test, shuffles
from amc_analysis.results.effects import ConfoundedPair, Measure
from amc_analysis.runs.parameters import Floats, Parameter

PERMUTATIONS = 1000
STRONG = 0.5  # at this strength and above, two effects cannot be separated
SIGNIFICANT = 0.008  # over all pairs of a sweep together; stricter than 0.05, because a rule warns of every pair


def confounded_pairs(parameters: Sequence[Parameter], rng: np.random.Generator) -> tuple[ConfoundedPair, ...]:
    """Return the pairs that are tied strongly, and more than random draws explain; the strongest first.

    Only parameters that every run has are compared. Two nominal parameters are measured by Cramér's V (1946), two
    ordered ones by Spearman's rank correlation, one of each by the correlation ratio of the ranks. All three are the
    root of the share of one parameter's columns that the other's columns explain.
    """
    columns = [_columns(parameter) for parameter in parameters]
    pairs = [
        (first, second)
        for first, second in itertools.combinations(range(len(parameters)), 2)
        if columns[first].shape[1]
        and columns[second].shape[1]
        and parameters[first].has.all()
        and parameters[second].has.all()
    ]
    if not pairs:
        return ()
    n = len(parameters[0].values)
    orders = {index: shuffles(n, PERMUTATIONS, rng) for index in sorted({index for pair in pairs for index in pair})}
    ties = [_tie(columns[first][orders[first]], columns[second][orders[second]]) for first, second in pairs]
    scores_LB = [
        _score(tie_B, columns[first], columns[second]) for (first, second), tie_B in zip(pairs, ties, strict=True)
    ]
    _, corrected_L = permutation_test(scores_LB)
    tested = [
        ConfoundedPair(
            first=parameters[first].name,
            second=parameters[second].name,
            strength=math.sqrt(min(float(tie_B[0]), 1.0)),
            measure=_measure(parameters[first], parameters[second]),
            n=n,
            p_corrected=float(p_corrected),
        )
        for (first, second), tie_B, p_corrected in zip(pairs, ties, corrected_L, strict=True)
    ]
    strong = [pair for pair in tested if pair.strength >= STRONG and pair.p_corrected < SIGNIFICANT]
    return tuple(sorted(strong, key=lambda pair: -pair.strength))


def _columns(parameter: Parameter) -> Floats:
    """Return contrasts between values, or the rank without its square: a tie to the square is no confounding."""
    return parameter.basis if parameter.kind == "nominal" else parameter.basis[:, :1]


def _tie(first_BND: Floats, second_BNE: Floats) -> Floats:
    """Return, for every shuffle, the mean squared canonical correlation: V^2, rho^2 or eta^2."""
    products_BDE = np.matmul(first_BND.transpose(0, 2, 1), second_BNE)
    fewest = min(first_BND.shape[2], second_BNE.shape[2])
    return np.asarray(np.round((products_BDE**2).sum(axis=(1, 2)) / fewest, DIGITS))


def _score(tie_B: Floats, first_ND: Floats, second_NE: Floats) -> Floats:
    """Bring ties of any number of columns to one scale: n times the summed squares is roughly chi-squared."""
    from scipy.special import chdtrc

    squares = first_ND.shape[1] * second_NE.shape[1]
    total_B = len(first_ND) * tie_B * min(first_ND.shape[1], second_NE.shape[1])
    return np.asarray(-np.log(np.maximum(chdtrc(squares, total_B), np.finfo(np.float64).tiny)))


def _measure(first: Parameter, second: Parameter) -> Measure:
    kinds = {first.kind, second.kind}
    if kinds == {"nominal"}:
        return "Cramér's V"
    return "rank correlation" if kinds == {"ordered"} else "correlation ratio"
