"""Many simulated sweeps and their next sweeps: whether these contain the optimum, and how small they are."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from training_surface import MIXED, OPTIMUM, SWEEP, Crashes, simulate

from amc_analysis.analyse import analyse
from amc_analysis.next_sweep.sweep_file import next_sweep


@dataclass(frozen=True)
class Trial:
    """The next sweep of one simulated sweep, read from its YAML."""

    holds: Mapping[str, bool]  # parameter -> whether the optimum's value is still in
    shares: Mapping[str, float]  # parameter -> share of its values, or of its logarithmic width, that is kept

    @property
    def inside(self) -> bool:
        """Whether the next sweep contains the optimum."""
        return all(self.holds.values())

    @property
    def shrinks(self) -> float:
        """How many times smaller the space became."""
        return 1 / math.prod(self.shares.values())


def follow(seed: int, n: int, crashes: Crashes = MIXED) -> Trial:
    """Return the next sweep of one simulated sweep, read as W&B reads it."""
    written = yaml.safe_load(next_sweep(analyse(simulate(seed, n, crashes))).text)["parameters"]
    parts = {name: _part(SWEEP["parameters"][name], written[name], value) for name, value in OPTIMUM.items()}
    return Trial({name: part[0] for name, part in parts.items()}, {name: part[1] for name, part in parts.items()})


def follow_all(first_seed: int, count: int, crashes: Crashes = MIXED) -> list[Trial]:
    """Return the next sweeps of ``count`` simulated sweeps of 30 to 60 runs."""
    return [follow(first_seed + number, 30 + 7 * number % 31, crashes) for number in range(count)]


def median(values: Iterable[float]) -> float:
    """Return the median."""
    ordered = sorted(values)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


def _part(before: Mapping[str, Any], after: Mapping[str, Any], optimum: Any) -> tuple[bool, float]:
    if "values" in before:
        values = after["values"] if "values" in after else [after["value"]]
        return optimum in values, len(values) / len(before["values"])
    width = math.log(after["max"] / after["min"]) / math.log(before["max"] / before["min"])
    return after["min"] <= optimum <= after["max"], width
