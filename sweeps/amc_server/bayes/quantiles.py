"""Cumulative distribution functions of W&B's distributions, and their inverses.

With method bayes, a range is searched as a uniform u in (0, 1), and ``quantile`` maps u to the value. So a first draw
is distributed as with method random, and close values stay close.
"""

from __future__ import annotations

import math
from statistics import NormalDist

from amc_sweeps.grammar.distributions import Range, continuous_ends, quantised

SMALLEST_U = 1e-6  # and 1 - SMALLEST_U is the largest: 4.75 standard deviations of a normal distribution


def quantile(spec: Range, u: float) -> float:
    """Return the value below which a share ``u`` of the draws lies; one that can be drawn, if values are quantised."""
    return quantised(spec, _quantile(spec, u))


def _quantile(spec: Range, u: float) -> float:
    name = spec.distribution.removeprefix("q_")
    if name in ("normal", "log_normal"):
        value = NormalDist(spec.mu, spec.sigma).inv_cdf(u) if spec.sigma > 0 else spec.mu
        return value if name == "normal" else math.exp(value)
    low, high = continuous_ends(spec)
    if name == "beta":
        from scipy.special import betaincinv  # loaded by the first sweep that needs it

        return float(betaincinv(spec.a, spec.b, u))
    if name == "uniform":
        return low + u * (high - low)
    return min(max(math.exp(math.log(low) + u * (math.log(high) - math.log(low))), low), high)


def share_below(spec: Range, value: float) -> float:
    """Return u for a value, within the limits of u: for a quantised one the middle of the shares that round to it.

    Raises:
        ValueError: the value cannot be drawn.
    """
    low, high = continuous_ends(spec)
    half = (spec.q or 0.0) / 2
    if not low - half <= value <= high + half:
        raise ValueError(f"{value} is outside of {low:g} to {high:g}")
    share = (_share_below(spec, value - half) + _share_below(spec, value + half)) / 2
    return min(max(share, SMALLEST_U), 1 - SMALLEST_U)


def _share_below(spec: Range, value: float) -> float:
    name = spec.distribution.removeprefix("q_")
    low, high = continuous_ends(spec)
    value = min(max(value, low), high)
    if name in ("normal", "log_normal"):
        if name == "log_normal":
            value = math.log(value) if value > 0 else -math.inf
        return NormalDist(spec.mu, spec.sigma).cdf(value) if spec.sigma > 0 else 0.5
    if name == "beta":
        from scipy.special import betainc

        return float(betainc(spec.a, spec.b, value))
    if name == "uniform":
        return (value - low) / (high - low)
    return (math.log(value) - math.log(low)) / (math.log(high) - math.log(low))
