"""Analogue modulations: amplitude with two sidebands or one, with or without a carrier, and frequency.

The message is band-limited Gaussian noise in place of speech and music. Its bandwidth and the deviation are our choice:
they keep these signals in about the band of the digital ones at eight samples per symbol, as in RadioML.
S. Haykin, "Communication Systems", 4th edition, chapter 2, has the formulas.

In names: B frames, F positive frequencies, T samples.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

ANALOG = ("AM-SSB-WC", "AM-SSB-SC", "AM-DSB-WC", "AM-DSB-SC", "FM")

_BANDWIDTH = (0.01, 0.05)  # of the message, cycles per sample
_AM_INDEX = (0.5, 1.0)  # peak of the message over the carrier
_FM_DEVIATION = (0.02, 0.06)  # at the message's peak, cycles per sample


def analog_signal(
    modulation: str, n_frames: int, n_samples: int, rng: np.random.Generator
) -> npt.NDArray[np.complex64]:
    """Return frames without noise, complex64 (n_frames, n_samples), at any power."""
    message_BT = _analytic_message(n_frames, n_samples, rng)
    if modulation not in {"AM-SSB-WC", "AM-SSB-SC"}:
        message_BT = message_BT.real.astype(np.complex64)
    message_BT /= np.abs(message_BT).max(axis=1, keepdims=True)
    if modulation == "FM":
        deviation_B1 = rng.uniform(*_FM_DEVIATION, size=(n_frames, 1))
        angle_BT = 2 * math.pi * deviation_B1 * np.cumsum(message_BT.real, axis=1, dtype=np.float64)
        return phasor(angle_BT)
    if modulation.endswith("WC"):
        message_BT *= rng.uniform(*_AM_INDEX, size=(n_frames, 1)).astype(np.float32)
        message_BT += np.float32(1.0)
    return message_BT


def phasor(angle: npt.NDArray[np.floating]) -> npt.NDArray[np.complex64]:
    """Return exp(j angle), several times faster than numpy's complex exponential."""
    angle = angle.astype(np.float32, copy=False)
    unit_vector = np.empty(angle.shape, dtype=np.complex64)
    unit_vector.real, unit_vector.imag = np.cos(angle), np.sin(angle)
    return unit_vector


def _analytic_message(n_frames: int, n_samples: int, rng: np.random.Generator) -> npt.NDArray[np.complex64]:
    """Return a random message as its analytic signal, which has positive frequencies (the upper sideband) only."""
    n_fft = 1 << n_samples.bit_length()  # longer than a frame, so that its end does not continue at its start
    bandwidth_B1 = rng.uniform(*_BANDWIDTH, size=(n_frames, 1))
    n_bins = math.ceil(_BANDWIDTH[1] * n_fft) + 1
    parts_BF2 = rng.standard_normal((n_frames, n_bins, 2), dtype=np.float32)
    spectrum_BF = parts_BF2.view(np.complex64)[..., 0]
    frequency_F = np.arange(n_bins) / n_fft
    spectrum_BF *= (frequency_F <= bandwidth_B1) & (frequency_F > 0)
    return np.fft.ifft(spectrum_BF, n=n_fft, axis=1)[:, :n_samples].astype(np.complex64)
