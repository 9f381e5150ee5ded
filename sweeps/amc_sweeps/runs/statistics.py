"""Statistics of a curve or a count."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist, median

LEAST_POINTS_FOR_NOISE = 5
SD_OF_MEDIAN = 1 / NormalDist().inv_cdf(0.75)  # 1.4826: the sd of normal noise, in medians of its size


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the score interval of a rate, as fractions.

    Its coverage is close to the nominal one for small n, and it stays within 0..1, unlike p ± z·SE. For n = 0 it is
    (0, 1). Source: Wilson, JASA 22 (1927); Brown, Cai & DasGupta, Statistical Science 16 (2001).

    Raises:
        ValueError: successes is not in 0..n.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} is not a rate")
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    rate = successes / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    # At the ends the bound is exactly 0 or 1; the formula has a rounding error.
    return (0.0 if successes == 0 else centre - half), (1.0 if successes == n else centre + half)


def noise_sd(values: Sequence[float]) -> float | None:
    """Estimate the sd of a curve's epoch-to-epoch noise from its second differences; None under 5 values.

    For independent noise of sd s around a smooth curve, x[i-1] - 2 x[i] + x[i+1] has variance 6 s², whatever the
    curve's height and slope. The median of their sizes gives s, so that a collapse, or a few wild epochs, hardly count.
    Source: Gasser, Sroka & Jennen-Steinmetz, Biometrika 73 (1986), for the second differences; Hampel, JASA 69 (1974),
    for the median and its factor for normal noise.
    """
    if len(values) < LEAST_POINTS_FOR_NOISE:
        return None
    second = [before - 2 * value + after for before, value, after in zip(values, values[1:], values[2:], strict=False)]
    return median(map(abs, second)) * SD_OF_MEDIAN / math.sqrt(6)


def medians_of_3(values: Sequence[float]) -> list[float]:
    """Return the running median of three neighbours, two values shorter than the input (empty under 3)."""
    return [sorted(window)[1] for window in zip(values, values[1:], values[2:], strict=False)]
