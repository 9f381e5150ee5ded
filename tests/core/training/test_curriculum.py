"""SNR levels join from the highest downwards: the weights and frames of every epoch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amc_core.config import TrialConfig
from amc_core.training.schedules import epoch_positions, level_draws, level_weights

DOCUMENT = Path(__file__).parents[3] / "docs" / "training.md"
FRAMES_L = np.array([3277] * 16)  # about as many as a level of one modulation has in RadioML 2018.01A


def curriculum(mode: str = "sliding", **changes: Any) -> TrialConfig:
    return TrialConfig(curriculum=True, curriculum_mode=mode, **changes)


def weights(mode: str, epoch: int, **changes: int) -> list[float]:
    return list(level_weights(curriculum(mode, **changes), epoch=epoch, n_levels=4))


def test_the_highest_level_is_complete_from_the_start_and_others_join_a_strict_curriculum_gradually() -> None:
    assert weights("strict", 1) == [0, 0, 0, 1]
    assert weights("strict", 2) == pytest.approx([0, 0, 1 / 3, 1])
    assert weights("strict", 3) == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert weights("strict", 4) == pytest.approx([1 / 3, 2 / 3, 1, 1])
    assert weights("strict", 6) == [1, 1, 1, 1]


def test_a_sliding_curriculum_has_every_level_from_the_start() -> None:
    assert weights("sliding", 1) == [0.25, 0.25, 0.25, 1]
    assert weights("sliding", 3) == pytest.approx([0.25, 0.5, 0.75, 1])
    assert weights("sliding", 6) == [1, 1, 1, 1]


@pytest.mark.parametrize("mode", ["sliding", "strict"])
def test_a_stage_may_last_several_epochs(mode: str) -> None:
    assert weights(mode, 2, curriculum_epochs_per_stage=2) == weights(mode, 1)
    assert weights(mode, 3, curriculum_epochs_per_stage=2) == weights(mode, 2)


def test_without_curriculum_every_level_is_complete() -> None:
    assert level_weights(TrialConfig(), epoch=1, n_levels=3) == (1.0, 1.0, 1.0)
    assert np.array_equal(level_draws(TrialConfig(), epoch=1, frames_L=FRAMES_L), FRAMES_L)


def test_the_document_has_the_weights_of_the_default_curriculum() -> None:
    section = DOCUMENT.read_text(encoding="utf-8").split("## The curriculum")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line.startswith("|")]
    header, _, *table = rows
    assert header == ["epoch", *(str(level) for level in range(30, -1, -2))]
    for first, *cells in table:
        epoch = int(re.match(r"\d+", first)[0])  # type: ignore[index]
        expected = reversed(level_weights(curriculum(), epoch=epoch, n_levels=16))
        assert cells == [f"{weight:.2g}" for weight in expected]
    assert table[0][0] == "1"
    assert set(table[-1][1:]) == {"1"}


def test_in_the_first_epoch_30_db_is_drawn_at_least_three_times_as_often_as_0_db() -> None:
    level_M = np.repeat(np.arange(16), 40)
    draws_L = level_draws(curriculum(), epoch=1, frames_L=np.bincount(level_M))
    drawn = np.bincount(level_M[epoch_positions(level_M, draws_L, np.random.default_rng(0))], minlength=16)
    assert drawn[15] >= 3 * drawn[0] > 0


def test_a_sliding_curriculum_has_the_same_number_of_frames_in_every_epoch_and_every_level_in_each() -> None:
    frames_L = np.array([7, 100, 31, 64, 0, 258])
    for epoch in range(1, 12):
        draws_L = level_draws(curriculum(), epoch=epoch, frames_L=frames_L)
        assert draws_L.sum() == frames_L.sum()
        assert ((draws_L > 0) == (frames_L > 0)).all()
    assert np.array_equal(level_draws(curriculum(), epoch=8, frames_L=frames_L), frames_L)
    assert level_draws(curriculum("strict"), epoch=2, frames_L=frames_L).tolist() == [0, 0, 0, 0, 0, 258]


def test_the_frames_of_a_level_are_drawn_equally_often() -> None:
    level_M = np.repeat(np.arange(3), 60)
    drawn = epoch_positions(level_M, np.array([0, 20, 150]), np.random.default_rng(0))
    times_LM = np.bincount(drawn, minlength=180).reshape(3, 60)
    assert times_LM.sum(axis=1).tolist() == [0, 20, 150]
    assert set(times_LM[1]) == {0, 1}
    assert set(times_LM[2]) == {2, 3}
    assert np.count_nonzero(np.diff(level_M[drawn])) > 10  # the levels are mixed


def test_epochs_are_shuffled_by_their_own_seed() -> None:
    level_M = np.zeros(100, dtype=np.int64)
    streams = (np.random.default_rng([0, epoch]) for epoch in (1, 1, 2))
    first, again, other = (epoch_positions(level_M, np.array([100]), stream) for stream in streams)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.array_equal(np.sort(first), np.arange(100))
