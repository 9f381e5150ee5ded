"""Many simulated sweeps, each followed by its next sweep: does that still hold the optimum, and how small is it?"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from training_surface import MIXED, OPTIMUM, SWEEP, Crashes, simulate

from amc_analysis.next_sweep.proposal import next_sweep
from amc_analysis.report.conclusions import conclude
from amc_analysis.runs.findings import analyse


@dataclass(frozen=True)
class Trial:
    """What one simulated sweep led to, read from the YAML that was written."""

    holds: Mapping[str, bool]  # parameter -> whether the optimum's value is still in
    shares: Mapping[str, float]  # parameter -> share of its values, or of its logarithmic width, that is kept

    @property
    def inside(self) -> bool:
        """Whether the optimum is still there."""
        return all(self.holds.values())

    @property
    def shrinks(self) -> float:
        """How many times smaller the space became."""
        return 1 / math.prod(self.shares.values())


def follow(seed: int, n: int, crashes: Crashes = MIXED) -> Trial:
    """Simulate one sweep and read the next one's file as W&B would."""
    findings = analyse(simulate(seed, n, crashes))
    written = yaml.safe_load(next_sweep(findings, conclude(findings).firings).text)["parameters"]
    parts = {name: _part(SWEEP["parameters"][name], written[name], value) for name, value in OPTIMUM.items()}
    return Trial({name: part[0] for name, part in parts.items()}, {name: part[1] for name, part in parts.items()})


def follow_all(first_seed: int, count: int, crashes: Crashes = MIXED) -> list[Trial]:
    """Follow ``count`` sweeps of 30 to 60 runs."""
    return [follow(first_seed + number, 30 + 7 * number % 31, crashes) for number in range(count)]


def median(values: Iterable[float]) -> float:
    """Return the median."""
    ordered = sorted(values)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


def _part(before: Mapping[str, Any], after: Mapping[str, Any], optimum: Any) -> tuple[bool, float]:
    if "values" in before:
        kept = after["values"] if "values" in after else [after["value"]]
        return optimum in kept, len(kept) / len(before["values"])
    width = math.log(after["max"] / after["min"]) / math.log(before["max"] / before["min"])
    return after["min"] <= optimum <= after["max"], width
