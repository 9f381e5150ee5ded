"""What the evidence of a sweep carries: effects, importance, confounding, what happened inside runs, integrity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from amc_analysis.dynamics.amc_views import attractors, class_view, drifts
from amc_analysis.dynamics.cycles import cycle_view
from amc_analysis.dynamics.dynamics import Dynamics
from amc_analysis.dynamics.modes import modes_of
from amc_analysis.dynamics.overfitting import gap_view
from amc_analysis.dynamics.volatility import volatility
from amc_analysis.effects.confounding import ConfoundedPair, confounded_pairs
from amc_analysis.effects.effects import Effect, effects_of
from amc_analysis.effects.importance import Importance, importance_of
from amc_analysis.effects.outcomes import Outcomes, outcomes_of
from amc_analysis.effects.parameters import parameters_of
from amc_analysis.rules import registry
from amc_analysis.rules.case import Case
from amc_analysis.rules.finding import Firing
from amc_analysis.runs.findings import Findings


@dataclass(frozen=True)
class Conclusions:
    """Everything that is concluded from a sweep's findings."""

    effects: tuple[Effect, ...]  # one a searched parameter that took at least two values, strongest evidence first
    importance: Importance
    confounded: tuple[ConfoundedPair, ...]  # most strongly tied first
    dynamics: Dynamics
    firings: tuple[Firing, ...]  # errors first


def conclude(findings: Findings, *, seed: int = 0) -> Conclusions:
    """Draw every conclusion; the same findings and seed give the same ones.

    Args:
        findings: of one sweep, or of a project's runs.
        seed: of permutations, simulations and the forest.
    """
    case = case_of(findings, seed=seed)
    return Conclusions(
        effects=case.effects,
        importance=importance_of(case.outcomes, case.parameters, seed),
        confounded=case.confounded,
        dynamics=_dynamics(findings, case.outcomes, _stream(seed, "modes")),
        firings=registry.fire(case),
    )


def case_of(findings: Findings, *, seed: int = 0) -> Case:
    """Return what the integrity rules judge, effects and confounded pairs included."""
    outcomes = outcomes_of(findings)
    parameters = parameters_of(findings)
    effects = effects_of(outcomes, parameters, _stream(seed, "effects"))
    return Case(findings, outcomes, parameters, effects, confounded_pairs(parameters, _stream(seed, "pairs")), seed)


def _stream(seed: int, part: Literal["effects", "pairs", "modes"]) -> np.random.Generator:
    """Return random numbers of one part: what it draws does not depend on how much another one drew."""
    return np.random.default_rng([seed, len(part), ord(part[0])])


def _dynamics(findings: Findings, outcomes: Outcomes, rng: np.random.Generator) -> Dynamics:
    return Dynamics(
        cycles=cycle_view(findings),
        modes=modes_of(outcomes.reached[np.isfinite(outcomes.reached)].tolist(), rng),
        gap=gap_view(findings),
        drifts=drifts(findings),
        attractors=attractors(findings),
        classes=class_view(findings),
        volatility=volatility(findings),
    )
