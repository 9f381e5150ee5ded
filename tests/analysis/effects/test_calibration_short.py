"""A short run of tests/soak/test_calibration.py: a correct analysis practically always passes its bounds."""

from __future__ import annotations

import math
from functools import cache

import pytest
from calibration import NullCounts, Rate, null_counts, power_of_effects, power_of_modes, power_of_rules, wilson_coverage

from amc_analysis.results.finding import Rule

SWEEPS = 100
ALMOST_NEVER = 3.7  # standard errors: one in ten thousand, one-sided


@cache
def _null() -> NullCounts:
    return null_counts(SWEEPS)


def _at_most(rate: Rate, share: float) -> bool:
    return rate.share <= share + ALMOST_NEVER * math.sqrt(share * (1 - share) / rate.n)


def test_few_null_sweeps_have_a_clear_effect() -> None:
    assert _at_most(_null().clear, 0.05), _null().clear


def test_intervals_of_means_cover_the_truth_about_95_times_in_100() -> None:
    for outcome, rate in _null().covered.items():
        # Intervals of one sweep share its runs, so the standard error is larger.
        assert abs(rate.share - 0.95) <= 0.02 + ALMOST_NEVER * 2 * math.sqrt(0.05 * 0.95 / rate.n), (outcome, rate)


@pytest.mark.parametrize("rule", list(Rule))
def test_a_rule_finds_nothing_in_sweeps_without_its_condition(rule: Rule) -> None:
    rate = _null().findings[rule]
    assert rate.n >= SWEEPS / 5
    assert _at_most(rate, 0.01), rate


def test_rules_name_their_planted_defect() -> None:
    missed = {rule: rate for rule, rate in power_of_rules(4).items() if rate.k < 2}
    assert not missed, "a rule that finds 95 of 100 misses three of four once in two thousand"


def test_an_effect_of_two_noise_sd_is_mostly_found_in_30_runs() -> None:
    for name, rate in power_of_effects(16).items():
        assert rate.k >= 6, (name, rate, "at a power of 80%, fewer than 6 of 16 are found once in 10,000")


def test_two_groups_of_runs_are_distinguished_from_one() -> None:
    assert power_of_modes(10).k == 10


def test_wilson_intervals_cover_at_least_85_and_on_average_95_of_100() -> None:
    lowest, mean, _ = wilson_coverage()
    assert lowest > 0.85
    assert mean == pytest.approx(0.95, abs=0.005)
