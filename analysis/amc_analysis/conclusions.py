"""What the evidence of a sweep carries: effects, importance, confounding, what happened inside runs, integrity."""

from __future__ import annotations

from dataclasses import dataclass

from amc_analysis.confounding import ConfoundedPair
from amc_analysis.dynamics import Dynamics
from amc_analysis.effects import Effect
from amc_analysis.findings import Findings
from amc_analysis.firings import Firing
from amc_analysis.importance import Importance


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
    raise NotImplementedError
