"""Permutation tests, corrected for multiple comparisons.

One test is of one parameter and one reading of the runs (rank score, failed or not). The readings are shuffled against
the configurations. All tests use the same shuffles, so that tests which overlap are not corrected for twice. The tests
are exact if nothing depends on the configuration: no distribution is assumed, and crashes and early stops stay with
their runs.

In names: N runs, B shuffles, L tests, D columns of a parameter's basis, G columns of the other parameters' bases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from amc_analysis.runs.parameters import Floats, Parameter

DIGITS = 10  # after these, equal shares may differ by rounding
SAME_COLUMN = 0.1  # length that is left of a column of length 1 where other columns hold nearly all of it


def shuffles(n: int, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return (count + 1, n) permutations; the first is the identity: the observed order."""
    drawn = np.tile(np.arange(n), (count + 1, 1))
    rng.permuted(drawn[1:], axis=1, out=drawn[1:])
    return drawn


def explained(reading_BN: Floats, basis_ND: Floats, has_N: NDArray[np.bool_], given_NG: Floats | None = None) -> Floats:
    """Return, for every shuffle, the share of the variance that the parameter explains among the runs that have it.

    Args:
        reading_BN: shuffled readings.
        basis_ND: orthonormal columns, zero where a run lacks the parameter.
        has_N: which runs have it.
        given_NG: orthonormal columns of other parameters, orthogonal to the basis; what they explain is left out.
    """
    among_B = ((reading_BN @ basis_ND) ** 2).sum(axis=1)
    n = int(has_N.sum())
    rows_BN = reading_BN[:1] if has_N.all() else reading_BN  # shuffles of all runs have one sum
    sum_B, square_B = rows_BN @ has_N.astype(np.float64), rows_BN**2 @ has_N.astype(np.float64)
    total_B = square_B - sum_B**2 / n
    total_B = np.broadcast_to(total_B, among_B.shape)
    if given_NG is not None:
        total_B = total_B - ((reading_BN @ given_NG) ** 2).sum(axis=1)
    share_B = np.divide(among_B, total_B, out=np.zeros_like(among_B), where=total_B > 1e-12)
    return np.asarray(np.round(share_B, DIGITS))


@dataclass(frozen=True, eq=False)
class _Others:
    """Columns of other parameters, which a test leaves out of the readings."""

    given: Floats  # (N, G) orthonormal among the runs that have the tested parameter, zero elsewhere
    strongest: Floats  # (N, E) of the strongest one, whose interaction with the tested parameter counts as well


def _others_of(parameter: Parameter, others: Sequence[Parameter]) -> _Others | None:
    """Return the columns of as many of the other parameters, strongest first, as leave three quarters of the runs free.

    None where not even the strongest one does, or where it says the same as the tested parameter.
    """
    has_N, most = parameter.has, int(parameter.has.sum()) / 4
    taken = np.zeros((len(has_N), 0))
    for other in others:
        if taken.shape[1] + other.basis.shape[1] > most:
            break
        taken = np.concatenate([taken, other.basis], axis=1)
    given_NG = _orthonormal(taken - np.where(has_N[:, None], taken[has_N].mean(axis=0), taken))
    if not given_NG.shape[1]:
        return None
    strongest = others[0]
    return _Others(given_NG, strongest.basis[:, :1] if strongest.kind == "ordered" else strongest.basis)


def _orthonormal(columns_ND: Floats) -> Floats:
    left, sizes, _ = np.linalg.svd(columns_ND, full_matrices=False)
    return np.asarray(left[:, sizes > SAME_COLUMN])


def _adjusted(basis_ND: Floats, has_N: NDArray[np.bool_], others: _Others) -> list[Floats]:
    """Return the basis, and the basis with its interaction, each without what the other parameters' columns hold."""
    products = (basis_ND[:, :, None] * others.strongest[:, None, :]).reshape(len(basis_ND), -1)
    products = products - np.where(has_N[:, None], products[has_N].mean(axis=0), 0.0)
    products = products / np.maximum(np.linalg.norm(products, axis=0), np.finfo(np.float64).tiny)
    both = np.concatenate([basis_ND, products], axis=1)
    given_NG = others.given
    return [_orthonormal(columns - given_NG @ (given_NG.T @ columns)) for columns in (basis_ND, both)]


def scores(shares_B: Floats, columns: int, n: int) -> Floats:
    """Bring shares of explained variance to one scale for any number of columns: -log of the tail for normal noise.

    The scale only weighs tests against one another; the shuffles decide what is significant. For normal noise the share
    has a beta distribution (Fisher, 1924).
    """
    from scipy.special import betaincc

    if n <= columns + 1:
        return np.zeros_like(shares_B)
    tail_B = betaincc(columns / 2, (n - 1 - columns) / 2, shares_B)
    return np.asarray(-np.log(np.maximum(tail_B, np.finfo(np.float64).tiny)))


def dependence(reading_BN: Floats, parameter: Parameter, *, of_each_value: bool = False) -> Floats:
    """Return, for every shuffle, how strongly a reading depends on a parameter; larger is stronger.

    An ordered parameter is tested for a rise or fall alone, and with an optimum in the middle as well. The strongest
    result counts, in the shuffles too, so that the p-value allows for testing several times.

    Args:
        reading_BN: shuffled readings.
        parameter: one with a basis.
        of_each_value: also compare each value of a nominal parameter with all others. This finds one deviating value
            sooner and weakens every other test a little.
    """
    n = int(parameter.has.sum())
    bases = [parameter.basis]
    if parameter.kind == "ordered" and parameter.basis.shape[1] > 1:
        bases.append(parameter.basis[:, :1])
    if of_each_value and parameter.kind == "nominal" and parameter.basis.shape[1] > 1:
        bases.extend(parameter.against_others(level) for level in range(len(parameter.levels)))
    return np.asarray(
        np.maximum.reduce([scores(explained(reading_BN, basis, parameter.has), basis.shape[1], n) for basis in bases])
    )


def dependence_beside(reading_BN: Floats, parameter: Parameter, others: Sequence[Parameter]) -> Floats:
    """Return what ``dependence`` does, with what other parameters explain left out, so that they hide no weaker one.

    The interaction with the strongest of them is tested as well; the stronger result counts. 0 where nothing can be
    left out.

    Args:
        reading_BN: shuffled readings.
        parameter: one with a basis.
        others: strongest first; none for 0.
    """
    strongest_B, left_out = np.zeros(len(reading_BN)), _others_of(parameter, others) if others else None
    if left_out is None:
        return strongest_B
    n = int(parameter.has.sum()) - left_out.given.shape[1]
    for columns in _adjusted(parameter.basis, parameter.has, left_out):
        if columns.shape[1]:
            share_B = explained(reading_BN, columns, parameter.has, left_out.given)
            strongest_B = np.maximum(strongest_B, scores(share_B, columns.shape[1], n))
    return strongest_B


def permutation_test(scores_LB: Sequence[Floats]) -> tuple[Floats, Floats]:
    """Return (p, p corrected for the number of tests) of every test: Westfall and Young's step-down maxT.

    The probability of any false positive is at most the level, however the tests depend on one another. The smallest p
    is 1/B for any number of tests. Source: Westfall & Young, Resampling-Based Multiple Testing (1993), algorithm 4.1;
    Ge, Dudoit & Speed, Test 12 (2003).

    Args:
        scores_LB: of every test in every shuffle, the observed one first, on one scale.
    """
    if not scores_LB:
        return np.empty(0), np.empty(0)
    score_LB = np.round(np.stack(scores_LB), DIGITS)
    p_L = (score_LB >= score_LB[:, :1]).mean(axis=1)
    order = np.argsort(-score_LB[:, 0], kind="stable")
    # From the weakest test upwards: the largest score of a shuffle among the tests not yet rejected.
    largest_LB = np.maximum.accumulate(score_LB[order][::-1], axis=0)[::-1]
    corrected_L = np.empty(len(score_LB))
    corrected_L[order] = np.maximum.accumulate((largest_LB >= score_LB[order, :1]).mean(axis=1))
    return p_L, corrected_L
