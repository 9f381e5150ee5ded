"""Bayesian search over every distribution of W&B: the inverse functions, and searches that find a known best value."""

from __future__ import annotations

import math
import random
import statistics

import pytest

from amc_server.bayes.observations import Observation
from amc_server.bayes.quantiles import quantile, share_below
from amc_server.scheduling.search import suggest
from amc_sweeps.grammar.configurations import sample
from amc_sweeps.grammar.distributions import Range, continuous_ends
from amc_sweeps.grammar.parse import parse
from amc_sweeps.grammar.sweep_config import SweepConfig

RANGES = {
    "normal": "mu: 2, sigma: 3",
    "q_normal": "mu: 2, sigma: 3, q: 0.5",
    "log_normal": "mu: -5, sigma: 2",
    "q_log_normal": "mu: 3, sigma: 1, q: 1",
    "beta": "a: 2, b: 5",
    "q_beta": "a: 0.5, b: 0.5, q: 0.1",
    "log_uniform": "min: -9, max: -2",
    "q_log_uniform": "min: 0, max: 5, q: 2",
    "inv_log_uniform": "min: 1, max: 6",
    "inv_log_uniform_values": "min: 0.001, max: 0.9",
}


def spec_of(name: str, method: str = "bayes") -> Range:
    config = config_of(name, method)
    spec = config.parameters["x"]
    assert isinstance(spec, Range)
    return spec


def config_of(name: str, method: str = "bayes") -> SweepConfig:
    return parse(
        f"method: {method}\nmetric: {{name: acc, goal: maximize}}\n"
        f"parameters: {{x: {{distribution: {name}, {RANGES[name]}}}}}"
    )


@pytest.mark.parametrize("name", list(RANGES))
def test_quantiles_are_those_of_random_draws(name: str) -> None:
    rng = random.Random(1)
    draws = sorted(float(sample(config_of(name, "random"), rng)["x"]) for _ in range(2000))
    spec = spec_of(name)
    for u in (0.05, 0.25, 0.5, 0.75, 0.95):
        value = quantile(spec, u)
        step = (spec.q or 0) / 2 + 1e-12
        below = sum(draw < value - step for draw in draws) / len(draws)
        not_above = sum(draw <= value + step for draw in draws) / len(draws)
        assert below - 0.04 <= u <= not_above + 0.04


@pytest.mark.parametrize("name", list(RANGES))
def test_the_share_below_a_quantile_is_the_share_it_was_made_from(name: str) -> None:
    spec = spec_of(name)
    for u in (0.01, 0.3, 0.5, 0.9, 0.999):
        value = quantile(spec, u)
        share = share_below(spec, value)
        assert quantile(spec, share) == pytest.approx(value)
        if spec.q is None:
            assert share == pytest.approx(u, rel=1e-6)


@pytest.mark.parametrize("name", list(RANGES))
def test_bayes_finds_a_best_value_in_every_distribution(name: str) -> None:
    config, spec = config_of(name), spec_of(name)
    best = share_below(spec, quantile(spec, 0.85))
    low, high = continuous_ends(spec)
    half = (spec.q or 0) / 2
    runs: list[Observation] = []
    for number in range(20):
        point = suggest(config, runs, seed=1, number=number)
        assert point is not None
        assert low - half <= point["x"] <= high + half
        runs.append(Observation(point, "finished", [-abs(share_below(spec, point["x"]) - best)]))
    # Random draws are 0.37 away in the mean. A value with a step comes once, so that the best ones are soon used up.
    assert statistics.mean(run.curve[0] for run in runs[10:]) > (-0.2 if spec.q is None else -0.27)


def test_degenerate_spreads_have_one_value() -> None:
    assert quantile(Range("normal", mu=4, sigma=0), 0.3) == 4
    assert share_below(Range("normal", mu=4, sigma=0), 4) == 0.5
    assert quantile(Range("log_normal", mu=0, sigma=0), 0.3) == 1


@pytest.mark.parametrize(("name", "value"), [("beta", 1.5), ("log_uniform", 0.9), ("inv_log_uniform", 0.9)])
def test_a_value_outside_of_the_distribution_is_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match="outside"):
        share_below(spec_of(name), value)


@pytest.mark.parametrize("u", [1e-6, 1 - 1e-6])
@pytest.mark.parametrize("name", list(RANGES))
def test_the_ends_of_u_give_finite_values(name: str, u: float) -> None:
    assert math.isfinite(quantile(spec_of(name), u))


@pytest.mark.parametrize("wide", ["min: -700, max: 700", "min: -700, max: -699.5"])
@pytest.mark.parametrize("name", ["log_uniform", "inv_log_uniform"])
def test_the_widest_exponents_overflow_nothing(name: str, wide: str) -> None:
    config = parse(
        f"method: bayes\nmetric: {{name: acc}}\nparameters: {{x: {{distribution: {name}, {wide}}}}}",
    )
    spec = config.parameters["x"]
    assert isinstance(spec, Range)
    for u in (1e-6, 0.5, 1 - 1e-6):
        value = quantile(spec, u)
        assert 0 < value < math.inf
        assert share_below(spec, value) == pytest.approx(u, abs=1e-6)
