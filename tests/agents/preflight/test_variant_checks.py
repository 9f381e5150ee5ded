"""A sweep over variants: each variant is checked as a whole trial."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from amc_agents.preflight.check_sweep import Preflight, check_sweep

IMAGES = "model_type=resnet18 representation=constellation"
SAMPLES = {"model_type": "lstm2", "representation": "amplitude_phase"}
SWEEP: dict[str, Any] = {
    "method": "grid",
    "program": "amc-train",
    "command": ["${env}", "${program}", "${args}"],
    "metric": {"name": "val/combined_acc", "goal": "maximize"},
    "run_cap": 4,
}


def checked(variants: list[Any], parameters: dict[str, Any] | None = None, **changes: Any) -> Preflight:
    specs = {"variant": {"values": variants}, "max_lr": {"values": [0.001, 0.002]}, **(parameters or {})}
    return check_sweep(yaml.safe_dump({**SWEEP, "parameters": specs, **changes}), source="test")


def test_networks_for_images_and_for_samples_fit_into_one_sweep() -> None:
    result = checked([IMAGES, SAMPLES])
    assert (result.problems, result.warnings, result.configurations) == ([], [], 4)


@pytest.mark.parametrize(
    ("variants", "parameters", "problem"),
    [
        (
            [IMAGES, "model_type=lstm2 representation=iq"],
            {},
            "variant 'model_type=lstm2 representation=iq': representation: iq was given, but model_type lstm2 takes "
            "amplitude_phase; write representation: amplitude_phase",
        ),
        (
            [IMAGES, "model_typ=lstm2"],
            {},
            "variant 'model_typ=lstm2': model_typ: no such parameter; did you mean model_type?",
        ),
        ([IMAGES, {"model_type": "resnet5O"}], {}, "variant 'model_type=resnet5O': model_type: timm has no network"),
        ([IMAGES, "lstm2"], {}, "variant: 'lstm2' is not allowed; allowed: text such as"),
        ([IMAGES, {"variant": IMAGES}], {}, "variant: {'variant': 'model_type=resnet18"),
        ([IMAGES, {"model_type": {"value": "lstm2"}}], {}, "variant '\\'model_type={"),
        ([IMAGES, {"trial": {"epochs": 5}}], {}, "variant '\\'trial={"),
        (
            [IMAGES, SAMPLES],
            {"representation": {"value": "constellation"}},
            "representation: given as a parameter and by a variant",
        ),
        ([IMAGES, "max_lr=1e-3"], {}, "max_lr: given as a parameter and by a variant, and a trial has one value"),
        (
            [IMAGES, "warmup_epochs=50"],
            {"epochs": {"values": [40, 60]}},
            "variant 'warmup_epochs=50': warmup_epochs: 50 must be",
        ),
    ],
)
def test_what_is_wrong_with_a_variant_is_said_before_any_run(
    variants: list[Any], parameters: dict[str, Any], problem: str
) -> None:
    problems = checked(variants, parameters).problems
    assert [text for text in problems if text.startswith(problem)], problems


def test_a_flag_of_the_command_and_a_variant_set_one_field_only_once() -> None:
    command = ["${env}", "${program}", "--model_type=resnet34", "--epochs=5", "${args}"]
    assert checked([IMAGES, SAMPLES], command=command).problems == [
        "command: --model_type is also set by a variant; leave it out"
    ]


@pytest.mark.parametrize("spec", [{"min": 1, "max": 3}, {"parameters": {"model_type": {"value": "lstm2"}}}])
def test_a_range_of_variants_and_a_nested_one_are_refused(spec: dict[str, Any]) -> None:
    result = check_sweep(yaml.safe_dump({**SWEEP, "parameters": {"variant": spec}}), source="test")
    assert result.problems == [
        "variant: its values name several fields, such as model_type=lstm2 representation=amplitude_phase; list them "
        "under values"
    ]


def test_bands_and_epochs_are_those_of_the_longest_variant() -> None:
    hyperband = {"type": "hyperband", "min_iter": 5, "eta": 3, "strict": False}
    result = checked(["epochs=30 epochs_per_cycle=30", "epochs=10 epochs_per_cycle=10"], early_terminate=hyperband)
    assert (result.bands_epochs, result.epochs_at_most) == ((5, 15), 4 * 30)


def test_a_field_has_an_effect_if_it_has_one_in_some_variant() -> None:
    weight = {"snr_loss_alpha": {"value": 0.3}}
    assert checked(["snr_loss=d2", "snr_loss=cross_entropy"], weight).warnings == []
    (warning,) = checked(["snr_loss=l1", "snr_loss=cross_entropy"], weight).warnings
    assert warning == "snr_loss_alpha: has no effect: snr_loss is l1 or cross_entropy in every run"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (IMAGES, "representation=constellation model_type=resnet18"),
        ("model_type=lstm2 representation=amplitude_phase", SAMPLES),
        ("model_type=resnet18", "model_type=resnet18 patience=25"),  # its default
    ],
)
def test_two_variants_of_one_trial_are_a_warning(first: Any, second: Any) -> None:
    assert checked([first, "model_type=resnet34"]).warnings == []
    (warning,) = checked([first, "model_type=resnet34", second]).warnings
    assert warning.startswith("variant: ")
    assert warning.endswith(f"is the same trial as {first!r}, and both are trained; leave one out")


def test_another_program_may_have_a_parameter_of_that_name() -> None:
    result = checked(["large", "small"], program="train.py", command=["python", "${program}", "${args}"])
    assert result.problems == []
