"""The searched parameters as coordinates, and parts of their ranges as YAML sections."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amc_analysis.results.analysed_sweep import AnalysedSweep
from amc_sweeps.grammar.configurations import value_key
from amc_sweeps.grammar.distributions import EXPONENT_OF_E, Range, ends, is_log_spaced, is_logarithmic
from amc_sweeps.grammar.strict_yaml import number_in_text
from amc_sweeps.grammar.sweep_config import Choice, SweepConfig, flatten
from amc_sweeps.runs.claims import ClaimKind
from amc_sweeps.values import is_number, look_up, names_seed

GRID = 30  # places along a range


@dataclass(frozen=True)
class Axis:
    """One searched parameter as a coordinate: 0..1 for an ordered parameter, else the index of the value."""

    path: tuple[str, ...]
    leaf: Choice | Range
    values: tuple[Any, ...] | None  # distinct listed values in the order of the file; None: a range
    ordered: bool
    log: bool
    low: float  # ends of an ordered one, logarithms where ``log``
    high: float
    bounded: bool = True  # False: a distribution without ends, so no part of it can be written

    @property
    def name(self) -> str:
        return ".".join(self.path)

    def coordinate(self, value: Any) -> float | None:
        """Return the coordinate of a value; None for a value that is missing or not in the sweep."""
        value = parse_number(value)
        if self.values is not None:
            keys = [value_key(level) for level in self.values]
            key = value_key(value)
            if key not in keys:
                return None
            return self._placed(value) if self.ordered else float(keys.index(key))
        return self._placed(value) if is_number(value) else None

    def value_at(self, coordinate: float) -> float:
        """Return the value of an ordered axis at a coordinate."""
        placed = self.low + coordinate * (self.high - self.low)
        return math.exp(placed) if self.log else placed

    def levels(self) -> NDArray[np.float64]:
        """Return the coordinates of the listed values; of a range GRID places from end to end."""
        if self.values is None:
            return np.linspace(0, 1, GRID)
        places = (self.coordinate(value) for value in self.values)
        return np.array([place for place in places if place is not None])

    def _placed(self, value: float) -> float | None:
        if self.log and value <= 0:
            return None
        return ((math.log(value) if self.log else value) - self.low) / (self.high - self.low)


def axes_of(sweep: SweepConfig, analysed: AnalysedSweep) -> list[Axis]:
    """Return an axis for every searched parameter; seeds are left out, because they repeat a configuration."""
    axes = []
    for path, leaf in flatten(sweep.parameters):
        if isinstance(leaf, Choice | Range) and not names_seed(path[-1]):
            axis = _listed(path, leaf) if isinstance(leaf, Choice) else _range(path, leaf, analysed)
            if axis is not None:
                axes.append(axis)
    return axes


def tried_coordinates(axis: Axis, analysed: AnalysedSweep) -> NDArray[np.float64]:
    """Return (M,) the coordinates of all runs with a value of this parameter, and those of claimed runs."""
    values = [look_up(entry.run.config, axis.name) for entry in analysed.ranked]
    for claim in analysed.claims(ClaimKind.GROUP):
        if claim.parameter == axis.name and claim.numbers.get("n", 1) > 0:
            values += claim.values
    return np.array([place for value in values if (place := axis.coordinate(value)) is not None], dtype=np.float64)


def parse_number(value: Any) -> Any:
    """Return the number that a text such as 1e-4 stands for (YAML 1.1 reads it as text), else the value."""
    if not number_in_text(value):
        return value
    number = float(value)
    return int(number) if number.is_integer() and "." not in value and "e" not in value.lower() else number


def _listed(path: tuple[str, ...], leaf: Choice) -> Axis | None:
    distinct = {value_key(parse_number(value)): parse_number(value) for value in reversed(leaf.values)}
    values = tuple(reversed(distinct.values()))
    if len(values) < 2:
        return None
    if not all(is_number(value) for value in values):
        return Axis(path, leaf, values, ordered=False, log=False, low=0.0, high=1.0)
    low, high = float(min(values)), float(max(values))
    log = is_log_spaced(low, high)
    return Axis(path, leaf, values, True, log, math.log(low) if log else low, math.log(high) if log else high)


def _range(path: tuple[str, ...], leaf: Range, analysed: AnalysedSweep) -> Axis | None:
    low, high = ends(leaf)
    log = is_logarithmic(leaf)
    bounded = math.isfinite(low) and math.isfinite(high) and (low > 0 or not log)
    if not bounded:
        values = [parse_number(look_up(entry.run.config, ".".join(path))) for entry in analysed.ranked]
        numbers = [float(value) for value in values if is_number(value) and (value > 0 or not log)]
        low, high = min(numbers, default=0.0), max(numbers, default=0.0)
    if not low < high:
        return None
    return Axis(path, leaf, None, True, log, math.log(low) if log else low, math.log(high) if log else high, bounded)


def part_of_range(axis: Axis, low: float, high: float) -> dict[str, Any]:
    """Return the YAML section that draws from ``low`` to ``high`` of a bounded range, rounded outwards.

    Distributions whose min and max are exponents of e are written as those that take the values themselves.
    """
    leaf = axis.leaf
    assert isinstance(leaf, Range)
    name = EXPONENT_OF_E.get(leaf.distribution, leaf.distribution)
    first, last = ends(leaf)
    if name == "int_uniform":
        lowest, highest = max(math.floor(low), int(first)), min(math.ceil(high), int(last))
        return {"distribution": name, "min": lowest, "max": max(highest, lowest + 1)}
    if leaf.q is not None:
        origin = leaf.min if name == "q_uniform" else 0  # a grid counts from min, so keep its points
        below, above = math.floor((low - origin) / leaf.q + 1e-9), math.ceil((high - origin) / leaf.q - 1e-9)
        start, stop = (float(f"{origin + times * leaf.q:.12g}") for times in (below, max(above, below + 1)))
        section = {"min": max(start, first), "max": min(stop, leaf.max if name == leaf.distribution else last)}
        if isinstance(leaf.q, int):
            section = {key: int(value) if float(value).is_integer() else value for key, value in section.items()}
        return {"distribution": name, **section, "q": leaf.q}
    return {
        "distribution": name,
        "min": max(round_outwards(low, down=True), first),
        "max": min(round_outwards(high, down=False), last),
    }


def round_outwards(value: float, *, down: bool, digits: int = 2) -> float:
    """Round to a few significant digits, down or up."""
    if value == 0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(abs(value))) - digits + 1)
    times = math.floor(value / unit + 1e-9) if down else math.ceil(value / unit - 1e-9)
    return float(f"{times * unit:.{digits + 2}g}")
