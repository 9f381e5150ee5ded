"""amc-train --summary: counts by hand, and a command that needs neither data nor W&B."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import nn

from amc_agents.trial.main import main
from amc_core.config import TrialConfig
from amc_core.models.classifier import build_model
from amc_core.training import model_summary as summary
from amc_core.training.model_summary import count_macs
from amc_core.training.precision import Precision
from amc_sweeps.runs.causes import EXIT_CODES, EndReason


def test_multiply_accumulates_are_those_counted_by_hand() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 5, stride=2, padding=2), nn.Flatten(), nn.Linear(8 * 4 * 4, 10))
    macs = count_macs(network, torch.zeros(1, 3, 8, 8))
    assert macs == {"": 4 * 4 * 8 * 3 * 25 + 128 * 10, "0": 4 * 4 * 8 * 3 * 25, "2": 128 * 10}


def test_attention_is_counted() -> None:
    config = TrialConfig(model_type="test_vit", image_size=32)
    model = build_model(config, n_modulations=17, n_levels=16).eval()
    n_tokens, width, n_blocks = 5, 64, 6
    linear = sum(
        module.weight.numel() * (1 if "head" in name else n_tokens)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
    )
    patches = model.backbone.patch_embed.proj.weight.numel() * 4
    attention = n_blocks * 2 * n_tokens**2 * width
    assert count_macs(model, torch.zeros(1, 1, 32, 32))[""] == linear + patches + attention


@pytest.mark.parametrize(("model_type", "n_gates"), [("lstm2", 4), ("gru2", 3)])
def test_recurrent_layers_are_counted(model_type: str, n_gates: int) -> None:
    takes = {"lstm2": "amplitude_phase", "gru2": "iq"}
    config = TrialConfig(model_type=model_type, representation=takes[model_type])
    model = build_model(config, n_modulations=17, n_levels=16).eval()
    weights = n_gates * 128 * ((2 + 128) + (128 + 128))  # of both layers
    assert count_macs(model, torch.zeros(1, 2, 1024))[""] == 1024 * weights + 128 * (17 + 16)


def test_summary_shows_layers_and_totals_without_data_or_wandb() -> None:
    result = CliRunner().invoke(main, ["--summary", "--representation=synced", "--model_type=amc_convnet"])
    assert result.exit_code == 0
    assert "input 5 x 64 x 64; 17 modulations, 16 SNR levels" in result.output
    assert "124,113  11.20" in result.output
    assert "modulation_head" in result.output
    assert "frames/s" in result.output


def test_the_timing_is_in_the_precision_that_training_has(monkeypatch: pytest.MonkeyPatch) -> None:
    # What a GPU that computes in bfloat16 gets, on the CPU.
    class InBfloat16(Precision):
        def __init__(self, config: TrialConfig, device: torch.device) -> None:
            super().__init__(config, device)
            self.enabled, self.dtype = True, torch.bfloat16

    seen = set()

    def note(_module: nn.Module, _inputs: object, features: torch.Tensor) -> None:
        seen.add(features.dtype)

    def built(*arguments: Any, **options: Any) -> nn.Module:
        model = build_model(*arguments, **options)
        model.backbone.register_forward_hook(note)
        return model

    monkeypatch.setattr(summary, "Precision", InBfloat16)
    monkeypatch.setattr(summary, "build_model", built)
    monkeypatch.setattr(summary, "_SECONDS", 0.0)
    result = summary.summarise(TrialConfig(model_type="amc_convnet", image_size=16))
    assert torch.bfloat16 in seen
    assert "(cpu, bfloat16, " in result.as_text()


def test_summary_of_a_refused_configuration_has_the_reason() -> None:
    result = CliRunner().invoke(main, ["--summary", "--representation=iq"])
    assert result.exit_code == EXIT_CODES[EndReason.CONFIG_REFUSED]
    assert "resnet50 takes images, but representation iq gives samples; networks that take it: iq_" in result.output
