"""Random changes of training frames: what each does, and what they depend on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from amc_core.inputs.augmentation import LARGEST_OFFSET, Augmentation, epoch_draws

QPSK, SSB = 0, 1
NOTHING = (0.0, 0.5, 0.0, 0.9)  # phase 0, carrier in the middle, start 0, not mirrored


def changed(frames: Tensor, draws: tuple[float, ...], modulation: int = QPSK) -> Tensor:
    augmentation = Augmentation(["QPSK", "AM-SSB-WC"])
    n_frames = len(frames)
    return torch.view_as_complex(
        augmentation(frames, torch.tensor(draws).expand(n_frames, 4), torch.full((n_frames,), modulation))
    )


@pytest.fixture
def frames() -> Tensor:
    return torch.randn(3, 1024, 2, generator=torch.Generator().manual_seed(0))


def test_neutral_numbers_change_nothing(frames: Tensor) -> None:
    torch.testing.assert_close(changed(frames, NOTHING), torch.view_as_complex(frames))


def test_every_number_makes_its_own_change(frames: Tensor) -> None:
    frame_BT = torch.view_as_complex(frames)
    time_T = torch.arange(1024)
    torch.testing.assert_close(changed(frames, (0.25, 0.5, 0.0, 0.9)), frame_BT * 1j)
    turning_T = torch.polar(torch.ones(1024), 2 * torch.pi * LARGEST_OFFSET * time_T)
    torch.testing.assert_close(changed(frames, (0.0, 1.0, 0.0, 0.9)), frame_BT * turning_T)
    torch.testing.assert_close(changed(frames, (0.0, 0.5, 0.25, 0.9)), frame_BT.roll(-256, dims=1))
    torch.testing.assert_close(changed(frames, (0.0, 0.5, 0.0, 0.1)), frame_BT.conj().resolve_conj())


def test_a_one_sided_modulation_is_not_mirrored(frames: Tensor) -> None:
    torch.testing.assert_close(changed(frames, (0.0, 0.5, 0.0, 0.1), modulation=SSB), torch.view_as_complex(frames))


def test_the_power_stays_and_a_bad_sample_stays_bad(frames: Tensor) -> None:
    random = tuple(epoch_draws(1, seed=3, epoch=1)[0].tolist())
    torch.testing.assert_close(
        changed(frames, random).abs().square().sum(dim=1), frames.square().sum(dim=(1, 2)), rtol=1e-5, atol=0
    )
    frames[1, 7, 0] = torch.inf
    assert torch.isfinite(torch.view_as_real(changed(frames, random))).all(dim=(1, 2)).tolist() == [True, False, True]


def test_the_numbers_of_a_frame_depend_on_seed_epoch_and_position_alone() -> None:
    first = epoch_draws(50, seed=1, epoch=1)
    assert np.array_equal(first[:20], epoch_draws(20, seed=1, epoch=1))
    assert not np.array_equal(first, epoch_draws(50, seed=1, epoch=2))
    assert not np.array_equal(first, epoch_draws(50, seed=2, epoch=1))
    assert len(np.unique(first)) == first.size


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_cuda_changes_frames_as_the_cpu_does_without_waiting(frames: Tensor) -> None:
    draws = torch.from_numpy(epoch_draws(3, seed=0, epoch=1))
    modulation_B = torch.tensor([QPSK, SSB, QPSK])
    expected = Augmentation(["QPSK", "AM-SSB-WC"])(frames, draws, modulation_B)
    on_cuda = Augmentation(["QPSK", "AM-SSB-WC"]).cuda()
    moved = (frames.cuda(), draws.cuda(), modulation_B.cuda())
    torch.cuda.set_sync_debug_mode("error")
    try:
        actual = on_cuda(*moved)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(actual.cpu(), expected, atol=1e-4, rtol=1e-4)
