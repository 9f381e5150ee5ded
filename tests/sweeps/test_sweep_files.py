"""The sweep files of the toolkit are valid and agree with their comments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from amc_agents.preflight.check_sweep import check_sweep
from amc_core.config import MODEL_ALIASES, OWN_NETWORKS, TrialConfig, expand_variant
from amc_sweeps.grammar.configurations import Grid
from amc_sweeps.grammar.parse import parse
from amc_sweeps.grammar.strict_yaml import number_in_text
from amc_sweeps.grammar.sweep_config import Choice

FOLDER = Path(__file__).parents[2] / "sweeps"
FILES = sorted(FOLDER.glob("*.yaml"))

# name -> configurations, bands in epochs, epochs at most
EXPECTED = {
    "architecture_comparison": (21, (15,), 21 * 30),
    "iq_networks": (12, (30,), 12 * 60),
    "lr_sensitivity": (24, (25,), 24 * 50),
    "networks_and_inputs": (12, (30,), 12 * 60),
    "performance_hyperband": (288, (15, 45), 60 * 60),
    "resnet50_focused": (36, (25, 75), 36 * 150),
    "smoke": (20, (2, 4, 8), 10 * 10),
}


def text_of(name: str) -> str:
    return (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")


def values_in(tree: Any) -> list[Any]:
    if isinstance(tree, dict):
        return [value for part in tree.values() for value in values_in(part)]
    return [value for part in tree for value in values_in(part)] if isinstance(tree, list) else [tree]


def test_every_file_is_tested_here() -> None:
    assert [file.stem for file in FILES] == sorted(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_file_passes_the_check_with_the_expected_counts(name: str) -> None:
    preflight = check_sweep(text_of(name), source=name)
    assert preflight.problems == []
    assert preflight.warnings == []
    assert (preflight.configurations, preflight.bands_epochs, preflight.epochs_at_most) == EXPECTED[name]


@pytest.mark.parametrize("name", EXPECTED)
def test_a_file_sets_every_key_that_has_a_default_in_wandb(name: str) -> None:
    raw = yaml.safe_load(text_of(name))
    assert raw["program"] == "amc-train"
    assert raw["command"] == ["${env}", "${program}", "${args}"]
    # No impute: the embedded server then goes by the cause of each end.
    assert raw["metric"] == {"name": "val/combined_acc", "goal": "maximize"}
    assert isinstance(raw["early_terminate"]["strict"], bool)
    assert raw["run_cap"] <= 60
    assert raw["name"] == name.replace("_", "-")


@pytest.mark.parametrize("name", EXPECTED)
def test_no_number_is_read_as_text(name: str) -> None:
    assert [value for value in values_in(yaml.safe_load(text_of(name))) if number_in_text(value)] == []


def test_bayes_and_hyperband_both_occur() -> None:
    sweeps = [parse(text_of(name)) for name in EXPECTED]
    assert {sweep.method for sweep in sweeps} == {"bayes", "grid", "random"}
    assert all(sweep.early_terminate is not None for sweep in sweeps)


@pytest.mark.parametrize("name", EXPECTED)
def test_every_configuration_of_a_file_is_one_that_a_trial_accepts(name: str) -> None:
    sweep = parse({**yaml.safe_load(text_of(name)), "method": "grid"})
    configurations = [TrialConfig.from_mapping(values) for values in Grid(sweep)]
    assert len(set(configurations)) == EXPECTED[name][0]


def test_the_performance_sweep_varies_the_parameters_of_the_research_log() -> None:
    parameters = parse(text_of("performance_hyperband")).parameters
    varied = {name: len(spec.values) for name, spec in parameters.items() if isinstance(spec, Choice)}
    assert varied == {
        "model_type": 2,
        "batch_size": 4,
        "base_lr": 2,
        "max_lr": 3,
        "snr_layer": 3,
        "curriculum": 2,
    }


def test_the_focused_sweep_is_that_of_the_research_log() -> None:
    raw = yaml.safe_load(text_of("resnet50_focused"))["parameters"]
    assert raw["max_lr"]["values"] == [1.0e-3, 2.0e-3, 3.0e-3]
    assert raw["warmup_epochs"]["values"] == [0, 5]
    fixed = {"model_type": "resnet50", "batch_size": 512, "epochs": 150, "patience": 25}
    assert {name: raw[name]["value"] for name in fixed} == fixed


def test_a_file_that_takes_its_settings_from_a_pretrained_run_starts_pretrained() -> None:
    recorded = yaml.safe_load((FOLDER / "recorded" / "single_runs.yaml").read_text(encoding="utf-8"))["runs"]
    pretrained = {run["id"] for run in recorded if run.get("config", {}).get("pretrained")}
    assert {"7h3jifit", "lmp0536i"} <= pretrained
    quoting = {name for name in EXPECTED if any(f"as run {run}" in text_of(name) for run in pretrained)}
    assert quoting == {"lr_sensitivity", "performance_hyperband", "resnet50_focused"}
    for name in quoting:
        assert yaml.safe_load(text_of(name))["parameters"]["pretrained"] == {"value": True}


def test_the_sensitivity_grid_gives_both_learning_rates_equal_runs() -> None:
    rates = [values["max_lr"] for values in Grid(parse(text_of("lr_sensitivity")))]
    assert rates.count(7.0e-4) == rates.count(1.0e-3) == 12


def test_timm_has_every_backbone() -> None:
    import timm

    names = {
        value
        for name in EXPECTED
        for values in Grid(parse({**yaml.safe_load(text_of(name)), "method": "grid"}))
        for value in [expand_variant(values)["model_type"]]
    }
    assert {"resnet50", "vit_b_16", "swin_t"} <= names
    others = names - set(OWN_NETWORKS)
    assert [name for name in others if not timm.is_model(MODEL_ALIASES.get(name, name))] == []
