"""What the search suggests: good places, apart from those that run now, away from configurations that fail."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from amc_server.bayes.observations import Observation
from amc_server.scheduling.search import suggest
from amc_sweeps.grammar.parse import parse
from amc_sweeps.runs.causes import Cause, Diagnosis
from amc_sweeps.runs.crashed_runs import Policy

LINE = parse("method: bayes\nmetric: {name: acc, goal: maximize}\nparameters: {x: {min: 0.0, max: 1.0}}")
CRASH = Diagnosis(Cause.DIVERGED, "certain", "")


def hill(x: float, top: float = 0.7) -> float:
    return 1 - (x - top) ** 2


def finished(*places: float) -> list[Observation]:
    return [Observation({"x": x}, "finished", [hill(x)]) for x in places]


def asked(runs: Sequence[Observation], count: int, *, policy: Policy = Policy.AUTO) -> list[float]:
    """Return independent suggestions from the same runs."""
    points = [suggest(LINE, runs, seed=seed, number=len(runs), policy=policy) for seed in range(count)]
    return [float(point["x"]) for point in points if point is not None]


def test_agents_that_ask_at_once_are_sent_apart() -> None:
    rng = np.random.default_rng(3)
    ended = [
        Observation({"x": x}, "finished", [hill(x) + rng.normal(0, 0.05)])
        for x in (0.02, 0.1, 0.2, 0.3, 0.4, 0.9, 0.95, 1)
    ]
    together, alone = [], []
    for seed in range(5):
        runs = list(ended)
        for number in range(4):
            point = suggest(LINE, runs, seed=seed, number=number)
            same = suggest(LINE, ended, seed=seed, number=number)
            assert point is not None
            assert same is not None
            runs.append(Observation(point, "running", []))
            together.append(point["x"])
            alone.append(same["x"])
    spread = [np.std(np.reshape(drawn, (5, 4)), axis=1).mean() for drawn in (together, alone)]
    assert spread[0] > 1.5 * spread[1]


def test_configurations_that_crash_are_left_to_others() -> None:
    # The best places crash: the search keeps to the edge of what works.
    places = np.linspace(0.02, 0.98, 24)
    runs = [
        Observation({"x": x}, "failed", [0.2], diagnosis=CRASH)
        if x > 0.55
        else Observation({"x": x}, "finished", [hill(x)])
        for x in places
    ]
    assert np.mean(np.array(asked(runs, 12)) > 0.6) < 0.2


def test_machines_that_crash_turn_the_search_from_no_configuration() -> None:
    curve = [0.1, 0.4, 0.8, 1.0]
    lost = Diagnosis(Cause.LOST, "likely", "")
    runs = []
    for number, x in enumerate(np.linspace(0.02, 0.98, 24)):
        whole = [hill(x) * share for share in curve]
        is_lost = x > 0.55 and number % 3 > 0
        runs.append(
            Observation({"x": x}, "crashed", whole[:2], diagnosis=lost)
            if is_lost
            else Observation({"x": x}, "finished", whole)
        )
    assert np.median(asked(runs, 12)) == pytest.approx(0.7, abs=0.1)
    assert np.median(asked(runs, 12, policy=Policy.WORST)) < 0.66


def test_a_single_outlier_does_not_flatten_the_rest() -> None:
    runs = [*finished(*np.linspace(0.05, 0.95, 14)), Observation({"x": 0.02}, "finished", [-1e9])]
    assert np.median(asked(runs, 8)) == pytest.approx(0.7, abs=0.1)


@pytest.mark.parametrize("values", [[0.5] * 12, [0.0] * 11 + [1e-300], [1e300, -1e300] * 6])
def test_values_without_a_shape_give_suggestions_all_the_same(values: list[float]) -> None:
    runs = [Observation({"x": place / 12}, "finished", [value]) for place, value in enumerate(values)]
    assert all(0 <= x <= 1 for x in asked(runs, 3))


def test_equal_configurations_with_different_results_are_averaged() -> None:
    runs = [Observation({"x": 0.3}, "finished", [value]) for value in (0.2, 0.8, 0.5, 0.6)] + finished(
        0.1, 0.5, 0.6, 0.9, 1.0, 0.0
    )
    assert all(0 <= x <= 1 for x in asked(runs, 3))


def test_a_configuration_that_ran_with_several_seeds_counts_with_its_mean() -> None:
    """One lucky run of a poor configuration is no reason to search there, once it ran again with other seeds."""
    config = parse(
        "method: bayes\nmetric: {name: acc, goal: maximize}\n"
        "parameters: {x: {min: 0.0, max: 1.0}, seed: {values: [0, 1, 2, 3]}}"
    )
    steady = [Observation({"x": x, "seed": 0}, "finished", [0.6 + 0.2 * x]) for x in np.linspace(0.3, 1, 10)]
    lucky = [
        Observation({"x": 0.05, "seed": seed}, "finished", [value]) for seed, value in enumerate((0.95, 0.4, 0.35))
    ]

    def near_the_lucky(runs: Sequence[Observation]) -> float:
        points = [suggest(config, runs, seed=seed, number=9) for seed in range(8)]
        return float(np.mean([point["x"] < 0.2 for point in points if point is not None]))

    assert near_the_lucky([*steady, lucky[0]]) > near_the_lucky([*steady, *lucky])
    assert near_the_lucky([*steady, *lucky]) < 0.3


def test_a_sweep_of_seeds_alone_tries_all_of_them() -> None:
    config = parse("method: bayes\nmetric: {name: acc, goal: maximize}\nparameters: {seed: {min: 1, max: 12}}")
    runs: list[Observation] = []
    for number in range(12):
        point = suggest(config, runs, seed=1, number=number)
        assert point is not None
        runs.append(Observation(point, "finished", [number / 12]))
    assert sorted(run.configuration["seed"] for run in runs) == list(range(1, 13))


def test_variants_are_searched_as_one_parameter_whether_they_are_texts_or_mappings() -> None:
    variants = ["model_type=resnet18 representation=synced", {"model_type": "lstm2", "max_lr": 0.001}, {"epochs": 5}]
    parameters = {"x": {"min": 0.0, "max": 1.0}, "variant": {"values": variants}}
    metric = {"name": "acc", "goal": "maximize"}
    config = parse({"method": "bayes", "metric": metric, "parameters": parameters})
    for best in range(len(variants)):
        runs = [
            Observation({"x": x, "variant": variants[place]}, "finished", [hill(x) + (place == best)])
            for number, x in enumerate(np.linspace(0, 1, 15).tolist())
            for place in [number % len(variants)]
        ]
        points = [suggest(config, runs, seed=seed, number=len(runs)) for seed in range(6)]
        assert sum(point is not None and point["variant"] == variants[best] for point in points) >= 5
