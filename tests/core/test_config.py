"""TrialConfig: accepted values, and refusals of others."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from amc_core.config import (
    FIELDS,
    ConfigError,
    TrialConfig,
    check_value,
    parse_flag,
    read_variant,
    variant_text,
)


def test_every_default_is_a_value_that_its_own_field_accepts() -> None:
    assert TrialConfig.from_mapping(TrialConfig().to_mapping()) == TrialConfig()


def test_every_field_has_a_flag_a_kind_and_a_help_text() -> None:
    assert list(FIELDS) == [field.name for field in dataclasses.fields(TrialConfig)]
    assert all(spec.help for spec in FIELDS.values())


@pytest.mark.parametrize("name", [name for name, spec in FIELDS.items() if spec.words])
def test_a_number_may_be_one_of_its_words_and_no_other(name: str) -> None:
    for word in FIELDS[name].words:
        assert check_value(name, word) == (word, None)
        assert parse_flag(name, word) == word
        _, problem = check_value(name, f"{word}x")
        assert problem is not None
        assert f"or {word}" in problem


@pytest.mark.parametrize("name", [name for name, spec in FIELDS.items() if spec.choices])
def test_every_choice_is_accepted_and_a_misspelt_one_is_refused_with_the_nearest(name: str) -> None:
    for choice in FIELDS[name].choices:
        assert check_value(name, choice) == (choice, None)
        _, problem = check_value(name, f"{choice}x")
        assert problem is not None
        assert f"did you mean {choice}" in problem


def test_an_old_word_is_read_as_the_current_one() -> None:
    assert TrialConfig.from_mapping({"snr_loss_scale": "runlog"}) == TrialConfig(snr_loss_scale="levels")
    assert "runlog" not in FIELDS["snr_loss_scale"].allowed()


def test_all_violations_come_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        TrialConfig.from_mapping(
            {"max_lr": "1e-4", "snr_leyer": "standard", "batch_size": 0, "curriculum": "yes", "split": [0.8, 0.1, 0.2]}
        )
    problems = caught.value.problems
    assert len(problems) == 5
    assert any("write 1.0e-4" in problem for problem in problems)
    assert any("did you mean snr_layer?" in problem for problem in problems)
    assert any("a whole number >= 1" in problem for problem in problems)
    assert any("true, false" in problem for problem in problems)
    assert any("sum to 1.1" in problem for problem in problems)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"snr_min_db": 20, "snr_max_db": 10}, "snr_min_db: 20 dB lies above snr_max_db = 10 dB"),
        ({"base_lr": 1.0, "max_lr": 0.1}, "base_lr: 1 lies above max_lr"),
        ({"warmup_epochs": 5, "epochs": 5}, "warmup_epochs: 5 must be less than epochs = 5"),
        ({"micro_batch_size": 64, "batch_size": 32}, "exceeds batch_size"),
        (
            {"snr_layer": "regression", "snr_loss": "d2"},
            "d2 needs a class per level, .* allowed: l1, ordinal, smooth_l1",
        ),
        ({"init_from": "a.pt", "resume_from": "b.pt"}, "give one of them"),
    ],
)
def test_values_that_are_right_alone_and_wrong_together_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrialConfig.from_mapping(values)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), True, None, [1e-3], "high"])
def test_a_learning_rate_is_a_finite_number(value: Any) -> None:
    assert check_value("max_lr", value)[1] is not None


def test_a_whole_number_may_be_written_as_a_float_as_wandb_does() -> None:
    assert check_value("batch_size", 256.0) == (256, None)
    assert isinstance(check_value("batch_size", 256.0)[0], int)
    assert check_value("batch_size", 256.5)[1] is not None


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("max_lr", "1e-4", 1e-4),
        ("batch_size", "512", 512),
        ("batch_size", "1e3", 1000),
        ("batch_size", "1.0e+3", 1000),
        ("batch_size", "128.0", 128),
        ("micro_batch_size", "64.0", 64),
        ("curriculum", "True", True),
        ("curriculum", "false", False),
        ("patience", "None", None),
        ("grad_clip_norm", "null", None),
        ("split", "[0.7, 0.2, 0.1]", [0.7, 0.2, 0.1]),
        ("model_type", "resnet34", "resnet34"),
        ("batch_size", "many", "many"),  # left for check_value to refuse
    ],
)
def test_a_flag_is_read_as_its_fields_type(name: str, text: str, value: Any) -> None:
    assert parse_flag(name, text) == value


@pytest.mark.parametrize(
    ("name", "text", "hint"),
    [
        ("batch_size", "1e3", "YAML reads 1e3 as text: write 1.0e+3"),
        ("batch_size", "1.0e+3", "write 1.0e+3 without quotes"),
        ("batch_size", "128.0", "write 128.0 without quotes"),
        ("max_lr", "1e-4", "YAML reads 1e-4 as text: write 1.0e-4"),
        ("max_lr", "0.001", "write 0.001 without quotes"),
        ("batch_size", "64.5", None),
        ("batch_size", "-3", None),
        ("max_lr", "nan", None),
    ],
)
def test_a_number_that_yaml_reads_as_text_is_refused_with_how_to_write_it(
    name: str, text: str, hint: str | None
) -> None:
    _, problem = check_value(name, text)
    assert problem is not None
    assert problem.endswith(hint) if hint else "write" not in problem
    if hint:
        written = hint.partition("write ")[2].removesuffix(" without quotes")
        assert check_value(name, yaml.safe_load(written)) == (float(text), None)


def test_a_fraction_on_the_command_line_is_no_whole_number_and_quotes_are_not_mentioned() -> None:
    _, problem = check_value("batch_size", parse_flag("batch_size", "64.5"))
    assert problem is not None
    assert "quotes" not in problem


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrialConfig().epochs = 3  # type: ignore[misc]


@pytest.mark.parametrize("name", ["seed", "split_seed"])
def test_a_seed_has_the_range_of_a_generator(name: str) -> None:
    assert check_value(name, 2**63 - 1) == (2**63 - 1, None)
    for too_large in (2**63, 99999999999999999999):
        _, problem = check_value(name, too_large)
        assert problem is not None
        assert "<= 9.22337e+18" in problem
    torch.manual_seed(2**63 - 1)
    np.random.default_rng([2**63 - 1, 1])


LSTM = {"model_type": "lstm2", "representation": "amplitude_phase", "max_lr": 0.001}


@pytest.mark.parametrize(
    "variant",
    [
        "model_type=lstm2 representation=amplitude_phase max_lr=1e-3",
        LSTM,
        str(LSTM),  # as wandb's agent passes a mapping
    ],
)
def test_a_variant_sets_several_fields_at_once(variant: Any) -> None:
    config = TrialConfig.from_mapping({"variant": variant, "epochs": 5, "max_lr": 1.0e-3})
    assert config == TrialConfig.from_mapping({**LSTM, "epochs": 5})


def test_settings_come_back_from_the_text_of_a_variant() -> None:
    settings = TrialConfig.from_mapping({"data": "my data/a=b.h5", "patience": None, "augment": True}).to_mapping()
    assert read_variant(variant_text(settings)) == settings


@pytest.mark.parametrize(
    "variant",
    [
        *("lstm2", 3, None, {}, "epochs=1 epochs=2", "model_type='lstm2", "{1: 2}", "{[]: 1}", "{", "=3"),
        *("variant=epochs=5", {"variant": "epochs=5"}, {"epochs": 5, "variant": {"max_lr": 0.1}}),
    ],
)
def test_a_variant_that_names_no_fields_is_refused(variant: Any) -> None:
    with pytest.raises(ConfigError, match=r"variant: .* is not allowed; allowed: text such as"):
        TrialConfig.from_mapping({"variant": variant})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"variant": "epochs=5", "epochs": 6}, "epochs: the variant sets 5, but 6 is given beside it"),
        ({"variant": "epoch=5"}, "epoch: no such parameter; did you mean epochs"),
        ({"variant": "epochs=many"}, "epochs: 'many' is not allowed"),
        ({"variant": "model_type=lstm2"}, "model_type lstm2 takes amplitude_phase"),
        ({"variant": "lstm2", "epochs": 0}, "epochs: 0 is not allowed"),
    ],
)
def test_the_fields_of_a_variant_are_checked_like_any_others(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrialConfig.from_mapping(values)
