"""Seeded synthetic frames of all 24 classes of RadioML 2018.01A.

A linear modulation is ``x(n) = exp(j (2 pi f n + phi)) * sum_k s_k g(n / 8 - k - tau)``: uniform symbols s, a truncated
root-raised-cosine pulse g of random roll-off and span, a random timing tau in 0..1 symbol, phase phi and carrier offset
f. OQPSK's quadrature is half a symbol late; GMSK is a filtered phase; AM and FM carry a random message. Then come a
channel, white noise over the full band at the SNR of the label, and the receiver's gain.

In names: B frames, S symbols of a frame, T = 1024 samples, C = I and Q, 2 for I and Q one after the other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from amc_core.data.radioml import FRAME_LENGTH
from amc_core.modulations import CLASSES
from amc_core.synthesis.analog import ANALOG, analog_signal, phasor
from amc_core.synthesis.constellations import APSK_RADII, checked_radii, symbol_table
from amc_core.synthesis.fading import FADING, LONGEST_DELAY, fade
from amc_core.synthesis.pulses import (
    MAX_HALF_SPAN,
    SAMPLES_PER_SYMBOL,
    gaussian_bank,
    n_symbols_for,
    root_raised_cosine_bank,
    shape,
)
from amc_sweeps.number_formats import quoted

_BATCH = 64  # frames computed at once, so that they stay in the processor's cache
_LEAD = SAMPLES_PER_SYMBOL  # samples before the frame, for a channel's longest delay
_GMSK_BANDWIDTHS_PERCENT = (20, 25, 30, 35, 40, 45, 50)  # times the symbol's duration; GSM has 0.3


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Properties that vary from frame to frame, besides symbols, timing and phase.

    Raises:
        ValueError: with all violations.
    """

    # Pulses vary, so that a network cannot rely on one: a short span leaves sidelobes that look like noise.
    roll_off: tuple[float, float] = (0.1, 0.5)  # uniform, in steps of 0.01
    half_span: tuple[int, int] = (2, 8)  # symbols to either side of its peak where the pulse is cut, uniform
    cfo_sd: float = 1e-4  # cycles per sample, normal
    fading: str = "none"  # one of FADING
    gain_db: float = 0.0  # the receiver's gain is uniform in +- this; 0: unit power, as the original's frames have
    # Of APSK's rings, or the name of a table of DVB_S2X.
    radii: Mapping[str, tuple[float, ...] | str] = field(default_factory=lambda: dict(APSK_RADII))

    def __post_init__(self) -> None:
        problems = []
        if not 0.01 <= self.roll_off[0] <= self.roll_off[1] <= 1:
            problems.append(f"roll_off: {self.roll_off} is not a range within 0.01..1")
        if not 1 <= self.half_span[0] <= self.half_span[1] <= MAX_HALF_SPAN:
            problems.append(f"half_span: {self.half_span} is not a range within 1..{MAX_HALF_SPAN} symbols")
        if not 0 <= self.cfo_sd <= 0.1:
            problems.append(f"cfo_sd: {self.cfo_sd} lies outside 0..0.1 cycles per sample")
        if self.fading not in FADING:
            problems.append(f"fading: {quoted(self.fading)} is unknown; known: {', '.join(FADING)}")
        if not 0 <= self.gain_db <= 60:
            problems.append(f"gain_db: {self.gain_db} lies outside 0..60 dB")
        for modulation, radii in self.radii.items():
            try:
                checked_radii(modulation, radii)
            except ValueError as error:
                problems.append(f"radii: {error}")
        if problems:
            raise ValueError("\n".join(problems))

    def to_mapping(self) -> dict[str, Any]:
        """Return plain JSON types, which the file keeps."""
        given = {name: checked_radii(name, self.radii.get(name, own)) for name, own in APSK_RADII.items()}
        radii = {name: value if isinstance(value, str) else list(value) for name, value in given.items()}
        return {**asdict(self), "radii": radii, "roll_off": list(self.roll_off), "half_span": list(self.half_span)}


def synthesise_frames(
    modulation: str,
    snr_db: float,
    n_frames: int,
    rng: np.random.Generator,
    recipe: Recipe | None = None,
) -> npt.NDArray[np.float32]:
    """Return frames of one class at one SNR: float32 (n_frames, 1024, 2), each with a mean of I^2 + Q^2 of 1.

    The SNR is the frame's own signal power, measured after the channel, over the expected noise power, per sample and
    over the full band. A recipe with a gain scales the finished frame.

    Raises:
        ValueError: the modulation is unknown.
    """
    recipe = recipe or Recipe()
    if modulation not in CLASSES:
        raise ValueError(f"{modulation}: no such modulation; known: {', '.join(CLASSES)}")
    frames_BTC = np.empty((n_frames, FRAME_LENGTH, 2), dtype=np.float32)
    noise_sd = np.float32(math.sqrt(10 ** (-snr_db / 10) / 2))
    for start in range(0, n_frames, _BATCH):
        batch_BTC = frames_BTC[start : start + _BATCH]
        signal_BT = _received(modulation, len(batch_BTC), rng, recipe)
        signal_BT *= 1 / np.sqrt(_power(signal_BT))[:, None]
        rng.standard_normal(dtype=np.float32, out=batch_BTC)
        batch_BTC *= noise_sd
        batch_BT = batch_BTC.view(np.complex64)[..., 0]
        batch_BT += signal_BT
        scale_B = 1 / np.sqrt(_power(batch_BT))
        if recipe.gain_db:
            gain_db_B = rng.uniform(-recipe.gain_db, recipe.gain_db, size=len(batch_BTC))
            scale_B *= (10 ** (gain_db_B / 20)).astype(np.float32)
        batch_BTC *= scale_B[:, None, None]
    return frames_BTC


def _received(modulation: str, n_frames: int, rng: np.random.Generator, recipe: Recipe) -> npt.NDArray[np.complex64]:
    """Return the signal at the receiver without noise, complex64 (n_frames, 1024)."""
    n_samples = _LEAD + FRAME_LENGTH
    if modulation in ANALOG:
        signal_BT = analog_signal(modulation, n_frames, n_samples, rng)
    elif modulation == "GMSK":
        signal_BT = _gmsk(n_frames, n_samples, rng)
    else:
        table = symbol_table(modulation, recipe.radii)
        signal_BT = _linear(table, n_frames, n_samples, rng, recipe, late_quadrature=modulation == "OQPSK")
    signal_BT = fade(signal_BT[:, _LEAD - LONGEST_DELAY :], recipe.fading, rng)
    phase_B1 = rng.uniform(0.0, 2 * math.pi, size=(n_frames, 1))
    cfo_B1 = rng.normal(0.0, recipe.cfo_sd, size=(n_frames, 1))
    return signal_BT * phasor(2 * math.pi * cfo_B1 * np.arange(FRAME_LENGTH) + phase_B1)


def _linear(
    table: npt.NDArray[np.complex64],
    n_frames: int,
    n_samples: int,
    rng: np.random.Generator,
    recipe: Recipe,
    *,
    late_quadrature: bool,
) -> npt.NDArray[np.complex64]:
    symbols_BS = table[rng.integers(0, len(table), size=(n_frames, n_symbols_for(n_samples)), dtype=np.uint8)]
    percents = tuple(range(round(100 * recipe.roll_off[0]), round(100 * recipe.roll_off[1]) + 1))
    bank = root_raised_cosine_bank(percents)
    pulse_B = rng.integers(0, len(percents), size=n_frames)
    half_span_B = rng.integers(recipe.half_span[0], recipe.half_span[1], size=n_frames, endpoint=True)
    delay_B = rng.uniform(0.0, 1.0, size=n_frames)
    signal_BT = np.empty((n_frames, n_samples), dtype=np.complex64)
    signal_BT.real = shape(symbols_BS.real, bank, pulse_B, delay_B, half_span_B)
    signal_BT.imag = shape(symbols_BS.imag, bank, pulse_B, delay_B + 0.5 * late_quadrature, half_span_B)
    return signal_BT


def _gmsk(n_frames: int, n_samples: int, rng: np.random.Generator) -> npt.NDArray[np.complex64]:
    """Return frames whose phase moves by a quarter turn per symbol: index 1/2 (3GPP TS 45.004, section 2)."""
    bits_BS = 2 * rng.integers(0, 2, size=(n_frames, n_symbols_for(n_samples)), dtype=np.int8) - 1
    pulse_B = rng.integers(0, len(_GMSK_BANDWIDTHS_PERCENT), size=n_frames)
    delay_B = rng.uniform(0.0, 1.0, size=n_frames)
    half_span_B = np.full(n_frames, MAX_HALF_SPAN)
    bank = gaussian_bank(_GMSK_BANDWIDTHS_PERCENT)
    frequency_BT = shape(bits_BS.astype(np.float32), bank, pulse_B, delay_B, half_span_B)
    return phasor(np.cumsum(frequency_BT, axis=1) * np.float32(math.pi / 2 / SAMPLES_PER_SYMBOL))


def _power(signal_BT: npt.NDArray[np.complex64]) -> npt.NDArray[np.float32]:
    parts_BX = np.ascontiguousarray(signal_BT).view(np.float32)
    power_B: npt.NDArray[np.float32] = np.einsum("bx,bx->b", parts_BX, parts_BX) / np.float32(signal_BT.shape[1])
    return power_B
