"""A sweep's searched parameters as coordinates, in which close places are similar configurations.

An ordered parameter has coordinates from 0 to 1: of a range the share of its draws below a value, so that equal
distances are equally likely; of listed numbers their place between the smallest and the largest, by factors where they
are listed by factors. Any other parameter has the index of its value.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amc_server.bayes.quantiles import SMALLEST_U, quantile, share_below
from amc_sweeps.grammar.configurations import distinct, value_key
from amc_sweeps.grammar.distributions import Range, ends, is_log_spaced, quantised, steps
from amc_sweeps.grammar.sweep_config import Choice, Constant, SweepConfig, leaves_by_name
from amc_sweeps.values import is_number, names_seed, nest

Array = NDArray[np.float64]
Configuration = dict[str, Any]
Path = tuple[str, ...]

LARGEST_ENUMERATION = 100_000  # configurations; no sweep tries a larger space completely
MOST_KNOWN = 10_000  # places that are kept
MOST_LISTED = 1000  # values of a range that are listed; a larger one is searched as if it were continuous


def possible_values(leaf: Constant | Choice | Range) -> list[Any]:
    """Return every value of a finite parameter."""
    if isinstance(leaf, Constant):
        return [leaf.value]
    if isinstance(leaf, Choice):
        weights = leaf.probabilities or (1.0,) * len(leaf.values)
        return distinct(value for value, weight in zip(leaf.values, weights, strict=True) if weight > 0)
    count = steps(leaf)
    assert count is not None, f"{leaf.distribution} has no list of values"
    return [_step_value(leaf, index) for index in range(count)]


def _step_value(leaf: Range, index: int) -> float:
    low, _ = ends(leaf)
    if leaf.distribution == "int_uniform":
        return int(low) + index
    assert leaf.q is not None
    value = low + index * leaf.q
    return int(value) if isinstance(leaf.q, int) else float(f"{value:.12g}")


class Axis:
    """One searched parameter; converts its values to coordinates and back."""

    def __init__(self, path: Path, leaf: Choice | Range) -> None:
        self.path = path
        self._leaf = leaf
        self.is_range = isinstance(leaf, Range)
        self.is_ordered = True
        self.places = np.empty(0)  # of a listed axis: the coordinates that have a value
        self._values: list[Any] = []  # at each of them
        if isinstance(leaf, Choice):
            values = possible_values(leaf)
            self.is_ordered = len(values) > 2 and all(map(is_number, values))
            self._values = sorted(values, key=float) if self.is_ordered else values
            self.places = _spaced(self._values) if self.is_ordered else np.arange(len(values), dtype=np.float64)
        elif leaf.distribution in ("int_uniform", "q_uniform") and (steps(leaf) or 0) <= MOST_LISTED:
            self._values = possible_values(leaf)
            self.places = (np.arange(len(self._values)) + 0.5) / len(self._values)
        elif leaf.q is not None and leaf.distribution != "q_uniform" and (values := _multiples(leaf)):
            self._values = values
            self.places = np.array([share_below(leaf, value) for value in values])
        self._by_key = dict(zip(map(value_key, self._values), self.places.tolist(), strict=True))

    @property
    def is_listed(self) -> bool:
        """Whether its values are listed, so that only some places have a value."""
        return bool(self._values)

    def place(self, value: Any) -> float:
        """Return the coordinate of a value of the sweep.

        Raises:
            ValueError: the sweep's present config does not allow the value.
        """
        if self._values:
            place = self._by_key.get(value_key(value))
            if place is None:
                raise ValueError(value)
            return place
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(value)  # noqa: TRY004 - the value is what does not fit
        leaf = self._leaf
        assert isinstance(leaf, Range)
        if leaf.distribution not in ("int_uniform", "q_uniform"):
            return share_below(leaf, value)
        low, high = ends(leaf)
        if not low <= value <= high or (leaf.distribution == "int_uniform" and value % 1):
            raise ValueError(value)
        return (value - low) / (high - low)

    def value(self, place: float) -> Any:
        """Return the value at a coordinate, or the nearest one that can be drawn."""
        leaf = self._leaf
        if self._values:
            return self._values[int(np.abs(self.places - place).argmin())]
        assert isinstance(leaf, Range)
        if leaf.distribution in ("int_uniform", "q_uniform"):
            count = steps(leaf) or 1
            return _step_value(leaf, min(int(place * count), count - 1))
        return quantile(leaf, min(max(place, SMALLEST_U), 1 - SMALLEST_U))


def _multiples(leaf: Range) -> list[float]:
    """Return the values that a quantised range draws, but for the rarest; empty if they are too many to be listed."""
    low, high = quantile(leaf, SMALLEST_U), quantile(leaf, 1 - SMALLEST_U)
    count = round((high - low) / (leaf.q or 1)) + 1
    if count > MOST_LISTED:
        return []
    return distinct(quantised(leaf, low + index * (leaf.q or 1)) for index in range(count))


def _spaced(numbers: Sequence[float]) -> Array:
    low, high = float(numbers[0]), float(numbers[-1])
    values = np.array([float(number) for number in numbers])
    if is_log_spaced(low, high):
        values, low, high = np.log(values), math.log(low), math.log(high)
    return np.asarray((values - low) / (high - low), np.float64)


class Space:
    """A sweep's parameters as axes, and its configurations as places: arrays with one coordinate an axis."""

    def __init__(self, config: SweepConfig) -> None:
        leaves = leaves_by_name(config)
        self.axes = [Axis(path, leaf) for path, leaf in leaves if not isinstance(leaf, Constant)]
        self.constants = [(path, leaf.value) for path, leaf in leaves if isinstance(leaf, Constant)]
        self.ordered = np.array([axis.is_ordered for axis in self.axes], np.bool_)
        # Seeds repeat a configuration: runs that differ only in them are at one place for the surrogate.
        names = [".".join(axis.path) for axis in self.axes]
        self.matters = np.array([column for column, name in enumerate(names) if not names_seed(name)], np.int64)
        self._known: dict[str, Array | None] = {}  # places by the key of the configuration

    def place_of(self, key: str, configuration: Mapping[str, Any]) -> Array | None:
        """Return ``place``, computed once for each key: every suggestion asks for the same thousands."""
        if key not in self._known:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            self._known[key] = self.place(configuration)
        return self._known[key]

    def place(self, configuration: Mapping[str, Any]) -> Array | None:
        """Return the place (P,) of a configuration; None where it lies outside of the space.

        A prior run may lie there, and one from before an update of the sweep. Constants do not count.
        """
        try:
            values = ((axis, functools.reduce(operator.getitem, axis.path, configuration)) for axis in self.axes)
            return np.array([axis.place(value) for axis, value in values])
        except (ValueError, KeyError, TypeError):  # TypeError: a nested parameter was a plain value before an update
            return None

    def configuration(self, place: Array) -> Configuration:
        """Return the configuration at a place (P,), or the nearest one that can be drawn."""
        searched = [(axis.path, axis.value(float(at))) for axis, at in zip(self.axes, place, strict=True)]
        return nest([*self.constants, *searched])

    def draw(self, count: int, rng: np.random.Generator) -> Array:
        """Return (count, P) places, each as likely as a random search draws it."""
        columns = [_draw(axis, count, rng) for axis in self.axes]
        return np.stack(columns, axis=1) if columns else np.empty((count, 0))

    def near(self, centres: Array, width: float, rng: np.random.Generator) -> Array:
        """Return places like (count, P) given ones: a part of the coordinates moved, the others kept.

        Args:
            centres: the places to start from.
            width: standard deviation of a move along an ordered axis.
            rng: the random numbers.
        """
        count, width_P = len(centres), np.where(self.ordered, width, 0.0)
        steps_NP = rng.normal(size=centres.shape) * width_P
        moved = np.clip(centres + steps_NP, 0, np.where(self.ordered, 1.0, np.inf))
        for column, axis in enumerate(self.axes):
            if not axis.is_ordered:
                moved[:, column] = _draw(axis, count, rng)
            elif axis.is_listed:
                distances = np.abs(axis.places - moved[:, [column]])
                moved[:, column] = axis.places[distances.argmin(axis=1)]
                stay = moved[:, column] == centres[:, column]  # a narrow move would never reach the next value
                neighbours = axis.places.searchsorted(centres[:, column]) + rng.choice((-1, 1), count)
                moved[stay, column] = axis.places[np.clip(neighbours, 0, len(axis.places) - 1)][stay]
        is_kept = rng.random(centres.shape) > np.maximum(0.4, 1.5 / max(len(self.axes), 1))
        return np.where(is_kept, centres, moved)

    def all_places(self, most: int) -> Array | None:
        """Return (N, P) every place of a finite space; None if there are more than ``most``."""
        if not all(axis.is_listed for axis in self.axes):
            return None
        if math.prod(len(axis.places) for axis in self.axes) > most:
            return None
        return np.array(list(itertools.product(*(axis.places.tolist() for axis in self.axes))))


def _draw(axis: Axis, count: int, rng: np.random.Generator) -> Array:
    if not axis.is_listed:
        return rng.random(count)
    if not axis.is_range:
        return np.asarray(axis.places[rng.integers(len(axis.places), size=count)])
    return np.asarray(axis.places[np.abs(axis.places - rng.random((count, 1))).argmin(axis=1)])


_MOST_SPACES = 64
_spaces: dict[int, tuple[SweepConfig, Space]] = {}  # by the id of the config, which is kept so that the id stays valid


def space_of(config: SweepConfig) -> Space:
    """Return a sweep's space; the same object for the same config."""
    cached = _spaces.get(id(config))
    if cached is None:
        while len(_spaces) >= _MOST_SPACES:
            _spaces.pop(next(iter(_spaces)), None)
        cached = _spaces[id(config)] = (config, Space(config))
    return cached[1]
