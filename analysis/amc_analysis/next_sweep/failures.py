"""Values and ends of ranges that failures exclude: most runs fail there, and clearly more than elsewhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from amc_analysis.effects.statistics import fisher_p
from amc_analysis.results.next_sweep import FailingEnd
from amc_sweeps.runs.causes import ENDED_WELL, FAILURES, Cause
from amc_sweeps.runs.statistics import wilson_interval

# Failures that are no evidence about the configuration.
_OF_THE_MACHINE = frozenset({Cause.NODE_FAILURE, Cause.ENVIRONMENT_ERROR, Cause.DATA_ERROR})

LEAST_BEYOND = 4  # runs in the part that is cut off
MOST_FAIL = 0.5  # the lower bound (95%) of their failure rate has to exceed this
SIGNIFICANT = 0.05  # permutation test against the rest of the range, over all places to cut it
PERMUTATIONS = 1999
HOLDS_OPTIMUM = 0.05  # share of the draws of the optimum; a place with as many is kept in spite of its failures


def is_evidence(cause: Cause) -> bool:
    """Return whether an end shows if the configuration fails: the run ended by itself, and not with its machine."""
    return is_own_failure(cause) or cause in ENDED_WELL


def is_own_failure(cause: Cause) -> bool:
    """Return whether a run failed in a way that its configuration may have caused."""
    return cause in FAILURES - _OF_THE_MACHINE


def value_fails(
    failures: int, ended: int, all_failures: int, all_ended: int, *, tests: int, holds_optimum: float
) -> bool:
    """Return whether failures exclude a listed value: most of its runs fail, and clearly more than of the others.

    The test is Fisher's exact one (one-sided), corrected for the number of values (``tests``).
    """
    if holds_optimum >= HOLDS_OPTIMUM or wilson_interval(failures, ended)[0] <= MOST_FAIL:
        return False
    return fisher_p(failures, ended, all_failures, all_ended) * tests < SIGNIFICANT


def failing_end(
    places: NDArray[np.float64], failed: NDArray[np.bool_], optimum: NDArray[np.float64], *, seed: int
) -> FailingEnd | None:
    """Return the largest end of a range that failures exclude: most runs fail there, and clearly more than elsewhere.

    Args:
        places: (N,) coordinates of runs that ended by themselves.
        failed: (N,) which of them failed.
        optimum: draws of the optimum's coordinate; an end that may hold the optimum is kept.
        seed: of the permutations.
    """
    n, total = len(places), int(failed.sum())
    if n < 2 * LEAST_BEYOND or total in {0, n}:
        return None
    order = np.argsort(-places, kind="stable")
    place, fails_N = places[order], failed[order].astype(np.float64)
    rng = np.random.default_rng(seed)
    shuffled_PN = rng.permuted(np.broadcast_to(fails_N, (PERMUTATIONS, n)), axis=1)
    highest_P = np.maximum(_excess(shuffled_PN).max(axis=1), _excess(shuffled_PN[:, ::-1]).max(axis=1))
    excluded = []
    for upper in (True, False):
        ends = (place, fails_N) if upper else (-place[::-1], fails_N[::-1])
        for size in range(n - LEAST_BEYOND, LEAST_BEYOND - 1, -1):  # the largest end first
            end = _end(*ends, size, upper=upper)
            p = (1 + int((highest_P >= _excess(ends[1][None])[0, size - LEAST_BEYOND]).sum())) / (PERMUTATIONS + 1)
            if end is None or p >= SIGNIFICANT or float(((optimum > end.beyond) == upper).mean()) >= HOLDS_OPTIMUM:
                continue
            excluded.append(replace(end, p=p))
            break
    return min(excluded, key=lambda end: end.p, default=None)


def _excess(fails_PN: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (P, ends) how many sd more failures than their share the first LEAST_BEYOND, ... runs have."""
    n = fails_PN.shape[1]
    sizes = np.arange(LEAST_BEYOND, n - LEAST_BEYOND + 1)
    rate = fails_PN.mean(axis=1, keepdims=True)
    sd = np.sqrt(sizes * rate * (1 - rate) * (n - sizes) / (n - 1))  # hypergeometric
    return np.asarray((np.cumsum(fails_PN, axis=1)[:, sizes - 1] - sizes * rate) / sd)


def _end(place: NDArray[np.float64], fails: NDArray[np.float64], size: int, *, upper: bool) -> FailingEnd | None:
    """Return the end of the first ``size`` runs, if most of them failed and its first runs did too."""
    inner, outer = float(place[size]), float(place[size - 1])
    if inner == outer or fails[size - 1] == 0 or fails[max(size - 3, 0) : size].sum() < 2:
        return None
    failures, total, n = int(fails[:size].sum()), int(fails.sum()), len(fails)
    interval = wilson_interval(failures, size)
    if interval[0] <= MOST_FAIL:
        return None
    beyond = (inner + outer) / 2 if upper else -(inner + outer) / 2
    return FailingEnd(beyond, upper, failures, size, interval, total - failures, n - size, 1.0)
