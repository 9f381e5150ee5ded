"""Hyperband's bands, thresholds and stops. Literal expectations come from W&B's own engine (``sweeps`` 0.3.0)."""

from __future__ import annotations

import random

import pytest

from amc_sweeps.grammar.hyperband import BandDecision, HyperbandConfig, bands, runs_to_stop, thresholds

CURVES = {
    "a": [0.30, 0.42, 0.50, 0.55, 0.58, 0.60],
    "b": [0.10, 0.12, 0.50, 0.52],
    "c": [0.35, 0.20, 0.61],
    "d": [0.28, 0.30, 0.33, 0.35, 0.36],
    "e": [0.05],  # ended
    "f": [0.31, 0.44, 0.47, 0.10],
}
RUNNING = {"a", "b", "c", "d", "f"}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (HyperbandConfig(max_iter=100, s=3), (3, 11, 33)),
        (HyperbandConfig(max_iter=150, s=3), (5, 16, 50)),
        (HyperbandConfig(max_iter=5, s=9, eta=2), (1, 2)),  # below 1 there is no band
        (HyperbandConfig(max_iter=27, s=2, min_iter=4), (3, 9)),  # min_iter is ignored
        (HyperbandConfig(max_iter=2, s=2), ()),
    ],
)
def test_bands_lie_below_max_iter(config: HyperbandConfig, expected: tuple[int, ...]) -> None:
    assert bands(config) == expected


def test_bands_rise_from_min_iter() -> None:
    assert bands(HyperbandConfig(min_iter=4, eta=2))[:4] == (4, 8, 16, 32)
    assert bands(HyperbandConfig(min_iter=5))[:3] == (5, 15, 45)
    assert bands(HyperbandConfig(min_iter=1, eta=1.5))[:4] == (
        1,
        2,
        3,
        5,
    )  # each once, although 1.5 is cut to 1 as well


@pytest.mark.parametrize(
    ("config", "maximized", "minimized"),
    [
        (HyperbandConfig(min_iter=1, eta=2, strict=True), ["c", "f"], ["a"]),
        (HyperbandConfig(min_iter=1, eta=2, strict=False), [], []),
        (HyperbandConfig(min_iter=2, eta=2, strict=True), ["c", "f"], ["a"]),
        (HyperbandConfig(min_iter=1), ["d", "f"], ["a", "b", "c"]),
        (HyperbandConfig(max_iter=9, s=2, strict=True), ["d", "f"], ["a", "b", "c"]),
        (HyperbandConfig(max_iter=9, s=2, strict=False), ["d", "f"], []),
        (HyperbandConfig(min_iter=1, eta=1.5, strict=True), [], ["c"]),
    ],
)
def test_the_same_runs_are_stopped_as_by_the_engine_of_wandb(
    config: HyperbandConfig, maximized: list[str], minimized: list[str]
) -> None:
    assert list(runs_to_stop(config, "maximize", CURVES, RUNNING)) == maximized
    assert list(runs_to_stop(config, "minimize", CURVES, RUNNING)) == minimized


def test_a_decision_has_its_band_value_and_threshold() -> None:
    stops = runs_to_stop(HyperbandConfig(min_iter=2, eta=2), "maximize", CURVES, RUNNING)
    assert stops["c"] == BandDecision(band=2, value=0.20, threshold=0.30)


def test_runs_in_any_state_set_the_threshold_but_only_running_ones_are_stopped() -> None:
    config = HyperbandConfig(min_iter=1, eta=2)
    curves = {"ended": [0.9], "worse and ended": [0.1], "running": [0.2]}
    assert thresholds(config, curves.values(), "maximize") == {1: 0.2}
    assert runs_to_stop(config, "maximize", curves, {"running"}) == {}
    better = {**curves, "another": [0.8], "and another": [0.7]}
    assert list(runs_to_stop(config, "maximize", better, {"running"})) == ["running"]


def test_the_first_run_at_a_band_and_ties_survive() -> None:
    config = HyperbandConfig(min_iter=2, eta=3)
    assert runs_to_stop(config, "maximize", {"first": [0.1, 0.0]}, {"first"}) == {}
    same = {str(run): [0.5, 0.5] for run in range(9)}
    assert runs_to_stop(config, "maximize", same, set(same)) == {}


def test_a_dip_at_the_band_stops_only_when_strict() -> None:
    curves = {"steady": [0.3, 0.4, 0.5], "dipped": [0.3, 0.6, 0.1], "low": [0.2, 0.2, 0.2]}
    strict = runs_to_stop(HyperbandConfig(min_iter=3, eta=3, strict=True), "maximize", curves, {"dipped"})
    lenient = runs_to_stop(HyperbandConfig(min_iter=3, eta=3, strict=False), "maximize", curves, {"dipped"})
    assert [stop.value for stop in strict.values()] == [0.1]
    assert lenient == {}


def test_a_run_that_never_reached_a_band_is_never_stopped() -> None:
    curves = {"nan only": [], "short": [0.0], "good": [0.9] * 5}
    assert runs_to_stop(HyperbandConfig(min_iter=2, eta=2), "maximize", curves, {"nan only", "short"}) == {}


def test_a_run_is_judged_at_the_highest_band_it_has_passed() -> None:
    # Behind at band 1 and ahead at band 2: only band 2 counts. So a run may be stopped late.
    curves = {"late": [0.1, 0.9], "early": [0.9, 0.2], "early too": [0.8, 0.3]}
    stops = runs_to_stop(HyperbandConfig(min_iter=1, eta=2), "maximize", curves, {"late", "early"})
    assert {run: stop.band for run, stop in stops.items()} == {"early": 2}


def test_about_one_run_in_eta_survives_a_band_where_all_arrive_together() -> None:
    rng = random.Random(0)
    curves = {str(run): [rng.random()] for run in range(90)}
    stopped = runs_to_stop(HyperbandConfig(min_iter=1, eta=3), "minimize", curves, set(curves))
    assert len(curves) - len(stopped) == 90 // 3 + 1  # the threshold itself survives


def test_minimising_is_maximising_the_negative() -> None:
    rng = random.Random(1)
    for _ in range(50):
        config = HyperbandConfig(min_iter=rng.randint(1, 3), eta=rng.choice([2, 3, 1.5]), strict=rng.random() < 0.5)
        curves = {str(run): [rng.random() for _ in range(rng.randint(0, 9))] for run in range(12)}
        negative = {run: [-value for value in curve] for run, curve in curves.items()}
        down = set(runs_to_stop(config, "minimize", curves, set(curves)))
        assert down == set(runs_to_stop(config, "maximize", negative, set(curves)))
