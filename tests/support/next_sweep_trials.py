"""Many simulated sweeps and their next sweeps: whether these contain the optimum, and how small they are."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import inert_surface
import numpy as np
import yaml
from training_surface import MIXED, OPTIMUM, SWEEP, Crashes, simulate

from amc_analysis.analyse import add_effects, rank_runs
from amc_analysis.next_sweep.sweep_file import next_sweep
from amc_analysis.results.analysed_sweep import AnalysedSweep
from amc_analysis.results.next_sweep import Narrowing
from amc_analysis.rules.regions import best_at_boundary
from amc_sweeps.runs.records import SweepRecord


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


def analysed_for_next(record: SweepRecord) -> AnalysedSweep:
    """Return a sweep with the conclusions that the next sweep is made from, and no others: a forest takes a second."""
    analysed = add_effects(rank_runs(record))
    return replace(analysed, findings=tuple(best_at_boundary(analysed)))


def follow(seed: int, n: int, crashes: Crashes = MIXED) -> Trial:
    """Return the next sweep of one simulated sweep, read as W&B reads it."""
    written = yaml.safe_load(next_sweep(analysed_for_next(simulate(seed, n, crashes))).text)["parameters"]
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


@dataclass(frozen=True)
class InertTrial:
    """The next sweep of a sweep in which some values are as good as the best."""

    dropped: Mapping[str, float]  # value, range or part of a range as good as the best -> share that is dropped
    inside: bool  # whether a best configuration is still in
    matters: bool  # whether any parameter does
    shrinks: float
    told: float | None  # how many times smaller if the inert parameters are not searched; of every fourth sweep
    fewest: int  # runs of anything that is dropped
    unclear: bool  # whether a parameter without a clear effect was narrowed


def follow_inert(seed: int) -> InertTrial:
    """Return the next sweep of one simulated sweep of 24 to 60 runs with a random truth."""
    rng = np.random.default_rng([11, seed])
    truth = inert_surface.random_truth(rng)
    record = inert_surface.simulate(truth, int(rng.integers(24, 61)), rng)
    analysed = analysed_for_next(record)
    narrowing = next_sweep(analysed).plan.narrowing
    parts = inert_surface.SWEEP["parameters"]
    kept = {decision.name: decision.section for decision in narrowing.decisions}
    inert = [*parts] if truth.effect == 0 else inert_surface.INERT
    as_good = {name: _all_of(parts[name]) for name in inert if name != "lr" or not truth.diverges}
    if truth.effect:
        as_good |= {"optimizer": ["adam", "rmsprop"], "dropout": [(0.0, inert_surface.HARMLESS_DROPOUT)]}
    best = {"lr": 10**inert_surface.BEST_LOG_LR, "hidden": 16, "optimizer": "adam", "dropout": 0.1}
    clear = {effect.parameter for effect in analysed.effects if effect.is_clear or effect.is_clear_for_failures}
    return InertTrial(
        dropped={f"{name} {part}": 1 - _share(kept[name], part) for name, all_of in as_good.items() for part in all_of},
        inside=truth.effect == 0 or all(_holds(kept[name], value) for name, value in best.items()),
        matters=truth.effect > 0,
        shrinks=narrowing.shrinks,
        told=_told(record).shrinks if truth.effect and seed % 4 == 1 else None,
        fewest=min((value.n for decision in narrowing.decisions for value in decision.dropped), default=99),
        unclear=any(decision.dropped for decision in narrowing.decisions if decision.name not in clear),
    )


def _told(record: SweepRecord) -> Narrowing:
    """Return the decisions where only the parameters that matter are searched."""
    matter = {name: part for name, part in record.config["parameters"].items() if name not in inert_surface.INERT}
    return next_sweep(analysed_for_next(replace(record, config={**record.config, "parameters": matter}))).plan.narrowing


def _all_of(section: Mapping[str, Any]) -> list[Any]:
    return list(section["values"]) if "values" in section else [(section["min"], section["max"])]


def _share(section: Mapping[str, Any], part: Any) -> float:
    """Return the share that a section of the next sweep holds of a part of a range; 0 or 1 for a value."""
    if not isinstance(part, tuple):
        return float(_holds(section, part))
    low, high = part
    return max(0.0, (min(section["max"], high) - max(section["min"], low)) / (high - low))


def _holds(section: Mapping[str, Any], value: Any) -> bool:
    return value in section["values"] if "values" in section else bool(section["min"] <= value <= section["max"])
