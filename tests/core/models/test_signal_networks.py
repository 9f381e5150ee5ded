"""Networks for samples along time: parameter counts of their sources, gradients, and the weights they start with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_files import Memory, synthetic_file, tiny_trial
from torch import nn

from amc_core.config import OWN_NETWORKS, RECURRENT_NETWORKS, SIGNAL_NETWORKS, ConfigError, TrialConfig
from amc_core.models.classifier import Classifier, build_model
from amc_core.training.loop import train
from amc_core.training.losses import MultiTaskLoss

LEVELS_DB = (0, 10, 20)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)  # threads that wait for each other at every one of 1,024 steps are slow on a busy machine


def config(model_type: str, **changes: Any) -> TrialConfig:
    takes = SIGNAL_NETWORKS.get(model_type, "synced")
    return TrialConfig.from_mapping({"model_type": model_type, "representation": takes, **changes})


def model_of(model_type: str, **changes: Any) -> Classifier:
    torch.manual_seed(0)
    return build_model(config(model_type, **changes), n_modulations=24, n_levels=len(LEVELS_DB))


def count(*modules: nn.Module) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


@pytest.mark.parametrize(
    ("model_type", "n_parameters"),
    [
        ("lstm2", 202_776),
        ("gru2", 152_856),
        ("petcgdnn", 75_340),
        ("mcldnn", 407_876),
        ("iq_resnet", 165_144),
        ("iq_transformer", 310_968),
        ("iq_convnet", 93_400),
    ],
)
def test_a_network_with_one_head_of_24_classes_has_the_parameters_of_its_source(
    model_type: str, n_parameters: int
) -> None:
    model = model_of(model_type)
    assert count(model.backbone, model.modulation_head) == n_parameters


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("model_type", SIGNAL_NETWORKS)
def test_three_steps_on_eight_frames_lower_the_loss_and_reach_every_weight(model_type: str, autocast: bool) -> None:
    model = model_of(model_type, dropout=0.0)
    criterion = MultiTaskLoss(config(model_type, task_weighting="fixed"), LEVELS_DB)
    generator = torch.Generator().manual_seed(1)
    frames_BCT = torch.randn(8, 2, 1024, generator=generator)
    modulation_B = torch.randint(24, (8,), generator=generator)
    snr_B = torch.randint(len(LEVELS_DB), (8,), generator=generator)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(4):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            output = model(frames_BCT)
        loss = criterion(*output, modulation_B, snr_B)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("model_type", OWN_NETWORKS)
def test_every_own_network_is_built_and_refuses_imagenet_weights(model_type: str) -> None:
    assert count(model_of(model_type)) > 0
    with pytest.raises(ConfigError, match=f"{model_type} has no ImageNet weights"):
        config(model_type, pretrained=True)


@pytest.mark.parametrize(("model_type", "n_steps"), [("lstm2", 1024), ("petcgdnn", 1013), ("mcldnn", 1020)])
def test_the_recurrent_layers_get_as_many_steps_as_in_the_source(model_type: str, n_steps: int) -> None:
    seen = []
    model = model_of(model_type)
    layers = next(module for module in model.modules() if isinstance(module, nn.LSTM | nn.GRU))
    layers.register_forward_pre_hook(lambda _layers, inputs: seen.append(inputs[0].shape[1]))
    model(torch.zeros(2, 2, 1024))
    assert seen == [n_steps]


def test_recurrent_layers_start_with_open_forget_gates_and_orthogonal_matrices() -> None:
    lstm = model_of("lstm2").backbone.lstm
    for layer in ("l0", "l1"):
        recurrent = getattr(lstm, f"weight_hh_{layer}")
        torch.testing.assert_close(recurrent.T @ recurrent, torch.eye(128), atol=1e-5, rtol=0)
        bias = getattr(lstm, f"bias_ih_{layer}") + getattr(lstm, f"bias_hh_{layer}")
        assert bias.tolist() == [0.0] * 128 + [1.0] * 128 + [0.0] * 256


def test_petcgdnn_turns_a_frame_back_by_the_estimated_phase() -> None:
    backbone = model_of("petcgdnn").backbone
    nn.init.zeros_(backbone.phase.weight)
    nn.init.constant_(backbone.phase.bias, 0.3)
    frame_T = torch.polar(torch.ones(1024), torch.full((1024,), 0.3))
    turned_BCT = backbone._turned_back(torch.view_as_real(frame_T).T[None])
    torch.testing.assert_close(turned_BCT, torch.tensor([1.0, 0.0])[None, :, None].expand(1, 2, 1024))


def test_mcldnn_has_causal_convolutions_of_i_and_q_alone() -> None:
    backbone = model_of("mcldnn").backbone.eval()
    changed_B = torch.randn(1, 2, 1024, requires_grad=True)
    seen = {}
    backbone.only_q.register_forward_hook(lambda _layer, _inputs, output: seen.update(q=output))
    backbone(changed_B)
    seen["q"][0, :, 500].sum().backward()
    assert changed_B.grad is not None
    assert changed_B.grad[0].nonzero().tolist() == [[1, place] for place in range(493, 501)]


@pytest.mark.parametrize("model_type", ["lstm2", "iq_transformer"])
def test_a_recurrent_network_is_trained_uncompiled_and_says_so(
    model_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda call, **_: compiled.append(call) or call)
    data = synthetic_file(tmp_path, levels_db=(0,), frames_per_cell=10)
    trial = tiny_trial(
        data, model_type=model_type, representation=SIGNAL_NETWORKS[model_type], compile=True, epochs=1, snr_max_db=0
    )
    record = Memory()
    assert train(trial, run_dir=tmp_path / "run", record=record).end == "completed"
    assert len(compiled) == (0 if model_type in RECURRENT_NETWORKS else 2)  # training and evaluation
    assert ("lstm2 runs uncompiled" in capsys.readouterr().err) == (model_type in RECURRENT_NETWORKS)
