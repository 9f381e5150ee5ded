"""The learning rate as a pure function of the epochs done."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from amc_core.config import TrialConfig

_THRESHOLD = 1e-4  # torch's: smaller relative improvements do not count


@dataclass(frozen=True)
class Plateau:
    """State of ``lr_schedule: plateau``, which is torch's ReduceLROnPlateau (relative threshold 1e-4, no cooldown)."""

    reductions: int = 0
    best: float | None = None
    bad_epochs: int = 0  # since the best one or the last reduction

    def after(self, config: TrialConfig, value: float) -> Plateau:
        """Return the state after an epoch; of ``value`` (by select_by, the loss negated) higher is better."""
        if self.best is None or value > self.best + _THRESHOLD * abs(self.best):
            return replace(self, best=value, bad_epochs=0)
        if self.bad_epochs + 1 > config.plateau_patience:
            return replace(self, reductions=self.reductions + 1, bad_epochs=0)
        return replace(self, bad_epochs=self.bad_epochs + 1)


def learning_rate(config: TrialConfig, epochs_done: float, *, reductions: int = 0) -> float:
    """Return the rate of the optimiser step that starts after ``epochs_done`` epochs (fractions count).

    The warmup multiplies the schedule's part above base_lr by a factor that rises from 0 to 1: a constant rate rises
    linearly, a cycle starts flatter, and neither jumps at the end of the warmup. ``reductions`` is how often a plateau
    has multiplied max_lr by plateau_factor; the rate never falls below base_lr.
    """
    scheduled = config.max_lr
    if config.lr_schedule == "triangular2":
        scheduled = triangular2(
            epochs_done, base_lr=config.base_lr, max_lr=config.max_lr, epochs_per_cycle=config.epochs_per_cycle
        )
    elif config.lr_schedule == "plateau":
        scheduled = max(config.base_lr, config.max_lr * config.plateau_factor**reductions)
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
