"""The configurations of a sweep: their number, those of a grid by their numbers, and one at random."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from amc_sweeps.grammar.distributions import Range, draw, ends, steps
from amc_sweeps.grammar.sweep_config import Choice, Constant, Leaf, SweepConfig, flatten, leaves_by_name
from amc_sweeps.number_formats import counted
from amc_sweeps.values import MISSING, is_number, look_up, nest

MOST_GRID_RUNS = 10_000_000  # of the largest grid that is accepted; at one run a minute it takes 19 years


def count_configurations(config: SweepConfig) -> int | None:
    """Return how many different configurations the sweep has; None for infinitely many, or more than 64 bits count."""
    if config.method == "grid":
        total = Grid(config).size
    else:
        total = 1
        for _, parameter in flatten(config.parameters):
            count = _count_values(parameter)
            if count is None:
                return None
            total *= count
    return total if total < 2**63 else None


def expected_runs(config: SweepConfig) -> int | None:
    """Return how many runs the sweep will begin; None without an end."""
    bounds = [config.run_cap, count_configurations(config) if config.method == "grid" else None]
    return min((bound for bound in bounds if bound is not None), default=None)


def space_problems(config: SweepConfig) -> list[str]:
    """Return the problem of a grid that is too large to be run to its end; empty for other sweeps."""
    if config.method != "grid":
        return []
    size = Grid(config).size
    if min(size, config.run_cap or size) <= MOST_GRID_RUNS:
        return []
    return [
        f"parameters: the grid has {counted(size, 'configuration')}, and at most {MOST_GRID_RUNS:,} can be run: give "
        "fewer values or a larger q, set run_cap, or write method: random"
    ]


class Grid:
    """Every configuration of a grid once, each computed from its number, so that none is listed before it is needed.

    The order is W&B's: parameters by name, and the first one changes slowest. Values come in the order of the file, and
    a value that is listed twice comes once. As in W&B's engine ``int_uniform`` includes its max; ``q_uniform`` counts
    from min and leaves out its max.
    """

    def __init__(self, config: SweepConfig) -> None:
        self._leaves = leaves_by_name(config)
        self._axes = [(path, *_grid_axis(parameter)) for path, parameter in self._leaves]
        self.size = math.prod(count for _, count, _ in self._axes)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return map(self.configuration, range(self.size))

    def shuffled(self, seed: int) -> Iterator[dict[str, Any]]:
        """Yield every configuration once, in an order that follows from the seed."""
        return map(self.configuration, shuffled_numbers(self.size, random.Random(f"grid/{seed}")))

    def __contains__(self, configuration: Mapping[str, Any]) -> bool:
        return all(_is_on_axis(leaf, look_up(configuration, ".".join(path), MISSING)) for path, leaf in self._leaves)

    def configuration(self, number: int) -> dict[str, Any]:
        """Return the configuration of a number from 0 to ``size - 1``."""
        values = []
        for path, count, value_at in reversed(self._axes):
            number, place = divmod(number, count)
            values.append((path, value_at(place)))
        return nest(reversed(values))


def shuffled_numbers(size: int, rng: random.Random) -> Iterator[int]:
    """Yield 0 to ``size - 1`` in a random order; every order is equally likely.

    This is the Fisher-Yates shuffle of a list that is never made: ``moved`` holds only the numbers that are not in
    their own places any more, at most one for each number that was yielded.
    """
    moved: dict[int, int] = {}
    for place in range(size):
        other = rng.randrange(place, size)
        here = moved.pop(place, place)
        yield here if other == place else moved.get(other, other)
        if other != place:
            moved[other] = here


def sample(config: SweepConfig, rng: random.Random) -> dict[str, Any]:
    """Draw one configuration at random, every parameter independently."""
    return nest((path, _draw(parameter, rng)) for path, parameter in leaves_by_name(config))


def allows(parameter: Leaf, value: Any) -> bool:
    """Return whether a parameter may have the value; of a range only the ends, and whole numbers, are checked."""
    if isinstance(parameter, Range):
        low, high = ends(parameter)
        needs_whole = parameter.distribution == "int_uniform"
        return is_number(value) and low <= value <= high and not (needs_whole and float(value) % 1)
    allowed = (parameter.value,) if isinstance(parameter, Constant) else parameter.values
    return value_key(value) in {value_key(item) for item in allowed}


def value_key(value: Any) -> str:
    """Return a text that is the same for values that W&B takes as the same: 1 and 1.0, but not 1 and true."""
    if type(value) is int or (type(value) is float and math.isfinite(value)):
        return repr(int(value) if value == int(value) else value)  # as JSON has it, in a tenth of the time

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
    return len(distinct(value for value, weight in zip(parameter.values, weights, strict=True) if weight > 0))


def distinct(values: Iterable[Any]) -> list[Any]:
    """Return the values without those that W&B takes as the same as an earlier one."""
    first: dict[str, Any] = {}
    for value in values:
        first.setdefault(value_key(value), value)
    return list(first.values())


def _grid_axis(parameter: Leaf) -> tuple[int, Callable[[int], Any]]:
    """Return how many values a parameter has in a grid, and the function from a value's place to the value."""
    if isinstance(parameter, Constant):
        return 1, lambda _: parameter.value
    if isinstance(parameter, Choice):
        values = distinct(parameter.values)
        return len(values), values.__getitem__
    if parameter.distribution == "int_uniform":
        return int(parameter.max) - int(parameter.min) + 1, lambda place: int(parameter.min) + place
    step = parameter.q or 1.0

    def value_at(place: int) -> float:
        value = parameter.min + place * step
        return value if isinstance(value, int) else float(f"{value:.12g}")

    return math.ceil((parameter.max - parameter.min) / step - 1e-9), value_at  # (1.1 - 0.5) / 0.2 exceeds 3


def _is_on_axis(parameter: Leaf, value: Any) -> bool:
    if value is MISSING or not isinstance(parameter, Range):
        return value is not MISSING and allows(parameter, value)
    if not is_number(value) or not parameter.min <= value <= parameter.max:
        return False
    count, value_at = _grid_axis(parameter)
    place = round((value - parameter.min) / (parameter.q or 1.0))
    return 0 <= place < count and value_key(value_at(place)) == value_key(value)


def _draw(parameter: Leaf, rng: random.Random) -> Any:
    if isinstance(parameter, Constant):
        return parameter.value
    if isinstance(parameter, Range):
        return draw(parameter, rng)
    if parameter.probabilities is None:
        return rng.choice(parameter.values)
    return rng.choices(parameter.values, weights=parameter.probabilities)[0]
