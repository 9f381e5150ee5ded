"""Every loss against a value computed by hand, and uncertainty weighting against its formula."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn import functional

from amc_core.config import REGRESSION_LOSSES, ConfigError, TrialConfig
from amc_core.training.losses import MultiTaskLoss, SnrLoss

LEVELS_DB = (0, 2, 4, 6)  # ranks 0, 1, 2, 3

# Two frames. The first gives 1/2, 1/4, 1/8, 1/8 to the levels and is truly 0 dB; the second gives all levels 1/4 and is
# truly 4 dB. Their expected ranks are 7/8 and 3/2.
LOGITS = torch.log(torch.tensor([[1 / 2, 1 / 4, 1 / 8, 1 / 8], [1 / 4, 1 / 4, 1 / 4, 1 / 4]]))
TRUE = torch.tensor([0, 2])
CROSS_ENTROPY = (math.log(2) + math.log(4)) / 2


def snr_loss(
    kind: str, *, scale: str = "unit", alpha: float = 0.5, regression: bool = False, spread: float = 0.0
) -> SnrLoss:
    return SnrLoss(kind, alpha=alpha, scale=scale, levels_db=LEVELS_DB, regression=regression, target_spread=spread)


# fmt: off
BY_HAND = [
    ("cross_entropy", "unit", CROSS_ENTROPY),
    ("cross_entropy", "levels", CROSS_ENTROPY),
    # (7/8 - 0)^2 = 49/64 and (3/2 - 2)^2 = 16/64; a step of 3 is the largest
    ("ordinal", "levels", (49 / 64 + 16 / 64) / 2),
    ("ordinal", "unit", (49 / 64 + 16 / 64) / 2 / 9),
    # both errors are below one step: e^2 / 2; the largest error of 3 steps gives 3 - 1/2
    ("smooth_l1", "levels", (49 / 128 + 16 / 128) / 2),
    ("smooth_l1", "unit", (49 / 128 + 16 / 128) / 2 / 2.5),
    # 1/4 1 + 1/8 2 + 1/8 3 = 7/8 and 1/4 (2 + 1 + 0 + 1) = 1
    ("l1", "levels", (7 / 8 + 1) / 2),
    ("l1", "unit", (7 / 8 + 1) / 2 / 3),
    # 1/4 1 + 1/8 4 + 1/8 9 = 15/8 and 1/4 (4 + 1 + 0 + 1) = 3/2
    ("d2", "levels", CROSS_ENTROPY + 0.5 * (15 / 8 + 3 / 2) / 2),
    ("d2", "unit", CROSS_ENTROPY + 0.5 * (15 / 8 + 3 / 2) / 2 / 9),
    # 1/4 + 1/8 1/4 + 1/8 1/9 = 85/288 and 1/4 (1/4 + 1 + 1) = 9/16; a neighbour's 1 is the largest weight already
    ("inverse_d2", "levels", CROSS_ENTROPY + 0.5 * (85 / 288 + 9 / 16) / 2),
    ("inverse_d2", "unit", CROSS_ENTROPY + 0.5 * (85 / 288 + 9 / 16) / 2),
]
# fmt: on


@pytest.mark.parametrize(("kind", "scale", "expected"), BY_HAND)
def test_each_loss_of_a_classifier_equals_a_hand_computed_value(kind: str, scale: str, expected: float) -> None:
    assert snr_loss(kind, scale=scale)(LOGITS, TRUE).mean().item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("kind", "scale", "expected"),
    [
        # values 0.5 and 1 of the range are ranks 1.5 and 3; the true ones are 0 and 2: errors 1.5 and 1
        ("ordinal", "levels", (2.25 + 1) / 2),
        ("ordinal", "unit", (2.25 + 1) / 2 / 9),
        ("smooth_l1", "levels", (1 + 0.5) / 2),
        ("smooth_l1", "unit", (1 + 0.5) / 2 / 2.5),
        ("l1", "levels", (1.5 + 1) / 2),
        ("l1", "unit", (1.5 + 1) / 2 / 3),
    ],
)
def test_each_loss_of_a_regression_head_equals_a_hand_computed_value(kind: str, scale: str, expected: float) -> None:
    values = torch.tensor([[0.5], [1.0]])
    loss_B = snr_loss(kind, scale=scale, regression=True)(values, TRUE)
    assert loss_B.mean().item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", ["ordinal", "smooth_l1", "l1", "d2", "inverse_d2"])
def test_at_unit_scale_the_worst_guess_costs_exactly_one(kind: str) -> None:
    worst = 1 if kind == "inverse_d2" else 3  # inverse_d2 punishes the neighbour most
    certain = torch.full((1, 4), -1e4)
    certain[0, worst] = 0.0
    true = torch.tensor([0])
    penalty = snr_loss(kind, alpha=1.0)(certain, true)
    if kind in {"d2", "inverse_d2"}:
        penalty = penalty - functional.cross_entropy(certain, true)
    assert penalty.item() == pytest.approx(1.0, abs=1e-3)


def test_the_scale_levels_of_d2_reaches_225_over_16_levels() -> None:
    loss = SnrLoss("d2", alpha=1.0, scale="levels", levels_db=range(0, 32, 2), regression=False)
    certain = torch.zeros(1, 16)
    certain[0, 15] = 100.0
    true = torch.tensor([0])
    assert (loss(certain, true) - functional.cross_entropy(certain, true)).item() == pytest.approx(225.0)


def test_alpha_weighs_the_penalty_and_zero_leaves_cross_entropy() -> None:
    plain = functional.cross_entropy(LOGITS, TRUE, reduction="none")
    for kind in ("d2", "inverse_d2"):
        torch.testing.assert_close(snr_loss(kind, alpha=0.0)(LOGITS, TRUE), plain)
        half, whole = (snr_loss(kind, alpha=alpha)(LOGITS, TRUE) - plain for alpha in (0.5, 1.0))
        torch.testing.assert_close(2 * half, whole)


def test_a_soft_target_gives_neighbours_the_shares_of_its_formula() -> None:
    # w = 1/sqrt(2 ln 2) halves the share at a distance of 1: 1, 1/2, 1/16 at distances 0, 1, 2 and 1/512 at 3.
    spread = 1 / math.sqrt(2 * math.log(2))
    first = [512 / 801, 256 / 801, 32 / 801, 1 / 801]  # true level 0: distances 0, 1, 2, 3
    third = [1 / 33, 8 / 33, 16 / 33, 8 / 33]  # true level 2: distances 2, 1, 0, 1
    by_hand = 0.0
    for target, logits in zip((first, third), LOGITS.tolist(), strict=True):
        by_hand += sum(share * (math.log(share) - logit) for share, logit in zip(target, logits, strict=True)) / 2
    assert snr_loss("cross_entropy", spread=spread)(LOGITS, TRUE).mean().item() == pytest.approx(by_hand, rel=1e-5)
    for kind in ("d2", "inverse_d2"):
        penalty = snr_loss(kind)(LOGITS, TRUE).mean().item() - CROSS_ENTROPY
        assert snr_loss(kind, spread=spread)(LOGITS, TRUE).mean().item() == pytest.approx(by_hand + penalty, rel=1e-5)
    best = torch.log(torch.tensor([first, third]))
    assert snr_loss("cross_entropy", spread=spread)(best, TRUE).mean().item() == pytest.approx(0.0, abs=1e-6)


def test_a_narrow_target_is_the_true_level_alone() -> None:
    narrow = snr_loss("cross_entropy", spread=0.05)(LOGITS, TRUE)
    torch.testing.assert_close(narrow, snr_loss("cross_entropy")(LOGITS, TRUE))


@pytest.mark.parametrize("kind", sorted(REGRESSION_LOSSES))
def test_a_loss_of_a_value_has_no_soft_target(kind: str) -> None:
    with pytest.raises(ConfigError, match=f"snr_target_spread: {kind} trains a value"):
        TrialConfig.from_mapping({"snr_loss": kind, "snr_target_spread": 1.0})


def test_the_guess_is_the_most_probable_level_or_the_nearest_to_the_value() -> None:
    two_sided = torch.log(torch.tensor([[0.45, 0.03, 0.07, 0.45 + 1e-3]]))  # expected rank 1.52
    assert snr_loss("cross_entropy").guess(two_sided).tolist() == [3]
    assert snr_loss("l1").guess(two_sided).tolist() == [3]
    assert snr_loss("ordinal").guess(two_sided).tolist() == [2]
    values = torch.tensor([[-5.0], [0.1], [0.2], [0.6], [7.0]])  # ranks -15, 0.3, 0.6, 1.8, 21
    assert snr_loss("smooth_l1", regression=True).guess(values).tolist() == [0, 0, 1, 2, 3]


def test_a_gap_between_levels_counts_as_several_steps() -> None:
    uneven = SnrLoss("l1", alpha=0.5, scale="levels", levels_db=(-20, 0, 2), regression=True)
    values = torch.tensor([[0.0]])  # -20 dB, which is 10 and 11 steps from the others
    assert [uneven(values, torch.tensor([level])).item() for level in range(3)] == pytest.approx([0, 10, 11])


@pytest.mark.parametrize("kind", ["cross_entropy", "ordinal", "smooth_l1", "l1", "d2", "inverse_d2"])
def test_a_single_level_has_a_finite_loss(kind: str) -> None:
    loss = SnrLoss(kind, alpha=0.5, scale="unit", levels_db=(10,), regression=False)
    assert loss(torch.tensor([[3.0]]), torch.tensor([0])).item() == 0.0


def test_a_regression_head_takes_only_losses_of_a_value() -> None:
    assert frozenset({"ordinal", "smooth_l1", "l1"}) == REGRESSION_LOSSES
    with pytest.raises(ValueError, match="needs a class for every level"):
        snr_loss("d2", regression=True)


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(8, 5, generator=generator),
        torch.randn(8, 3, generator=generator),
        torch.randint(0, 5, (8,), generator=generator),
        torch.randint(0, 3, (8,), generator=generator),
    )


def criterion_of(**changes: Any) -> MultiTaskLoss:
    return MultiTaskLoss(TrialConfig(**changes), (0, 2, 4))


def test_equal_uncertainty_is_the_plain_sum_with_equal_weights() -> None:
    modulation_logits, snr_logits, modulation, snr = batch()
    criterion = criterion_of()
    expected = functional.cross_entropy(modulation_logits, modulation) + functional.cross_entropy(snr_logits, snr)
    torch.testing.assert_close(criterion(modulation_logits, snr_logits, modulation, snr), expected)
    assert criterion.weights().tolist() == [0.5, 0.5]


def test_frames_that_do_not_count_change_no_loss() -> None:
    modulation_logits, snr_logits, modulation, snr = batch()
    is_counted = torch.tensor([True, True, False, True, False, True, True, False])
    for snr_loss_name in ("cross_entropy", "ordinal", "smooth_l1", "l1", "d2", "inverse_d2"):
        criterion = criterion_of(snr_loss=snr_loss_name)
        some = (modulation_logits[is_counted], snr_logits[is_counted], modulation[is_counted], snr[is_counted])
        masked = criterion.task_losses(modulation_logits, snr_logits, modulation, snr, is_counted)
        torch.testing.assert_close(masked, criterion.task_losses(*some))


def test_the_log_variance_weighs_as_in_kendall_2018() -> None:
    modulation_logits, snr_logits, modulation, snr = batch()
    criterion = criterion_of()
    assert criterion.log_variance is not None
    with torch.no_grad():
        criterion.log_variance.copy_(torch.tensor([0.4, -1.0]))
    first = functional.cross_entropy(modulation_logits, modulation).item()
    second = functional.cross_entropy(snr_logits, snr).item()
    expected = math.exp(-0.4) * first + 0.2 + math.exp(1.0) * second - 0.5
    assert math.isclose(criterion(modulation_logits, snr_logits, modulation, snr).item(), expected, rel_tol=1e-5)
    share = math.exp(-0.4) / (math.exp(-0.4) + math.exp(1.0))
    assert math.isclose(criterion.weights()[0].item(), share, rel_tol=1e-5)
    assert math.isclose(criterion.weights().sum().item(), 1.0, rel_tol=1e-6)


def test_the_loss_that_epochs_are_compared_by_does_not_change_with_the_learned_variances() -> None:
    output = batch()
    criterion = criterion_of()
    assert criterion.log_variance is not None
    task_losses = criterion.task_losses(*output)
    loss, loss_mod, loss_snr = criterion.measured(task_losses).tolist()
    assert [loss_mod, loss_snr] == task_losses.tolist()
    assert loss == pytest.approx(loss_mod + loss_snr)
    assert criterion.variances().tolist() == [1.0, 1.0]  # type: ignore[union-attr]
    with torch.no_grad():
        criterion.log_variance.copy_(torch.tensor([-3.0, -3.0]))
    assert criterion(*output).item() > 10 * loss
    assert criterion.measured(task_losses)[0].item() == loss
    assert criterion.variances().tolist() == pytest.approx([math.exp(-3)] * 2)  # type: ignore[union-attr]

    fixed = criterion_of(task_weighting="fixed", task_weight_mod=0.7)
    assert fixed.measured(task_losses)[0].item() == pytest.approx(0.7 * loss_mod + 0.3 * loss_snr)
    assert fixed.variances() is None


def test_the_harder_task_learns_the_smaller_weight() -> None:
    modulation_logits, _, modulation, snr = batch()
    solved = functional.one_hot(snr, 3).float() * 20
    criterion = criterion_of()
    optimiser = torch.optim.SGD(criterion.parameters(), lr=0.1)
    for _ in range(20):
        optimiser.zero_grad()
        criterion(modulation_logits, solved, modulation, snr).backward()
        optimiser.step()
    weight_mod, weight_snr = criterion.weights().tolist()
    assert weight_mod < weight_snr


def test_fixed_weights_are_those_given_and_are_not_learned() -> None:
    modulation_logits, snr_logits, modulation, snr = batch()
    criterion = criterion_of(task_weighting="fixed", task_weight_mod=0.7)
    first = functional.cross_entropy(modulation_logits, modulation).item()
    second = functional.cross_entropy(snr_logits, snr).item()
    result = criterion(modulation_logits, snr_logits, modulation, snr).item()
    assert result == pytest.approx(0.7 * first + 0.3 * second, rel=1e-6)
    assert criterion.weights().tolist() == pytest.approx([0.7, 0.3])
    assert not list(criterion.parameters())
