"""Two-dimensional histograms of many frames at once, on the frames' device.

In names: B frames, T = 1024 samples, C = I and Q, N points of a frame, H = W = size.
"""

from __future__ import annotations

import torch
from torch import Tensor


def power(iq_BTC: Tensor) -> Tensor:
    """Return every frame's mean of I^2 + Q^2, (B,); it is not finite where a sample is not."""
    norm_B: Tensor = torch.linalg.vector_norm(iq_BTC, dim=(1, 2))
    return norm_B.square() / iq_BTC.shape[1]


def scaled(iq_BTC: Tensor, power_B: Tensor) -> Tensor:
    """Return frames divided by the root of a power; a power of 0 changes nothing."""
    return iq_BTC * torch.where(power_B > 0, power_B, 1.0).rsqrt()[:, None, None]


def histogram(iq_BTC: Tensor, *, size: int, half_range: float | str) -> Tensor:
    """Return counts of points in a square, float32 (B, size, size), I along the first axis.

    Equal to ``np.histogram2d(I, Q, bins=size, range=[[-r, r], [-r, r]])``: the last bin includes its upper edge; points
    outside, and points that are not finite, are dropped. With ``"auto"`` equal to ``np.histogram2d(I, Q, bins=size)``:
    each axis of each frame reaches from its smallest to its largest value, so that the image loses the frame's scale. A
    frame with a value that is not finite has no such range, and its counts are 0.
    """
    # float64, and multiplied before the division: a point on an edge then falls on the same side as in numpy.
    value_CBT = iq_BTC.permute(2, 0, 1).to(torch.float64, copy=True)
    if isinstance(half_range, str):
        low_CB1, high_CB1 = value_CBT.amin(dim=2, keepdim=True), value_CBT.amax(dim=2, keepdim=True)
        flat_CB1 = low_CB1 == high_CB1  # numpy adds half a unit to either side
        low_CB1, high_CB1 = low_CB1 - 0.5 * flat_CB1, high_CB1 + 0.5 * flat_CB1
        finite_B1 = torch.isfinite(high_CB1 - low_CB1).all(dim=0)  # NaN shows in a minimum, infinity in the difference
        place_CBT = torch.where(finite_B1, (value_CBT - low_CB1) * size / (high_CB1 - low_CB1), -1.0)
    else:
        place_CBT = value_CBT.add_(half_range).mul_(size).div_(2 * half_range)
    return _count_points(place_CBT[0], place_CBT[1], size)


def _count_points(row_BN: Tensor, column_BN: Tensor, size: int) -> Tensor:
    """Return counts of points given in units of bins, float32 (B, size, size).

    Bins include their lower edge, the last one both edges. Points outside 0..size and NaN are dropped.
    """
    inside_BN = (row_BN >= 0) & (row_BN <= size) & (column_BN >= 0) & (column_BN <= size)  # false for NaN
    # NaN becomes any number here; inside_BN leaves it out.
    row_BN, column_BN = row_BN.int().clamp_(0, size - 1), column_BN.int().clamp_(0, size - 1)
    first_cell_B1 = torch.arange(len(row_BN), device=row_BN.device)[:, None] * size**2
    cell_BN = row_BN * size + column_BN + first_cell_B1
    # bincount would wait for the GPU, scatter_add_ does not; sums of ones are exact in any order.
    count = torch.zeros(len(row_BN) * size * size, dtype=torch.float32, device=row_BN.device)
    count.scatter_add_(0, cell_BN.flatten(), inside_BN.flatten().float())
    return count.view(-1, size, size)


def spread_points(row_BN: Tensor, column_BN: Tensor, size: int, *, periodic: bool = False) -> Tensor:
    """Return each point, given in units of bins, shared among the four nearest bin centres, (B, size, size).

    Unlike a histogram this keeps where in its bin a point lies (linear binning: M. C. Jones, H. W. Lotwick, "On the
    errors involved in computing the empirical characteristic function", 1983). A share beyond the edge is lost, unless
    columns are ``periodic``. Points must be finite.
    """
    row_2BN, row_share_2BN = _two_nearest(row_BN, size)
    column_2BN, column_share_2BN = _two_nearest(column_BN, size, periodic=periodic)
    # One operator for all four shares: on a GPU each one has to be started.
    cell_22BN = row_2BN[:, None] * size + column_2BN
    share_22BN = row_share_2BN[:, None] * column_share_2BN
    image_BP = torch.zeros(len(row_BN), size * size, dtype=row_BN.dtype, device=row_BN.device)
    image_BP.scatter_add_(1, cell_22BN.permute(2, 0, 1, 3).flatten(1), share_22BN.permute(2, 0, 1, 3).flatten(1))
    return image_BP.view(-1, size, size)


def _two_nearest(place_BN: Tensor, size: int, *, periodic: bool = False) -> tuple[Tensor, Tensor]:
    """Return the two nearest bins on an axis and a point's share in each, (2, B, N); 0 in a bin beyond the edge."""
    place_BN = place_BN - 0.5
    first_BN = place_BN.floor()
    part_BN = place_BN - first_BN
    share_2BN = torch.stack([1 - part_BN, part_BN])
    bin_2BN = torch.stack([first_BN, first_BN + 1]).long()
    if periodic:
        return bin_2BN % size, share_2BN
    return bin_2BN.clamp(0, size - 1), share_2BN * ((bin_2BN >= 0) & (bin_2BN < size))
