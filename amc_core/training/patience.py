"""When a trial that no longer improves should end."""

from __future__ import annotations

from amc_core.config import TrialConfig

__all__ = ["is_exhausted", "protected_epochs"]


def protected_epochs(config: TrialConfig) -> int:
    """Return how many epochs patience never interrupts: the warmup and the first min_cycles cycles.

    Validation falls while a cycle's learning rate rises, and recovers as it falls again: a patience that counts through
    the rise ends trials before their peak. A constant rate has no cycles.
    """
    cycles = config.min_cycles * config.epochs_per_cycle if config.lr_schedule == "triangular2" else 0
    return max(config.warmup_epochs, cycles)


def is_exhausted(config: TrialConfig, *, epoch: int, best_epoch: int) -> bool:
    """Whether training ends after ``epoch`` (1 is the first), the best one being ``best_epoch`` (0: none so far)."""
    if config.patience is None or not best_epoch or epoch < protected_epochs(config):
        return False
    return epoch - best_epoch >= config.patience
