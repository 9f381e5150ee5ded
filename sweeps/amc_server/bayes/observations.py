"""What the search is told of every run: a value, how uncertain it is, and how far its failure counts.

The treatments are those of ``amc_sweeps.runs.crashed_runs``; here they become numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from amc_server.bayes.extrapolation import MOST_CURVES, FinishedCurves
from amc_sweeps.grammar.configurations import value_key
from amc_sweeps.grammar.sweep_config import Metric
from amc_sweeps.runs.causes import Diagnosis
from amc_sweeps.runs.crashed_runs import Policy, Treatment, blame, treatment_of

STARTUP_RUNS = 8  # runs with a value before the surrogate is asked; the draws before are random


@dataclass(frozen=True)
class Observation:
    """The part of a run that the search needs."""

    configuration: Mapping[str, Any]
    state: str  # RunState
    curve: Sequence[float]  # logged finite values of the metric
    key: str = field(default="", compare=False)  # of the configuration; equal configurations have equal keys
    diagnosis: Diagnosis | None = None  # of a run that failed, crashed or was killed

    def __post_init__(self) -> None:
        if not self.key:
            object.__setattr__(self, "key", value_key(self.configuration))


class Told(NamedTuple):
    """What the search is told of one run that has ended."""

    treatment: Treatment
    value: float | None  # higher is better, whatever the goal; None: nothing is known of it
    sd: float = 0.0  # of the value, beyond the noise between equal runs
    failure: float = 0.0  # how likely the configuration made the run fail
    attained: bool = False  # the run ended well, so that its value is a result


def tell(metric: Metric, policy: Policy, runs: Sequence[Observation]) -> list[Told | None]:
    """Return what the search is told of each run; None of a run that is alive.

    ``metric.impute_while_running`` gives a living run that has logged something a value. Without it (the default) such
    a run is pending: its result is unknown, and it is no reason to try its configuration again.
    """
    treatments = [treatment_of(policy, run.state, run.diagnosis, has_values=bool(len(run.curve))) for run in runs]
    scale = _Scale(1 if metric.goal == "maximize" else -1, math.nan)
    if Treatment.WORST in treatments or metric.impute_while_running == "worst":
        pairs = zip(treatments, runs, strict=True)
        ended = [scale.worst_of(run.curve) for treatment, run in pairs if treatment is not None and len(run.curve)]
        scale = replace(scale, worst=min(ended, default=math.nan))
    whole = [run.curve for run in runs if run.state == "finished"]
    finished = FinishedCurves([scale.turned(curve) for curve in whole[-MOST_CURVES:]])
    return [
        _living(metric.impute_while_running, run.curve, scale)
        if treatment is None
        else _ended(treatment, run, finished, scale)
        for run, treatment in zip(runs, treatments, strict=True)
    ]


@dataclass(frozen=True)
class _Scale:
    """Values turned so that higher is better."""

    sign: int
    worst: float  # value of any ended run; NaN: not known, or not needed

    def turned(self, curve: Sequence[float]) -> list[float]:
        return [self.sign * value for value in curve]

    def best_of(self, curve: Sequence[float]) -> float:
        return float(max(curve) if self.sign > 0 else -min(curve))

    def worst_of(self, curve: Sequence[float]) -> float:
        return float(min(curve) if self.sign > 0 else -max(curve))


def _living(rule: str, curve: Sequence[float], scale: _Scale) -> Told | None:
    if rule == "false" or not len(curve):
        return None
    if rule == "worst":
        return None if math.isnan(scale.worst) else Told(Treatment.WORST, scale.worst)
    if rule == "best":
        return Told(Treatment.PEAK, scale.best_of(curve))
    return Told(Treatment.LATEST, scale.sign * curve[-1])


def _ended(treatment: Treatment, run: Observation, finished: FinishedCurves, scale: _Scale) -> Told:
    if treatment is Treatment.IGNORED:
        return Told(treatment, None)
    if treatment is Treatment.WORST:
        return Told(treatment, None if math.isnan(scale.worst) else scale.worst)
    if treatment is Treatment.LATEST:
        return Told(treatment, scale.sign * run.curve[-1])
    if treatment is Treatment.PEAK:
        return Told(treatment, scale.best_of(run.curve), attained=run.state == "finished")
    share = 0.0
    if treatment in (Treatment.CONSTRAINT, Treatment.WEIGHTED):
        share = blame(run.diagnosis) if run.diagnosis else 0.5
    if not len(run.curve):
        return Told(treatment, None, failure=share)
    # How good a configuration is and whether it fails are learned apart. A peak told as a result would make good
    # configurations near the edge of failure look bad, see the measurements of bench_search.py.
    full, sd = finished.predict(scale.turned(run.curve))
    return Told(treatment, full, sd, share)
