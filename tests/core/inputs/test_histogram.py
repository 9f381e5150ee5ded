"""The histogram against numpy's, edge by edge."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference_images import reference_images
from torch import Tensor

from amc_core.inputs.cpu_histogram import log_histogram
from amc_core.inputs.histogram import histogram, power, scaled, spread_points


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


def test_the_upper_edge_belongs_to_the_last_bin_and_points_outside_are_dropped() -> None:
    points = torch.tensor([[[2.5, 2.5], [-2.5, 2.5], [2.6, 0.0], [float("nan"), 0.0], [0.0, float("inf")]]])
    counts = histogram(points, size=16, half_range=2.5)[0]
    assert counts[-1, -1] == 1
    assert counts[0, -1] == 1
    assert counts.sum() == 2


@pytest.mark.parametrize("size", [16, 33, 64])
def test_the_compiled_histogram_places_edges_and_the_boundary_as_numpy_does(size: int) -> None:
    # Whole numbers, +-1 in all: the power is 2 exactly, so that points lie at +-1 / sqrt(2) whatever the rounding.
    frame = torch.ones(1, 1024, 2)
    frame[0, ::2] = -1.0
    out, bad = np.empty((1, size, size), np.float32), np.empty(1, np.bool_)
    for half_range in (np.sqrt(0.5), 1.0, 0.5):  # on the edges of the image, within, outside
        log_histogram(frame.numpy(), out, bad, float(half_range * (1 + 1e-7)))
        expected, _ = reference_images(frame.numpy(), size=size, half_range=float(half_range * (1 + 1e-7)))
        np.testing.assert_allclose(out, expected, rtol=1e-6)


def test_the_reference_is_numpys_histogram_of_the_unit_power_frame_and_counts_bad_frames() -> None:
    frames = 3.0 * torch.randn(3, 1024, 2, generator=torch.Generator().manual_seed(0))
    frames[1, 7, 0] = float("nan")
    images, n_bad = reference_images(frames.numpy(), size=32, half_range=2.5)
    assert n_bad == 1
    assert not images[1].any()
    frames = frames.double()
    expected = np.log1p(numpy_histogram(scaled(frames, power(frames)), 32, 2.5))
    assert np.array_equal(images[[0, 2]], expected[[0, 2]])


def test_sizes_beyond_16_bits_are_refused() -> None:
    with pytest.raises(ValueError, match=r"70000 samples and 32 pixels were given"):
        log_histogram(np.zeros((1, 70_000, 2), np.float32), np.zeros((1, 32, 32), np.float32), np.zeros(1, bool), 2.5)


def test_a_shared_point_keeps_its_place_and_weight() -> None:
    row, column = torch.tensor([[3.25, 5.5]]), torch.tensor([[4.75, 2.5]])
    image = spread_points(row, column, 8)[0]
    assert image.sum() == 2
    assert image[5, 2] == 1  # a bin's centre
    near = image.clone()
    near[5, 2] = 0
    centre = torch.arange(8) + 0.5
    assert (near.sum(dim=1) @ centre, near.sum(dim=0) @ centre) == (3.25, 4.75)


def test_periodic_columns_join_at_the_edge_and_rows_do_not() -> None:
    row, column = torch.tensor([[2.5, 0.0]]), torch.tensor([[8.0, 4.5]])
    image = spread_points(row, column, 8, periodic=True)[0]
    assert (image[2, 7], image[2, 0]) == (0.5, 0.5)
    assert image[0, 4] == 0.5
    assert image.sum() == 1.5
