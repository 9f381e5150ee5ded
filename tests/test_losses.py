"""Uncertainty weighting against its formula."""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from amc_core.losses import MultiTaskLoss


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(8, 5, generator=generator),
        torch.randn(8, 3, generator=generator),
        torch.randint(0, 5, (8,), generator=generator),
        torch.randint(0, 3, (8,), generator=generator),
    )


def test_equal_uncertainty_is_the_plain_sum_with_equal_weights() -> None:
    modulation_logits, snr_logits, modulation, snr = batch()
    criterion = MultiTaskLoss()
    expected = functional.cross_entropy(modulation_logits, modulation) + functional.cross_entropy(snr_logits, snr)
    torch.testing.assert_close(criterion(modulation_logits, snr_logits, modulation, snr), expected)
    assert criterion.weights().tolist() == [0.5, 0.5]


def test_the_log_variance_weighs_as_kendall_2018_has_it() -> None:
    modulation_logits, snr_logits, modulation, snr = batch()
    criterion = MultiTaskLoss()
    with torch.no_grad():
        criterion.log_variance.copy_(torch.tensor([0.4, -1.0]))
    first = functional.cross_entropy(modulation_logits, modulation).item()
    second = functional.cross_entropy(snr_logits, snr).item()
    expected = math.exp(-0.4) * first + 0.2 + math.exp(1.0) * second - 0.5
    assert math.isclose(criterion(modulation_logits, snr_logits, modulation, snr).item(), expected, rel_tol=1e-5)
    share = math.exp(-0.4) / (math.exp(-0.4) + math.exp(1.0))
    assert math.isclose(criterion.weights()[0].item(), share, rel_tol=1e-5)
    assert math.isclose(criterion.weights().sum().item(), 1.0, rel_tol=1e-6)


def test_the_harder_task_learns_the_smaller_weight() -> None:
    modulation_logits, _, modulation, snr = batch()
    solved = functional.one_hot(snr, 3).float() * 20
    criterion = MultiTaskLoss()
    optimiser = torch.optim.SGD(criterion.parameters(), lr=0.1)
    for _ in range(20):
        optimiser.zero_grad()
        criterion(modulation_logits, solved, modulation, snr).backward()
        optimiser.step()
    weight_mod, weight_snr = criterion.weights().tolist()
    assert weight_mod < weight_snr
