"""Effects of parameters: fair comparisons of runs of unequal length, tests, tables, pairs, importance, confounding."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
import pytest
from simulated_sweeps import Setting, Simulated, simulate, simulated_sweep

from amc_analysis.effects.confounding import confounded_pairs
from amc_analysis.effects.effects import STRONG, Effect, effects_of
from amc_analysis.effects.importance import importance_of
from amc_analysis.effects.permutation import dependence, permutation_test, shuffles
from amc_analysis.effects.statistics import normal_scores
from amc_analysis.next_sweep.axes import axes_of
from amc_analysis.runs.parameters import parameter
from amc_sweeps.grammar.parse import parse_leniently
from amc_sweeps.runs.causes import Cause
from amc_sweeps.runs.records import Metric

CHOICES = {"parameters": {"a": {"values": [1, 2]}, "b": {"values": ["x", "y", "z"]}}}


def _run(values: list[float], cause: Cause = Cause.COMPLETED, **config: Any) -> Simulated:
    return Simulated(dict(config), values, cause, "gpu-0")


def _effects(runs: list[Simulated], config: Mapping[str, Any], metric: Metric | None = None) -> dict[str, Effect]:
    analysed = simulated_sweep(runs, config, **({} if metric is None else {"metric": metric}))
    effects = effects_of(analysed.outcomes, analysed.parameters, np.random.default_rng(0))
    return {effect.parameter: effect for effect in effects}


def _rank_scores(runs: list[Simulated]) -> dict[str, float]:
    outcomes = simulated_sweep(runs, CHOICES).outcomes
    ids = [entry.run.run_id for entry in outcomes.entries]
    return dict(zip(ids, outcomes.rank_score.tolist(), strict=True))


def test_comparing_each_value_with_the_others_finds_one_deviating_value_sooner() -> None:
    values = parameter("layer", [*"aaaabbbbcccc", None])
    alone, level = np.array([[1.0] * 3 + [0.0] * 10]), np.array([[1.0, 0, 0, 0] * 3 + [0.0]])
    # All runs of one value and none of the others: one contrast explains everything with one column instead of two.
    assert dependence(alone, values, of_each_value=True) > dependence(alone, values)
    assert dependence(level, values, of_each_value=True) == dependence(level, values) == 0
    contrast = values.against_others(0)[:, 0]
    assert contrast @ contrast == pytest.approx(1)
    assert contrast.sum() == pytest.approx(0)
    assert contrast[12] == 0


def test_a_strong_parameter_hides_no_weaker_one() -> None:
    rng = np.random.default_rng(8)
    space = {"parameters": {"lr": {"min": 0.0, "max": 1.0}, "layer": {"values": ["x", "y"]}}}
    runs = [
        _run([0.5 + lr + 0.1 * (layer == "y") + rng.normal(0, 0.05)], lr=lr, layer=layer)
        for lr, layer in zip(rng.uniform(size=40).tolist(), ["x", "y"] * 20, strict=True)
    ]
    analysed = simulated_sweep(runs, space)
    (layer,) = [parameter for parameter in analysed.parameters if parameter.name == "layer"]
    alone = dependence(analysed.outcomes.rank_score[shuffles(40, 2000, rng)], layer)
    assert permutation_test([alone])[0][0] > 0.05
    assert _effects(runs, space)["layer"].is_clear


def test_parameters_that_do_nothing_weaken_no_test() -> None:
    runs = simulate(Setting(30, shift=lambda config: 0.03 * (config["max_lr"] >= 10**-3.5)), np.random.default_rng(3))
    analysed = simulated_sweep(runs)
    reading_BN = normal_scores(analysed.outcomes.rank_score)[shuffles(30, 2000, np.random.default_rng(0))]
    scores_LB = [dependence(reading_BN, parameter) for parameter in analysed.parameters]
    assert max(score_B[0] for score_B in scores_LB) < STRONG
    names = [parameter.name for parameter in analysed.parameters]
    effects = _effects(runs, {})
    # With the others left out as well, each parameter would have more tests, and this effect would not be clear.
    assert [effects[name].p_corrected for name in names] == permutation_test(scores_LB)[1].tolist()
    assert effects["max_lr"].is_clear


def test_a_stopped_run_is_compared_over_its_own_epochs() -> None:
    slow = [0.1, 0.2, 0.3, 0.8]
    rank_score = _rank_scores([_run(slow), _run([0.3, 0.4], Cause.EARLY_STOPPED), _run([0.2, 0.3, 0.5, 0.6])])
    assert rank_score["run0001"] == 1.0, "best of all after two epochs"
    assert rank_score["run0000"] == 0.5
    assert rank_score["run0002"] == 0.0


def test_without_cut_runs_the_rank_score_is_the_rank_of_the_peak() -> None:
    rank_score = _rank_scores([_run([0.1, 0.5]), _run([0.4, 0.2]), _run([0.3, 0.5]), _run([0.9, 0.1])])
    assert list(rank_score.values()) == sorted(rank_score.values(), reverse=True)
    assert rank_score == {"run0003": 1.0, "run0000": 0.5, "run0002": 0.5, "run0001": 0.0}


def test_means_are_at_equal_epochs_and_the_best_is_at_any_epoch() -> None:
    runs = [_run([0.1, 0.2, 0.3, 0.9], a=1, b="x")] * 6
    runs += [_run([0.3, 0.4], Cause.EARLY_STOPPED, a=2, b="x")] * 5 + [_run([0.2, 0.8], Cause.LOST, a=2, b="x")]
    effect = _effects(runs, CHOICES)["a"]
    first, second = effect.values
    assert effect.equal_epochs == 2
    assert (first.mean, second.mean) == (pytest.approx(0.2), pytest.approx((5 * 0.4 + 0.8) / 6))
    assert (first.best, second.best) == (0.9, 0.8)
    assert (second.failures, second.ended, second.cut_short) == (1, 6, 5)


@pytest.mark.parametrize("cause", [Cause.CANCELLED, Cause.EARLY_STOPPED, Cause.RUNNING])
def test_a_few_runs_cut_short_do_not_shorten_the_comparison(cause: Cause) -> None:
    whole = [_run([0.1, 0.2, 0.3, 0.4 + index / 100], a=1 + index % 2, b="x") for index in range(7)]
    two_of_nine = _effects([*whole, *[_run([0.1, 0.2], cause, a=2, b="x")] * 2], CHOICES)["a"]
    assert (two_of_nine.equal_epochs, two_of_nine.left_out) == (None, 2)
    assert two_of_nine.values[0].mean == pytest.approx(0.43)
    three_of_ten = _effects([*whole, *[_run([0.1, 0.2], cause, a=2, b="x")] * 3], CHOICES)["a"]
    assert (three_of_ten.equal_epochs, three_of_ten.left_out) == (2, 0)


def test_a_run_stopped_long_before_most_does_not_shorten_the_comparison() -> None:
    runs = [_run([0.1 * epoch for epoch in range(1, end + 1)], Cause.CANCELLED, a=1, b="x") for end in (1, 6, 6, 7, 8)]
    runs += [_run([0.1 * epoch for epoch in range(1, 10)], a=2, b="x")] * 3
    assert _effects(runs, CHOICES)["a"].equal_epochs == 6


def test_listed_values_have_one_scale_in_effects_and_in_the_next_sweep() -> None:
    for ratio, scale in ((7.9, "linear"), (8.0, "log"), (20.0, "log")):
        space = {"parameters": {"x": {"values": [1.0, 1.5, 2.0, ratio]}}}
        runs = [_run([0.1], x=value) for value in (1.0, 1.5, 2.0)]  # the largest value has no run yet
        analysed = simulated_sweep(runs, space)
        parsed, _ = parse_leniently(analysed.config)
        assert parsed is not None
        (axis,) = axes_of(parsed, analysed)
        assert (analysed.parameters[0].scale, axis.log) == (scale, scale == "log")


def test_a_crashed_run_counts_in_best_and_failures_but_not_in_the_mean() -> None:
    runs = [_run([0.1, 0.2, 0.3], a=1 + index % 2, b="x") for index in range(8)]
    runs.append(_run([0.1, 0.4], Cause.LOST, a=1, b="x"))
    first, second = _effects(runs, CHOICES)["a"].values
    assert (first.best, first.best_run, first.n, first.runs, first.failures) == (0.4, "run0008", 4, 5, 1)
    assert first.mean == second.mean == pytest.approx(0.3)
    assert first.interval is None
    assert first.spread == (0.3, 0.3)


def test_values_of_unequal_n_are_compared_at_one_k() -> None:
    runs = [_run([value], a=1, b="x") for value in (0.1, 0.2, 0.3, 0.4)] + [_run([0.3], a=2, b="x")] * 2
    effect = _effects(runs, CHOICES)["a"]
    assert effect.k == 2
    assert effect.values[0].expected_best == pytest.approx((0.2 + 2 * 0.3 + 3 * 0.4) / 6)
    assert effect.values[1].expected_best == pytest.approx(0.3)


def test_the_best_of_a_minimised_metric_is_the_lowest() -> None:
    runs = [_run([value], a=1, b="x") for value in (0.1, 0.2, 0.3, 0.4)] + [_run([0.3], a=2, b="x")] * 2
    effect = _effects(runs, CHOICES, Metric("val/loss", "minimize"))["a"]
    assert effect.values[0].best == 0.1
    assert effect.values[0].expected_best == pytest.approx((3 * 0.1 + 2 * 0.2 + 0.3) / 6)


def test_matched_pairs_differ_in_one_parameter_and_average_over_seeds() -> None:
    space = {"parameters": {**CHOICES["parameters"], "seed": {"values": [0, 1]}}}
    runs = [
        _run([0.3 * (b == "y") + 0.1 * a + 0.02 * seed], a=a, b=b, seed=seed)
        for a, b, seed in product((1, 2), ("x", "y", "z"), (0, 1))
    ]
    effects = _effects(runs, space)
    (pair,) = effects["a"].pairs
    assert (pair.first, pair.second, pair.n, pair.better) == (1, 2, 3, 3)
    assert pair.difference == pytest.approx(0.1)
    assert "seed" not in effects


def test_a_parameter_that_some_runs_lack_is_tested_among_the_others() -> None:
    rng = np.random.default_rng(1)
    space = {"parameters": {"optimizer": {"values": ["sgd", "adam"]}, "momentum": {"values": [0.5, 0.9]}}}
    runs = []
    for index in range(40):
        sgd, momentum = index % 2 == 0, [0.5, 0.9][index // 2 % 2]
        config = {"optimizer": "sgd", "momentum": momentum} if sgd else {"optimizer": "adam"}
        runs.append(_run([0.5 - 0.2 * sgd + 0.1 * (sgd and momentum == 0.9) + rng.normal(0, 0.01)], **config))
    effect = _effects(runs, space)["momentum"]
    assert (effect.where, effect.n, effect.n_elsewhere) == ("optimizer = sgd", 20, 20)
    assert effect.is_clear


@pytest.mark.parametrize(
    ("shape", "trend"),
    [
        (lambda place: place, "rises"),
        (lambda place: -place, "falls"),
        (lambda place: -((place - 0.5) ** 2), "peaks inside"),
        (lambda place: (place - 0.5) ** 2, "dips inside"),
    ],
)
def test_the_trend_of_a_range_is_named(shape: Any, trend: str) -> None:
    rng = np.random.default_rng(2)
    space = {"parameters": {"lr": {"distribution": "log_uniform_values", "min": 1e-5, "max": 1e-1}}}
    places = rng.uniform(0, 1, 40)
    runs = [_run([0.5 + 0.3 * shape(place) + rng.normal(0, 0.01)], lr=float(10 ** (4 * place - 5))) for place in places]
    effect = _effects(runs, space)["lr"]
    assert effect.is_clear
    assert (effect.trend, effect.scale) == (trend, "log")
    assert [value.runs for value in effect.values] == [10, 10, 10, 10]


def test_a_null_that_the_sweep_lists_is_a_value() -> None:
    space = {"parameters": {"clip": {"values": [None, 1.0]}}}
    runs = [_run([0.1 + 0.4 * (index % 2)], clip=[None, 1.0][index % 2]) for index in range(12)]
    effect = _effects(runs, space)["clip"]
    assert {value.label: value.mean for value in effect.values} == {"null": pytest.approx(0.1), "1": pytest.approx(0.5)}
    assert effect.is_clear


def test_the_correction_is_stronger_for_independent_tests_than_for_equal_ones() -> None:
    rng = np.random.default_rng(3)
    score_B = rng.exponential(size=2001)
    score_B[0] = np.quantile(score_B, 0.99)
    p, once = permutation_test([score_B])
    _, same = permutation_test([score_B] * 5)
    others = [np.concatenate([[0.0], rng.exponential(size=2000)]) for _ in range(4)]
    _, five = permutation_test([score_B, *others])
    assert p[0] == once[0] == same[0] == pytest.approx(0.01, abs=0.001)
    assert five[0] == pytest.approx(1 - 0.99**5, abs=0.015)


def test_a_forest_names_the_planted_parameter_and_is_refused_without_one() -> None:
    planted = simulate(Setting(60, shift=lambda config: 0.1 * config["curriculum"]), np.random.default_rng(4))
    analysed = simulated_sweep(planted)
    importance = importance_of(analysed.outcomes, analysed.parameters, seed=0)
    assert importance.refused is None
    assert importance.r2 is not None
    assert importance.r2 > 0.4
    assert importance.shares[0].parameter == "curriculum"
    nothing = simulated_sweep(simulate(Setting(60), np.random.default_rng(5)))
    refused = importance_of(nothing.outcomes, nothing.parameters, seed=0)
    assert not refused.shares
    assert "out-of-bag R²" in (refused.refused or "")
    few = simulated_sweep(planted[:12])
    assert "there are 12" in (importance_of(few.outcomes, few.parameters, seed=0).refused or "")


def test_only_parameters_that_moved_together_are_a_confounded_pair() -> None:
    runs = simulate(Setting(30), np.random.default_rng(6))
    for run in runs:
        run.config["curriculum"] = run.config["max_lr"] > 10**-3.5
    (pair,) = confounded_pairs(simulated_sweep(runs).parameters, np.random.default_rng(0))
    assert {pair.first, pair.second} == {"max_lr", "curriculum"}
    assert pair.measure == "correlation ratio"
    assert pair.strength == pytest.approx(0.87, abs=0.05), "rank correlation of a range with its upper half"


def test_the_parameters_of_project_runs_are_the_entries_that_differ() -> None:
    runs = [
        _run([0.1 * (index % 2)], lr=[1e-3, 1e-4][index % 2], git_commit=str(index), seed=index) for index in range(12)
    ]
    analysed = simulated_sweep(runs, {"parameters": {}}, kind="project")
    assert [parameter.name for parameter in analysed.parameters] == ["lr"]
