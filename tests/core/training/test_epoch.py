"""The optimiser steps of an epoch: weight decay, clipping, precision, and waiting for the GPU."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_files import Memory, synthetic_file, tiny_trial

from amc_core.config import TrialConfig
from amc_core.data.radioml import RadioMLFile
from amc_core.training.checkpoint import load_checkpoint
from amc_core.training.loop import train
from amc_core.training.precision import Precision
from amc_core.training.preparation import prepare
from amc_core.training.state import TrainingState
from amc_core.training.steps import train_epoch

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return synthetic_file(tmp_path_factory.mktemp("data"), levels_db=(0, 20), frames_per_cell=10)


@contextmanager
def prepared(config: TrialConfig) -> Iterator[TrainingState]:
    """Lend the state that train() begins with."""
    with RadioMLFile(config.data, storage=config.storage) as file:
        yield TrainingState(prepare(config, file)[0])


def train_first_epoch(state: TrainingState, show: Callable[[float], None] = lambda epochs_done: None) -> None:
    state.start_epoch()
    positions = np.arange(len(state.context.selection.rows))
    assert train_epoch(state, positions, should_stop=lambda: None, show=show) is None


class Scaled(Precision):
    """The scaled loss of float16, in float32 on the CPU, as on a GPU without bfloat16."""

    def __init__(self, config: TrialConfig, device: torch.device) -> None:
        super().__init__(config, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=True)


def test_only_matrices_and_kernels_are_decayed(data: Path) -> None:
    with prepared(tiny_trial(data, model_type="amc_convnet", weight_decay=0.25)) as state:
        context, optimiser = state.context, state.optimiser
        named = dict([*context.model.named_parameters(), *context.criterion.named_parameters()])
        before = {name: parameter.detach().clone() for name, parameter in named.items()}
        for parameter in named.values():
            parameter.grad = torch.zeros_like(parameter)
        for group in optimiser.param_groups:
            group["lr"] = 0.1
        optimiser.step()
    for name, parameter in named.items():
        decayed = name.endswith("weight") and parameter.ndim >= 2
        assert torch.allclose(parameter, before[name] * (1 - 0.1 * 0.25 * decayed), atol=1e-7), name
    assert {"log_variance", "modulation_head.bias", "backbone.blocks.1.weight"} <= named.keys()  # left alone


@pytest.mark.parametrize(
    ("changes", "left_alone"),
    [
        ({"model_type": "test_vit"}, {"pos_embed", "cls_token"}),
        (
            {"model_type": "swin_t", "image_size": 64},
            {"layers.0.blocks.0.attn.relative_position_bias_table"},
        ),
        ({"model_type": "iq_transformer", "representation": "iq"}, {"position_1PD"}),
    ],
)
def test_what_a_backbone_names_is_not_decayed(data: Path, changes: dict[str, Any], left_alone: set[str]) -> None:
    with prepared(tiny_trial(data, weight_decay=0.25, **changes)) as state:
        names = {id(parameter): name for name, parameter in state.context.model.named_parameters()}
        decayed, others = (
            {names[id(parameter)] for parameter in group["params"] if id(parameter) in names}
            for group in state.optimiser.param_groups
        )
    assert {f"backbone.{name}" for name in left_alone} <= others
    assert "modulation_head.weight" in decayed
    assert len(decayed) + len(others) == len(names)


@pytest.mark.parametrize("kind", [Precision, Scaled])
@pytest.mark.parametrize("largest", [None, 0.01])
def test_gradients_are_clipped_to_the_given_norm(data: Path, kind: type[Precision], largest: float | None) -> None:
    norms: list[float] = []

    def note(stepping: torch.optim.Optimizer, *_: Any) -> None:
        gradients = [parameter.grad for parameter in state.context.model.parameters() if parameter.grad is not None]
        scale = getattr(stepping, "grad_scale", None)  # what the optimiser itself is to divide by
        norm = math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients))
        norms.append(norm if scale is None else norm / float(scale))

    with prepared(tiny_trial(data, grad_clip_norm=largest)) as state:
        state.precision = kind(state.context.config, state.context.device)
        state.optimiser.register_step_pre_hook(note)
        train_first_epoch(state)
    assert len(norms) == 5
    logged = state.tally.gradient_norms()
    if largest is None:
        assert min(norms) > 0.1
        expected = {"grad_norm/mean": sum(norms) / 5, "grad_norm/max": max(norms)}
        assert logged == pytest.approx(expected, rel=1e-4)
    else:
        assert norms == pytest.approx([largest] * 5, rel=1e-3)
        assert logged["grad_norm/mean"] > 10 * largest  # before clipping


@pytest.mark.cuda
@needs_gpu
@pytest.mark.parametrize("storage", ["device", "memmap"])
@pytest.mark.parametrize("representation", ["constellation", "synced"])
@pytest.mark.parametrize("compiled", [False, True])
def test_no_step_on_cuda_waits_for_the_gpu_between_two_checks_for_nan(
    data: Path, storage: str, representation: str, compiled: bool
) -> None:
    changes = {"model_type": "amc_convnet", "grad_clip_norm": 1.0, "batch_size": 34, "compile": compiled}
    config = tiny_trial(data, storage=storage, representation=representation, **changes)  # 340 frames: 10 steps
    with prepared(config) as state:
        train_first_epoch(state)  # plans, handles and moments are made in the first one

        def forbid(part: float) -> None:  # NaN is checked at the first step and at the last
            torch.cuda.set_sync_debug_mode("error" if 0.05 < part < 0.85 else "default")

        try:
            train_first_epoch(state, forbid)
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.cuda
@needs_gpu
def test_a_compiled_step_on_cuda_is_started_as_graphs(data: Path) -> None:
    started = dict[bool, Counter[str]]()
    for compiled in (False, True):
        config = tiny_trial(data, model_type="amc_convnet", batch_size=34, compile=compiled)
        with prepared(config) as state:
            train_first_epoch(state)  # compiles, records, and chooses kernels
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiled:
                train_first_epoch(state)
                torch.cuda.synchronize()
        started[compiled] = Counter(event.name for event in profiled.events())
    assert started[True]["cudaGraphLaunch"] >= 2 * 10  # forward and backward pass of 10 steps
    assert started[True]["cudaLaunchKernel"] < started[False]["cudaLaunchKernel"] / 2


@pytest.mark.cuda
@needs_gpu
def test_a_gpu_without_bfloat16_trains_in_float16_with_a_scaled_loss(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (7, 5))
    config = tiny_trial(data, epochs=1, dropout=0.0, grad_clip_norm=1.0)
    assert Precision(config, torch.device("cuda")).dtype == torch.float16
    on_cuda, on_cpu = Memory(), Memory()
    train(config, run_dir=tmp_path / "cuda", record=on_cuda)
    assert load_checkpoint(tmp_path / "cuda" / "last.pt").training["scaler"]["scale"] > 1
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    train(config, run_dir=tmp_path / "cpu", record=on_cpu)
    for name in ("train/loss", "val/loss"):
        assert on_cuda.history[0][name] == pytest.approx(on_cpu.history[0][name], rel=0.05)


@pytest.mark.cuda
@needs_gpu
@pytest.mark.parametrize("capability", [(9, 0), (7, 5)])
def test_a_trial_resumed_on_cuda_is_near_an_uninterrupted_one_and_draws_its_random_numbers(
    data: Path, tmp_path: Path, capability: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    config: dict[str, Any] = {"epochs": 3, "dropout": 0.3, "patience": None}
    whole, first, second = Memory(), Memory(), Memory()
    train(tiny_trial(data, **config), run_dir=tmp_path / "whole", record=whole)
    asked = iter([None] * 7 + ["preempted"] * 9)  # inside the second epoch: 4 steps and a validation each
    train(tiny_trial(data, **config), run_dir=tmp_path / "part", record=first, should_stop=lambda: next(asked))
    assert load_checkpoint(tmp_path / "part" / "last.pt").steps_done > 0
    torch.cuda.manual_seed(12345)  # another process has other random numbers
    resumed = tiny_trial(data, **config, resume_from=str(tmp_path / "part"))
    train(resumed, run_dir=tmp_path / "part", record=second)

    rows = [*first.history, *second.history]
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    for row, expected in zip(rows, whole.history, strict=True):  # not to the last bit: a GPU adds in any order
        assert row["lr"] == expected["lr"]
        assert row["train/loss"] == pytest.approx(expected["train/loss"], rel=0.02)
    expected, actual = (load_checkpoint(tmp_path / name / "last.pt") for name in ("whole", "part"))
    assert torch.equal(expected.training["random"]["cuda"], actual.training["random"]["cuda"])
    assert expected.training["scaler"] == actual.training["scaler"]
    for expected_state, actual_state in zip(
        expected.training["optimiser"]["state"].values(), actual.training["optimiser"]["state"].values(), strict=True
    ):
        assert (
            0 < expected_state["step"] == actual_state["step"] <= 12
        )  # a step whose scaled gradients overflow is left out
        assert torch.isfinite(actual_state["exp_avg_sq"]).all()
