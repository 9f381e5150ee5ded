"""Timing, carrier and spectrum of known signals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from amc_core.inputs.spectrum import WELCH_LENGTH, log_psd, log_spectrum, welch
from amc_core.inputs.synchronisation import (
    EDGE,
    SAMPLES_PER_SYMBOL,
    carrier_free,
    carrier_search,
    first_quadrant,
    line_search,
    line_strengths,
    matched_filter,
    neighbours,
    phase_powers,
    symbols,
)


def periodic_signal(symbol_K: Tensor, *, delay: float, cfo: float = 0.0, phase: float = 0.0) -> Tensor:
    """Return 128 symbols as one period of a signal whose pulse is the receiver's own filter: (1, 1024)."""
    frequency_F = torch.fft.fftfreq(1024, dtype=torch.float64) * SAMPLES_PER_SYMBOL
    spectrum_F = torch.fft.fft(symbol_K).repeat(SAMPLES_PER_SYMBOL) * matched_filter()
    delayed_T = torch.fft.ifft(spectrum_F * torch.exp(-2j * math.pi * frequency_F * delay))
    turn_T = 2 * math.pi * cfo * torch.arange(1024, dtype=torch.float64) + phase
    return (delayed_T * torch.exp(1j * turn_T))[None]


def random_symbols(points: list[complex], seed: int = 0) -> Tensor:
    index_K = np.random.default_rng(seed).integers(0, len(points), size=128)
    return torch.tensor(points, dtype=torch.complex128)[torch.from_numpy(index_K)]


QPSK = [1, 1j, -1, -1j]
QAM16 = [complex(re, im) / math.sqrt(10) for re in (-3, -1, 1, 3) for im in (-3, -1, 1, 3)]


@pytest.mark.parametrize("delay", [0.0, 0.137, -0.3, 0.45])
@pytest.mark.parametrize("points", [QPSK, QAM16])
def test_symbols_are_recovered_at_any_timing(points: list[complex], delay: float) -> None:
    sent_K = random_symbols(points)
    found_K = symbols(periodic_signal(sent_K, delay=delay), matched_filter())[0]
    expected_K = sent_K[EDGE:-EDGE]
    expected_K = expected_K / expected_K.abs().square().mean().sqrt()
    # The timing estimate of 128 symbols has noise of its own: a few thousandths of a symbol.
    assert (found_K - expected_K).abs().square().mean() < 2e-3


@pytest.mark.parametrize(
    ("cfo", "carrier_range"), [(0.0, 1 / 1600), (1e-4, 1 / 1600), (-3e-4, 1 / 1600), (2.4e-3, 2.5e-3), (-0.015, 1 / 64)]
)
def test_the_carrier_is_removed_up_to_a_quarter_turn(cfo: float, carrier_range: float) -> None:
    sent_K = random_symbols(QAM16)
    time_K = torch.arange(128) * SAMPLES_PER_SYMBOL
    turned_BK = (sent_K * torch.exp(1j * (2 * math.pi * cfo * time_K + 1.0)))[None, EDGE:-EDGE]
    found_K = carrier_free(turned_BK, carrier_search(carrier_range))[0]
    # The corners of 16QAM lie on the diagonals: to the fourth power they are negative, so that they come to the axes.
    grid_K = torch.tensor(QAM16, dtype=torch.complex128) * np.exp(1j * math.pi / 4)
    assert (found_K[:, None] - grid_K).abs().amin(dim=1).square().mean() < 2e-3


@pytest.mark.parametrize(
    ("n_phases", "shown"), [(4, [True, True]), (8, [True, True]), (16, [False, True]), (32, [False, False])]
)
@pytest.mark.parametrize("cfo", [0.0, 3e-4])
def test_a_line_shows_in_how_many_phases_symbols_come(n_phases: int, shown: list[bool], cfo: float) -> None:
    points = [complex(np.exp(2j * math.pi * k / n_phases)) for k in range(n_phases)]
    turn_K = torch.exp(1j * (2 * math.pi * cfo * SAMPLES_PER_SYMBOL * torch.arange(128, dtype=torch.float64) + 1.0))
    noise_K = 0.05 * torch.randn(128, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    symbol_BK = (random_symbols(points) * turn_K + noise_K)[None, EDGE:-EDGE]
    strength_BO = line_strengths(phase_powers(symbol_BK), line_search(1 / 1600))
    assert (strength_BO[0] > 5).tolist() == shown  # of at most 11; noise alone has about 2


def test_a_quarter_turn_does_not_change_the_first_quadrant() -> None:
    symbol_BK = torch.randn(3, 50, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    turned_BK = first_quadrant(symbol_BK)
    assert (turned_BK.real >= 0).all()
    assert (turned_BK.imag >= 0).all()
    quarter = torch.polar(torch.ones((), dtype=torch.float64), (turned_BK / symbol_BK).angle() * 4)
    torch.testing.assert_close(quarter.real, torch.ones_like(quarter.real))
    for power in range(1, 4):
        torch.testing.assert_close(first_quadrant(symbol_BK * 1j**power), turned_BK)


def test_a_rotation_does_not_change_neighbours() -> None:
    symbol_BK = torch.randn(2, 20, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    length_BN, turn_BN = neighbours(symbol_BK)
    assert length_BN.shape == turn_BN.shape == (2, 38)
    torch.testing.assert_close(length_BN[:, 0], symbol_BK[:, 1].abs())
    torch.testing.assert_close(turn_BN[:, 0], (symbol_BK[:, 1] / symbol_BK[:, 0]).angle())
    for given, turned in zip((length_BN, turn_BN), neighbours(symbol_BK * np.exp(0.7j)), strict=True):
        torch.testing.assert_close(given, turned)


def test_the_spectrum_of_white_noise_is_flat_and_a_carrier_has_its_line() -> None:
    window = torch.hann_window(WELCH_LENGTH)
    noise = torch.randn(200, 1024, 2, generator=torch.Generator().manual_seed(2)) / math.sqrt(2)
    mean_psd = (10 ** (2 * log_psd(welch(noise, window), window))).mean(dim=0)
    torch.testing.assert_close(mean_psd, torch.ones(64), atol=0.1, rtol=0.0)
    angle = 2 * torch.pi * 0.25 * torch.arange(1024)
    carrier = torch.stack([angle.cos(), angle.sin()], dim=1)[None]
    assert int(log_psd(welch(carrier, window), window).argmax()) == 48  # 0.25 cycles/sample, zero at 32
    assert log_spectrum(welch(carrier, window), window, 100).shape == (1, 1, 100)
