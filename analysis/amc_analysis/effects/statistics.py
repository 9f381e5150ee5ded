"""Statistics of a list of numbers: the interval of a mean, the expected best of k, the inflation of a peak."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

LEAST_FOR_INTERVAL = 8


def mean_of(values: Iterable[float | None]) -> float | None:
    """Return the mean of the values that are not None; None without any."""
    numbers = [value for value in values if value is not None]
    return math.fsum(numbers) / len(numbers) if numbers else None


def t_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """Return Student's confidence interval of the mean; None under LEAST_FOR_INTERVAL values.

    It is exact for normal values. From 8 values on its coverage is also right for the skewed and two-peaked outcomes of
    sweeps (tests/soak/results/calibration.md); the percentile bootstrap covers far too little there.
    """
    n = len(values)
    if n < LEAST_FOR_INTERVAL:
        return None
    from scipy.special import stdtrit

    mean = math.fsum(values) / n
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = float(stdtrit(n - 1, 0.5 + confidence / 2)) * sd / math.sqrt(n)
    return mean - half, mean + half


def expected_best(values: Sequence[float], k: int) -> float:
    """Return the expected highest of k runs drawn without replacement from n.

    This is the mean of the maximum over all subsets of k, an unbiased estimate, so that groups of unequal size compare
    fairly. The plug-in estimate of Dodge et al. (2019) is biased downwards.
    Source: Tang et al., "Showing Your Work Doesn't Always Work", ACL 2020, equation 3.

    Raises:
        ValueError: when k is not in 1..n.
    """
    n = len(values)
    if not 1 <= k <= n:
        raise ValueError(f"k = {k} of {n} values: choose 1 to {n}")
    # The i-th smallest is the highest of C(i - 1, k - 1) of the C(n, k) subsets. Use a product of ratios, because C
    # overflows a float at n = 1,030. From the largest downwards: C(n - 1, k - 1) / C(n, k) = k / n.
    total, weight = 0.0, k / n
    for rank, value in zip(range(n, k - 1, -1), sorted(values, reverse=True), strict=False):
        total += weight * value
        if rank > k:
            weight *= (rank - k) / (rank - 1)
    return total


def fisher_p(marked: int, drawn: int, all_marked: int, n: int) -> float:
    """Return the one-sided p of Fisher's exact test: at least ``marked`` marked items among those drawn from n."""
    ways = range(marked, min(all_marked, drawn) + 1)
    return sum(math.comb(drawn, k) * math.comb(n - drawn, all_marked - k) for k in ways) / math.comb(n, all_marked)


def expected_inflation(n: int) -> float:
    """Return the expected highest of n independent standard normal values.

    Source: Blom, "Statistical Estimates and Transformed Beta-Variables" (1958), approximation with alpha = 0.375.
    """
    return 0.0 if n < 2 else NormalDist().inv_cdf((n - 0.375) / (n + 0.25))


def normal_scores(rank_score_K: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the normal quantiles of shares of beaten runs."""
    from scipy.special import ndtri

    n = len(rank_score_K)
    return np.asarray(ndtri((rank_score_K * (n - 1) + 0.5) / n))
