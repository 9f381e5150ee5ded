"""The learning rate against torch's own CyclicLR."""

from __future__ import annotations

import pytest
import torch

from amc_core.config import TrialConfig
from amc_core.training.schedules import Plateau, learning_rate


def test_triangular2_equals_torchs_cyclic_lr_step_by_step() -> None:
    config = TrialConfig(base_lr=1e-5, max_lr=1e-2, epochs_per_cycle=4)
    steps_per_epoch = 7
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = torch.optim.lr_scheduler.CyclicLR(
        optimiser, base_lr=1e-5, max_lr=1e-2, step_size_up=2 * steps_per_epoch, mode="triangular2", cycle_momentum=False
    )
    for step in range(13 * steps_per_epoch):
        assert learning_rate(config, step / steps_per_epoch) == pytest.approx(reference.get_last_lr()[0], rel=1e-9)
        optimiser.step()
        reference.step()


def test_the_peak_halves_with_every_cycle() -> None:
    config = TrialConfig(base_lr=1e-6, max_lr=1e-3, epochs_per_cycle=10)
    peaks = [learning_rate(config, 5 + 10 * cycle) for cycle in range(3)]
    assert peaks == pytest.approx([1e-3, 1e-6 + 0.5 * (1e-3 - 1e-6), 1e-6 + 0.25 * (1e-3 - 1e-6)])


def test_warmup_ramps_the_cycle_up_without_a_jump() -> None:
    config = TrialConfig(base_lr=1e-6, max_lr=1e-3, epochs_per_cycle=20, warmup_epochs=5)
    without = TrialConfig(base_lr=1e-6, max_lr=1e-3, epochs_per_cycle=20)
    assert learning_rate(config, 0) == 1e-6
    assert learning_rate(config, 2.5) - 1e-6 == pytest.approx((learning_rate(without, 2.5) - 1e-6) / 2)
    assert [learning_rate(config, epoch) for epoch in (5, 10, 33)] == [learning_rate(without, e) for e in (5, 10, 33)]
    assert learning_rate(config, 5 - 1e-9) == pytest.approx(learning_rate(config, 5), rel=1e-6)


def test_a_constant_rate_is_max_lr_after_the_warmup() -> None:
    config = TrialConfig(lr_schedule="constant", base_lr=1e-6, max_lr=1e-3, warmup_epochs=1)
    assert learning_rate(config, 0.5) == pytest.approx((1e-6 + 1e-3) / 2)
    assert [learning_rate(config, epoch) for epoch in (1, 1.5, 80)] == [1e-3] * 3


def test_cosine_equals_torchs_cosine_annealing_step_by_step_after_a_linear_warmup() -> None:
    config = TrialConfig(lr_schedule="cosine", base_lr=1e-5, max_lr=1e-2, warmup_epochs=2, epochs=9)
    assert [learning_rate(config, epoch) for epoch in (0, 1)] == pytest.approx([1e-5, 1e-5 + 0.5 * (1e-2 - 1e-5)])
    steps_per_epoch = 7
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-2)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=7 * steps_per_epoch, eta_min=1e-5)
    for step in range(7 * steps_per_epoch + 1):
        assert learning_rate(config, 2 + step / steps_per_epoch) == pytest.approx(reference.get_last_lr()[0], rel=1e-9)
        optimiser.step()
        reference.step()
    assert learning_rate(config, 11) == 1e-5


@pytest.mark.parametrize("mode", ["max", "min"])
def test_plateau_equals_torchs_reduce_lr_on_plateau_epoch_by_epoch(mode: str) -> None:
    config = TrialConfig(lr_schedule="plateau", base_lr=1e-5, max_lr=1e-2, plateau_factor=0.3, plateau_patience=2)
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-2)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimiser,
        mode=mode,  # type: ignore[arg-type]
        factor=0.3,
        patience=2,
        min_lr=1e-5,
        eps=0.0,
    )
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(80, generator=generator).tolist()
    state = Plateau()
    for epoch in range(80):
        value = 0.5 + 0.3 * (1 - 0.9**epoch) * (1 if mode == "max" else -1) + 0.05 * noise[epoch]
        assert learning_rate(config, epoch, reductions=state.reductions) == pytest.approx(
            optimiser.param_groups[0]["lr"], rel=1e-9
        )
        reference.step(value)
        state = state.after(config, value if mode == "max" else -value)
    assert state.reductions > 5
    assert learning_rate(config, 80, reductions=state.reductions) == pytest.approx(1e-5)


def test_an_improvement_below_the_threshold_is_none() -> None:
    config = TrialConfig(lr_schedule="plateau", plateau_patience=1)
    state = Plateau()
    for _ in range(3):
        state = state.after(config, 0.5)
    assert (state.reductions, state.bad_epochs) == (1, 0)
    assert state.after(config, 0.50004).bad_epochs == 1
    assert state.after(config, 0.5001).best == 0.5001
