"""Images against numpy's histogram, and what bad frames turn into."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from amc_core.config import TrialConfig
from amc_core.representations import Representation, channels, histogram, log_psd, unit_power


def numpy_histogram(iq_BTC: Tensor, size: int, half_range: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    square = [[-half_range, half_range]] * 2
    return np.stack([np.histogram2d(frame[:, 0], frame[:, 1], bins=size, range=square)[0] for frame in iq_BTC.numpy()])


@pytest.mark.parametrize(("size", "half_range"), [(32, 2.5), (64, 2.5), (49, 1.0), (20, 3.0), (33, 0.7)])
def test_the_histogram_equals_numpys_on_random_points_and_on_the_edges(size: int, half_range: float) -> None:
    generator = torch.Generator().manual_seed(0)
    frames = torch.randn(4, 1024, 2, generator=generator)
    edges = torch.from_numpy(np.linspace(-half_range, half_range, size + 1).astype(np.float32))
    picked = torch.randint(0, size + 1, (2, 1024, 2), generator=generator)
    outside = torch.full((1, 1024, 2), half_range * 1.0001)
    points = torch.cat([frames, edges[picked], torch.nextafter(edges, torch.tensor(9.0))[picked], outside])
    assert np.array_equal(
        histogram(points, size=size, half_range=half_range), numpy_histogram(points, size, half_range)
    )


def test_the_upper_edge_belongs_to_the_last_bin_and_what_lies_outside_is_dropped() -> None:
    points = torch.tensor([[[2.5, 2.5], [-2.5, 2.5], [2.6, 0.0], [float("nan"), 0.0], [0.0, float("inf")]]])
    counts = histogram(points, size=16, half_range=2.5)[0]
    assert counts[-1, -1] == 1
    assert counts[0, -1] == 1
    assert counts.sum() == 2


def test_the_image_is_the_log_of_the_counts_of_the_unit_power_frame() -> None:
    frames = torch.randn(3, 1024, 2, generator=torch.Generator().manual_seed(1)) * 7.0
    images = Representation(TrialConfig(image_size=32))(frames)
    expected = np.log1p(numpy_histogram(unit_power(frames), 32, 2.5))
    assert images.shape == (3, 1, 32, 32)
    np.testing.assert_allclose(images[:, 0], expected, rtol=1e-6)


def test_the_image_does_not_depend_on_the_receivers_gain() -> None:
    frames = torch.randn(3, 1024, 2, generator=torch.Generator().manual_seed(1))
    for name in ("constellation", "constellation_psd"):
        representation = Representation(TrialConfig(representation=name, image_size=32))
        torch.testing.assert_close(representation(frames), representation(frames * 8.0), atol=1e-5, rtol=1e-5)


def test_max_normalisation_scales_every_image_to_1() -> None:
    frames = torch.randn(3, 1024, 2, generator=torch.Generator().manual_seed(1))
    images = Representation(TrialConfig(image_size=32, histogram_norm="max"))(frames)
    torch.testing.assert_close(images.amax(dim=(1, 2, 3)), torch.ones(3))


def test_bad_frames_give_zeros_are_counted_and_leave_the_others_alone() -> None:
    frames = torch.randn(4, 1024, 2, generator=torch.Generator().manual_seed(1))
    spoiled = frames.clone()
    spoiled[1, 5, 0] = float("nan")
    spoiled[2, 9, 1] = float("inf")
    spoiled[3] = 0.0  # silent, but finite
    representation = Representation(TrialConfig(representation="constellation_psd", image_size=32))
    clean, images = representation(frames), representation(spoiled)
    assert int(representation.bad_frames) == 2
    assert not images[1:3].any()
    assert torch.isfinite(images).all()
    assert torch.equal(images[0], clean[0])


def test_the_spectrum_of_white_noise_is_flat_and_a_carrier_stands_where_it_is() -> None:
    window = torch.hann_window(64)
    noise = unit_power(torch.randn(200, 1024, 2, generator=torch.Generator().manual_seed(2)))
    mean_psd = (10 ** (2 * log_psd(noise, window))).mean(dim=0)
    torch.testing.assert_close(mean_psd, torch.ones(64), atol=0.1, rtol=0.0)
    angle = 2 * torch.pi * 0.25 * torch.arange(1024)
    carrier = torch.stack([angle.cos(), angle.sin()], dim=1)[None]
    assert int(log_psd(carrier, window).argmax()) == 48  # 0.25 cycles/sample, zero at 32


@pytest.mark.parametrize("name", ["constellation", "constellation_psd"])
@pytest.mark.parametrize("size", [32, 64, 100])
def test_the_number_of_channels_is_what_the_model_is_told(name: str, size: int) -> None:
    frames = torch.randn(2, 1024, 2)
    images = Representation(TrialConfig(representation=name, image_size=size))(frames)
    assert images.shape == (2, channels(name), size, size)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("name", ["constellation", "constellation_psd"])
def test_cuda_gives_the_images_of_the_cpu_without_waiting(name: str) -> None:
    frames = torch.randn(64, 1024, 2, generator=torch.Generator().manual_seed(3))
    on_cpu = Representation(TrialConfig(representation=name))
    on_cuda = Representation(TrialConfig(representation=name)).cuda()
    expected = on_cpu(frames)
    moved = frames.cuda()
    on_cuda(moved)  # cuFFT makes its plan in the first call
    torch.cuda.set_sync_debug_mode("error")
    try:
        images = on_cuda(moved)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    images = images.cpu()
    # A point within a rounding of an edge may fall on its other side: rsqrt differs in the last bit.
    assert (images[:, 0] != expected[:, 0]).float().mean() < 1e-3
    torch.testing.assert_close(images[:, 1:], expected[:, 1:], atol=1e-3, rtol=1e-3)
