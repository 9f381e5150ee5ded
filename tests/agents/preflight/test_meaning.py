"""Sweep files that are valid YAML and mean something else: other words, one name twice, exports, nothing to search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from amc_agents.commands import main
from amc_agents.preflight.check_sweep import Preflight, check_sweep
from amc_sweeps.grammar.parse import parse
from amc_sweeps.runs.export_file import Export, write

GOOD: dict[str, Any] = {
    "method": "random",
    "program": "train.py",
    "metric": {"name": "acc", "goal": "maximize"},
    "run_cap": 6,
    "parameters": {"lr": {"values": [0.1, 0.2]}},
}


def checked(**changes: Any) -> Preflight:
    return check_sweep(yaml.safe_dump({**GOOD, **changes}), source="test")


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("loguniform", "log_uniform_values? (log_uniform takes exponents of e)"),
        ("logUniform", "log_uniform_values? (log_uniform takes exponents of e)"),
        ("log-uniform", "log_uniform_values? (log_uniform takes exponents of e)"),
        ("log_unifrm", "log_uniform_values? (log_uniform takes exponents of e)"),
        ("q_loguniform", "q_log_uniform_values? (q_log_uniform takes exponents of e)"),
        ("inv_loguniform", "inv_log_uniform_values? (inv_log_uniform takes exponents of e)"),
        ("quniform", "q_uniform?"),
        ("randint", "int_uniform?"),
        ("gaussian", "normal?"),
        ("lognormal", "log_normal?"),
        ("choice", "categorical?"),
        ("unifrom", "uniform?"),
    ],
)
def test_a_distribution_of_another_library_or_misspelt_is_named_as_it_was_meant(given: str, meant: str) -> None:
    (problem,) = checked(parameters={"lr": {"distribution": given, "min": 0.0001, "max": 0.1}}).problems
    assert problem.endswith(f"; did you mean {meant}")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"max_trials": 5}, "max_trials: no such key; did you mean run_cap?"),
        ({"early_stopping": {}}, "early_stopping: no such key; did you mean early_terminate?"),
        ({"metric": {"name": "acc", "mode": "max"}}, "metric.mode: no such key; did you mean goal?"),
        ({"metric": {"name": "acc", "goal": "max"}}, "did you mean maximize?"),
        ({"parameters": {"lr": {"low": 0.1, "high": 1.0, "distribution": "uniform"}}}, "did you mean min?"),
        ({"parameters": {"lr": {"min": 0.1, "max": 1.0, "step": 0.1, "distribution": "q_uniform"}}}, "did you mean q?"),
        ({"parameters": {"lr": {"distribution": "categorical", "choices": [1, 2]}}}, "did you mean values?"),
        ({"parameters": {"lr": {"distribution": "normal", "std": 2}}}, "did you mean sigma?"),
        ({"early_terminate": {"type": "hyperband", "min_iter": 2, "reduction_factor": 4}}, "did you mean eta?"),
        ({"early_terminate": {"type": "hyperband", "grace_period": 2}}, "did you mean min_iter?"),
    ],
)
def test_a_key_of_another_library_is_named_as_it_was_meant(changes: dict[str, Any], expected: str) -> None:
    problems = checked(**changes).problems
    assert any(expected in problem for problem in problems), problems


def test_a_name_that_is_given_flat_and_nested_is_refused_but_a_stored_sweep_stays_readable() -> None:
    parameters = {"a.b": {"values": [1, 2]}, "a": {"parameters": {"b": {"values": [3, 4]}, "c": {"value": 1}}}}
    (problem,) = checked(parameters=parameters).problems
    assert problem == (
        "parameters.a.b: given twice, as parameters.a.b and as parameters.a.parameters.b; W&B has one name for both; "
        "leave out parameters.a.b"
    )
    assert parse({**GOOD, "parameters": parameters}, is_new=False).parameters.keys() == parameters.keys()
    assert checked(parameters={"a.c": {"values": [1, 2]}, "a": {"parameters": {"b": {"value": 3}}}}).problems == []


@pytest.mark.parametrize("method", ["grid", "random", "bayes"])
def test_a_sweep_with_one_configuration_has_nothing_to_search(method: str) -> None:
    (warning,) = [
        warning
        for warning in checked(method=method, parameters={"lr": {"value": 0.1}, "seed": {"values": [1]}}).warnings
        if "one configuration" in warning
    ]
    assert ("repeats it until the sweep is stopped" in warning) == (method != "grid")
    assert "so there is nothing to search; give a parameter several values" in warning
    assert not any("one configuration" in warning for warning in checked(method=method).warnings)


@pytest.mark.parametrize("name", ["acc.max", "val/loss.min", "acc.best"])
def test_a_metric_that_only_a_summary_has_is_a_warning_for_another_program(name: str) -> None:
    result = checked(metric={"name": name, "goal": "maximize"})
    assert result.problems == []
    assert any(f"write name: {name.rpartition('.')[0]}, or" in warning for warning in result.warnings), result.warnings


@pytest.mark.parametrize("name", ["acc", "maximum", ".max", "v1.0/acc"])
def test_other_names_of_a_metric_have_no_such_warning(name: str) -> None:
    warnings = checked(metric={"name": name, "goal": "maximize"}).warnings
    assert not any("define_metric" in warning for warning in warnings)


def test_a_metric_that_only_a_summary_has_is_refused_for_amc_train() -> None:
    sweep = {"program": "amc-train", "command": ["${program}", "${args}"], "parameters": {"seed": {"values": [1, 2]}}}
    (problem,) = checked(**sweep, metric={"name": "acc.max", "goal": "maximize"}).problems
    assert problem.startswith("metric.name: no trial logs 'acc.max'; logged every epoch: ")
    assert problem.endswith("; write name: val/combined_acc")
    (problem,) = checked(**sweep, metric={"name": "val/mod_acc.max", "goal": "maximize"}).problems
    assert problem.endswith("; did you mean val/mod_acc?")


@pytest.mark.parametrize("rows", [0, 20_000])
@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_an_export_is_refused_in_one_line_that_names_import(tmp_path: Path, rows: int, options: list[str]) -> None:
    history = [{"_step": step, "acc": 0.5} for step in range(rows)]
    run = {"id": "r1", "sweep": "s1", "state": "finished", "config": {}, "history": history}
    export = Export("p", ({"id": "s1", "state": "FINISHED", "config": GOOD},), (run,))
    file = tmp_path / "an export.yaml"
    file.write_text(write(export))
    result = CliRunner().invoke(main, ["create", str(file), *options])
    assert (result.exit_code, result.stdout) == (2, "")
    assert len(result.stderr.splitlines()) == 1
    assert f"write amc-sweep import '{file}'" in result.stderr
