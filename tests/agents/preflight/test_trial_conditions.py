"""What can be known of amc-train's runs before they start: networks, bands, cycles and the curriculum."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from amc_agents.preflight.check_sweep import Preflight, check_sweep
from amc_core.config import TrialConfig
from amc_core.training.schedules import level_weights

GOOD: dict[str, Any] = {
    "method": "random",
    "program": "amc-train",
    "command": ["${env}", "${program}", "${args}"],
    "metric": {"name": "val/combined_acc", "goal": "maximize"},
    "run_cap": 6,
}


def checked(parameters: dict[str, Any], **changes: Any) -> Preflight:
    values = {"max_lr": [0.001, 0.002], **parameters}
    specs = {name: {"values": value if isinstance(value, list) else [value]} for name, value in values.items()}
    return check_sweep(yaml.safe_dump({**GOOD, "parameters": specs, **changes}), source="test")


def test_every_network_that_timm_lacks_is_refused_with_the_nearest_names() -> None:
    result = checked({"model_type": ["resnet50", "resnet5O", "vit_b_16", "iq_convnt", "swin_t"]})
    assert len(result.problems) == 2
    assert result.problems[0].startswith("model_type: timm has no network 'resnet5O', so a run with it ends before")
    assert "; write resnet50" in result.problems[0]
    assert "; write iq_convnet" in result.problems[1]


@pytest.mark.parametrize(
    ("parameters", "bands", "early"),
    [
        ({}, {"min_iter": 5}, "5, 15"),  # 16 levels from 0 to 30 dB join in epochs 1 to 16
        ({"curriculum_epochs_per_stage": [1, 2]}, {"min_iter": 5}, "5, 15"),
        ({"snr_min_db": [10, 20]}, {"min_iter": 5}, "5"),
        ({}, {"max_iter": 81, "s": 3}, "3, 9"),
        ({"warmup_epochs": 10}, {"min_iter": 5}, "5, 15"),
        ({"warmup_epochs": 20}, {"min_iter": 5}, "5, 15"),
        ({"snr_min_db": 22}, {"min_iter": 5}, None),
        ({"curriculum": False}, {"min_iter": 5}, None),
        ({"curriculum_mode": "sliding"}, {"min_iter": 5}, None),
        ({"curriculum_mode": ["sliding", "strict"]}, {"min_iter": 5}, "5, 15"),
    ],
)
def test_bands_before_the_last_level_joins_are_a_warning_with_a_band_that_is_not(
    parameters: dict[str, Any], bands: dict[str, Any], early: str | None
) -> None:
    settings = {"curriculum": [True, False], "curriculum_mode": "strict", "epochs": 60, **parameters}
    hyperband = {"type": "hyperband", "eta": 3, "strict": False, **bands}
    warnings = [text for text in checked(settings, early_terminate=hyperband).warnings if "curriculum's last" in text]
    if early is None:
        assert warnings == []
        return
    (warning,) = warnings
    assert f"the bands at epoch {early} come before epoch" in warning
    change, _, line = warning.partition("; write ")[2].partition(", or ")
    again = checked(settings, **yaml.safe_load(line))
    assert not any("early_terminate" in text for text in again.warnings), again.warnings
    assert yaml.safe_load(line)["early_terminate"]["strict"] is False
    changed = checked({**settings, "curriculum_mode": yaml.safe_load(change)["curriculum_mode"]["value"]})
    assert not any("curriculum's last" in text for text in changed.warnings)


@pytest.mark.parametrize(("low", "per_stage"), [(0, 1), (-20, 2), (10, 3)])
def test_the_epoch_in_which_the_last_level_joins_is_that_of_the_training(low: int, per_stage: int) -> None:
    values = {"curriculum": True, "snr_min_db": low, "curriculum_epochs_per_stage": per_stage, "epochs": 200}
    settings = {**values, "curriculum_mode": "strict"}
    config = TrialConfig.from_mapping(settings)
    n_levels = (30 - low) // 2 + 1
    first = next(e for e in range(1, 200) if level_weights(config, epoch=e, n_levels=n_levels)[0] > 0)
    hyperband = {"type": "hyperband", "min_iter": first - 1, "eta": 3, "strict": True}
    early = checked(settings, early_terminate=hyperband)
    assert any(f"the bands at epoch {first - 1} come before epoch {first}," in text for text in early.warnings)
    later = checked(settings, early_terminate={**hyperband, "min_iter": first})
    assert not any("curriculum" in text for text in later.warnings)


@pytest.mark.parametrize(
    ("mode", "last", "expected"),
    [
        ("strict", 16, "its last SNR level joins in epoch 16, but training may end with epoch 15"),
        (
            "sliding",
            18,
            "its lowest SNR level has the full weight from epoch 18 on, but training may end with epoch 17",
        ),
    ],
)
def test_a_curriculum_that_outlasts_the_training_is_a_warning(mode: str, last: int, expected: str) -> None:
    settings = {"curriculum": True, "curriculum_mode": mode}
    assert any(expected in text for text in checked({**settings, "epochs": last - 1}).warnings)
    assert not any("curriculum:" in text for text in checked({**settings, "epochs": last}).warnings)
    config = TrialConfig.from_mapping(settings)
    lowest = [level_weights(config, epoch=epoch, n_levels=16)[0] for epoch in (last - 1, last)]
    assert lowest == [0, pytest.approx(1 / 3)] if mode == "strict" else lowest[0] < lowest[1] == 1


CYCLES = {"epochs": 60, "epochs_per_cycle": 15}


@pytest.mark.parametrize(
    ("parameters", "hyperband", "rising", "proposed"),
    [
        ({}, {"min_iter": 16, "eta": 3}, "16, 48", {"min_iter": 15, "eta": 3}),
        ({}, {"min_iter": 5, "eta": 3}, "5", {"min_iter": 15, "eta": 3}),  # 15 and 45 are ends
        ({}, {"min_iter": 26, "eta": 2}, "52", {"min_iter": 30, "eta": 2}),  # of 26 the learning rate falls
        ({}, {"min_iter": 6, "eta": 2.5}, "6, 37", {"min_iter": 15, "eta": 2}),
        ({}, {"max_iter": 54, "s": 2, "eta": 3}, "6, 18", {"min_iter": 15, "eta": 3}),
        ({"warmup_epochs": 15}, {"min_iter": 17, "eta": 3}, "17, 51", {"min_iter": 30, "eta": 3}),
        ({"epochs_per_cycle": [10, 15]}, {"min_iter": 20, "eta": 2}, "20", {"min_iter": 30, "eta": 2}),
        ({"epochs_per_cycle": [10, 15], "epochs": 30}, {"min_iter": 20, "eta": 2}, "20", None),
        ({"epochs_per_cycle": 60}, {"min_iter": 20, "eta": 3}, "20", None),
        ({"lr_schedule": ["constant", "triangular2"]}, {"min_iter": 16, "eta": 3}, "16, 48", {"min_iter": 15}),
        ({"lr_schedule": "cosine"}, {"min_iter": 16, "eta": 3}, None, None),
        ({}, {"min_iter": 15, "eta": 3}, None, None),
        ({}, {"min_iter": 8, "eta": 3}, None, None),  # 8 and 24 are after the middle of a cycle
    ],
)
def test_bands_in_the_rising_half_of_a_cycle_are_a_warning_with_bands_at_ends_of_cycles(
    parameters: dict[str, Any], hyperband: dict[str, Any], rising: str | None, proposed: dict[str, Any] | None
) -> None:
    settings = {**CYCLES, **parameters}
    early = {"type": "hyperband", "strict": True, **hyperband}
    warnings = [text for text in checked(settings, early_terminate=early).warnings if "rising half" in text]
    if rising is None:
        assert warnings == []
        return
    (warning,) = warnings
    assert f"the bands at epoch {rising} lie in the rising half of a learning-rate cycle" in warning
    if proposed is None:
        assert warning.endswith("; leave early_terminate out, or train longer")
        return
    line = yaml.safe_load(warning.partition("; write ")[2])
    assert proposed.items() <= line["early_terminate"].items()
    again = checked(settings, **line)
    assert again.bands_epochs
    assert not any("early_terminate" in text for text in again.warnings), again.warnings


@pytest.mark.parametrize("epochs", [60, 10**15])
def test_a_range_of_cycle_lengths_has_no_common_end(epochs: int) -> None:
    specs = {
        "max_lr": {"values": [0.001, 0.002]},
        "epochs": {"value": epochs},
        "epochs_per_cycle": {"min": 10, "max": 10**18},
    }
    early = {"type": "hyperband", "min_iter": 15, "eta": 3, "strict": True}
    result = check_sweep(yaml.safe_dump({**GOOD, "parameters": specs, "early_terminate": early}), source="test")
    (warning,) = [text for text in result.warnings if "rising half" in text]
    assert "bands at epoch 15, 45" in warning
    assert warning.endswith("; leave early_terminate out, or train longer")


NULL = {"micro_batch_size": None}


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        (
            {**NULL, "model_type": ["resnet18", "resnet50"], "batch_size": [64, 2048], "image_size": 128},
            "model_type: resnet50 with 2,048 frames of 128 x 128 pixels in a forward pass needs about 28 GiB, more "
            "than a 24 GiB GPU has, so runs may end as out_of_memory; write micro_batch_size: {value: auto}, which "
            "finds what fits",
        ),
        (
            {"micro_batch_size": [128, 512], "model_type": "resnet50", "amp": [True, False], "image_size": 224},
            "model_type: resnet50 with 512 frames of 224 x 224 pixels in a forward pass needs about 41 GiB, more than",
        ),
        (
            {**NULL, "model_type": "iq_resnet", "representation": "iq", "batch_size": 65536},
            "model_type: iq_resnet with 65,536 frames in a forward pass needs about 59 GiB, more than a 48 GiB GPU has",
        ),
        ({**NULL, "model_type": "resnet50", "batch_size": 1024, "image_size": 128}, None),  # 14 GiB
        ({"micro_batch_size": "auto", "model_type": "resnet50", "batch_size": 65536, "image_size": 224}, None),
        ({"model_type": "vit_base_patch16_224", "batch_size": 65536, "image_size": 224}, None),
        ({**NULL, "model_type": "resnet10t", "batch_size": 65536, "image_size": 224}, None),  # was not counted
    ],
)
def test_a_step_that_exceeds_a_usual_gpu_is_a_warning(parameters: dict[str, Any], expected: str | None) -> None:
    warnings = [text for text in checked(parameters).warnings if "GiB" in text]
    assert len(warnings) == (0 if expected is None else 1)
    assert all(expected is not None and expected in warning for warning in warnings)


def test_bands_within_the_warmup_are_a_warning_with_the_line_to_write() -> None:
    hyperband = {"type": "hyperband", "min_iter": 5, "eta": 2, "strict": True}
    settings: dict[str, Any] = {"warmup_epochs": 12, "lr_schedule": "constant"}
    (_, warning) = checked({**settings, "epochs": 50}, early_terminate=hyperband).warnings
    assert "bands at epoch 5, 10 lie within the warmup (12 epochs)" in warning
    assert warning.endswith("; write early_terminate: {type: hyperband, min_iter: 13, eta: 2, strict: true}")
    short = checked({**settings, "epochs": 13}, early_terminate=hyperband).warnings
    assert any(warning.endswith("leave early_terminate out, or train longer") for warning in short)
