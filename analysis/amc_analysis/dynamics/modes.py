"""Whether outcomes fall into two groups: a test for more than one mode, and the gap between the groups.

The statistic is the excess mass that two intervals have over one, at the best density threshold (Müller & Sawitzki,
JASA 86, 1991). It is twice Hartigan's dip (Hartigan & Hartigan, Annals of Statistics 13, 1985). Its null distribution
is simulated with uniform samples of the same size: of all distributions with one mode these look most like two. The
thresholds are a grid, the same for the sample and for the simulated ones.

In names: S samples, N values of each, T thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from amc_analysis.results.dynamics import Modes
from amc_analysis.runs.parameters import Floats

LEAST_VALUES = 10
SIMULATIONS = 1000
MANY = 200  # values; above this fewer simulations are drawn, to save time
SIGNIFICANT = 0.05
THRESHOLDS_T = np.geomspace(0.3, 100.0, 40)  # of density, where the uniform one over the sample's range is 1
LEAST_SHARE = 0.1  # of the values, on each side of the gap


def modes_of(values: Sequence[float], rng: np.random.Generator) -> Modes | None:
    """Test finite values for two modes; None under LEAST_VALUES of them, or where all are equal."""
    sorted_N = np.sort(np.asarray(values, dtype=np.float64))
    n = len(sorted_N)
    if n < LEAST_VALUES or sorted_N[0] == sorted_N[-1]:
        return None
    simulations = SIMULATIONS if n < MANY else SIMULATIONS * MANY // (5 * n) + 99
    observed = float(excess_mass(sorted_N[None])[0])
    simulated_S = excess_mass(np.sort(rng.random((simulations, n)), axis=1))
    p = (1 + int((simulated_S >= observed).sum())) / (simulations + 1)
    if p >= SIGNIFICANT:
        return Modes(n, observed, p, bimodal=False, gap=None, below=None, above=None)
    below = _widest_gap(sorted_N)
    gap = (float(sorted_N[below - 1]), float(sorted_N[below]))
    return Modes(n, observed, p, bimodal=True, gap=gap, below=below, above=n - below)


def excess_mass(sorted_SN: Floats) -> Floats:
    """Return the excess mass of two intervals over one, for every sample (ascending, not all equal).

    The excess of an interval is its share of the values minus threshold times its length.
    """
    n = sorted_SN.shape[1]
    low_S, high_S = sorted_SN[:, :1], sorted_SN[:, -1:]
    steps_SN = np.diff((sorted_SN - low_S) / (high_S - low_S), axis=1)
    first_ST = np.full((len(sorted_SN), len(THRESHOLDS_T)), 1 / n)  # best interval that ends at this value
    best_ST, second_ST, both_ST = first_ST.copy(), first_ST.copy(), first_ST.copy()
    for step_S in steps_SN.T:
        cost_ST = step_S[:, None] * THRESHOLDS_T
        second_ST = 1 / n + np.maximum(best_ST, second_ST - cost_ST)  # the second of two that ends here
        first_ST = 1 / n + np.maximum(0.0, first_ST - cost_ST)
        np.maximum(best_ST, first_ST, out=best_ST)
        np.maximum(both_ST, second_ST, out=both_ST)
    return np.asarray((both_ST - best_ST).max(axis=1))


def _widest_gap(sorted_N: Floats) -> int:
    """Return how many values lie below the widest gap that leaves enough values on both sides."""
    n = len(sorted_N)
    least = max(2, int(np.ceil(LEAST_SHARE * n)))
    gaps = np.diff(sorted_N)[least - 1 : n - least]
    return least + int(gaps.argmax())
