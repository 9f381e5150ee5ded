"""Backbones and heads."""

from __future__ import annotations

import pytest
import torch

from amc_core.config import ConfigError, TrialConfig
from amc_core.models.classifier import build_model


def config(**changes: object) -> TrialConfig:
    return TrialConfig.from_mapping({"model_type": "test_vit", "image_size": 32, **changes})


@pytest.mark.parametrize("model_type", ["test_resnet", "test_vit", "test_byobnet", "lcnet_035"])
@pytest.mark.parametrize("representation", ["constellation", "constellation_psd"])
def test_any_backbone_gives_the_logits_of_both_tasks(model_type: str, representation: str) -> None:
    model = build_model(config(model_type=model_type, representation=representation), n_modulations=17, n_levels=16)
    images = torch.zeros(2, 1 if representation == "constellation" else 2, 32, 32)
    modulation_logits, snr_logits = model(images)
    assert (modulation_logits.shape, snr_logits.shape) == ((2, 17), (2, 16))


@pytest.mark.parametrize(("snr_layer", "width"), [("bottleneck_64", 64), ("bottleneck_128", 128)])
def test_a_bottleneck_passes_the_snr_through_its_width_only(snr_layer: str, width: int) -> None:
    model = build_model(config(snr_layer=snr_layer), n_modulations=17, n_levels=16)
    assert [weight.shape[0] for name, weight in model.snr_head.named_parameters() if "weight" in name] == [width, 16]
    assert model.modulation_head.weight.shape[1] == 64


def test_the_standard_head_is_one_layer() -> None:
    model = build_model(config(), n_modulations=17, n_levels=16)
    assert isinstance(model.snr_head, torch.nn.Linear)


def test_short_names_of_transformers_are_understood_at_small_sizes() -> None:
    model = build_model(config(model_type="swin_t", image_size=64), n_modulations=2, n_levels=2).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 1, 64, 64))[0].shape == (1, 2)


def test_the_seed_decides_the_weights() -> None:
    weights = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        weights.append(build_model(config(), n_modulations=2, n_levels=2).modulation_head.weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_an_unknown_backbone_is_refused_with_near_names() -> None:
    with pytest.raises(ConfigError, match=r"no backbone 'resnet5O'.*resnet50"):
        build_model(config(model_type="resnet5O"), n_modulations=2, n_levels=2)


def test_an_image_that_the_backbone_cannot_take_is_refused_before_training() -> None:
    with pytest.raises(ConfigError, match=r"test_vit cannot take images of 30 x 30 pixels"):
        build_model(config(image_size=30), n_modulations=2, n_levels=2)


def test_weights_that_cannot_be_fetched_are_refused_with_the_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match=r"pretrained: the ImageNet weights of test_vit cannot be loaded \(\w+: .+\)"):
        build_model(config(pretrained=True), n_modulations=2, n_levels=2)


@pytest.mark.parametrize("size", [32, 64, 128])
@pytest.mark.parametrize("model_type", ["resnet18", "resnet34", "resnet50", "vit_b_16", "swin_t", "swin_s", "swin_b"])
def test_the_backbones_of_the_sweeps_take_small_images(model_type: str, size: int) -> None:
    with torch.device("meta"):  # shapes only: real weights would take minutes
        model = build_model(config(model_type=model_type, image_size=size), n_modulations=17, n_levels=16)
        modulation_logits, snr_logits = model(torch.zeros(2, 1, size, size))
    assert (modulation_logits.shape, snr_logits.shape) == ((2, 17), (2, 16))


def test_the_reference_network_has_124_thousand_parameters() -> None:
    model = build_model(config(model_type="amc_convnet", representation="synced"), n_modulations=17, n_levels=16)
    assert sum(parameter.numel() for parameter in model.parameters()) == 124_113
    assert model(torch.zeros(2, 5, 64, 64))[0].shape == (2, 17)


def test_the_network_for_iq_takes_samples() -> None:
    model = build_model(config(model_type="iq_convnet", representation="iq"), n_modulations=17, n_levels=16)
    modulation_logits, snr_logits = model(torch.zeros(2, 2, 1024))
    assert (modulation_logits.shape, snr_logits.shape) == ((2, 17), (2, 16))


def test_a_regression_head_gives_one_number_and_starts_in_the_middle_of_the_levels() -> None:
    regression = config(snr_layer="regression", snr_loss="smooth_l1")
    model = build_model(regression, n_modulations=17, n_levels=16).eval()
    assert model(torch.zeros(3, 1, 32, 32))[1].shape == (3, 1)
    assert model.snr_head.bias.tolist() == [0.5]


@pytest.mark.parametrize("snr_layer", ["standard", "bottleneck_64", "regression"])
def test_the_heads_compute_in_float32_under_autocast(snr_layer: str) -> None:
    loss = "l1" if snr_layer == "regression" else "cross_entropy"
    config = TrialConfig.from_mapping({"model_type": "amc_convnet", "snr_layer": snr_layer, "snr_loss": loss})
    model = build_model(config, n_modulations=17, n_levels=16).eval()
    images = torch.rand(4, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        features = model.backbone(images)
        outputs = model(images)
    assert features.dtype == torch.bfloat16
    with torch.no_grad():
        expected = model.modulation_head(features.float()), model.snr_head(features.float())
    for output, exact in zip(outputs, expected, strict=True):
        assert output.dtype == torch.float32
        torch.testing.assert_close(output, exact, rtol=0, atol=0)


def test_the_two_small_networks_have_no_imagenet_weights() -> None:
    with pytest.raises(ConfigError, match="amc_convnet has no ImageNet weights"):
        build_model(config(model_type="amc_convnet", pretrained=True), n_modulations=2, n_levels=2)
