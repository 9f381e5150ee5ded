"""From samples to symbols, blindly: matched filter, symbol timing, carrier; on the device of the frames.

The receiver knows the symbol rate (8 samples per symbol) and that pulses are root-raised cosines. It does not know
their roll-off, timing, phase, carrier offset (within ``carrier_range``) or gain.

All steps work on the spectrum of the frame. A matched-filtered signal occupies 80 of its 1024 lines to either side, so
that a delay is exact there, and keeping one sample in eight is a sum of eight parts of the spectrum. This treats the
frame as periodic, which makes the symbols at its edges wrong: they are dropped.

In names: B frames, T = 1024 samples, F = 1024 lines of the spectrum, K symbols, S frequencies of a search, O orders.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SAMPLES_PER_SYMBOL = 8
N_SYMBOLS = 128  # of a frame
ROLL_OFF = 0.25  # of the filter; signals have others
EDGE = 2  # symbols dropped at either end
N_INNER = N_SYMBOLS - 2 * EDGE  # symbols that remain
HIGHEST_LINE = 80  # (1 + roll-off) / 2 of the symbol rate, which is line 128
SEARCH_LENGTH = 1024  # of the transform that finds the carrier's line

# Ranges of the images of ``synced``. With unit mean power of the symbols, 256QAM's corners have a size of 1.63.
QUADRANT = 2.0  # largest re and im
LARGEST = 2.2  # largest size of a symbol
# Of the lines that show in how many phases symbols come: 8PSK has the first, 16PSK the second.
PHASE_ORDERS = (8, 16)
LINE_STEP = 1 / 256  # cycles per symbol between two places of their search: two places for each line of 128 symbols

LINE_SCALE = 0.3  # of the strengths: then they have about the spread of the spectrum, too

CONTRAST = 3.0  # most pixels hold less than one point; log1p times this has about the spread of the spectrum


def matched_filter() -> Tensor:
    """Return the real response (F,) of the root-raised-cosine filter, in the order of ``torch.fft``.

    J. Proakis, M. Salehi, "Digital Communications", 5th edition, section 9.2.
    """
    frequency_F = torch.fft.fftfreq(N_SYMBOLS * SAMPLES_PER_SYMBOL, dtype=torch.float64).abs() * SAMPLES_PER_SYMBOL
    edge_F = ((frequency_F - (1 - ROLL_OFF) / 2) / ROLL_OFF).clamp(0, 1)  # 0 in the flat part, 1 beyond the band
    response_F: Tensor = torch.cos(math.pi / 2 * edge_F).where(edge_F < 1, 0.0)
    return response_F


def symbols(frame_BT: Tensor, response_F: Tensor) -> Tensor:
    """Return the symbols (B, K) of complex frames with unit mean power, after matched filter and symbol timing.

    Timing: M. Oerder, H. Meyr, "Digital filter and square timing recovery", IEEE Trans. Commun. 36 (1988): the phase of
    the line of |y|^2 at the symbol rate. In the spectrum Y that line is ``sum_f Y(f + 128) conj Y(f)``.
    """
    n_lines = frame_BT.shape[1]
    spectrum_BF = torch.fft.fft(frame_BT) * response_F
    lower = torch.arange(-HIGHEST_LINE, HIGHEST_LINE - N_SYMBOLS + 1, device=frame_BT.device)
    line_B = (spectrum_BF[:, lower + N_SYMBOLS] * spectrum_BF[:, lower % n_lines].conj()).sum(dim=1)
    # Towards the nearest symbol instant, -1/2..1/2 symbol away; x(t + d) multiplies line f by exp(2 pi i f d).
    advance_B = -torch.angle(line_B) / (2 * math.pi)
    frequency_F = torch.fft.fftfreq(n_lines, dtype=advance_B.dtype, device=frame_BT.device) * SAMPLES_PER_SYMBOL
    shifted_BF = spectrum_BF * _phasor(2 * math.pi * frequency_F * advance_B[:, None])
    folded_BK = shifted_BF.view(-1, SAMPLES_PER_SYMBOL, N_SYMBOLS).sum(dim=1)
    symbol_BK = torch.fft.ifft(folded_BK)[:, EDGE:-EDGE]
    power_B1 = torch.view_as_real(symbol_BK).square().sum(dim=-1).mean(dim=1, keepdim=True)
    unit_BK: Tensor = symbol_BK * torch.where(power_B1 > 0, power_B1, 1.0).rsqrt()
    return unit_BK


def carrier_search(carrier_range: float) -> Tensor:
    """Return the part of a Fourier transform that ``carrier_free`` uses, as a complex matrix (K, S).

    Args:
        carrier_range: the largest offset to find, cycles per sample. The line lies at four times the offset.
    """
    highest_place = int(4 * SAMPLES_PER_SYMBOL * SEARCH_LENGTH * carrier_range)
    time_K = torch.arange(N_INNER, dtype=torch.float64)
    turn_S = 2 * math.pi / SEARCH_LENGTH * torch.arange(-highest_place, highest_place + 1)
    return _phasor(-time_K[:, None] * turn_S)


def carrier_free(symbol_BK: Tensor, search_KS: Tensor) -> Tensor:
    """Return symbols (B, K) without carrier offset and phase, up to a quarter turn.

    ``|z|^2 (z / |z|)^4`` has a spectral line at four times the offset when a quarter turn leaves the constellation as
    it is: A. Viterbi, A. Viterbi, "Nonlinear estimation of PSK-modulated carrier phase", IEEE Trans. Inf. Theory 29
    (1983). Without a line (8PSK and above) symbols keep a random phase; their rings look the same at every phase.
    """
    power_BK = torch.view_as_real(symbol_BK).square().sum(dim=-1)
    raised_BK = symbol_BK.square().square() / power_BK.clamp_min(1e-30)
    line_BS = raised_BK @ search_KS
    best_B1 = torch.view_as_real(line_BS).square().sum(dim=-1).argmax(dim=1, keepdim=True)
    place_B1 = best_B1 - search_KS.shape[1] // 2  # a quarter of the line's turn per symbol is place / (4 length)
    time_K = torch.arange(symbol_BK.shape[1], device=symbol_BK.device)
    # In whole numbers: the phase of a far carrier has too many turns for float32.
    turn_BK = (place_B1 * time_K % (4 * SEARCH_LENGTH)).to(power_BK.dtype) * (2 * math.pi / (4 * SEARCH_LENGTH))
    return symbol_BK * _phasor(-(turn_BK + torch.angle(line_BS.gather(1, best_B1)) / 4))


def line_search(carrier_range: float) -> Tensor:
    """Return the parts of Fourier transforms that ``line_strengths`` uses, as complex matrices (O, K, S)."""
    reach_O = [min(order * SAMPLES_PER_SYMBOL * carrier_range, 0.5) for order in PHASE_ORDERS]  # cycles per symbol
    place_S = torch.linspace(-1, 1, 2 * math.ceil(max(reach_O) / LINE_STEP) + 1, dtype=torch.float64)
    time_K1 = torch.arange(N_INNER, dtype=torch.float64)[:, None]
    return torch.stack([_phasor(-2 * math.pi * reach * time_K1 * place_S) for reach in reach_O])


def phase_powers(symbol_BK: Tensor) -> Tensor:
    """Return ``(z / |z|)^n`` of symbols for every n of PHASE_ORDERS, (B, O, K)."""
    raised_BK = (symbol_BK / symbol_BK.abs().clamp_min(1e-15)).square().square()
    raised = []
    for _ in PHASE_ORDERS:
        raised_BK = raised_BK.square()
        raised.append(raised_BK)
    return torch.stack(raised, dim=1)


def line_strengths(raised_BOK: Tensor, search_OKS: Tensor) -> Tensor:
    """Return how strong the strongest line near n times the carrier is for every n of PHASE_ORDERS, (B, O).

    A line shows that symbols come in n phases: noise alone gives about 2, symbols without noise sqrt(K) = 11. A line
    adds up all symbols, while a phase difference has the noise of two. So lines show 8PSK and 16PSK at lower SNR:
    A. Viterbi, A. Viterbi, as above.
    """
    line_OBS = torch.view_as_real(raised_BOK.transpose(0, 1) @ search_OKS).square().sum(dim=-1)
    strength_BO: Tensor = (line_OBS.amax(dim=2).T / N_INNER).sqrt()
    return strength_BO


def first_quadrant(symbol_BK: Tensor) -> Tensor:
    """Return every symbol turned by a multiple of 90 degrees to re > 0, im >= 0; constellations have this symmetry."""
    re_BK, im_BK = symbol_BK.real, symbol_BK.imag
    # Swapped where the signs differ: i (re + i im) = -im + i re.
    swap_BK = ((re_BK > 0) & (im_BK < 0)) | ((re_BK <= 0) & (im_BK > 0))
    re_BK, im_BK = torch.where(swap_BK, im_BK, re_BK), torch.where(swap_BK, re_BK, im_BK)
    return torch.complex(re_BK.abs(), im_BK.abs())


def neighbours(symbol_BK: Tensor) -> tuple[Tensor, Tensor]:
    """Return sizes and phase differences (B, 2K - 2) of each symbol to the one before, and to the one after.

    A rotation changes nothing; a carrier offset shifts every phase by its turn in one symbol.
    """
    turn_BK = torch.angle(symbol_BK[:, 1:] * symbol_BK[:, :-1].conj())
    size_BK = symbol_BK.abs()
    return torch.cat([size_BK[:, 1:], size_BK[:, :-1]], dim=1), torch.cat([turn_BK, -turn_BK], dim=1)


def _phasor(angle: Tensor) -> Tensor:
    return torch.complex(angle.cos(), angle.sin())
