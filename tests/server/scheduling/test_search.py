"""The next configuration: grid, random, bayes; in a finite space none comes twice before all have come once."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Any

import pytest

from amc_server.bayes.observations import Observation
from amc_server.bayes.space import possible_values
from amc_server.scheduling.search import suggest
from amc_sweeps.grammar.configurations import value_key
from amc_sweeps.grammar.distributions import Range
from amc_sweeps.grammar.parse import parse
from amc_sweeps.grammar.sweep_config import SweepConfig

MIXED = """
method: {method}
metric: {{name: acc, goal: maximize}}
parameters:
  lr: {{distribution: log_uniform_values, min: 0.0001, max: 0.1}}
  dropout: {{min: 0.0, max: 0.5}}
  batch_size: {{values: [64, 128, 256]}}
  depth: {{min: 1, max: 8}}
  width: {{distribution: q_uniform, min: 16, max: 64, q: 16}}
  data: {{value: radioml}}
  optimizer:
    parameters:
      name: {{values: [adam, sgd]}}
      decay: {{distribution: q_log_uniform_values, min: 1, max: 100, q: 5}}
"""
BAYES_SPACE = """
method: bayes
metric: {name: acc, goal: maximize}
parameters:
  a: {min: 0.0, max: 1.0}
  b: {values: [x, y, z]}
"""
FINITE = """
method: {method}
metric: {{name: acc, goal: maximize}}
parameters:
  a: {{values: [1, 2, 3]}}
  b: {{values: [true, false]}}
  c: {{min: 1, max: 2}}
"""


def walk(config: SweepConfig, number: int, seed: int = 1, score: Any = None) -> list[dict[str, Any]]:
    """Return the first suggestions of a sweep in which every run ends before the next begins."""
    runs: list[Observation] = []
    for index in range(number):
        chosen = suggest(config, runs, seed=seed, number=index)
        assert chosen is not None
        runs.append(Observation(chosen, "finished", [score(chosen) if score else 0.0]))
    return [dict(run.configuration) for run in runs]


def inside(point: Mapping[str, Any]) -> bool:
    return (
        0.0001 <= point["lr"] <= 0.1
        and 0 <= point["dropout"] <= 0.5
        and point["batch_size"] in (64, 128, 256)
        and point["depth"] in range(1, 9)
        and point["width"] in (16, 32, 48, 64)
        and point["data"] == "radioml"
        and point["optimizer"]["name"] in ("adam", "sgd")
        and point["optimizer"]["decay"] in range(5, 101, 5)
    )


def test_a_grid_proposes_every_point_once_and_then_nothing() -> None:
    config = parse("method: grid\nparameters: {b: {values: [1, 2]}, a: {values: [x, y, x]}}")
    assert walk(config, 4) == [{"a": "x", "b": 1}, {"a": "x", "b": 2}, {"a": "y", "b": 1}, {"a": "y", "b": 2}]
    runs = [Observation(point, "running", []) for point in walk(config, 4)]
    assert suggest(config, runs, seed=1, number=4) is None


def test_a_grid_skips_the_points_of_prior_runs() -> None:
    config = parse("method: grid\nparameters: {a: {values: [1, 2]}}")
    assert suggest(config, [Observation({"a": 1.0}, "finished", [])], seed=1, number=0) == {"a": 2}


@pytest.mark.parametrize("method", ["random", "bayes"])
def test_suggestions_stay_inside_every_distribution(method: str) -> None:
    config = parse(MIXED.format(method=method))
    assert all(inside(point) for point in walk(config, 25, score=lambda point: -abs(math.log(point["lr"]) + 5)))


@pytest.mark.parametrize("method", ["random", "bayes"])
def test_the_seed_reproduces_a_sweep(method: str) -> None:
    config = parse(MIXED.format(method=method))
    assert walk(config, 14, seed=3) == walk(config, 14, seed=3)
    assert walk(config, 3, seed=3) != walk(config, 3, seed=4)


@pytest.mark.parametrize("method", ["random", "bayes"])
@pytest.mark.parametrize("space", [MIXED, FINITE])
def test_the_order_of_a_file_changes_no_suggestion(method: str, space: str) -> None:
    config = parse(space.format(method=method))
    turned = parse({**config.raw, "parameters": dict(reversed(config.raw["parameters"].items()))})
    draws = [walk(order, 12, score=lambda point: float(len(value_key(point)))) for order in (config, turned)]
    assert draws[0] == draws[1]


@pytest.mark.parametrize("method", ["random", "bayes"])
def test_a_finite_space_is_exhausted_before_anything_comes_twice(method: str) -> None:
    config = parse(FINITE.format(method=method))
    keys = [value_key(point) for point in walk(config, 13, score=lambda point: float(point["a"]))]
    assert len(set(keys[:12])) == 12
    assert keys[12] in keys[:12]  # random and bayes repeat then, as in W&B; run_cap ends them


def test_simultaneous_agents_get_different_configurations() -> None:
    config = parse(FINITE.format(method="bayes"))
    ended = [Observation(point, "finished", [float(point["a"])]) for point in walk(config, 6)]
    runs = list(ended)
    for number in range(6, 12):
        chosen = suggest(config, runs, seed=1, number=number)
        assert chosen is not None
        runs.append(Observation(chosen, "running", []))
    assert len({value_key(run.configuration) for run in runs}) == 12


def test_bayes_finds_the_good_region_sooner_than_random() -> None:
    space = "{x: {min: 0.0, max: 1.0}, y: {min: 0.0, max: 1.0}}"

    def sweep(method: str) -> SweepConfig:
        return parse(f"method: {method}\nmetric: {{name: acc, goal: maximize}}\nparameters: {space}")

    def late_scores(method: str) -> list[float]:
        points = [score(point) for seed in range(3) for point in walk(sweep(method), 30, seed=seed, score=score)[20:]]
        return sorted(points)

    def score(point: Mapping[str, Any]) -> float:
        return -((point["x"] - 0.8) ** 2) - (point["y"] - 0.2) ** 2

    bayes, rand = late_scores("bayes"), late_scores("random")
    assert sum(bayes) / len(bayes) > sum(rand) / len(rand) + 0.1


def test_bayes_minimises_when_asked_to() -> None:
    config = parse("method: bayes\nmetric: {name: loss}\nparameters: {x: {min: 0.0, max: 1.0}}")
    late = walk(config, 30, score=lambda point: (point["x"] - 0.7) ** 2)[20:]
    assert sum(abs(point["x"] - 0.7) for point in late) / len(late) < 0.15


def test_a_prior_run_outside_the_space_is_ignored() -> None:
    config = parse(MIXED.format(method="bayes"))
    odd = [Observation({"lr": 5.0, "batch_size": 7}, "finished", [0.9]), Observation({}, "finished", [])]
    chosen = suggest(config, odd, seed=1, number=0)
    assert chosen is not None
    assert inside(chosen)


@pytest.mark.parametrize(
    ("spec", "values"),
    [
        (Range("int_uniform", min=2, max=4), [2, 3, 4]),
        (Range("q_uniform", min=0.0, max=0.3, q=0.1), [0.0, 0.1, 0.2, 0.3]),
        (Range("q_log_uniform_values", min=3, max=10, q=4), [4, 8]),
    ],
)
def test_a_finite_range_lists_its_values(spec: Range, values: list[float]) -> None:
    assert possible_values(spec) == values


def test_choices_that_python_treats_as_equal_stay_different() -> None:
    config = parse(
        "method: bayes\nmetric: {name: acc, goal: maximize}\nparameters: {a: {values: [1, true, '1', null, [1, 2]]}}"
    )
    points = walk(config, 5, score=lambda point: random.Random(repr(point)).random())
    assert sorted(repr(point["a"]) for point in points) == sorted(["1", "True", "'1'", "None", "[1, 2]"])


def test_the_cache_between_bayes_suggestions_changes_none_of_them() -> None:
    config = parse(BAYES_SPACE)
    rng = random.Random(3)
    runs: list[Observation] = []
    kept = []
    for number in range(25):
        point = suggest(config, runs, seed=5, number=number)
        assert point is not None
        kept.append(point)
        runs.append(Observation(point, "running", []))
        if number % 3 == 2:  # some end, so that the value of a cached run changes
            runs[number - 1] = Observation(runs[number - 1].configuration, "finished", [rng.random()])
            fresh = suggest(parse(BAYES_SPACE), runs, seed=5, number=number + 1)
            assert fresh == suggest(config, runs, seed=5, number=number + 1)
