"""The configurations of a sweep: count them, walk them as a grid, draw them at random."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from amc_sweeps.grammar.distributions import Range, draw, steps
from amc_sweeps.grammar.sweep_config import Choice, Constant, Leaf, SweepConfig, flatten
from amc_sweeps.values import nest


def count_configurations(config: SweepConfig) -> int | None:
    """Return how many different configurations the sweep has; None when a continuous range makes them infinite."""
    total = 1
    for _, parameter in flatten(config.parameters):
        count = len(_grid_values(parameter)) if config.method == "grid" else _count_values(parameter)
        if count is None:
            return None
        total *= count
    return total


def grid(config: SweepConfig) -> Iterator[dict[str, Any]]:
    """Yield every configuration once in W&B's order: parameters by name, and the first one changes slowest.

    Values come in the order of the file, and a value that is listed twice comes once. As in W&B's engine
    ``int_uniform`` includes its max; ``q_uniform`` counts from min and leaves out its max.
    """
    leaves = sorted(flatten(config.parameters), key=lambda leaf: leaf[0])
    for values in _product([_grid_values(parameter) for _, parameter in leaves]):
        yield nest((path, value) for (path, _), value in zip(leaves, values, strict=True))


def sample(config: SweepConfig, rng: random.Random) -> dict[str, Any]:
    """Draw one configuration at random, every parameter independently."""
    return nest((path, _draw(parameter, rng)) for path, parameter in flatten(config.parameters))


def value_key(value: Any) -> str:
    """Return a text that is the same for values that W&B takes as the same: 1 and 1.0, but not 1 and true."""

    def whole(item: Any) -> Any:
        if isinstance(item, float) and item.is_integer():
            return int(item)
        if isinstance(item, Mapping):
            return {str(key): whole(part) for key, part in item.items()}
        return [whole(part) for part in item] if isinstance(item, list | tuple) else item

    return json.dumps(whole(value), sort_keys=True, default=str)


def _count_values(parameter: Leaf) -> int | None:
    if isinstance(parameter, Constant):
        return 1
    if isinstance(parameter, Range):
        return steps(parameter)
    weights = parameter.probabilities or (1.0,) * len(parameter.values)
    return len(_distinct(value for value, weight in zip(parameter.values, weights, strict=True) if weight > 0))


def _distinct(values: Iterable[Any]) -> list[Any]:
    first: dict[str, Any] = {}
    for value in values:
        first.setdefault(value_key(value), value)
    return list(first.values())


def _grid_values(parameter: Leaf) -> Sequence[Any]:
    if isinstance(parameter, Constant):
        return [parameter.value]
    if isinstance(parameter, Choice):
        return _distinct(parameter.values)
    if parameter.distribution == "int_uniform":
        return range(int(parameter.min), int(parameter.max) + 1)
    step = parameter.q or 1.0
    factors = range(math.ceil((parameter.max - parameter.min) / step - 1e-9))  # (1.1 - 0.5) / 0.2 exceeds 3
    values = (parameter.min + factor * step for factor in factors)
    return [value if isinstance(value, int) else float(f"{value:.12g}") for value in values]


def _product(choices: Sequence[Sequence[Any]]) -> Iterator[tuple[Any, ...]]:
    """Yield what itertools.product does without holding a long range in memory."""
    if not choices:
        yield ()
        return
    for value in choices[0]:
        for rest in _product(choices[1:]):
            yield (value, *rest)


def _draw(parameter: Leaf, rng: random.Random) -> Any:
    if isinstance(parameter, Constant):
        return parameter.value
    if isinstance(parameter, Range):
        return draw(parameter, rng)
    if parameter.probabilities is None:
        return rng.choice(parameter.values)
    return rng.choices(parameter.values, weights=parameter.probabilities)[0]
