"""The learning rate as a pure function of how far training has come."""

from __future__ import annotations

import math

from amc_core.config import TrialConfig

__all__ = ["learning_rate", "triangular2"]


def learning_rate(config: TrialConfig, epochs_done: float) -> float:
    """Return the rate of the optimiser step that starts after ``epochs_done`` epochs (fractions count).

    The warmup is a factor that rises from 0 to 1 on what the schedule adds to base_lr: a constant rate then rises
    linearly, a cycle starts flatter, and neither jumps when the warmup is over.
    """
    scheduled = config.max_lr
    if config.lr_schedule == "triangular2":
        scheduled = triangular2(
            epochs_done, base_lr=config.base_lr, max_lr=config.max_lr, epochs_per_cycle=config.epochs_per_cycle
        )
    ramp = min(1.0, epochs_done / config.warmup_epochs) if config.warmup_epochs else 1.0
    return config.base_lr + (scheduled - config.base_lr) * ramp


def triangular2(epochs_done: float, *, base_lr: float, max_lr: float, epochs_per_cycle: int) -> float:
    """Return the cyclical rate whose amplitude halves with every cycle; equal to torch's CyclicLR.

    L. N. Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017.
    """
    cycle = math.floor(epochs_done / epochs_per_cycle)
    place = epochs_done / epochs_per_cycle - cycle  # 0..1 in the cycle
    height = 1 - abs(2 * place - 1)
    return base_lr + (max_lr - base_lr) * height * 0.5**cycle
