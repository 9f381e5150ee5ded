"""How much the ranking metric moves from epoch to epoch, and how much that inflates a peak."""

from __future__ import annotations

import math

import numpy as np

from amc_analysis.effects.statistics import expected_inflation
from amc_analysis.results.analysed_sweep import AnalysedSweep
from amc_analysis.results.dynamics import RunVolatility
from amc_sweeps.runs.ranked_run import RankedRun


def volatility(analysed: AnalysedSweep) -> tuple[RunVolatility, ...]:
    """Return the volatility of every run with enough epochs, in the order of the ranking."""
    runs = (_volatility(entry, analysed.outcomes.sign) for entry in analysed.ranked)
    return tuple(run for run in runs if run is not None)


def _volatility(entry: RankedRun, sign: float) -> RunVolatility | None:
    if entry.noise_sd is None:
        return None
    points, curve = entry.run.points, entry.run.curve
    finite = points if len(points) == len(curve) else [point for point in points if math.isfinite(point.value)]
    falls_E = -np.diff(sign * np.array(curve))
    deepest = int(falls_E.argmax())
    epoch = finite[deepest + 1].epoch
    return RunVolatility(
        run_id=entry.run.run_id,
        noise_sd=entry.noise_sd,
        largest_drop=float(max(falls_E[deepest], 0.0)),
        drop_epoch=float(deepest + 2) if epoch is None else epoch,
        peak_inflation=entry.noise_sd * expected_inflation(len(finite)),
    )
