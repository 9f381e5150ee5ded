"""Checks of a sweep file against TrialConfig and the metrics that a trial logs."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import yaml

from amc_agents.preflight.check_sweep import Preflight, check_sweep

GOOD: dict[str, Any] = {
    "method": "bayes",
    "program": "amc-train",
    "command": ["${env}", "${program}", "${args}"],
    "metric": {"name": "val/combined_acc", "goal": "maximize"},
    "early_terminate": {"type": "hyperband", "min_iter": 5, "eta": 3, "strict": True},
    "run_cap": 6,
    "parameters": {
        "max_lr": {"distribution": "log_uniform_values", "min": 1.0e-4, "max": 1.0e-2},
        "snr_layer": {"values": ["standard", "bottleneck_64"]},
        "epochs": {"value": 50},
        "epochs_per_cycle": {"value": 5},  # so that the bands lie at the ends of cycles
    },
}


def checked(parameters: dict[str, Any] | None = None, **changes: Any) -> Preflight:
    """Check GOOD with more parameters and changed top-level keys; None removes a key."""
    sweep = {**GOOD, "parameters": {**GOOD["parameters"], **(parameters or {})}, **changes}
    sweep = {key: value for key, value in sweep.items() if value is not None}
    return check_sweep(yaml.safe_dump(sweep), source="test")


def test_a_good_sweep_has_no_warnings_and_its_bands_are_epochs() -> None:
    result = checked()
    assert result.problems == []
    assert result.warnings == []
    assert result.configurations is None
    assert result.bands_epochs == (5, 15, 45)
    assert result.epochs_at_most == 6 * 50
    assert result.sweep is not None
    assert result.sweep.run_cap == 6


def test_configurations_are_counted() -> None:
    result = checked({"max_lr": {"values": [1.0e-3, 2.0e-3]}, "curriculum": {"values": [True, False]}})
    assert result.configurations == 8


@pytest.mark.parametrize(
    ("name", "spec", "expected"),
    [
        ("max_lr", {"values": ["1e-4", 1.0e-3]}, "YAML reads 1e-4 as text: write 1.0e-4"),
        ("max_lr", {"value": "1e-4"}, "max_lr: '1e-4' is not allowed; allowed: a number > 0"),
        ("max_lr", {"min": 0.0, "max": 1.0}, "max_lr: 0.0 is not allowed"),
        ("dropout", {"min": 0.1, "max": 1.5}, "dropout: 1.5 is not allowed"),
        ("dropout", {"distribution": "beta"}, "dropout: 0.999999999 is not allowed"),
        ("model_typ", {"value": "resnet50"}, "model_typ: no such parameter; did you mean model_type?"),
        ("snr_layer", {"values": ["standart"]}, "did you mean standard?"),
        ("snr_layer", {"values": ["standard", "regression"]}, "needs a class per level, snr_layer regression has none"),
        (
            "histogram_range",
            {"values": [2.5, "automatic"]},
            "'automatic' is not allowed; allowed: a number > 0 or auto",
        ),
        ("snr_layer", {"min": 0, "max": 2}, "snr_layer: int_uniform draws numbers"),
        ("batch_size", {"min": 64.0, "max": 512}, "batch_size: uniform draws fractions"),
        (
            "batch_size",
            {"distribution": "q_uniform", "min": 8, "max": 64, "q": 0.5},
            "batch_size: q_uniform draws fract",
        ),
        (
            "batch_size",
            {"distribution": "q_uniform", "min": 8.5, "max": 64, "q": 8},
            "batch_size: q_uniform draws frac",
        ),
        ("batch_size", {"min": 0, "max": 64}, "batch_size: 0 is not allowed; allowed: a whole number >= 1"),
        ("curriculum", {"values": [True, "False"]}, "curriculum: 'False' is not allowed; allowed: true, false"),
        ("optimizer", {"parameters": {"beta": {"value": 0.9}}}, "optimizer.beta: a trial has no nested parameters"),
        ("warmup_epochs", {"values": [0, 50]}, "warmup_epochs: 50 must be less than epochs = 50"),
        ("base_lr", {"value": 1.0e-3}, "base_lr: 0.001 lies above max_lr = 0.0001"),
        ("base_lr", {"min": 1.0e-6, "max": 1.0}, "base_lr: 1 lies above max_lr = 0.01"),
        ("snr_min_db", {"values": [0, 40]}, "snr_min_db: 40 is not allowed"),
        ("micro_batch_size", {"value": 1024}, "micro_batch_size: 1024 exceeds batch_size = 512"),
        ("model_type", {"value": "lstm2"}, "lstm2 takes amplitude_phase; write representation: amplitude_phase"),
        ("representation", {"values": ["iq", "synced"]}, "networks that take it: iq_convnet, gru2, petcgdnn"),
    ],
)
def test_a_value_that_a_trial_refuses_is_a_problem(name: str, spec: dict[str, Any], expected: str) -> None:
    result = checked({name: spec})
    assert any(expected in problem for problem in result.problems), result.problems


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("batch_size", {"distribution": "q_log_uniform_values", "min": 8, "max": 512, "q": 1}),
        ("batch_size", {"distribution": "q_uniform", "min": 64, "max": 512, "q": 64}),
        ("patience", {"values": [5, None]}),
        ("split", {"value": [0.7, 0.2, 0.1]}),
        ("weight_decay", {"min": 0.0, "max": 0.1}),
        ("grad_clip_norm", {"values": [None, 1, 1.5]}),
    ],
)
def test_a_value_that_a_trial_accepts_is_not_a_problem(name: str, spec: dict[str, Any]) -> None:
    assert checked({name: spec}).problems == []


def test_every_bad_pair_of_values_is_a_problem() -> None:
    result = checked(
        {
            "max_lr": {"values": [1.0e-4, 1.0e-2]},
            "base_lr": {"values": [1.0e-6, 1.0e-3]},
            "epochs": {"values": [10, 50]},
            "warmup_epochs": {"values": [0, 10]},
            "seed": {"distribution": "int_uniform", "min": 0, "max": 1000},
        }
    )
    assert result.problems == [
        "base_lr: 0.001 lies above max_lr = 0.0001",
        "warmup_epochs: 10 must be less than epochs = 10",
    ]


def test_problems_of_grammar_values_and_metric_are_reported_at_once() -> None:
    text = """
method: random
metrik: {name: x}
metric: {name: val/combined_accuracy, goal: maximize}
program: amc-train
command: ["${env}", "${program}", "${args}"]
run_cap: none
parameters:
  max_lr: {values: [1e-4]}
  epochs: {min: 1e1, max: 50}
  batchsize: {value: 64}
  dropout: {value: 2}
"""
    problems = check_sweep(text, source="test").problems
    assert len(problems) == 7
    for expected in ["metrik", "run_cap", "1.0e-4", "1.0e+1", "batch_size?", "dropout: 2", "mean val/combined_acc?"]:
        assert any(expected in problem for problem in problems), expected


def test_problems_of_the_method_do_not_hide_problems_of_the_trial() -> None:
    result = checked({"dropout": {"distribution": "q_beta", "q": 0.5}, "max_lr": {"value": 0.001}}, method="grid")
    assert len(result.problems) == 2
    assert "a grid is finite" in result.problems[0]
    assert "dropout: 1.0 is not allowed" in result.problems[1]
    assert result.configurations is None


def test_a_text_that_is_not_a_mapping_is_one_problem() -> None:
    result = check_sweep("- a\n- b\n", source="test")
    assert result.sweep is None
    assert len(result.problems) == 1
    assert result.configurations is None
    assert result.bands_epochs == ()
    assert result.epochs_at_most is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("val/acc", "no trial logs 'val/acc'"),
        ("test/combined_acc", "logged once, after the last epoch, so a search cannot use it; use val/combined_acc"),
        ("test/f1", "logged once, after the last epoch, so a search cannot use it"),
        ("attractor/snr_db", "not logged in every epoch"),
        ("f1/mod/QPKS", "did you mean f1/mod/QPSK?"),
        ("f1/mod/OOK", "f1/mod/OOK is not logged with label_set digital17"),
        ("f1/family/analog", "f1/family/analog is not logged with label_set digital17"),
        ("f1/snr/-4", "needs a level that every trial has: from 0 to 30 dB"),
    ],
)
def test_a_metric_that_is_not_logged_every_epoch_is_a_problem(name: str, expected: str) -> None:
    (problem,) = checked(metric={"name": name, "goal": "maximize"}).problems
    assert expected in problem


@pytest.mark.parametrize("name", ["f1/mod/QPSK", "f1/family/APSK", "f1/snr/12", "acc/snr/30", "attractor/share"])
def test_a_search_may_use_the_metric_of_a_class_family_or_level(name: str) -> None:
    assert checked(metric={"name": name, "goal": "maximize"}).problems == []


@pytest.mark.parametrize(
    ("label_set", "name", "expected"),
    [
        ("BPSK,QPSK", "f1/mod/QPSK", None),
        ("BPSK,QPSK", "f1/mod/OOK", "f1/mod/OOK is not logged with label_set BPSK,QPSK"),
        ("BPSK,LoRa 7", "f1/mod/LoRa 7", None),
        ("file", "f1/mod/LoRa 7", None),
    ],
)
def test_a_metric_of_a_class_is_checked_against_the_label_set(label_set: str, name: str, expected: str | None) -> None:
    result = checked(
        metric={"name": name, "goal": "maximize", "impute": "best"}, parameters={"label_set": {"value": label_set}}
    )
    assert [expected in problem for problem in result.problems if expected] == ([True] if expected else [])
    assert expected or not result.problems


def test_a_label_set_is_checked_before_a_run_begins() -> None:
    typo = checked(parameters={"label_set": {"values": ["BPSK,QPKS", "digital17"]}})
    assert typo.problems == []
    assert any("label_set: QPKS is none of RadioML's classes" in text and "QPSK?" in text for text in typo.warnings)
    (problem,) = checked(parameters={"label_set": {"value": "digital"}}).problems
    assert "2 classes or more" in problem
    assert "did you mean digital17?" in problem
    assert "did you mean label_set?" in checked(parameters={"classes": {"value": "BPSK,QPSK"}}).problems[0]
    assert checked(command=["${env}", "${program}", "--classes=BPSK,QPSK", "${args}"]).problems == []


def test_a_command_that_would_not_start_the_trial_is_a_problem() -> None:
    assert "the agent runs 'python amc-train'" in checked(command=None).problems[0]
    assert "'python amc-train'" in checked(command=["${env}", "${interpreter}", "${program}", "${args}"]).problems[0]
    assert "${arg} is not a macro" in checked(command=["${env}", "${program}", "${arg}"]).problems[0]
    assert checked(command=["${env}", "nice", "${envvar:LAUNCHER}", "${program}", "${args}"]).problems == []
    assert "program: missing" in checked(program=None).problems[0]


def test_another_program_is_only_checked_against_the_grammar() -> None:
    parameters = {"anything": {"value": "yes"}, "rate": {"values": ["1e-4", 0.1]}}
    result = checked(
        program="train.py", command=None, metric={"name": "loss", "goal": "minimize"}, parameters=parameters
    )
    assert result.problems == []
    assert "program: train.py is not amc-train: its parameters and its metric cannot be checked here" in result.warnings
    assert "rate: YAML reads 1e-4 as text: write 1.0e-4" in result.warnings
    assert result.epochs_at_most is None
    assert result.bands_epochs[:3] == (5, 15, 45)


HYPERBAND = {"type": "hyperband", "strict": True}
METRIC = {"name": "val/combined_acc", "goal": "maximize"}


@pytest.mark.parametrize(
    ("parameters", "changes", "expected"),
    [
        ({}, {"early_terminate": {"type": "hyperband", "min_iter": 5}}, "early_terminate.strict: not given"),
        ({"warmup_epochs": {"values": [0, 5]}}, {}, "bands at epoch 5 lie within the warmup (5 epochs)"),
        (
            {},
            {"early_terminate": {**HYPERBAND, "max_iter": 600, "s": 3}},
            "bands at epoch 66, 200, but a trial may end",
        ),
        ({}, {"early_terminate": {**HYPERBAND, "min_iter": 50}}, "the first band is epoch 50, but training ends"),
        ({}, {"early_terminate": {**HYPERBAND, "max_iter": 9, "s": 5}}, "5 bands, but max_iter and eta give only 2"),
        ({}, {"early_terminate": {**HYPERBAND, "max_iter": 27, "s": 2, "min_iter": 3}}, "min_iter: ignored"),
        ({}, {"metric": {**METRIC, "impute": "worst"}}, "metric.impute: worst gives every crashed or stopped run"),
        ({}, {"metric": {"name": "val/combined_acc", "impute": "best"}}, "an accuracy needs goal: maximize"),
        ({}, {"metric": {**METRIC, "goal": "minimize"}}, "searches for the worst model"),
        ({}, {"metric": {**METRIC, "name": "val/loss"}}, "searches for the worst model"),
        ({}, {"metric": {**METRIC, "name": "train/mod_acc"}}, "only memorises its training frames"),
        ({}, {"metric": {**METRIC, "name": "epoch"}}, "does not measure how good a model is"),
        ({}, {"metric": {**METRIC, "target": 55}}, "metric.target: 55 is never reached"),
        ({}, {"metric": {**METRIC, "name": "f1/mod/QPSK", "target": 55}}, "metric.target: 55 is never reached"),
        ({}, {"run_cap": None}, "run_cap: not given; the sweep goes on until somebody stops it"),
        (
            {"max_lr": {"value": 0.001}},
            {"run_cap": 30},
            "run_cap: 30 runs, but only 2 configurations; bayes may run some",
        ),
        ({"max_lr": {"value": 0.001}, "snr_layer": {"value": "standard"}}, {}, "there is only one configuration"),
        ({"seed": {"values": [1, 1]}}, {}, "seed: a value is listed more than once"),
        ({"batch_size": {"distribution": "q_uniform", "min": 5, "max": 14, "q": 4}}, {}, "max = 14 is never drawn"),
        (
            {"curriculum_window": {"values": [1, 3]}},
            {},
            "curriculum_window: has no effect: curriculum is False in every run",
        ),
        (
            {"snr_loss_alpha": {"values": [0.5, 1]}, "snr_loss": {"value": "l1"}},
            {},
            "has no effect: snr_loss is l1",
        ),
        (
            {"lr_schedule": {"value": "plateau"}, "plateau_patience": {"value": 9}, "patience": {"value": 9}},
            {},
            "patience: 9 ends a trial before plateau_patience = 9",
        ),
        (
            {"model_type": {"value": "gru2"}, "representation": {"value": "iq"}, "compile": {"value": True}},
            {},
            "compile: has no effect: model_type is gru2 in every run",
        ),
        ({"epochs_per_cycle": {"value": 60}}, {}, "before the learning rate of the first cycle has come down again"),
        ({"patience": {"value": 4}, "min_cycles": {"value": 0}}, {}, "patience: 4 is shorter than the first cycle"),
        ({}, {"controller": {"type": "local"}}, "somebody has to start `wandb controller`"),
    ],
)
def test_a_suspicious_setting_is_a_warning(parameters: dict[str, Any], changes: dict[str, Any], expected: str) -> None:
    result = checked(parameters, **changes)
    assert result.problems == []
    assert any(expected in warning for warning in result.warnings), result.warnings


def test_distributions_of_random_search_have_warnings() -> None:
    exponent = checked({"max_lr": {"distribution": "log_uniform", "min": 1.0e-4, "max": 1.0e-2}}, method="random")
    assert "values run from 1.0001 to 1.01005; log_uniform_values takes the values themselves" in exponent.warnings[0]
    normal = checked({"dropout": {"distribution": "normal", "mu": 0.5, "sigma": 0.1}}, method="random")
    assert normal.problems == []
    assert "dropout: normal may draw values beyond those allowed" in normal.warnings[0]
    never = checked({"seed": {"values": [1, 2], "probabilities": [1, 0]}}, method="random")
    assert "seed: a value of probability 0 is never drawn" in never.warnings


def test_a_grid_without_a_metric_or_run_cap_has_two_warnings() -> None:
    parameters: dict[str, Any] = {"max_lr": {"value": 0.001}, "epochs": {"value": 100}}
    parameters["seed"] = {"values": list(range(6))}  # times two snr_layers
    result = checked(method="grid", metric=None, early_terminate=None, run_cap=None, parameters=parameters)
    assert result.problems == []
    assert result.warnings == [
        "metric: missing; W&B cannot rank the runs",
        "run_cap: not given; the sweep goes on until it has run 12 configurations",
    ]
    assert result.epochs_at_most == 1200


def test_patience_shorter_than_a_protected_cycle_has_no_warning() -> None:
    assert checked({"patience": {"value": 4}}).warnings == []


def test_the_checks_import_neither_torch_nor_wandb_nor_pandas() -> None:
    code = (
        "import sys, amc_agents.preflight.check_sweep as p\n"
        "p.check_sweep('method: random', source='x')\n"
        "print(sorted({'torch', 'wandb', 'pandas', 'numpy', 'timm'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("option", "impute", "warning"),
    [
        ("auto", "worst", "metric.impute: worst has no effect on this server: --crashed-runs auto wins"),
        ("ignore", "best", "metric.impute: best has no effect on this server: --crashed-runs ignore wins"),
        ("best", "best", None),
        ("worst", None, None),
        (None, "best", None),
    ],
)
def test_an_option_that_wins_over_impute_is_a_warning(option: str | None, impute: str | None, warning: str) -> None:
    metric = {**METRIC, **({"impute": impute} if impute else {})}
    result = check_sweep(yaml.safe_dump({**GOOD, "metric": metric}), source="test", crashed_runs=option)
    assert result.warnings == ([warning] if warning else [])
