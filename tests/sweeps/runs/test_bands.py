"""Decisions computed later equal those of Hyperband at every moment."""

from __future__ import annotations

import random

import pytest
from sweep_records import run

from amc_sweeps.grammar.hyperband import HyperbandConfig, bands, runs_to_stop
from amc_sweeps.runs.bands import STOP_DELAY_S, HyperbandDecisions
from amc_sweeps.runs.records import Goal, RunRecord


def by_asking(config: HyperbandConfig, goal: Goal, runs: list[RunRecord], run_: RunRecord, asked: bool) -> object:
    """Return the decision from one call of ``runs_to_stop`` per band, and per moment at which a threshold changed."""
    curves = {other.run_id: other.curve for other in runs}
    own = curves[run_.run_id]
    passed = [band for band in bands(config) if band <= len(own)]
    for band in reversed(passed) if asked else passed[-1:]:
        length = len(own) if band == passed[-1] else band
        for decision in runs_to_stop(config, goal, {**curves, run_.run_id: own[:length]}, {run_.run_id}).values():
            return decision
    if not asked or not passed:
        return None
    timed = {other.run_id: [(point.time_s or 0.0, point.value) for point in other.points] for other in runs}
    begin, end = timed[run_.run_id][passed[0] - 1][0], timed[run_.run_id][-1][0] + STOP_DELAY_S
    moments = {curve[band - 1][0] for curve in timed.values() for band in bands(config) if band <= len(curve)}
    for moment in sorted((moment for moment in moments if begin <= moment <= end), reverse=True):
        curves_then = {name: [value for time, value in curve if time <= moment] for name, curve in timed.items()}
        for decision in runs_to_stop(config, goal, curves_then, {run_.run_id}).values():
            return decision
    return None


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("goal", ["maximize", "minimize"])
def test_a_decision_is_the_one_that_hyperband_would_have_made(goal: Goal, strict: bool) -> None:
    rng = random.Random(f"{goal} {strict}")
    decided = 0
    for _ in range(25):
        config = HyperbandConfig(min_iter=rng.choice([2, 3]), eta=rng.choice([2, 3]), strict=strict)
        runs = [
            run(f"r{number}", [rng.random() for _ in range(rng.randint(0, 14))], start_s=rng.uniform(0, 1500))
            for number in range(rng.randint(1, 12))
        ]
        decisions = HyperbandDecisions(config, goal, runs)
        for run_ in runs:
            for asked in (False, True):
                decision = decisions.decision(run_, has_stop=asked)
                assert decision == by_asking(config, goal, runs, run_, asked)
                decided += decision is not None
    assert decided > 20


def test_without_times_only_the_final_thresholds_count() -> None:
    config = HyperbandConfig(min_iter=2, eta=2)
    timeless = [
        run(f"r{number}", points=tuple(type(point)(point.value) for point in run("x", [value] * 3).points))
        for number, value in enumerate([0.1, 0.5, 0.9])
    ]
    decisions = HyperbandDecisions(config, "maximize", timeless)
    assert [decisions.decision(run_, has_stop=True) is not None for run_ in timeless] == [True, False, False]
