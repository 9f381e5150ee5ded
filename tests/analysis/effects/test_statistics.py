"""The statistics of the report against published values, exact coverage and known noise."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from amc_analysis.effects.statistics import expected_best, expected_inflation, t_interval
from amc_sweeps.runs.statistics import medians_of_3, noise_sd, wilson_interval


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17 (1998), table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (0, 1, 0.0, 0.7935),
    ],
)
def test_wilson_interval_agrees_with_published_values(k: int, n: int, low: float, high: float) -> None:
    assert wilson_interval(k, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_interval_is_symmetric_in_successes_and_failures() -> None:
    low, high = wilson_interval(3, 10)
    assert wilson_interval(7, 10) == pytest.approx((1 - high, 1 - low))


def test_wilson_interval_ends_exactly_at_the_ends() -> None:
    assert wilson_interval(0, 7)[0] == 0
    assert wilson_interval(7, 7)[1] == 1
    assert wilson_interval(0, 0) == (0, 1)


@pytest.mark.parametrize("n", [8, 12, 30])
def test_wilson_interval_covers_the_true_rate_about_95_times_in_100(n: int) -> None:
    """Exact coverage, averaged over rates: a sum over binomial probabilities, no simulation."""
    rates = [(i + 0.5) / 200 for i in range(200)]
    covered = 0.0
    for rate in rates:
        for k in range(n + 1):
            low, high = wilson_interval(k, n)
            if low <= rate <= high:
                covered += math.comb(n, k) * rate**k * (1 - rate) ** (n - k)
    assert 0.94 < covered / len(rates) < 0.965


def test_wilson_interval_refuses_more_successes_than_trials() -> None:
    with pytest.raises(ValueError, match="4 successes of 3"):
        wilson_interval(4, 3)


def test_noise_sd_ignores_height_and_slope() -> None:
    line = [0.3 + 0.02 * epoch for epoch in range(30)]
    assert noise_sd(line) == pytest.approx(0, abs=1e-12)


def test_noise_sd_finds_the_noise_on_a_rising_curve() -> None:
    rng = random.Random(0)
    curve = [50 * (1 - math.exp(-epoch / 40)) + rng.gauss(0, 0.75) for epoch in range(2000)]
    assert noise_sd(curve) == pytest.approx(0.75, rel=0.06)


@pytest.mark.parametrize("fallen", [slice(20, None), slice(20, 21), slice(0, 3)])
def test_one_collapse_hardly_changes_noise_sd(fallen: slice) -> None:
    rng = random.Random(1)
    curve = [60 * (1 - math.exp(-epoch / 10)) + rng.gauss(0, 0.3) for epoch in range(40)]
    before = noise_sd(curve)
    curve[fallen] = [value - 40 for value in curve[fallen]]
    assert before == pytest.approx(0.3, rel=0.3)
    assert noise_sd(curve) == pytest.approx(before, rel=0.3)


def test_noise_sd_needs_five_values() -> None:
    assert noise_sd([1, 2, 1, 2]) is None
    assert noise_sd([1, 2, 1, 2, 1]) is not None


def test_medians_of_3_remove_one_lucky_epoch() -> None:
    assert medians_of_3([1, 9, 2, 3]) == [2, 3]
    assert medians_of_3([1, 2]) == []


def test_the_expected_best_of_k_is_the_mean_over_all_subsets_of_k() -> None:
    values = [0.3, 0.1, 0.7, 0.7, 0.2, 0.5]
    for k in range(1, 7):
        subsets = list(itertools.combinations(values, k))
        assert expected_best(values, k) == pytest.approx(sum(map(max, subsets)) / len(subsets))


def test_the_expected_best_of_many_runs_does_not_overflow() -> None:
    values = [index / 4000 for index in range(1, 4001)]
    assert expected_best(values, 1) == pytest.approx(sum(values) / 4000)
    assert expected_best(values, 2000) == pytest.approx(2000 / 2001 * 4001 / 4000)
    with pytest.raises(ValueError, match="k = 5 of 4 values"):
        expected_best(values[:4], 5)


def test_a_mean_has_an_interval_from_8_values_on() -> None:
    assert t_interval([1.0] * 7) is None
    low, high = t_interval([1, 2, 3, 4, 5, 6, 7, 8]) or (0.0, 0.0)
    assert (low, high) == pytest.approx((4.5 - 2.3646 * 2.44949 / 8**0.5, 4.5 + 2.3646 * 2.44949 / 8**0.5), abs=1e-4)


@pytest.mark.parametrize(("n", "inflation"), [(1, 0.0), (2, 0.5642), (9, 1.4850), (66, 2.368)])
def test_expected_inflation_is_the_expected_maximum_of_normal_noise(n: int, inflation: float) -> None:
    """Harter, Biometrika 48 (1961), expected values of normal order statistics."""
    assert expected_inflation(n) == pytest.approx(inflation, abs=0.03)
