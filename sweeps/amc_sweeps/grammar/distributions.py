"""W&B's parameter distributions: the keys of each, the values that it can draw, and how one is drawn.

Names, keys, defaults and formulas are those of the JSON schema in the package ``sweeps`` 0.3.0, W&B's own engine.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass

_BOUNDS: Mapping[str, float | None] = {"min": None, "max": None}  # None: no default
_NORMAL: Mapping[str, float | None] = {"mu": 0.0, "sigma": 1.0}
_BETA: Mapping[str, float | None] = {"a": 1.0, "b": 1.0}
_STEP: Mapping[str, float | None] = {"q": 1.0}

# distribution -> its keys and their defaults; parameters.py reads the discrete ones
DISTRIBUTIONS: Mapping[str, Mapping[str, float | None]] = {
    "int_uniform": _BOUNDS,
    "uniform": _BOUNDS,
    "q_uniform": {**_BOUNDS, **_STEP},
    "log_uniform": _BOUNDS,
    "log_uniform_values": _BOUNDS,
    "q_log_uniform": {**_BOUNDS, **_STEP},
    "q_log_uniform_values": {**_BOUNDS, **_STEP},
    "inv_log_uniform": _BOUNDS,
    "inv_log_uniform_values": _BOUNDS,
    "normal": _NORMAL,
    "q_normal": {**_NORMAL, **_STEP},
    "log_normal": _NORMAL,
    "q_log_normal": {**_NORMAL, **_STEP},
    "beta": _BETA,
    "q_beta": {**_BETA, **_STEP},
}

# Distributions whose min and max are exponents of e, which few people mean -> the ones that take the values themselves.
EXPONENT_OF_E: Mapping[str, str] = {
    "log_uniform": "log_uniform_values",
    "q_log_uniform": "q_log_uniform_values",
    "inv_log_uniform": "inv_log_uniform_values",
}


_MOST_STEPS = 2**53
_LARGEST_SHAPE = 1_000_000  # of beta; Python's generator never returns for 1e308
LOG_FROM_RATIO = 8.0  # largest / smallest, see is_log_spaced


@dataclass(frozen=True)
class Range:
    """A parameter drawn from a distribution. Only the attributes in ``DISTRIBUTIONS`` for it are used."""

    distribution: str
    min: float = 0.0
    max: float = 0.0
    mu: float = 0.0
    sigma: float = 1.0
    a: float = 1.0
    b: float = 1.0
    q: float | None = None  # step between values; if it is an int, values are ints


def is_logarithmic(spec: Range) -> bool:
    """Return whether values are drawn on a logarithmic scale."""
    return "log" in spec.distribution


def is_log_spaced(low: float, high: float) -> bool:
    """Return whether listed numbers from ``low`` to ``high`` belong on a logarithmic scale.

    People list batch sizes (128 to 1024) and learning rates (1e-4 to 1e-3) by factors, dropouts (0.1 to 0.5) by steps.
    """
    return low > 0 and high / low >= LOG_FROM_RATIO


def ends(spec: Range) -> tuple[float, float]:
    """Return the lowest and the highest value that can be drawn, infinite if unbounded."""
    low, high = continuous_ends(spec)
    if spec.q is None or spec.distribution == "q_normal":
        return low, high
    first, last = _multiples(low, high, spec.q)
    return _multiple(first, spec.q), (_multiple(last, spec.q) if last is not None else math.inf)


def range_problem(spec: Range) -> str | None:
    """Return what the range needs instead, if values could be infinite or two steps the same float; else None."""
    name = spec.distribution.removeprefix("q_")
    try:
        if name == "normal":
            reach = abs(spec.mu) + 10 * spec.sigma  # a normal value is practically never further away
        elif name == "log_normal":
            reach = math.exp(spec.mu + 10 * spec.sigma)
        else:
            reach = max(map(abs, continuous_ends(spec)))
    except OverflowError:
        reach = math.inf
    if not math.isfinite(2 * reach):
        return "values far below 1e308"
    if spec.q is not None and reach / spec.q > _MOST_STEPS:
        return f"a step q of at least {reach / _MOST_STEPS:.3g}, or a float cannot tell the steps apart"
    if max(spec.a, spec.b) > _LARGEST_SHAPE:
        return f"a and b of at most {_LARGEST_SHAPE:,}"
    return None


def steps(spec: Range) -> int | None:
    """Return how many values can be drawn; None if infinitely many."""
    if spec.distribution == "int_uniform":
        return int(spec.max) - int(spec.min) + 1
    if spec.q is None or spec.distribution == "q_normal":
        return None
    first, last = _multiples(*continuous_ends(spec), spec.q)
    return None if last is None else last - first + 1


def draw(spec: Range, rng: random.Random) -> float:
    """Draw one value; a quantised one is a multiple of ``q`` within the range, and an int if ``q`` is an int.

    W&B's engine rounds out of the range (min 5 and q 4 give 4). Here the value stays inside.
    """
    if spec.distribution == "int_uniform":
        return rng.randint(int(spec.min), int(spec.max))
    return quantised(spec, _draw_continuous(spec, spec.distribution.removeprefix("q_"), rng))


def quantised(spec: Range, value: float) -> float:
    """Return the nearest value that can be drawn: the value itself without a ``q``."""
    if spec.q is None:
        return value
    times = round(value / spec.q)
    if spec.distribution != "q_normal":
        first, last = _multiples(*continuous_ends(spec), spec.q)
        times = max(first, times if last is None else min(times, last))
    return _multiple(times, spec.q)


def _draw_continuous(spec: Range, name: str, rng: random.Random) -> float:
    if name == "normal":
        return rng.normalvariate(spec.mu, spec.sigma)
    if name == "log_normal":
        return math.exp(rng.normalvariate(spec.mu, spec.sigma))
    if name == "beta":
        return rng.betavariate(spec.a, spec.b)
    if name == "uniform":
        return rng.uniform(spec.min, spec.max)
    # The others are uniform on the logarithm, and the inverse ones as well.
    low, high = continuous_ends(spec)
    return min(max(math.exp(rng.uniform(math.log(low), math.log(high))), low), high)


def continuous_ends(spec: Range) -> tuple[float, float]:
    """Return the lowest and the highest value before quantisation, infinite if unbounded."""
    name = spec.distribution.removeprefix("q_")
    if name == "normal":
        return -math.inf, math.inf
    if name == "log_normal":
        return 0.0, math.inf
    if name == "beta":
        return 0.0, 1.0
    if name == "log_uniform":
        return math.exp(spec.min), math.exp(spec.max)
    if name == "inv_log_uniform":
        return math.exp(-spec.max), math.exp(-spec.min)
    return spec.min, spec.max


def _multiples(low: float, high: float, q: float) -> tuple[int, int | None]:
    """Return the factors of the first and the last multiple of ``q`` in [low, high], or of the nearest one.

    0.3 / 0.1 is 2.9999999999999996, so a factor that close to a whole number counts as whole.
    """
    first = math.ceil(low / q - 1e-9)
    if math.isinf(high):
        return first, None
    last = math.floor(high / q + 1e-9)
    if first > last:
        first = last = round((low + high) / 2 / q)
    return first, last


def _multiple(times: int, q: float) -> float:
    if isinstance(q, int):
        return times * q
    return float(f"{times * q:.12g}")  # without the rounding error of 3 * 0.1 = 0.30000000000000004
