"""The representation ``synced`` on the CPU: the arithmetic of synchronisation.py in a few passes over each frame.

Import this module where it is used: importing numba is slow, and the first call compiles for some seconds. torch does
the Fourier transforms and the carrier search; the code between them is compiled. It runs in one thread, without the
interpreter's lock.

In names: B frames, T = 1024 samples, N = 2048 numbers of a frame (I and Q in turn), F = 1024 lines, K = 124 symbols,
M = places of a search, O orders of phase lines, S Welch segments of W numbers, X any number.
"""

from __future__ import annotations

import cmath
import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from amc_core.inputs.cpu_compiler import MOST_ENERGY, compiled
from amc_core.inputs.cpu_drawing import CHANNELS, draw, turns
from amc_core.inputs.spectrum import WELCH_HOP, log_spectrum
from amc_core.inputs.synchronisation import (
    EDGE,
    HIGHEST_LINE,
    LINE_SCALE,
    N_INNER,
    N_SYMBOLS,
    SAMPLES_PER_SYMBOL,
    line_strengths,
)

_CHUNK = 64  # frames whose intermediate results fit into a core's own cache

_Floats = npt.NDArray[np.float32]
_Complex = npt.NDArray[np.complex64]
_Flags = npt.NDArray[np.bool_]


def synced_images(
    iq_BTC: Tensor, *, response_F: Tensor, search_KM: Tensor, line_OKM: Tensor, window: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    """Return the images (B, C, size, size) of frames (B, 1024, 2) at any power, and whether each frame is bad (B,).

    Args:
        iq_BTC: float32 frames on the CPU.
        response_F: the matched filter.
        search_KM: the carrier search as a matrix.
        line_OKM: the search for the lines of the phases.
        window: of the Welch segments.
        size: pixels a side.
    """
    n_frames, n_samples, _ = iq_BTC.shape
    n_segments = (n_samples - len(window)) // WELCH_HOP + 1
    iq_BN = iq_BTC.reshape(n_frames, -1).numpy()
    image_BHWC = torch.empty(n_frames, size, size, CHANNELS)
    bad_B = torch.empty(n_frames, dtype=torch.bool)
    frame_BT = torch.empty(_CHUNK, n_samples, dtype=torch.complex64)
    segment_BSW = torch.empty(_CHUNK, n_segments, len(window), dtype=torch.complex64)
    folded_BK = torch.empty(_CHUNK, N_SYMBOLS, dtype=torch.complex64)
    symbol_BK, raised_BK = torch.empty(2, n_frames, N_INNER, dtype=torch.complex64)
    phase_BOK = torch.empty(n_frames, len(line_OKM), N_INNER, dtype=torch.complex64)
    power_BF = torch.empty(n_frames, len(window))
    window_W = window.repeat_interleave(2).numpy()
    for start in range(0, n_frames, _CHUNK):
        stop = min(start + _CHUNK, n_frames)
        n = stop - start
        _prepare(
            iq_BN[start:stop],
            window_W,
            torch.view_as_real(frame_BT).view(_CHUNK, -1).numpy(),
            torch.view_as_real(segment_BSW).view(_CHUNK, n_segments, -1).numpy(),
            bad_B[start:stop].numpy(),
        )
        segments = torch.view_as_real(torch.fft.fft(segment_BSW[:n])).view(n, n_segments, -1)
        _mean_power(segments.numpy(), power_BF[start:stop].numpy())
        _fold(torch.fft.fft(frame_BT[:n]).numpy(), response_F.numpy(), folded_BK.numpy())
        parts = (symbol_BK[start:stop], raised_BK[start:stop], phase_BOK[start:stop])
        _raise(torch.fft.ifft(folded_BK[:n]).numpy(), *(part.numpy() for part in parts))
    draw(
        *turns(search_KM.shape[1]),
        torch.view_as_real(symbol_BK).view(n_frames, -1).numpy(),
        torch.view_as_real(torch.matmul(raised_BK, search_KM)).view(n_frames, -1).numpy(),
        log_spectrum(power_BF, window, size)[:, 0].numpy(),
        (LINE_SCALE * line_strengths(phase_BOK, line_OKM)).contiguous().numpy(),
        bad_B.numpy(),
        image_BHWC.view(n_frames, -1).numpy(),
    )
    return image_BHWC.permute(0, 3, 1, 2), bad_B


@compiled
def _prepare(iq_BN: _Floats, window_W: _Floats, frame_BN: _Floats, segment_BSW: _Floats, bad_B: _Flags) -> None:
    """Scale frames to unit power, bad ones to zero, and cut windowed segments; the window holds every value twice."""
    n_numbers = iq_BN.shape[1]
    for b in range(len(iq_BN)):
        iq_N, frame_N = iq_BN[b], frame_BN[b]
        energy = np.float32(0.0)
        for n in range(n_numbers):
            energy += iq_N[n] * iq_N[n]
        bad_B[b] = not energy <= MOST_ENERGY
        scale = np.float32(math.sqrt(n_numbers / 2 / energy) if energy > 0.0 else 1.0)
        if bad_B[b]:
            frame_N[:] = 0.0
        else:
            for n in range(n_numbers):
                frame_N[n] = iq_N[n] * scale
        for s in range(segment_BSW.shape[1]):
            segment_W, part_W = segment_BSW[b, s], frame_N[2 * WELCH_HOP * s :]
            for w in range(len(window_W)):
                segment_W[w] = part_W[w] * window_W[w]


@compiled
def _mean_power(segment_BSW: _Floats, power_BF: _Floats) -> None:
    n_segments, n_numbers = segment_BSW.shape[1:]
    sum_W = np.empty(n_numbers, dtype=np.float32)
    for b in range(len(segment_BSW)):
        sum_W[:] = 0.0
        for s in range(n_segments):
            segment_W = segment_BSW[b, s]
            for w in range(n_numbers):
                sum_W[w] += segment_W[w] * segment_W[w]
        for f in range(n_numbers // 2):
            power_BF[b, f] = (sum_W[2 * f] + sum_W[2 * f + 1]) / n_segments


@compiled
def _fold(spectrum_BF: _Complex, response_F: _Floats, folded_BK: _Complex) -> None:
    """Filter, find the timing, shift by it and fold: the part of synchronisation.symbols before its ifft."""
    n_lines = spectrum_BF.shape[1]
    for b in range(len(spectrum_BF)):
        spectrum_F, folded_K = spectrum_BF[b], folded_BK[b]
        line = 0j
        for f in range(N_SYMBOLS - HIGHEST_LINE, HIGHEST_LINE + 1):
            below = n_lines + f - N_SYMBOLS
            weight = response_F[f] * response_F[below]
            line += weight * (spectrum_F[f] * spectrum_F[below].conjugate())
        step = cmath.rect(1.0, -cmath.phase(line) * SAMPLES_PER_SYMBOL / n_lines)
        folded_K[:] = 0.0
        turn = 1.0 + 0j
        for f in range(HIGHEST_LINE + 1):  # both signs of a frequency at once
            weight = response_F[f]
            folded_K[f] += np.complex64(weight * spectrum_F[f] * turn)
            if f > 0:
                folded_K[N_SYMBOLS - f] += np.complex64(weight * spectrum_F[n_lines - f] * turn.conjugate())
            turn *= step


@compiled
def _raise(all_BK: _Complex, symbol_BK: _Complex, raised_BK: _Complex, phase_BOK: _Complex) -> None:
    """Drop the edges, scale to unit power, compute ``|z|^2 (z / |z|)^4``, and ``(z / |z|)^n`` for n = 8, 16 ..."""
    for b in range(len(all_BK)):
        inner_K, symbol_K, raised_K = all_BK[b, EDGE : N_SYMBOLS - EDGE], symbol_BK[b], raised_BK[b]
        energy = np.float32(0.0)
        for k in range(N_INNER):
            energy += inner_K[k].real * inner_K[k].real + inner_K[k].imag * inner_K[k].imag
        scale = np.float32(math.sqrt(N_INNER / energy) if energy > 0.0 else 1.0)
        for k in range(N_INNER):
            re, im = inner_K[k].real * scale, inner_K[k].imag * scale
            symbol_K[k] = complex(re, im)
            squared_re, squared_im = re * re - im * im, np.float32(2.0) * re * im
            size = max(re * re + im * im, np.float32(1e-30))
            raised_re = (squared_re * squared_re - squared_im * squared_im) / size
            raised_im = np.float32(2.0) * squared_re * squared_im / size
            raised_K[k] = complex(raised_re, raised_im)
            phase_re, phase_im = raised_re / size, raised_im / size
            for o in range(phase_BOK.shape[1]):
                phase_re, phase_im = phase_re * phase_re - phase_im * phase_im, np.float32(2.0) * phase_re * phase_im
                phase_BOK[b, o, k] = complex(phase_re, phase_im)
