"""numpy's histograms: the definition that every fast path of the inputs is tested and timed against."""

from __future__ import annotations

from typing import cast

import numpy as np
import numpy.typing as npt


def reference_images(
    iq_BTC: npt.NDArray[np.floating], *, size: int, half_range: float | str
) -> tuple[npt.NDArray[np.float64], int]:
    """Return log1p histograms of unit-power frames by ``np.histogram2d`` in float64, and the number of bad frames.

    A frame with a sample that is not finite gives zeros.
    """
    images_BHW = np.zeros((len(iq_BTC), size, size))
    square = None if isinstance(half_range, str) else [[-half_range, half_range]] * 2
    n_bad = 0
    for image_HW, iq_TC in zip(images_BHW, iq_BTC.astype(np.float64), strict=True):
        if not np.isfinite(iq_TC).all():
            n_bad += 1
            continue
        mean_power = np.mean(np.sum(iq_TC**2, axis=1))
        in_phase_T, quadrature_T = (iq_TC / np.sqrt(mean_power or 1.0)).T
        image_HW[:] = np.log1p(np.histogram2d(in_phase_T, quadrature_T, bins=size, range=cast("None", square))[0])
    return images_BHW, n_bad
