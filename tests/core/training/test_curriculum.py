"""SNR levels join from the highest downwards."""

from __future__ import annotations

import numpy as np
import pytest

from amc_core.config import TrialConfig
from amc_core.training.schedules import epoch_positions, level_weights


def weights(epoch: int, **changes: int) -> list[float]:
    config = TrialConfig(curriculum=True, curriculum_window=3, **changes)  # type: ignore[arg-type]
    return list(level_weights(config, epoch=epoch, n_levels=4))


def test_the_top_level_is_complete_from_the_start_and_others_join_gradually() -> None:
    assert weights(1) == [0, 0, 0, 1]
    assert weights(2) == pytest.approx([0, 0, 1 / 3, 1])
    assert weights(3) == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert weights(4) == pytest.approx([1 / 3, 2 / 3, 1, 1])
    assert weights(6) == [1, 1, 1, 1]


def test_a_stage_may_last_several_epochs() -> None:
    assert weights(2, curriculum_epochs_per_stage=2) == weights(1)
    assert weights(3, curriculum_epochs_per_stage=2) == weights(2)


def test_without_curriculum_every_level_is_complete() -> None:
    assert level_weights(TrialConfig(), epoch=1, n_levels=3) == (1.0, 1.0, 1.0)


def test_an_epoch_has_each_levels_share_without_repetition() -> None:
    level = np.repeat(np.arange(3), 60)
    drawn = epoch_positions(level, (0.0, 1 / 3, 1.0), np.random.default_rng(0))
    assert len(np.unique(drawn)) == len(drawn)
    assert np.bincount(level[drawn], minlength=3).tolist() == [0, 20, 60]


def test_epochs_are_shuffled_by_their_own_seed() -> None:
    level = np.zeros(100, dtype=np.int64)
    first, again, other = (epoch_positions(level, (1.0,), np.random.default_rng([0, epoch])) for epoch in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.array_equal(np.sort(first), np.arange(100))
