"""Learning rate and SNR curriculum, as pure functions of the configuration and the epoch."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from amc_core.config import TrialConfig

_THRESHOLD = 1e-4  # torch's: smaller relative improvements do not count


@dataclass(frozen=True)
class Plateau:
    """State of ``lr_schedule: plateau``, which is torch's ReduceLROnPlateau (relative threshold 1e-4, no cooldown)."""

    reductions: int = 0
    best: float | None = None
    bad_epochs: int = 0  # since the best one or the last reduction

    def after(self, config: TrialConfig, value: float) -> Plateau:
        """Return the state after an epoch; ``value`` is the accuracy or the negated loss, so higher is better."""
        if self.best is None or value > self.best + _THRESHOLD * abs(self.best):
            return replace(self, best=value, bad_epochs=0)
        if self.bad_epochs + 1 > config.plateau_patience:
            return replace(self, reductions=self.reductions + 1, bad_epochs=0)
        return replace(self, bad_epochs=self.bad_epochs + 1)


def learning_rate(config: TrialConfig, epochs_done: float, *, reductions: int = 0) -> float:
    """Return the rate of the optimiser step that starts after ``epochs_done`` epochs (fractions count).

    The warmup multiplies the schedule's part above base_lr by a factor that rises from 0 to 1: a constant rate rises
    linearly, a cycle starts flatter, and neither jumps at the end of the warmup. A cosine falls after the warmup.
    ``reductions`` is how often a plateau
    has multiplied max_lr by plateau_factor; the rate never falls below base_lr.
    """
    scheduled = config.max_lr
    if config.lr_schedule == "triangular2":
        scheduled = triangular2(
            epochs_done, base_lr=config.base_lr, max_lr=config.max_lr, epochs_per_cycle=config.epochs_per_cycle
        )
    elif config.lr_schedule == "cosine":
        scheduled = cosine(
            (epochs_done - config.warmup_epochs) / (config.epochs - config.warmup_epochs),
            base_lr=config.base_lr,
            max_lr=config.max_lr,
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


def cosine(part: float, *, base_lr: float, max_lr: float) -> float:
    """Return the rate on half a cosine from max_lr (part 0 and below) to base_lr (part 1 and above).

    I. Loshchilov, F. Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017, without restarts.
    """
    height = (1 + math.cos(math.pi * min(max(part, 0.0), 1.0))) / 2
    return base_lr + (max_lr - base_lr) * height


def level_weights(config: TrialConfig, *, epoch: int, n_levels: int) -> tuple[float, ...]:
    """Return the share of each level's frames, lowest SNR first, that ``epoch`` (1 is the first) trains on.

    Levels join from the highest SNR downwards, one a stage. Validation and test always have all levels.
    The top level is complete from the start; a level that joined k stages ago has min(1, (k + 1) / window).
    """
    if not config.curriculum:
        return (1.0,) * n_levels
    stage = (epoch - 1) // config.curriculum_epochs_per_stage
    since_joined = [stage - rank for rank in range(n_levels)]  # rank 0: the highest SNR
    weights = [min(1.0, max(0, k + 1) / config.curriculum_window) for k in since_joined]
    weights[0] = 1.0
    return tuple(reversed(weights))


def epoch_positions(
    level_M: npt.NDArray[np.int64], weights: tuple[float, ...], rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Return an epoch's frames: shuffled positions in ``level_M``, each level with its share, no frame twice."""
    order_M = rng.permutation(len(level_M))
    if all(weight == 1.0 for weight in weights):
        return order_M
    level_of_order_M = level_M[order_M]
    mask_M = np.zeros(len(order_M), dtype=bool)
    for level, weight in enumerate(weights):
        places = np.flatnonzero(level_of_order_M == level)
        mask_M[places[: round(weight * len(places))]] = True
    return order_M[mask_M]
