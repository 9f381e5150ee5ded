"""Pairs of parameters that moved together, so that their effects cannot be told apart."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from amc_analysis.effects.parameters import Floats, Parameter
from amc_analysis.effects.permutation import DIGITS, shuffles, test

PERMUTATIONS = 1000
STRONG = 0.5  # from here on the effect of one is largely the effect of the other
SIGNIFICANT = 0.008  # over all pairs of a sweep together: a rule stands on it

Measure = Literal["Cramér's V", "rank correlation", "correlation ratio"]


@dataclass(frozen=True)
class ConfoundedPair:
    """Two searched parameters and how closely they are tied in the runs that there are."""

    first: str
    second: str
    strength: float  # 0: independent, 1: one follows from the other
    measure: Measure
    n: int
    p_corrected: float  # permutation, for the number of pairs


def confounded_pairs(parameters: Sequence[Parameter], rng: np.random.Generator) -> tuple[ConfoundedPair, ...]:
    """Return the pairs that are tied strongly, and more than random draws explain; the strongest first.

    Over the runs that have both. Two nominal parameters are measured by Cramér's V (1946), two ordered ones by
    Spearman's rank correlation, one of each by the correlation ratio of the ranks: all three are the share of one
    parameter's columns that the other's account for, as a root.
    """
    columns = [_columns(parameter) for parameter in parameters]
    pairs = [
        (one, other)
        for one, other in itertools.combinations(range(len(parameters)), 2)
        if columns[one].shape[1]
        and columns[other].shape[1]
        and parameters[one].has.all()
        and parameters[other].has.all()
    ]
    if not pairs:
        return ()
    n = len(parameters[0].values)
    orders = {index: shuffles(n, PERMUTATIONS, rng) for index in sorted({index for pair in pairs for index in pair})}
    ties = [_tie(columns[one][orders[one]], columns[other][orders[other]]) for one, other in pairs]
    looks = [_score(tie_B, columns[one], columns[other]) for (one, other), tie_B in zip(pairs, ties, strict=True)]
    _, corrected_L = test(looks)
    found = [
        ConfoundedPair(
            first=parameters[one].name,
            second=parameters[other].name,
            strength=math.sqrt(min(float(tie_B[0]), 1.0)),
            measure=_measure(parameters[one], parameters[other]),
            n=n,
            p_corrected=float(p_corrected),
        )
        for (one, other), tie_B, p_corrected in zip(pairs, ties, corrected_L, strict=True)
    ]
    strong = [pair for pair in found if pair.strength >= STRONG and pair.p_corrected < SIGNIFICANT]
    return tuple(sorted(strong, key=lambda pair: -pair.strength))


def _columns(parameter: Parameter) -> Floats:
    """Return contrasts between values, or the rank alone: a parameter tied to another's square is not one with it."""
    return parameter.basis if parameter.kind == "nominal" else parameter.basis[:, :1]


def _tie(one_BND: Floats, other_BNE: Floats) -> Floats:
    """Return, for every shuffle, the mean squared canonical correlation: V^2, rho^2 or eta^2."""
    products_BDE = np.matmul(one_BND.transpose(0, 2, 1), other_BNE)
    fewest = min(one_BND.shape[2], other_BNE.shape[2])
    return np.asarray(np.round((products_BDE**2).sum(axis=(1, 2)) / fewest, DIGITS))


def _score(tie_B: Floats, one_ND: Floats, other_NE: Floats) -> Floats:
    """Bring ties of any number of columns to one scale: n times the summed squares is about chi-squared."""
    from scipy.special import chdtrc

    squares = one_ND.shape[1] * other_NE.shape[1]
    total_B = len(one_ND) * tie_B * min(one_ND.shape[1], other_NE.shape[1])
    return np.asarray(-np.log(np.maximum(chdtrc(squares, total_B), np.finfo(np.float64).tiny)))


def _measure(one: Parameter, other: Parameter) -> Measure:
    kinds = {one.kind, other.kind}
    if kinds == {"nominal"}:
        return "Cramér's V"
    return "rank correlation" if kinds == {"ordered"} else "correlation ratio"
