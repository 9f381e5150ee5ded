"""All summaries of ``results.dynamics``, from the runs' histories."""

from __future__ import annotations

import numpy as np

from amc_analysis.dynamics.learning_rate import cycle_summary
from amc_analysis.dynamics.modes import modes_of
from amc_analysis.dynamics.modulation_metrics import attractors, class_summary, drifts
from amc_analysis.dynamics.overfitting import gap_summary
from amc_analysis.dynamics.volatility import volatility
from amc_analysis.results.analysed_sweep import AnalysedSweep
from amc_analysis.results.dynamics import Dynamics


def dynamics_of(analysed: AnalysedSweep, rng: np.random.Generator) -> Dynamics:
    """Return all summaries of a sweep.

    Args:
        analysed: a sweep with its runs ranked.
        rng: of the simulations in the test for two groups.
    """
    reached = analysed.outcomes.reached
    return Dynamics(
        cycles=cycle_summary(analysed),
        modes=modes_of(reached[np.isfinite(reached)].tolist(), rng),
        gap=gap_summary(analysed),
        drifts=drifts(analysed),
        attractors=attractors(analysed),
        classes=class_summary(analysed),
        volatility=volatility(analysed),
    )
