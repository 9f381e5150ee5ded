"""Cycle-aware patience."""

from __future__ import annotations

from amc_core.config import TrialConfig
from amc_core.training.patience import is_exhausted, protected_epochs


def test_patience_never_ends_a_trial_inside_the_first_cycles() -> None:
    config = TrialConfig(patience=3, min_cycles=2, epochs_per_cycle=10)
    assert not any(is_exhausted(config, epoch=epoch, best_epoch=1) for epoch in range(1, 20))
    assert is_exhausted(config, epoch=20, best_epoch=1)


def test_patience_counts_epochs_since_the_best_one() -> None:
    # RUNLOG's playful-puddle-227: best at 16, patience 50, cycles of 25, ended at 66.
    config = TrialConfig(patience=50, min_cycles=2, epochs_per_cycle=25)
    assert not is_exhausted(config, epoch=65, best_epoch=16)
    assert is_exhausted(config, epoch=66, best_epoch=16)


def test_without_patience_a_trial_uses_all_its_epochs() -> None:
    assert not is_exhausted(TrialConfig(patience=None), epoch=10_000, best_epoch=1)


def test_warmup_is_protected_too_and_a_constant_rate_has_no_cycles() -> None:
    assert protected_epochs(TrialConfig(warmup_epochs=5, min_cycles=1, epochs_per_cycle=25)) == 25
    assert protected_epochs(TrialConfig(warmup_epochs=30, min_cycles=1, epochs_per_cycle=25)) == 30
    assert protected_epochs(TrialConfig(lr_schedule="constant", warmup_epochs=5)) == 5
