"""The SNR curriculum: the share of every level's frames that an epoch trains on.

Levels join from the highest SNR downwards, one a stage. Validation and test always have all levels.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from amc_core.config import TrialConfig


def level_weights(config: TrialConfig, *, epoch: int, n_levels: int) -> tuple[float, ...]:
    """Return the share of each level, lowest SNR first, in ``epoch`` (1 is the first).

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
    kept_M = np.zeros(len(order_M), dtype=bool)
    for level, weight in enumerate(weights):
        places = np.flatnonzero(level_of_order_M == level)
        kept_M[places[: round(weight * len(places))]] = True
    return order_M[kept_M]
