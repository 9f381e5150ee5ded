"""Statistics of single frames that distinguish modulations without any training, for checking labels.

In names: B frames, T = 1024 samples, F frequencies, S symbols.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch

from amc_core.inputs.synchronisation import matched_filter, symbols

Complex = npt.NDArray[np.complexfloating]

# Traits of a class's frames that hold for every modulator. A class in neither set may have the trait or not. Modulators
# with amplitudes of one sign, other ring ratios or other message bandwidths have the same traits.
_PSK_ABOVE_8 = {"16PSK", "32PSK"}
_APSK = {"16APSK", "32APSK", "64APSK", "128APSK"}
_QAM = {"16QAM", "32QAM", "64QAM", "128QAM", "256QAM"}
_REAL = {"OOK", "4ASK", "8ASK", "BPSK", "AM-DSB-WC", "AM-DSB-SC"}
_DIGITAL_CIRCULAR = {"QPSK", "8PSK", "OQPSK", *_PSK_ABOVE_8, *_APSK, *_QAM}
TRAITS: Mapping[str, tuple[frozenset[str], frozenset[str]]] = {
    # trait: (classes that have it, classes that do not)
    "samples on one line": (frozenset(_REAL), frozenset({*_DIGITAL_CIRCULAR, "FM", "GMSK"})),
    "a constant envelope": (
        frozenset({"FM", "GMSK"}),
        frozenset({*_DIGITAL_CIRCULAR, "OOK", "4ASK", "8ASK", "BPSK", "AM-DSB-SC", "AM-SSB-SC"}),
    ),
    "a carrier": (
        frozenset({"OOK", "AM-DSB-WC", "AM-SSB-WC"}),
        frozenset({*_DIGITAL_CIRCULAR, "BPSK", "AM-DSB-SC", "AM-SSB-SC", "FM", "GMSK"}),
    ),
    "symbols on one ring": (
        frozenset({"BPSK", "QPSK", "8PSK", *_PSK_ABOVE_8}),
        frozenset({"OOK", "4ASK", "8ASK", "OQPSK", "AM-DSB-SC", "AM-SSB-SC", *_APSK, *_QAM}),
    ),
    "symbols at four angles": (
        frozenset({*_REAL, "QPSK"}),
        frozenset({"8PSK", "OQPSK", *_PSK_ABOVE_8, *_APSK, *_QAM}),
    ),
    "symbols at eight angles": (frozenset({*_REAL, "QPSK", "8PSK"}), frozenset({*_PSK_ABOVE_8, *_APSK, *_QAM})),
    "one sideband": (frozenset({"AM-SSB-SC"}), frozenset({*_REAL, *_DIGITAL_CIRCULAR})),
}

# A class's frames, raised to this power, have a spectral line at that multiple of the carrier. Then the least height of
# the line, and the range of its search in cycles per sample: the line's image is half a symbol rate away.
_LINE_OF: Mapping[str, tuple[int, float, float]] = {
    **dict.fromkeys(("OOK", "4ASK", "8ASK", "BPSK"), (2, 0.7, 0.06)),
    "QPSK": (4, 0.45, 0.06),
}

_FLAT_PARTS = (0.004, 0.013, 0.022, 0.031)  # cycles per sample, to either side: a carrier is left out
_SIGNAL_BAND = 0.15  # cycles per sample, wide enough for every class


def traits(iq_BTC: npt.NDArray[np.float32]) -> dict[str, float]:
    """Return the share of the frames of one class that show each of TRAITS; needs at least 16 dB."""
    signal_BT = _complex(iq_BTC)
    frequency_F = np.fft.fftfreq(signal_BT.shape[1])
    spectrum_BF = np.fft.fft(signal_BT, axis=1)
    quiet_BT = _quiet(signal_BT)
    envelope_BT = np.abs(quiet_BT)
    power_BF = np.abs(spectrum_BF) ** 2
    upper_B = power_BF[:, (frequency_F > 0.004) & (frequency_F < _SIGNAL_BAND)].sum(axis=1)
    lower_B = power_BF[:, (frequency_F < -0.004) & (frequency_F > -_SIGNAL_BAND)].sum(axis=1)
    symbols_BS = symbols(torch.from_numpy(signal_BT), matched_filter().float()).numpy()
    modulus_BS = np.abs(symbols_BS)
    direction_BS = symbols_BS / np.maximum(modulus_BS, 1e-12)
    statistic = {
        "samples on one line": (_line(quiet_BT**2, reach=0.005)[1], 0.7),
        "a constant envelope": (-envelope_BT.std(axis=1) / envelope_BT.mean(axis=1), -0.12),
        "a carrier": (_line(quiet_BT, reach=0.003)[1], 0.6),
        "symbols on one ring": (-(modulus_BS**4).mean(axis=1), -1.12),
        "symbols at four angles": (_line(direction_BS**4 * modulus_BS, reach=0.08)[1], 0.7),
        "symbols at eight angles": (_line(direction_BS**8 * modulus_BS, reach=0.16)[1], 0.6),
        "one sideband": (np.abs(upper_B - lower_B) / power_BF.sum(axis=1), 0.4),
    }
    return {name: float((value_B > threshold).mean()) for name, (value_B, threshold) in statistic.items()}


def carrier_offset(iq_BTC: npt.NDArray[np.float32], modulation: str) -> npt.NDArray[np.float64]:
    """Return the carrier of single frames, in cycles per sample, from the line of their second or fourth power.

    A. Viterbi, A. Viterbi, "Nonlinear estimation of PSK-modulated carrier phase", IEEE Trans. Inf. Theory 29, 1983.
    Offsets beyond 1/67 (QPSK) or 1/33 are returned as smaller ones. Empty where the modulation has no such line, or
    where most frames do not show it: they have another modulation or a larger offset.
    """
    if modulation not in _LINE_OF:
        return np.empty(0)
    power, least_height, reach = _LINE_OF[modulation]
    quiet_BT = _quiet(_complex(iq_BTC))
    envelope_BT = np.abs(quiet_BT)
    direction_BT = quiet_BT / np.maximum(envelope_BT, 1e-12)
    frequency_B, height_B = _line(direction_BT**power * envelope_BT**2, reach=reach)
    clear_B = height_B > least_height
    return frequency_B[clear_B] / power if 2 * clear_B.sum() > len(clear_B) else np.empty(0)


def symbol_rate(iq_BTC: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Return the cyclic line of linear modulations: (symbols per sample, its height over its surroundings).

    The squared magnitude of a signal with excess bandwidth repeats with the symbols: W. Gardner, "Exploitation of
    spectral redundancy in cyclostationary signals", IEEE Signal Processing Magazine 8(2), 1991.
    """
    signal_BT = _complex(iq_BTC)
    envelope_BT = np.abs(signal_BT) ** 2
    envelope_BT -= envelope_BT.mean(axis=1, keepdims=True)
    n_fft = 4 * signal_BT.shape[1]
    power_F = (np.abs(np.fft.rfft(envelope_BT * np.hanning(signal_BT.shape[1]), n_fft, axis=1)) ** 2).mean(axis=0)
    # The data's own spectrum falls smoothly, so a line is higher than the median around it.
    half = n_fft // 64
    floor_F = np.array([np.median(power_F[max(0, k - half) : k + half + 1]) for k in range(len(power_F))])
    height_F = power_F / floor_F
    height_F[: n_fft // 40] = 0  # no more than 40 samples per symbol
    peak = int(height_F.argmax())
    return peak / n_fft, float(height_F[peak])


def mean_spectrum(iq_BTC: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the frequencies from -1/2 to 1/2, and the mean power spectrum without the noise floor; its sum is 1."""
    signal_BT = _complex(iq_BTC)
    power_F = (np.abs(np.fft.fft(signal_BT * np.blackman(signal_BT.shape[1]), axis=1)) ** 2).mean(axis=0)
    frequency_F = np.fft.fftshift(np.fft.fftfreq(signal_BT.shape[1]))
    power_F = np.fft.fftshift(power_F)
    power_F -= np.median(power_F[np.abs(frequency_F) > 0.25])
    return frequency_F, power_F / power_F.sum()


def band_ripple_db(iq_BTC: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return how much the power varies over the flat part of the band in single frames, in dB: (B,).

    It is the standard deviation over six parts of the band that every roll-off up to 0.5 leaves flat. The symbols
    themselves make some of it. A channel shorter than a part of a symbol adds little; a longer one has notches there.
    """
    signal_BT = _complex(iq_BTC)
    n_samples = signal_BT.shape[1]
    power_BF = np.abs(np.fft.fft(signal_BT * np.hanning(n_samples), axis=1)) ** 2
    frequency_F = np.fft.fftfreq(n_samples)
    parts = [
        power_BF[:, (sign * frequency_F > low) & (sign * frequency_F <= high)].mean(axis=1)
        for sign in (-1, 1)
        for low, high in pairwise(_FLAT_PARTS)
    ]
    ripple_B: npt.NDArray[np.float64] = (10 * np.log10(np.maximum(parts, 1e-30))).std(axis=0)
    return ripple_B


def _line(signal_BT: Complex, *, reach: float) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the frequency of the strongest line within +- ``reach`` and its height, 1 for a pure one: (B,), (B,)."""
    n_fft = 4 * signal_BT.shape[1]
    near_F = np.flatnonzero(np.abs(np.fft.fftfreq(n_fft)) <= reach)
    spectrum_BF = np.abs(np.fft.fft(signal_BT, n_fft, axis=1))[:, near_F]
    height_B = spectrum_BF.max(axis=1) / np.maximum(np.abs(signal_BT).sum(axis=1), 1e-12)
    return np.fft.fftfreq(n_fft)[near_F[spectrum_BF.argmax(axis=1)]], height_B


def _quiet(signal_BT: Complex) -> Complex:
    """Return the frames without the noise beyond the signal's band."""
    in_band_F = np.abs(np.fft.fftfreq(signal_BT.shape[1])) < _SIGNAL_BAND
    quiet_BT: Complex = np.fft.ifft(np.fft.fft(signal_BT, axis=1) * in_band_F, axis=1)
    return quiet_BT


def _complex(iq_BTC: npt.NDArray[np.float32]) -> Complex:
    signal_BT: Complex = np.ascontiguousarray(iq_BTC).view(np.complex64)[..., 0]
    return signal_BT
