"""How much the ranking metric moves from epoch to epoch, and by how much that flatters a peak."""

from __future__ import annotations

import numpy as np

from amc_analysis.dynamics.dynamics import RunVolatility
from amc_analysis.effects.statistics import expected_inflation
from amc_analysis.runs.findings import Findings
from amc_sweeps.runs.ranking import RankedRun


def volatility(findings: Findings) -> tuple[RunVolatility, ...]:
    """Return it for every run with enough epochs, in the order of the ranking."""
    sign = 1.0 if findings.metric.goal == "maximize" else -1.0
    return tuple(found for entry in findings.ranked if (found := _of(entry, sign)) is not None)


def _of(entry: RankedRun, sign: float) -> RunVolatility | None:
    if entry.noise_sd is None:
        return None
    finite = [point for point in entry.run.points if np.isfinite(point.value)]
    falls_E = -np.diff(sign * np.array([point.value for point in finite]))
    deepest = int(falls_E.argmax())
    epoch = finite[deepest + 1].epoch
    return RunVolatility(
        run_id=entry.run.run_id,
        noise_sd=entry.noise_sd,
        largest_drop=float(max(falls_E[deepest], 0.0)),
        drop_epoch=float(deepest + 2) if epoch is None else epoch,
        peak_inflation=entry.noise_sd * expected_inflation(len(finite)),
    )
