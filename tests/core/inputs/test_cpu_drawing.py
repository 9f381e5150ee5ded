"""The compiled drawing: polynomials exact to float32, and images with their channels last."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch

from amc_core.config import TrialConfig
from amc_core.inputs.representations import Representation

pytestmark = pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="numba is not installed")


def test_the_logarithm_equals_numpys_up_to_rounding() -> None:
    from amc_core.inputs.cpu_drawing import log1p

    x = np.concatenate([np.linspace(0, 400, 100_001), np.logspace(-20, 3, 10_001)]).astype(np.float32)
    expected = np.log1p(x.astype(np.float64))
    log1p(x)
    np.testing.assert_allclose(x, expected, rtol=2e-7, atol=1.2e-7)  # of 1 + x, 6e-8 is lost at once
    zero = np.zeros(40, dtype=np.float32)
    log1p(zero)
    assert not zero.any()  # pixels that no point touched stay empty


def test_the_angle_equals_numpys_up_to_rounding() -> None:
    from amc_core.inputs.cpu_drawing import arctangent

    angles = np.linspace(-np.pi, np.pi, 4001)
    x, y = (3.7 * np.cos(angles)).astype(np.float32), (3.7 * np.sin(angles)).astype(np.float32)
    result = [arctangent(*pair) for pair in zip(y, x, strict=True)]
    np.testing.assert_allclose(result, np.arctan2(y.astype(np.float64), x), atol=5e-7)
    assert arctangent(np.float32(0), np.float32(0)) == 0


def test_images_have_their_channels_last_so_that_nothing_is_copied_before_the_network() -> None:
    frames = torch.randn(5, 1024, 2, generator=torch.Generator().manual_seed(0))
    images = Representation(TrialConfig(representation="synced", model_type="amc_convnet", image_size=48))(frames)
    assert images.shape == (5, 5, 48, 48)
    assert images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("n_frames", [1, 2, 70])
def test_the_number_of_threads_changes_no_bit(n_frames: int) -> None:
    frames = torch.randn(n_frames, 1024, 2, generator=torch.Generator().manual_seed(0))
    representation = Representation(TrialConfig(representation="synced", model_type="amc_convnet"))
    before, images = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            images.append(representation(frames))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(images[0], images[1])
    assert torch.equal(images[0], images[2])
