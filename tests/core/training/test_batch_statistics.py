"""Renewing batch norm's running statistics before a validation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from tiny_files import Memory, synthetic_file, tiny_trial, without_time
from torch import Tensor, nn

from amc_core.config import TrialConfig
from amc_core.data.radioml import RadioMLFile
from amc_core.training.batch_statistics import measured_moments, replace_statistics
from amc_core.training.checkpoint import load_checkpoint
from amc_core.training.loop import train
from amc_core.training.preparation import prepare
from amc_core.training.state import TrainingState
from amc_core.training.steps import evaluate, renew_batch_statistics


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return synthetic_file(tmp_path_factory.mktemp("data"), levels_db=(0, 20), frames_per_cell=10)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(4, 3, 3), nn.BatchNorm2d(3)
    )


def renewed(model: nn.Sequential, batches: list[Tensor]) -> dict[str, Tensor]:
    with torch.no_grad(), measured_moments(model) as moments:
        for batch in batches:
            model(batch)
    replace_statistics(moments)
    return {name: buffer.clone() for name, buffer in model.named_buffers() if "running" in name}


def test_the_statistics_of_one_batch_are_those_that_torch_computes_of_it() -> None:
    batch_BCHW = torch.randn(8, 2, 9, 9) + 3
    model, other = network(), network()
    other[3] = nn.Identity()  # the renewal turns dropout off
    for layer in (other[1], other[5]):
        layer.momentum = 1.0  # type: ignore[assignment]
    other(batch_BCHW)
    ours = renewed(model, [batch_BCHW])
    for name, expected in other.named_buffers():
        if "running" in name:
            torch.testing.assert_close(ours[name], expected, msg=name)


def test_the_statistics_of_several_batches_are_those_of_all_their_frames() -> None:
    inputs = [torch.randn(size, 2, 9, 9) + size for size in (8, 8, 5)]
    model = network()
    ours = renewed(model, inputs)
    variance_C, mean_C = torch.var_mean(model[0](torch.cat(inputs)), (0, 2, 3))
    torch.testing.assert_close(ours["1.running_mean"], mean_C.detach())
    torch.testing.assert_close(ours["1.running_var"], variance_C.detach())


def test_no_trace_is_left_but_the_statistics_and_these_do_not_depend_on_the_former_ones() -> None:
    inputs = [torch.randn(8, 2, 9, 9) for _ in range(2)]
    model = network()
    first = renewed(model, inputs)
    model[1].running_mean.add_(100)  # type: ignore[operator, union-attr]
    random_before = torch.get_rng_state()
    weights_before = {name: weight.clone() for name, weight in model.named_parameters()}
    second = renewed(model, inputs)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(torch.get_rng_state(), random_before)
    assert all(torch.equal(weight, weights_before[name]) for name, weight in model.named_parameters())
    assert not any(module.training or module._forward_hooks for module in model.modules())
    assert model[1].momentum == model[5].momentum == 0.1
    assert model[1].num_batches_tracked == 0


def test_an_error_inside_leaves_the_statistics_and_the_layers_as_they_were() -> None:
    model = network()
    with pytest.raises(RuntimeError, match="channels"):
        renewed(model, [torch.randn(8, 2, 9, 9), torch.randn(8, 5, 9, 9)])
    assert torch.equal(model[1].running_mean, torch.zeros(4))  # type: ignore[arg-type]
    assert model[1].momentum == 0.1
    assert not model[1]._forward_hooks


@contextmanager
def state_with(config: TrialConfig, weights: Path) -> Iterator[TrainingState]:
    """Lend a trial's state with the weights of a checkpoint."""
    with RadioMLFile(config.data, storage=config.storage) as file:
        state = TrainingState(prepare(config, file)[0])
        state.context.model.load_state_dict(load_checkpoint(weights).model)
        yield state


def test_training_is_the_same_to_the_last_bit_with_and_without_it(data: Path, tmp_path: Path) -> None:
    spoiled = tmp_path / "spoiled.hdf5"
    spoiled.write_bytes(data.read_bytes())
    with h5py.File(spoiled, "r+") as raw:
        raw["X"][::10, 100, 1] = np.inf  # bad frames, which are counted
    changes: dict[str, Any] = {"model_type": "test_byobnet", "dropout": 0.3, "max_lr": 0.01, "micro_batch_size": 40}
    changes |= {"curriculum": True, "curriculum_window": 1, "epochs": 2}
    histories, checkpoints = [], []
    for n_frames in (0, 100):
        record = Memory()
        train(
            tiny_trial(spoiled, batch_norm_frames=n_frames, **changes), run_dir=tmp_path / str(n_frames), record=record
        )
        histories.append(without_time(record.history))
        checkpoints.append(load_checkpoint(tmp_path / str(n_frames) / "last.pt"))
    without, with_renewal = checkpoints
    differing = {name for name in without.model if not torch.equal(without.model[name], with_renewal.model[name])}
    assert differing
    assert all(name.endswith(("running_mean", "running_var")) for name in differing)
    assert torch.equal(without.training["random"]["cpu"], with_renewal.training["random"]["cpu"])
    moments = [checkpoint.training["optimiser"]["state"] for checkpoint in checkpoints]
    assert all(torch.equal(moments[0][key]["exp_avg"], moments[1][key]["exp_avg"]) for key in moments[0])
    for row, other in zip(*histories, strict=True):
        same = {name for name in row if row[name] == other[name]}
        assert {name for name in row if name.startswith(("train/", "weight/", "lr", "val/bad"))} <= same
        assert "val/loss" not in same


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_a_checkpoint_has_the_weights_and_statistics_of_its_validation(
    data: Path, tmp_path: Path, ema_decay: float
) -> None:
    record = Memory()
    config = tiny_trial(data, model_type="amc_convnet", epochs=3, max_lr=0.01, ema_decay=ema_decay)
    result = train(config, run_dir=tmp_path, record=record)
    with state_with(config, tmp_path / "best.pt") as state:
        for part, expected in (("val", record.history[(result.best_epoch or 0) - 1]), ("test", result.test or {})):
            again = evaluate(state, getattr(state.context.split, part), should_stop=lambda: None)
            assert not isinstance(again, str)
            for name in ("combined_acc", "mod_acc", "snr_acc"):
                assert again.summary()[name] == expected[f"{part}/{name}"]


def test_the_statistics_are_those_of_the_frames_that_are_given(data: Path, tmp_path: Path) -> None:
    config = tiny_trial(data, model_type="amc_convnet", epochs=1, max_lr=0.01, micro_batch_size=16)
    train(config, run_dir=tmp_path, record=Memory())
    seen = []
    with state_with(config, tmp_path / "last.pt") as state:
        before = state.context.model.state_dict()["backbone.blocks.1.running_mean"].clone()
        layer = state.context.model.backbone.blocks[0]
        layer.register_forward_hook(lambda *call: seen.append(call[2].detach()))
        positions = state.context.split.train[:40]
        stops = iter([None, "preempted"])
        assert renew_batch_statistics(state, positions, should_stop=lambda: next(stops)) == "preempted"
        assert torch.equal(state.context.model.backbone.blocks[1].running_mean, before)  # a stop changes nothing
        seen.clear()
        assert renew_batch_statistics(state, positions, should_stop=lambda: None) is None
        renewed_C = state.context.model.backbone.blocks[1].running_mean
    assert [len(output) for output in seen] == [14, 13, 13]
    torch.testing.assert_close(renewed_C, torch.cat(seen).mean(dim=(0, 2, 3)))


def test_a_network_without_batch_norm_costs_nothing(data: Path) -> None:
    with RadioMLFile(data, storage="memmap") as file:
        state = TrainingState(prepare(tiny_trial(data, model_type="test_vit"), file)[0])

        def never() -> str | None:
            raise AssertionError("no batch is read")

        assert renew_batch_statistics(state, state.context.split.train, should_stop=never) is None
