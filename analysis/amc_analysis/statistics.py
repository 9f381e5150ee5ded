"""The few statistics that the report needs, as plain functions of numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

LEAST_POINTS_FOR_NOISE = 5
LEAST_FOR_INTERVAL = 8


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the score interval of a rate, as fractions.

    It keeps close to its nominal coverage for small n and never leaves 0..1, unlike p ± z·SE. With n = 0 nothing is
    known: (0, 1). Source: Wilson, JASA 22 (1927); Brown, Cai & DasGupta, Statistical Science 16 (2001).

    Raises:
        ValueError: when successes is not in 0..n.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}: not a rate")
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    rate = successes / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    # At the ends the bound is exactly 0 or 1; the formula would miss it by a rounding error.
    return (0.0 if successes == 0 else centre - half), (1.0 if successes == n else centre + half)


def noise_sd(values: Sequence[float]) -> float | None:
    """Estimate the sd of a curve's epoch-to-epoch noise from its second differences; None under 5 values.

    For independent noise of sd s around a smooth curve, x[i-1] - 2 x[i] + x[i+1] has variance 6 s², whatever the
    curve's height and slope. Source: Gasser, Sroka & Jennen-Steinmetz, Biometrika 73 (1986).
    """
    if len(values) < LEAST_POINTS_FOR_NOISE:
        return None
    second = [before - 2 * here + after for before, here, after in zip(values, values[1:], values[2:], strict=False)]
    return math.sqrt(sum(difference**2 for difference in second) / len(second) / 6)


def medians_of_3(values: Sequence[float]) -> list[float]:
    """Return the running median of three neighbours, two values shorter than the input (empty under 3)."""
    return [sorted(window)[1] for window in zip(values, values[1:], values[2:], strict=False)]


def t_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """Return Student's interval of the mean; None under LEAST_FOR_INTERVAL values.

    It is exact for normal values and holds well for the skewed and two-humped ones of sweeps from 8 on
    (tests/soak/results/calibration.md), where the percentile bootstrap covers far too little. Under that a range says
    more than an interval that rests on a guess about the shape.
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

    The mean of the maximum over all subsets of k: unbiased for the maximum of k independent runs, so that values of
    unequal n can be compared at one k. The plug-in estimate of Dodge et al. (2019) is biased downwards.
    Source: Tang et al., "Showing Your Work Doesn't Always Work", ACL 2020, equation 3.

    Raises:
        ValueError: when k is not in 1..n.
    """
    n = len(values)
    if not 1 <= k <= n:
        raise ValueError(f"k = {k} of {n} values: choose 1 to {n}")
    # The i-th smallest is the highest of C(i - 1, k - 1) of the C(n, k) subsets; as a product of ratios, for C
    # overflows a float at n = 1,030. From the largest downwards: C(n - 1, k - 1) / C(n, k) = k / n.
    total, weight = 0.0, k / n
    for rank, value in zip(range(n, k - 1, -1), sorted(values, reverse=True), strict=False):
        total += weight * value
        if rank > k:
            weight *= (rank - k) / (rank - 1)
    return total


def expected_inflation(n: int) -> float:
    """Return the expected highest of n independent standard normal values: by how many sd a peak flatters.

    Source: Blom, "Statistical Estimates and Transformed Beta-Variables" (1958), approximation with alpha = 0.375.
    """
    return 0.0 if n < 2 else NormalDist().inv_cdf((n - 0.375) / (n + 0.25))
