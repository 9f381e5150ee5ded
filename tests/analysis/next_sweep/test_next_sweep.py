"""The next sweep: it is valid, names its evidence, and keeps the values that the runs do not exclude."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
import yaml
from next_sweep_trials import follow_all, follow_inert, median
from sweep_records import START, completed, run, sweep
from training_surface import Crashes, simulate

from amc_agents.preflight.check_sweep import check_sweep
from amc_analysis.analyse import add_conclusions, rank_runs
from amc_analysis.next_sweep.failures import failing_end, is_own_failure
from amc_analysis.next_sweep.plan import NoNextSweepError
from amc_analysis.next_sweep.sweep_file import next_sweep
from amc_analysis.next_sweep.yaml_text import literal, number
from amc_analysis.results.analysed_sweep import AnalysedSweep
from amc_analysis.results.finding import Rule
from amc_analysis.results.next_sweep import FailingEnd
from amc_analysis.runs.outcomes import carry_to_horizon
from amc_sweeps.runs.causes import Cause
from amc_sweeps.runs.records import RunRecord, SweepUpdate


def written(analysed: AnalysedSweep) -> dict[str, Any]:
    """Return the next sweep as PyYAML reads it, and check it with the dry run of ``amc-sweep create``."""
    text = next_sweep(analysed).text
    assert not check_sweep(text, source="next.yaml").problems, text
    return dict(yaml.safe_load(text))


def made(parameters: Mapping[str, Any], runs: list[RunRecord], **config: Any) -> AnalysedSweep:
    """Return a sweep over some parameters with its runs ranked."""
    whole = {
        "program": "train.py",
        "command": ["python3", "${program}", "${args}"],
        "method": "random",
        "metric": {"name": "val/combined_acc", "goal": "maximize"},
        "parameters": dict(parameters),
        **config,
    }
    return rank_runs(sweep(*runs, config=whole))


def flat(value: float, epochs: int = 20) -> list[float]:
    """Return a curve that ends at a value."""
    return [value * epoch / epochs for epoch in range(1, epochs + 1)]


def test_the_file_and_a_finding_say_that_the_space_was_changed() -> None:
    runs = [completed(f"r{n}", flat(0.5 + n / 100), config={"lr": n / 10}) for n in range(8)]
    ranked = made({"lr": {"min": 0.0, "max": 1.0}}, runs)
    narrower = {**ranked.config, "parameters": {"lr": {"min": 0.0, "max": 0.1}}}
    moments = [START - timedelta(days=1), START]
    updates = tuple(SweepUpdate(at, "ann", narrower if at == START else ranked.config) for at in moments)
    analysed = add_conclusions(replace(ranked, record=replace(ranked.record, updates=updates)))
    (finding,) = (item for item in analysed.findings if item.rule is Rule.SPACE_CHANGED)
    assert (
        "on 2025-07-01 at 12:00 UTC by ann, after 8 of its 8 runs had begun: lr: uniform 0 to 0.1" in finding.evidence
    )
    assert "compare values among the runs of one space" in " ".join(next_sweep(analysed).text.lower().split("\n# "))


# --- simulated sweeps (many more in tests/soak/test_next_sweep_soak.py)


def test_the_optimum_stays_inside_while_the_space_shrinks() -> None:
    trials = follow_all(70_000, 10)
    assert sum(trial.inside for trial in trials) >= 9
    assert median(trial.shrinks for trial in trials) >= 3


def test_what_does_nothing_is_kept() -> None:
    trials = [follow_inert(seed) for seed in range(8)]
    parts = [share for trial in trials for share in trial.dropped.values()]
    assert sum(parts) <= 0.05 * len(parts)
    assert sum(trial.inside for trial in trials) >= 7
    assert all(trial.fewest >= 3 for trial in trials)
    assert not any(trial.unclear for trial in trials)
    assert median(trial.shrinks for trial in trials if trial.matters) >= 2


# --- values that are dropped or kept


def test_two_identical_values_are_both_kept_and_a_worse_one_is_not() -> None:
    rng = np.random.default_rng(4)
    runs = [
        completed(
            f"r{i}", flat(0.8 - 0.1 * (kind == "sgd") + float(rng.normal(0, 0.01))), config={"kind": kind, "x": x}
        )
        for i, (kind, x) in enumerate(zip(["adam", "sgd", "rmsprop"] * 12, rng.uniform(size=36).tolist(), strict=True))
    ]
    analysed = add_conclusions(
        made({"kind": {"values": ["adam", "sgd", "rmsprop"]}, "x": {"min": 0.0, "max": 1.0}}, runs)
    )
    document, text = written(analysed), next_sweep(analysed).text
    assert document["parameters"]["kind"] == {"values": ["adam", "rmsprop"]}
    assert (document["parameters"]["x"]["min"], document["parameters"]["x"]["max"]) == (0.0, 1.0)
    assert text.count("# No clear effect in the report, so nothing is dropped.") == 1


@pytest.mark.parametrize(("n", "lowest"), [(2, 0.0), (3, 0.2)])
def test_an_end_of_a_range_is_dropped_only_with_three_runs_in_it(n: int, lowest: float) -> None:
    rng = np.random.default_rng(4)
    places = [*[0.02, 0.1, 0.2][:n], *rng.uniform(0.6, 1.0, 30).tolist()]
    runs = [
        completed(f"r{i}", flat(0.4 + 0.4 * (x > 0.5) + float(rng.normal(0, 0.005))), config={"x": x})
        for i, x in enumerate(places)
    ]
    section = written(made({"x": {"min": 0.0, "max": 1.0}}, runs))["parameters"]["x"]
    assert lowest <= section["min"] <= 3 * lowest
    assert section["max"] == 1.0


def two_valued(good: int, bad: int, seed: int = 0) -> list[RunRecord]:
    """Return runs of two layers, far apart."""
    rng = np.random.default_rng(seed)
    return [
        completed(f"{layer}{index}", flat(value + rng.normal(0, 0.004)), config={"layer": layer, "lr": lr})
        for layer, value, n in (("good", 0.8, good), ("bad", 0.5, bad))
        for index, lr in zip(range(n), rng.uniform(0.1, 0.9, n).tolist(), strict=True)
    ]


PARAMETERS = {"layer": {"values": ["good", "bad"]}, "lr": {"min": 0.0, "max": 1.0}}


def test_a_value_that_is_clearly_worse_is_dropped_with_its_n() -> None:
    analysed = made(PARAMETERS, two_valued(8, 8))
    assert written(analysed)["parameters"]["layer"] == {"value": "good"}
    assert "# Dropped bad (n = 8, best" in next_sweep(analysed).text


def test_two_runs_of_a_value_exclude_nothing() -> None:
    analysed = made(PARAMETERS, two_valued(10, 2))
    assert written(analysed)["parameters"]["layer"] == {"values": ["good", "bad"]}


def test_seven_runs_exclude_nothing_and_the_file_says_so() -> None:
    analysed = made(PARAMETERS, two_valued(4, 3))
    assert written(analysed)["parameters"]["layer"] == {"values": ["good", "bad"]}
    assert "the sweep has 7 runs with a value. At least 8 are needed" in next_sweep(analysed).text.replace("\n# ", " ")


def test_noise_alone_hardly_narrows_the_space() -> None:
    rng = np.random.default_rng(5)
    runs = [
        completed(f"r{i}", flat(float(rng.normal(0.7, 0.01))), config={"layer": layer, "lr": float(rng.uniform())})
        for i, layer in enumerate(["good", "bad"] * 15)
    ]
    assert next_sweep(made(PARAMETERS, runs)).plan.narrowing.shrinks < 1.3


def test_an_untried_value_is_kept_as_exploration() -> None:
    analysed = made({**PARAMETERS, "layer": {"values": ["good", "bad", "new"]}}, two_valued(8, 8))
    assert written(analysed)["parameters"]["layer"] == {"values": ["good", "new"]}
    assert "EXPLORATION: no run had new" in next_sweep(analysed).text


def test_a_value_of_a_left_out_run_is_not_exploration() -> None:
    incomplete = completed("half-known", flat(0.6), config={"layer": "old"})  # its learning rate is unknown
    analysed = made({**PARAMETERS, "layer": {"values": ["good", "bad", "old"]}}, [*two_valued(8, 8), incomplete])
    text = next_sweep(analysed).text
    assert "EXPLORATION: none of these runs had old" not in text
    assert "Kept without a comparison: old" in text


def test_every_untried_listed_value_is_marked() -> None:
    for seed in range(3):
        analysed = rank_runs(simulate(seed, 30))
        ran = {name: {str(entry.run.config[name]) for entry in analysed.ranked} for name in ("batch", "snr_layer")}
        text = next_sweep(analysed).text
        for name, values in ran.items():
            new = {str(value) for value in yaml.safe_load(text)["parameters"][name].get("values", [])} - values
            assert not new or "EXPLORATION" in text


def rising() -> AnalysedSweep:
    """Return runs whose outcome rises up to the end of the range; one run is far ahead."""
    rng = np.random.default_rng(3)
    places = rng.uniform(0, 0.9, 29).tolist()
    runs = [
        completed(f"r{i}", flat(0.9 * x + float(rng.normal(0, 0.001))), config={"x": x})
        for i, x in enumerate([*places, 0.97])
    ]
    return made({"x": {"min": 0.0, "max": 1.0}}, runs)


def test_an_end_up_to_which_performance_rises_is_kept_with_its_finding() -> None:
    analysed = add_conclusions(rising())
    (finding,) = (finding for finding in analysed.findings if finding.rule is Rule.BEST_AT_BOUNDARY)
    following = next_sweep(analysed)
    section = yaml.safe_load(following.text)["parameters"]["x"]
    assert section["max"] == 1.0
    assert sum(entry.run.config["x"] >= section["min"] for entry in analysed.ranked) >= 3
    assert finding.consequence in following.text.replace("\n  # ", " ")


def test_an_untried_end_of_a_range_is_marked() -> None:
    runs = [completed(f"r{i}", flat(0.5 + i / 100), config={"lr": 0.1 + i / 50}) for i in range(10)]
    text = next_sweep(made({"lr": {"min": 0.0, "max": 1.0}}, runs)).text
    assert "EXPLORATION: no run had values above 0.28" in text.replace("\n  # ", " ")


def test_a_range_that_keeps_all_draws_names_its_evidence() -> None:
    rng = np.random.default_rng(5)
    runs = [
        completed(f"r{i}", flat(float(rng.normal(0.7, 0.01))), config={"q": 2 * (1 + i % 4), "x": float(rng.uniform())})
        for i in range(30)
    ]
    ranges = {"q": {"distribution": "q_uniform", "min": 1, "max": 9, "q": 2}, "x": {"min": 0.0, "max": 1.0}}
    text = next_sweep(made(ranges, runs)).text
    assert "# Kept 0 to 1: n = 30, best " in text
    assert ", optimum in 100% of draws." in text
    assert "# Kept 2 to 9: n = 30, best " in text
    assert "Kept whole" not in text


# --- failures


def ends_of(failed_beyond: float | None, share: float, optimum: float, n: int = 40) -> FailingEnd | None:
    """Return the failing end of n runs on 0..1: all fail beyond a place, and a given share elsewhere."""
    rng = np.random.default_rng(7)
    places = rng.uniform(size=n)
    failed = rng.uniform(size=n) < share
    if failed_beyond is not None:
        failed |= places > failed_beyond
    return failing_end(places, failed, np.full(100, optimum), seed=0)


def test_crashes_that_rise_with_the_learning_rate_exclude_its_end() -> None:
    end = ends_of(0.7, share=0.2, optimum=0.4)
    assert end is not None
    assert end.upper
    assert end.beyond == pytest.approx(0.7, abs=0.1)
    assert end.interval[0] > 0.5
    assert end.p < 0.05


def test_crashes_of_the_machine_exclude_nothing() -> None:
    assert all(ends_of(None, share=share, optimum=0.4) is None for share in (0.2, 0.35, 0.5, 0.7, 0.9))


def test_an_end_that_holds_the_optimum_is_not_excluded_by_its_failures() -> None:
    assert ends_of(0.7, share=0.2, optimum=0.9) is None


def test_an_end_that_fails_is_cut_in_the_file_with_its_numbers() -> None:
    rng = np.random.default_rng(3)
    runs = []
    for index in range(50):
        log_lr = float(rng.uniform(-4, -1))
        curve = flat(0.7 - 0.08 * (log_lr + 2.8) ** 2 + float(rng.normal(0, 0.01)))
        ends_well = log_lr < -2
        config = {"lr": 10**log_lr}
        runs.append(
            completed(f"r{index}", curve, config=config)
            if ends_well
            else run(f"r{index}", curve[: int(rng.integers(2, 9))], "crashed", config=config)
        )
    analysed = made({"lr": {"distribution": "log_uniform_values", "min": 1.0e-4, "max": 1.0e-1}}, runs)
    assert written(analysed)["parameters"]["lr"]["max"] < 2e-2
    assert "Dropped" in next_sweep(analysed).text


def test_failures_of_the_machine_do_not_count_against_a_configuration() -> None:
    assert not any(is_own_failure(cause) for cause in (Cause.NODE_FAILURE, Cause.DATA_ERROR, Cause.EARLY_STOPPED))
    assert all(is_own_failure(cause) for cause in (Cause.DIVERGED, Cause.OUT_OF_MEMORY, Cause.LOST))


def test_a_value_with_only_failures_is_dropped_if_they_are_enough() -> None:
    def analysed(n: int) -> AnalysedSweep:
        broken = [run(f"x{i}", [], "failed", exit_code=1, config={"layer": "bad", "lr": 0.5}) for i in range(n)]
        return made(PARAMETERS, [*two_valued(12, 0), *broken])

    assert written(analysed(3))["parameters"]["layer"] == {"values": ["good", "bad"]}
    assert written(analysed(6))["parameters"]["layer"] == {"value": "good"}


def test_runs_that_crashed_early_are_carried_to_the_horizon() -> None:
    long, short = flat(0.6, 100), flat(0.9, 100)[:30]
    outcomes = carry_to_horizon([long, long, long, long, short], maximise=True)
    assert outcomes.carried == 1
    assert outcomes.horizon == 100
    assert outcomes.values[4] > outcomes.values[0]
    assert outcomes.variances[0] == 0


# --- the rest of the file


def test_program_command_and_metric_are_kept() -> None:
    analysed = made(PARAMETERS, two_valued(8, 8), early_terminate={"type": "hyperband", "min_iter": 4})
    document = written(analysed)
    assert document["program"] == "train.py"
    assert document["command"] == ["python3", "${program}", "${args}"]
    assert document["metric"] == {"name": "val/combined_acc", "goal": "maximize", "impute": "best"}
    assert document["early_terminate"] == {"type": "hyperband", "min_iter": 4, "strict": False}
    assert document["run_cap"] == 16


@pytest.mark.parametrize("strict", [True, False])
def test_a_given_strict_is_kept(strict: bool) -> None:
    early = {"type": "hyperband", "min_iter": 4, "strict": strict}
    assert written(made(PARAMETERS, two_valued(8, 8), early_terminate=early))["early_terminate"]["strict"] is strict


METRIC = {"name": "val/combined_acc", "goal": "maximize"}


def test_bayes_gets_impute_best_unless_the_embedded_server_searched() -> None:
    runs = [*two_valued(8, 8), run("gem", flat(0.9)[:15], "crashed", config={"layer": "good", "lr": 0.5})]
    analysed = made(PARAMETERS, runs, method="bayes", metric={**METRIC, "impute": "worst"})
    assert written(analysed)["metric"]["impute"] == "best"
    assert "Such runs of this sweep: 1." in next_sweep(analysed).text.replace("\n  # ", " ")
    record = replace(analysed.record, crashed_runs="auto", config={**analysed.record.config, "metric": METRIC})
    assert written(replace(analysed, record=record))["metric"] == METRIC, "the server goes by the causes"


def test_a_grid_stays_a_grid_with_all_of_its_configurations() -> None:
    parameters = {"layer": {"values": ["good", "bad"]}, "steps": {"values": [1, 2, 3]}}
    runs = [
        completed(f"{layer}{n}{k}", flat(value + k / 1000), config={"layer": layer, "steps": n})
        for layer, value in (("good", 0.8), ("bad", 0.5))
        for n in (1, 2, 3)
        for k in (0, 1)
    ]
    following = next_sweep(made(parameters, runs, method="grid"))
    assert yaml.safe_load(following.text)["method"] == "grid"
    assert following.plan.configurations == following.plan.run_cap
    assert yaml.safe_load(following.text)["parameters"]["layer"] == {"value": "good"}


def test_seeds_are_added_where_runs_are_equal_within_noise() -> None:
    rng = np.random.default_rng(1)
    runs = [
        completed(f"r{i}", flat(float(rng.normal(0.7, 0.02))), config={"max_lr": lr, "seed": 0})
        for i, lr in enumerate([1e-3, 2e-3] * 8)
    ]
    analysed = made({"max_lr": {"values": [1e-3, 2e-3]}}, runs, program="amc-train")
    following = next_sweep(analysed)
    assert yaml.safe_load(following.text)["parameters"]["seed"] == {"values": [0, 1, 2]}
    assert not check_sweep(following.text, source="next.yaml").problems
    assert following.plan.configurations == 6


def test_a_searched_seed_is_not_narrowed() -> None:
    runs = [
        completed(f"r{i}", flat(0.9 if i % 2 else 0.5), config={"seed": i % 2, "layer": "good", "lr": i / 16})
        for i in range(16)
    ]
    analysed = made({**PARAMETERS, "seed": {"values": [0, 1]}}, runs)
    assert written(analysed)["parameters"]["seed"] == {"values": [0, 1]}


@pytest.mark.parametrize(
    "section",
    [
        {"distribution": "int_uniform", "min": 1, "max": 40},
        {"distribution": "q_uniform", "min": 0, "max": 40, "q": 5},
        {"distribution": "q_log_uniform_values", "min": 1, "max": 64, "q": 1},
        {"distribution": "log_uniform", "min": 0.0, "max": 3.6},
        {"distribution": "inv_log_uniform_values", "min": 1.0, "max": 40.0},
        {"distribution": "normal", "mu": 10.0, "sigma": 5.0},
        {"distribution": "uniform", "min": -5.0, "max": 45.0},
        {"distribution": "categorical_w_probabilities", "values": [5, 20, 35], "probabilities": [0.5, 0.25, 0.25]},
    ],
)
def test_the_next_sweep_is_valid_for_every_distribution(section: dict[str, Any]) -> None:
    rng = np.random.default_rng(2)
    values = section.get("values") or list(range(5, 40, 5))
    runs = [
        completed(f"r{i}", flat(0.8 - abs(x - 20) / 50 + float(rng.normal(0, 0.002))), config={"x": x})
        for i, x in enumerate(values * 4)
    ]
    document = written(made({"x": section}, runs))
    written_section = document["parameters"]["x"]
    if "min" in written_section and written_section["distribution"] != "log_uniform":
        assert written_section["min"] <= 20 <= written_section["max"]


def test_nested_parameters_stay_nested() -> None:
    parameters = {"opt": {"parameters": {"kind": {"values": ["good", "bad"]}, "beta": {"value": 0.9}}}}
    runs = [
        completed(f"{kind}{i}", flat(value + i / 1000), config={"opt": {"kind": kind, "beta": 0.9}})
        for kind, value in (("good", 0.8), ("bad", 0.5))
        for i in range(6)
    ]
    assert written(made(parameters, runs))["parameters"]["opt"]["parameters"]["kind"] == {"value": "good"}


def test_a_text_that_stands_for_a_number_becomes_a_number() -> None:
    runs = [completed(f"r{i}", flat(0.5 + i / 50), config={"lr": ["1e-4", "1e-3"][i % 2]}) for i in range(10)]
    assert set(written(made({"lr": {"values": ["1e-4", "1e-3"]}}, runs))["parameters"]["lr"]["values"]) <= {1e-4, 1e-3}


def test_a_line_break_in_a_name_does_not_end_a_comment() -> None:
    runs = [completed(f"r{i}", flat(0.5 + i / 50), config={"x": ["a\nevil: 1", "b"][i % 2]}) for i in range(10)]
    assert set(written(made({"x": {"values": ["a\nevil: 1", "b"]}}, runs))) >= {"method", "parameters"}


def test_an_unreadable_parameter_is_refused_by_name() -> None:
    unreadable = {"values": ["x", "y"], "probabilities": [0.2, 0.8], "distribution": "categorical"}
    nested = {"parameters": {"beta": {"value": 0.9}, "decay": unreadable}}
    runs = [completed(f"r{i}", flat(0.5 + i / 100), config={"a": i / 10, "b": "x"}) for i in range(10)]
    with pytest.raises(NoNextSweepError, match=r"written: b, opt\.decay cannot be read from this sweep's file"):
        next_sweep(made({"a": {"min": 0.0, "max": 1.0}, "b": unreadable, "opt": nested}, runs))


def test_runs_without_a_sweep_have_no_next_sweep() -> None:
    with pytest.raises(NoNextSweepError, match="no next sweep can be written"):
        next_sweep(rank_runs(sweep(*two_valued(4, 4))))


def test_the_file_names_its_cost() -> None:
    following = next_sweep(rank_runs(simulate(1, 30, Crashes(0.0, 0.0))))
    assert following.plan.run_cap == 30
    assert following.plan.epochs == 4500
    assert following.plan.configurations is None
    assert "at most 30 runs, about 4,500 epochs" in following.text


def test_the_same_runs_give_the_same_file() -> None:
    assert next_sweep(rank_runs(simulate(4, 30))).text == next_sweep(rank_runs(simulate(4, 30))).text


@pytest.mark.parametrize("value", [1e-4, 3.2e-5, 1e4, 123456.0, 0.0, -2e-7, 0.05, 1.0, 1e22, 5e-324, 0.1 + 0.2])
def test_pyyaml_reads_every_number_back(value: float) -> None:
    assert yaml.safe_load(number(value)) == value
    assert isinstance(yaml.safe_load(number(value)), float)


@pytest.mark.parametrize(
    "value", ["1e-4", "true", "null", "a: b", "# no", "None", "07", "${env}", "é", "", True, None, 3]
)
def test_pyyaml_reads_every_value_back(value: Any) -> None:
    assert yaml.safe_load(literal([value])) == [value]
