"""Permutation tests of many looks at once: what a sweep shows when nothing depends on anything.

A *look* is one parameter and one reading of the runs (how they stand, whether they failed). The runs' readings are
shuffled against their configurations, all looks by the same shuffles, so that looks which overlap are not paid for
twice. Exact under the hypothesis that nothing depends on the configuration: no distribution is assumed, and crashes
and early stops travel with their runs.

In names: N runs, B shuffles, L looks, D columns of a look's basis.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

DIGITS = 10  # beyond which equal shares differ by rounding alone


def shuffles(n: int, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return (count + 1, n) permutations; the first is the identity, which stands for what was observed."""
    drawn = rng.random((count + 1, n), dtype=np.float32).argsort(axis=1, kind="stable")
    drawn[0] = np.arange(n)
    return drawn


def explained(reading_BN: Floats, basis_ND: Floats, has_N: NDArray[np.bool_]) -> Floats:
    """Return, for every shuffle, the share of the variance among the runs that have the parameter which it explains.

    Args:
        reading_BN: shuffled readings.
        basis_ND: orthonormal columns, zero where a run lacks the parameter.
        has_N: which runs have it.
    """
    among_B = ((reading_BN @ basis_ND) ** 2).sum(axis=1)
    n = int(has_N.sum())
    sum_B, square_B = reading_BN @ has_N.astype(np.float64), reading_BN**2 @ has_N.astype(np.float64)
    total_B = square_B - sum_B**2 / n
    share_B = np.divide(among_B, total_B, out=np.zeros_like(among_B), where=total_B > 1e-12)
    return np.asarray(np.round(share_B, DIGITS))


def p_values(statistics_LB: Floats) -> Floats:
    """Return for every look the share of shuffles whose statistic is at least as large as the observed one."""
    return np.asarray((statistics_LB >= statistics_LB[:, :1]).mean(axis=1))


def corrected(statistics_LB: Floats) -> Floats:
    """Return p-values of the first shuffle corrected for the number of looks: Westfall and Young's step-down maxT.

    The chance that any look is called at a level when none should be is at most that level, whatever the looks have
    in common, and the smallest p is 1/B however many looks there are. Looks with more columns explain more by chance:
    each statistic is made about normal by its cube root (Wilson & Hilferty, 1931) and brought to one scale by its own
    shuffles. Source: Westfall & Young, Resampling-Based Multiple Testing (1993), algorithm 4.1; Ge, Dudoit & Speed,
    Test 12 (2003).
    """
    if len(statistics_LB) == 0:
        return np.empty(0)
    root_LB = np.cbrt(statistics_LB)
    spread_L = root_LB.std(axis=1)
    centred_LB = root_LB - root_LB.mean(axis=1, keepdims=True)
    score_LB = np.round(centred_LB / np.where(spread_L > 0, spread_L, 1.0)[:, None], DIGITS)
    order = np.argsort(-score_LB[:, 0], kind="stable")
    # From the weakest look upwards: the largest score of a shuffle among the looks not yet rejected.
    largest_LB = np.maximum.accumulate(score_LB[order][::-1], axis=0)[::-1]
    shares = (largest_LB >= score_LB[order, :1]).mean(axis=1)
    found = np.empty(len(score_LB))
    found[order] = np.maximum.accumulate(shares)
    return found


def test(statistics_LB: Sequence[Floats]) -> tuple[Floats, Floats]:
    """Return (p, corrected p) of every look, from its statistic in every shuffle, the observed one first."""
    if not statistics_LB:
        return np.empty(0), np.empty(0)
    stacked_LB = np.stack(statistics_LB)
    return p_values(stacked_LB), corrected(stacked_LB)
