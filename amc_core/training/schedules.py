"""Learning rate and SNR curriculum, as pure functions of the configuration and the epoch."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from amc_core.config import TrialConfig

_THRESHOLD = 1e-4  # torch's: smaller relative improvements do not count
_LEAST_WEIGHT = 0.25  # of a level before it joins a sliding curriculum: the highest one is drawn four times as often


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
    """Return the weight of each level's frames in ``epoch`` (1 is the first), lowest SNR first; 1 is the full weight.

    Levels join from the highest SNR downwards, one a stage. The highest level has its full weight from the start. A
    level that joined k stages ago has min(1, (k + 1) / window), one that has not joined 0. ``sliding`` raises these
    weights to the range from 1/4 to 1. Validation and test always have all levels.
    """
    if not config.curriculum:
        return (1.0,) * n_levels
    least = _LEAST_WEIGHT if config.curriculum_mode == "sliding" else 0.0
    stage = (epoch - 1) // config.curriculum_epochs_per_stage
    since_joined = [stage - rank for rank in range(n_levels)]  # rank 0: the highest SNR
    joined = [min(1.0, max(0, k + 1) / config.curriculum_window) for k in since_joined]
    return tuple(reversed([1.0, *(least + (1.0 - least) * weight for weight in joined[1:])]))


def level_draws(config: TrialConfig, *, epoch: int, frames_L: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return how many frames of each level ``epoch`` trains on.

    A ``sliding`` curriculum has as many in every epoch as there are, and divides them by the weights of the levels. A
    ``strict`` one leaves out what the weights leave out, so its first epochs are shorter.

    Args:
        config: the curriculum.
        epoch: 1 is the first.
        frames_L: training frames of each of the L levels, lowest SNR first.
    """
    weighted_L = np.array(level_weights(config, epoch=epoch, n_levels=len(frames_L))) * frames_L
    if config.curriculum_mode == "strict":
        return np.rint(weighted_L).astype(np.int64)
    ends_L = np.cumsum(weighted_L)
    rounded_L: npt.NDArray[np.int64] = np.rint(ends_L * (frames_L.sum() / ends_L[-1])).astype(np.int64)
    return np.diff(rounded_L, prepend=0)


def epoch_positions(
    level_M: npt.NDArray[np.int64], draws_L: npt.NDArray[np.int64], rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Return an epoch's frames: shuffled positions in ``level_M``, as many of each level as ``draws_L`` says.

    No frame of a level is drawn more often than another one of it by more than 1.
    """
    order_M = rng.permutation(len(level_M))
    if np.array_equal(draws_L, np.bincount(level_M, minlength=len(draws_L))):
        return order_M
    level_of_order_M = level_M[order_M]
    drawn = [np.resize(order_M[level_of_order_M == level], n_draws) for level, n_draws in enumerate(draws_L)]
    return rng.permutation(np.concatenate(drawn))
