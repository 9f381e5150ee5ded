"""Short multipath channels that are constant during a frame.

In names: B frames, D taps, T samples.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

FADING = ("none", "rayleigh", "rician")

# Three taps one sample (an eighth of a symbol) apart, with decaying mean powers.
_POWERS = np.array([0.75, 0.20, 0.05])
LONGEST_DELAY = len(_POWERS) - 1  # samples
_RICIAN_K = 4.0  # power of the first tap's constant part over that of its random part: 6 dB


def fade(signal_BT: npt.NDArray[np.complex64], kind: str, rng: np.random.Generator) -> npt.NDArray[np.complex64]:
    """Return every frame after its own channel, shorter by the first LONGEST_DELAY samples.

    Taps are complex normal (Rayleigh); the first tap of a Rician channel also has a constant part. A. Goldsmith,
    "Wireless Communications", 2005, sections 3.2 and 3.3. The power fades, too: renormalise it afterwards.
    """
    n_samples = signal_BT.shape[1] - LONGEST_DELAY
    if kind == "none":
        return signal_BT[:, LONGEST_DELAY:]
    parts_BD2 = rng.standard_normal((len(signal_BT), len(_POWERS), 2))
    taps_BD = (parts_BD2[..., 0] + 1j * parts_BD2[..., 1]) * np.sqrt(_POWERS / 2)
    if kind == "rician":
        taps_BD[:, 0] /= math.sqrt(1 + _RICIAN_K)
        taps_BD[:, 0] += math.sqrt(_POWERS[0] * _RICIAN_K / (1 + _RICIAN_K))
    taps_BD1 = taps_BD.astype(np.complex64)[:, :, None]
    faded_BT = taps_BD1[:, 0] * signal_BT[:, LONGEST_DELAY:]
    for delay in range(1, len(_POWERS)):
        start = LONGEST_DELAY - delay
        faded_BT += taps_BD1[:, delay] * signal_BT[:, start : start + n_samples]
    return faded_BT
