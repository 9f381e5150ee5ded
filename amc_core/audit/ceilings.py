"""Ceilings for a model: the best possible modulation classifier, and the SNR measured without any training.

The bound is the average likelihood ratio test that knows timing, phase, gain, noise power and pulse, but not the
modulation and its symbols. F. Hameed, O. Dobre, D. Popescu, "On the likelihood-based approach to modulation
classification", IEEE Transactions on Wireless Communications 8(12), 2009. No receiver is better on such signals. It
depends on the classes and on the rings of APSK; tests/benchmarks/results/ceilings.md has several settings.

In names: B frames, S symbols, M points of a constellation, H hypotheses, T samples, F frequencies, L levels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from amc_core.data.radioml import FRAME_LENGTH
from amc_core.synthesis.constellations import LINEAR, symbol_table
from amc_core.synthesis.frames import Recipe, synthesise_frames
from amc_core.synthesis.pulses import SAMPLES_PER_SYMBOL

N_SYMBOLS = FRAME_LENGTH // SAMPLES_PER_SYMBOL
NOISE_BAND = 0.25  # cycles per sample: only noise above it; below it, sidelobes of truncated pulses

_BOUND_ROLL_OFF = 0.25  # of the known pulse; it matters for OQPSK only, and little
_BATCH = 50  # frames whose likelihoods are computed at once


@dataclass(frozen=True)
class Ceiling:
    """The best accuracies at one SNR level; fractions in 0..1."""

    snr_db: int
    modulation: float  # accuracy of the likelihood bound
    snr: float  # accuracy of the level nearest to the SNR measured from the spectrum
    n_modulation: int  # frames behind each accuracy
    n_snr: int


def ceilings(
    modulations: Sequence[str],
    levels_db: Sequence[int],
    *,
    frames_per_level: int,
    seed: int,
    recipe: Recipe | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> list[Ceiling]:
    """Measure both ceilings on synthetic frames: at each level ``frames_per_level`` or more, as many per modulation.

    ``advance`` is called with every finished level. The bound knows the channel, so it uses the recipe's rings only.

    Raises:
        ValueError: a modulation has no bound, because it is not linear.
    """
    rows = []
    for level in levels_db:
        rng = np.random.default_rng([seed, level + 1000])
        n_each = math.ceil(frames_per_level / len(modulations))
        rows.append(
            Ceiling(
                snr_db=level,
                modulation=likelihood_bound(modulations, level, n_each, rng, radii=(recipe or Recipe()).radii),
                snr=psd_snr_accuracy(modulations, level, levels_db, n_each, rng, recipe),
                n_modulation=n_each * len(modulations),
                n_snr=n_each * len(modulations),
            )
        )
        advance(level)
    return rows


def likelihood_bound(
    modulations: Sequence[str],
    snr_db: float,
    n_each: int,
    rng: np.random.Generator,
    *,
    radii: Mapping[str, Sequence[float] | str] = MappingProxyType({}),
) -> float:
    """Return the share of frames of 128 symbols whose modulation is the most likely one.

    The SNR is per sample over the full band at 8 samples per symbol; a symbol therefore has 9 dB more.

    Raises:
        ValueError: a modulation has no symbol table.
    """
    if nonlinear := [name for name in modulations if name not in LINEAR]:
        raise ValueError(f"{', '.join(nonlinear)}: no likelihood bound; there is one for {', '.join(LINEAR)}")
    symbol_snr = SAMPLES_PER_SYMBOL * 10 ** (snr_db / 10)
    tables = {name: symbol_table(name, radii) for name in modulations}
    n_right = 0
    for true in modulations:
        for start in range(0, n_each, _BATCH):
            n_frames = min(_BATCH, n_each - start)
            in_time_BS, late_BS = _matched_filtered(true, tables[true], n_frames, symbol_snr, rng)
            likelihood_BH = np.stack(
                [
                    _log_likelihood(late_BS if name == "OQPSK" else in_time_BS, table, symbol_snr)
                    for name, table in tables.items()
                ],
                axis=1,
            )
            n_right += int((likelihood_BH.argmax(axis=1) == list(modulations).index(true)).sum())
    return n_right / (n_each * len(modulations))


def standard_error(share: float, n_frames: int) -> float:
    """Return the standard error of a share of ``n_frames``: 0.005 for a half of 10,000."""
    return math.sqrt(share * (1 - share) / n_frames)


def _matched_filtered(
    modulation: str,
    table: npt.NDArray[np.complex64],
    n_frames: int,
    symbol_snr: float,
    rng: np.random.Generator,
) -> tuple[npt.NDArray[np.complex64], npt.NDArray[np.complex64]]:
    """Return the matched filter's output at the symbols' instants, (B, 128), for two hypotheses.

    The first has both components at the same time; the second has the quadrature half a symbol later, as in OQPSK.
    Frames are periodic, so that they have no edges; two samples per symbol hold the band.
    """
    sent_BS = table[rng.integers(0, len(table), size=(n_frames, N_SYMBOLS))]
    spread_BT = np.zeros((n_frames, 2 * N_SYMBOLS), dtype=np.complex128)
    spread_BT.real[:, 0::2] = sent_BS.real
    spread_BT.imag[:, (1 if modulation == "OQPSK" else 0) :: 2] = sent_BS.imag
    raised_cosine_F = _raised_cosine(np.fft.fftfreq(2 * N_SYMBOLS) * 2)
    noise_BT2 = rng.standard_normal((n_frames, 2 * N_SYMBOLS, 2)) * math.sqrt(1 / symbol_snr)
    noise_BT = noise_BT2.view(np.complex128)[..., 0]
    # The pulse and its matched filter make a raised cosine; the noise passes the matched filter only. At an instant the
    # noise has a variance of 1 / symbol_snr, and a symbol a gain of 1.
    spectrum_BF = 2 * np.fft.fft(spread_BT) * raised_cosine_F + np.fft.fft(noise_BT) * np.sqrt(raised_cosine_F)
    filtered_BT = np.fft.ifft(spectrum_BF)
    in_time_BS = filtered_BT[:, 0::2]
    late_BS = in_time_BS.real + 1j * filtered_BT[:, 1::2].imag
    return in_time_BS.astype(np.complex64), late_BS.astype(np.complex64)


def _raised_cosine(frequency: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Return the raised cosine's spectrum, 1 in the middle; frequency in symbol rates."""
    edge = np.clip((np.abs(frequency) - (1 - _BOUND_ROLL_OFF) / 2) / _BOUND_ROLL_OFF, 0, 1)
    spectrum: npt.NDArray[np.float64] = (1 + np.cos(math.pi * edge)) / 2
    return spectrum


def _log_likelihood(
    received_BS: npt.NDArray[np.complex64], table_M: npt.NDArray[np.complex64], symbol_snr: float
) -> npt.NDArray[np.float64]:
    """Return ln p(frame | modulation) / p(frame | noise), (B,), with every point equally likely.

    This ratio, ``sum ln mean exp((2 Re(r s*) - |s|^2) / N0)``, can be compared between pulses with other instants.
    """
    received_X2 = np.ascontiguousarray(received_BS).view(np.float32).reshape(-1, 2)
    points_2M = (2 * symbol_snr) * np.stack([table_M.real, table_M.imag])
    exponent_XM = received_X2 @ points_2M.astype(np.float32) - np.float32(symbol_snr) * np.abs(table_M) ** 2
    largest_X = exponent_XM.max(axis=1)
    exponent_XM -= largest_X[:, None]
    np.exp(exponent_XM, out=exponent_XM)
    symbol_X = np.log(exponent_XM.mean(axis=1)) + largest_X
    likelihood_B: npt.NDArray[np.float64] = symbol_X.reshape(received_BS.shape).sum(axis=1, dtype=np.float64)
    return likelihood_B


def psd_snr_accuracy(
    modulations: Sequence[str],
    snr_db: int,
    levels_db: Sequence[int],
    n_each: int,
    rng: np.random.Generator,
    recipe: Recipe | None = None,
) -> float:
    """Return the share of synthetic frames whose estimated SNR is nearest to their own level."""
    n_right = 0
    for modulation in modulations:
        estimate_B = estimate_snr_db(synthesise_frames(modulation, snr_db, n_each, rng, recipe))
        nearest_B = np.abs(estimate_B[:, None] - np.array(levels_db)).argmin(axis=1)
        n_right += int((np.array(levels_db)[nearest_B] == snr_db).sum())
    return n_right / (n_each * len(modulations))


def estimate_snr_db(iq_BTC: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return every frame's SNR measured from its spectrum, (B,), in dB per sample over the full band.

    The mean power in the empty band, |f| > 0.25 cycles per sample, is the noise; the rest is signal. A Blackman window
    keeps a strong signal out of that band. The lowest value is -40 dB.
    """
    signal_BT = iq_BTC.astype(np.float32, copy=False).view(np.complex64)[..., 0]
    window_T = np.blackman(signal_BT.shape[1]).astype(np.float32)
    spectrum_BF = np.fft.fft(signal_BT * window_T, axis=1)
    empty_F = np.abs(np.fft.fftfreq(signal_BT.shape[1])) > NOISE_BAND
    empty_BF = spectrum_BF[:, empty_F]
    noise_B = (empty_BF.real**2 + empty_BF.imag**2).mean(axis=1, dtype=np.float64) / np.sum(window_T**2)
    power_B = (signal_BT.real**2 + signal_BT.imag**2).mean(axis=1, dtype=np.float64)
    ratio_B = (power_B - noise_B) / np.maximum(noise_B, 1e-12 * np.maximum(power_B, 1e-30))
    estimate_B: npt.NDArray[np.float64] = 10 * np.log10(np.maximum(ratio_B, 1e-4))
    return estimate_B
