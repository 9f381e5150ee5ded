"""The exponential average of the weights, and what uses it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_files import Memory, synthetic_file, tiny_trial, without_time
from torch import nn

from amc_core.config import ConfigError, TrialConfig
from amc_core.training.averaged_weights import AveragedWeights
from amc_core.training.checkpoint import load_checkpoint
from amc_core.training.loop import train


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return synthetic_file(tmp_path_factory.mktemp("data"), levels_db=(0, 20), frames_per_cell=10)


def test_the_average_keeps_its_decay_after_it_has_forgotten_the_start() -> None:
    model = nn.Linear(1, 1, bias=False)
    average = AveragedWeights(model, 0.5)
    expected = None
    for step in range(1, 21):
        with torch.no_grad():
            model.weight.fill_(step)
        average.update()
        # (1 + 8) / (10 + 8) = 0.5: from the eighth update on the decay is the given one.
        decay = {1: 2 / 11, 2: 3 / 12, 7: 8 / 17, 8: 0.5, 9: 0.5}.get(step)
        value = average.state_dict()["weight"].item()
        if decay is not None and expected is not None:
            assert value == pytest.approx(decay * expected + (1 - decay) * step)
        expected = value
    assert value == pytest.approx(20 - 1, abs=1e-3)  # of numbers that rise by 1: 20 - decay / (1 - decay)


def test_the_average_is_in_the_model_for_a_while_and_the_weights_come_back_to_the_last_bit() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    average = AveragedWeights(model, 0.9)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    average.update()
    trained = {name: parameter.clone() for name, parameter in model.named_parameters()}
    averaged = {name: tensor.clone() for name, tensor in average.state_dict().items()}

    def look_and_fail() -> None:
        with average.in_model():
            assert all(torch.equal(parameter, averaged[name]) for name, parameter in model.named_parameters())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        look_and_fail()
    assert averaged.keys() == {"0.weight", "0.bias", "1.weight", "1.bias"}
    assert not torch.equal(averaged["0.weight"], trained["0.weight"])
    assert all(torch.equal(parameter, trained[name]) for name, parameter in model.named_parameters())
    assert all(torch.equal(tensor, averaged[name]) for name, tensor in average.state_dict().items())


def test_a_trial_trains_the_same_weights_and_validates_and_keeps_their_average(data: Path, tmp_path: Path) -> None:
    records = {}
    for decay in (0.0, 0.9):
        records[decay] = Memory()
        config = tiny_trial(data, model_type="amc_convnet", dropout=0.3, max_lr=0.01, ema_decay=decay)
        train(config, run_dir=tmp_path / str(decay), record=records[decay])
    plain, averaged = (load_checkpoint(tmp_path / str(decay) / "last.pt") for decay in (0.0, 0.9))
    weights = [name for name in plain.model if "running" not in name]
    assert all(torch.equal(plain.model[name], averaged.training["weights"][name]) for name in weights)
    assert not torch.equal(plain.model["modulation_head.weight"], averaged.model["modulation_head.weight"])
    assert torch.equal(plain.training["random"]["cpu"], averaged.training["random"]["cpu"])
    for row, other in zip(*(without_time(records[decay].history) for decay in (0.0, 0.9)), strict=True):
        assert all(other[name] == row[name] for name in row if name.startswith(("train/", "weight/", "lr")))
        assert other["val/loss"] != row["val/loss"]


def test_a_new_trial_starts_from_the_average(data: Path, tmp_path: Path) -> None:
    config = {"model_type": "amc_convnet", "max_lr": 0.01, "ema_decay": 0.9}
    train(tiny_trial(data, epochs=1, **config), run_dir=tmp_path / "a", record=Memory())
    parent = load_checkpoint(tmp_path / "a" / "best.pt")
    child = tiny_trial(
        data, epochs=1, model_type="amc_convnet", max_lr=1e-11, base_lr=1e-12, init_from=str(tmp_path / "a")
    )
    record = Memory()
    train(child, run_dir=tmp_path / "b", record=record)
    started = load_checkpoint(tmp_path / "b" / "last.pt")
    for name in ("modulation_head.weight", "backbone.blocks.0.weight"):
        torch.testing.assert_close(started.model[name], parent.model[name], atol=1e-8, rtol=0)
        assert not torch.allclose(started.model[name], parent.training["weights"][name], atol=1e-4)


def test_an_average_without_statistics_of_its_own_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"batch_norm_frames: 0 leaves the averaged weights of ema_decay = 0\.9 "):
        TrialConfig.from_mapping({"ema_decay": 0.9, "batch_norm_frames": 0})
    with pytest.raises(ConfigError, match="1 frame has no variance"):
        TrialConfig.from_mapping({"batch_norm_frames": 1})
