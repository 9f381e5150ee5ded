"""Frames of GNU Radio's modulators and channel models, in RadioML's layout.

It needs numpy and Debian's package ``gnuradio``, whose modules are those of the system's Python. study_gnuradio.py
starts it:

    /usr/bin/python3 tests/benchmarks/gnuradio_frames.py FOLDER --classes BPSK,QPSK --levels 0,10 --frames-per-cell 8

It writes X.npy (N, 1024, 2) float32 with unit power, Y.npy (N, classes) and Z.npy (N, 1), sorted by class and level,
and facts.json. Linear modulations go through GNU Radio's generic modulator: root-raised cosine, roll-off 0.35, 8
samples per symbol. PSK, square QAM and DVB-S2X's APSK are GNU Radio's own tables. It has none for ASK, OOK, 32QAM and
128QAM: these are grids. The message of AM and FM is noise through a low-pass filter.

In names: N frames, T = 1024 samples.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

SAMPLES_PER_SYMBOL = 8
FRAME_LENGTH = 1024
LEAD = 512  # samples in which filters fill
FRAMES_PER_LEVEL = 4  # of one flow graph, which has one channel
RATE_HZ = 200e3

PSK = {"BPSK": 2, "QPSK": 4, "8PSK": 8, "16PSK": 16, "32PSK": 32}
SQUARE_QAM = {"16QAM": 16, "64QAM": 64, "256QAM": 256}
# Code rates of DVB-S2 and DVB-S2X, as GNU Radio names them.
APSK = {"16APSK": "C3_4", "32APSK": "C3_4", "64APSK": "C128_180", "128APSK": "C135_180"}
ANALOG = ("AM-SSB-WC", "AM-SSB-SC", "AM-DSB-WC", "AM-DSB-SC", "FM")


def main() -> None:
    """Write the frames of all cells."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--classes", required=True, help="names of RadioML's classes, separated by commas")
    parser.add_argument("--levels", required=True, help="SNR levels in dB, separated by commas")
    parser.add_argument("--frames-per-cell", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fading", action="store_true", help="GNU Radio's selective fading, as in RadioML 2016")
    parser.add_argument("--nominal", action="store_true", help="label with the mean SNR, which fading leaves")
    options = parser.parse_args()
    classes = options.classes.split(",")
    levels = [int(level) for level in options.levels.split(",")]
    n_cell = options.frames_per_cell
    shape = (len(classes) * len(levels) * n_cell, FRAME_LENGTH, 2)
    options.folder.mkdir(parents=True, exist_ok=True)
    x_NTC = np.lib.format.open_memmap(options.folder / "X.npy", mode="w+", dtype=np.float32, shape=shape)
    level_N = np.repeat(levels, n_cell)
    deviations = []
    for number, name in enumerate(classes):
        signal_NT, noise_NT = frames(name, len(level_N), options.seed, fading=options.fading, n_levels=len(levels))
        received_NT, snr_N = add_noise(signal_NT, noise_NT, level_N, nominal=options.nominal)
        start = number * len(level_N)
        x_NTC[start : start + len(level_N)] = received_NT.view(np.float32).reshape(-1, FRAME_LENGTH, 2)
        deviations.append(snr_N - level_N)
        print(f"{name}: frames' own SNR lies {np.std(deviations[-1]):.2f} dB from the label", flush=True)
    x_NTC.flush()
    np.save(options.folder / "Y.npy", np.repeat(np.eye(len(classes), dtype=np.int64), len(level_N), axis=0))
    np.save(options.folder / "Z.npy", np.tile(level_N, len(classes))[:, None].astype(np.int64))
    spread = float(np.sqrt(np.mean(np.square(deviations))))
    facts = {"classes": classes, "gnuradio": _version(), "own_snr_from_label_db": spread}
    (options.folder / "facts.json").write_text(json.dumps(facts), encoding="utf-8")


def frames(
    name: str, n_frames: int, seed: int, *, fading: bool, n_levels: int
) -> tuple[npt.NDArray[np.complex64], npt.NDArray[np.complex64]]:
    """Return signals and noise (N, T) of one class; frames of one flow graph are spread over the levels."""
    n_cell, n_graphs = n_frames // n_levels, math.ceil(n_frames / n_levels / FRAMES_PER_LEVEL)
    signal_LNT = np.empty((n_levels, n_graphs * FRAMES_PER_LEVEL, FRAME_LENGTH), dtype=np.complex64)
    noise_LNT = np.empty_like(signal_LNT)
    for graph in range(n_graphs):
        rng = np.random.default_rng([seed, graph, *name.encode()])
        parts = run_graph(name, FRAMES_PER_LEVEL * n_levels, rng, fading=fading)
        place = slice(graph * FRAMES_PER_LEVEL, (graph + 1) * FRAMES_PER_LEVEL)
        for target_LNT, part_NT in zip((signal_LNT, noise_LNT), parts, strict=True):
            target_LNT[:, place] = part_NT.reshape(FRAMES_PER_LEVEL, n_levels, FRAME_LENGTH).swapaxes(0, 1)
    signal_NT, noise_NT = (part[:, :n_cell].reshape(n_frames, FRAME_LENGTH) for part in (signal_LNT, noise_LNT))
    return signal_NT, noise_NT


def add_noise(
    signal_NT: npt.NDArray[np.complex64],
    noise_NT: npt.NDArray[np.complex64],
    level_N: npt.NDArray[np.int64],
    *,
    nominal: bool,
) -> tuple[npt.NDArray[np.complex64], npt.NDArray[np.float64]]:
    """Return frames (N, T) with unit power, and each frame's own SNR in dB (N,): its signal's power over its noise's.

    Args:
        signal_NT: what the channel leaves.
        noise_NT: at any power.
        level_N: the labels, dB.
        nominal: the label is the ratio of the mean power of all frames to the noise's, not of each frame's own power.
    """
    signal_N, noise_N = _power(signal_NT), _power(noise_NT)
    wanted_N = (signal_N.mean() if nominal else signal_N) * 10 ** (-level_N / 10)
    received_NT = signal_NT + noise_NT * np.sqrt(wanted_N / noise_N)[:, None]
    unit_NT = (received_NT / np.sqrt(_power(received_NT))[:, None]).astype(np.complex64)
    return unit_NT, 10 * np.log10(signal_N / wanted_N)


def run_graph(
    name: str, n_frames: int, rng: np.random.Generator, *, fading: bool
) -> tuple[npt.NDArray[np.complex64], npt.NDArray[np.complex64]]:
    """Return consecutive frames of one transmission behind its channel, and as much noise, both (N, T)."""
    from gnuradio import analog, blocks, channels, gr

    graph = gr.top_block()
    n_samples = LEAD + SAMPLES_PER_SYMBOL + n_frames * FRAME_LENGTH
    transmitter = _analog(graph, name, rng) if name in ANALOG else _digital(graph, name, n_samples, rng)
    phase, offset, drift = rng.uniform(0, 2 * math.pi), rng.normal(0, 1e-4), rng.normal(0, 1e-6)
    taps = [complex(math.cos(phase), math.sin(phase))]
    chain = [channels.channel_model(0.0, offset, 1.0 + drift, taps, 0)]
    if fading:  # the settings of RadioML 2016: three paths, Rician (K = 4), 1 Hz Doppler, clock and carrier that walk
        delays, sizes, seed = [0.0, 0.9, 1.7], [1.0, 0.8, 0.3], int(rng.integers(1, 2**31))
        settings = (RATE_HZ, 0.01, 50, 0.01, 500, 8, 1.0, True, 4.0, delays, sizes, 8, 0.0, seed)
        chain.append(channels.dynamic_channel_model(*settings))
    signal, noise = blocks.vector_sink_c(), blocks.vector_sink_c()
    graph.connect(transmitter, *chain, blocks.head(gr.sizeof_gr_complex, n_samples), signal)
    source = analog.noise_source_c(analog.GR_GAUSSIAN, 1.0, int(rng.integers(1, 2**31)))
    graph.connect(source, blocks.head(gr.sizeof_gr_complex, n_frames * FRAME_LENGTH), noise)
    graph.run()
    start = LEAD + int(rng.integers(0, SAMPLES_PER_SYMBOL))
    samples = np.array(signal.data(), dtype=np.complex64)[start : start + n_frames * FRAME_LENGTH]
    return samples.reshape(-1, FRAME_LENGTH), np.array(noise.data(), dtype=np.complex64).reshape(-1, FRAME_LENGTH)


def _digital(graph: Any, name: str, n_samples: int, rng: np.random.Generator) -> Any:
    """Connect random bytes to a modulator, and return its last block."""
    from gnuradio import blocks, digital, gr

    n_symbols = n_samples // SAMPLES_PER_SYMBOL + 200
    table = () if name == "GMSK" else _table(name)
    bits = 1 if name == "GMSK" else round(math.log2(len(table)))
    source = blocks.vector_source_b(rng.integers(0, 256, n_symbols * bits // 8 + 8).tolist(), False)
    if name == "GMSK":
        modulator = digital.gmsk_mod(samples_per_symbol=SAMPLES_PER_SYMBOL, bt=0.35)
    else:
        constellation = digital.constellation_calcdist(list(table), [], 1, 1)
        modulator = digital.generic_mod(
            constellation, differential=False, samples_per_symbol=SAMPLES_PER_SYMBOL, excess_bw=0.35
        )
    graph.connect(source, modulator)
    if name != "OQPSK":
        return modulator
    parts, joined = blocks.complex_to_float(), blocks.float_to_complex()
    graph.connect(modulator, parts)
    graph.connect((parts, 0), (joined, 0))
    graph.connect((parts, 1), blocks.delay(gr.sizeof_float, SAMPLES_PER_SYMBOL // 2), (joined, 1))
    return joined


@functools.cache
def _table(name: str) -> tuple[complex, ...]:
    """Return the points of a constellation."""
    from gnuradio.digital import psk, qam

    if name == "OQPSK":  # psk_constellation has points on the axes, of which half a symbol of delay makes no OQPSK
        return (1 + 1j, 1 - 1j, -1 + 1j, -1 - 1j)
    if name in PSK:
        return tuple(psk.psk_constellation(PSK[name], differential=False).points())
    if name in SQUARE_QAM:
        return tuple(qam.qam_constellation(SQUARE_QAM[name], differential=False).points())
    if name in APSK:
        return _dvb_table(name)
    if name in {"32QAM", "128QAM"}:  # a square without its corners
        side, cut = {"32QAM": (6, 4), "128QAM": (12, 8)}[name]
        levels = range(1 - side, side, 2)
        return tuple(complex(re, im) for re in levels for im in levels if not (abs(re) > cut and abs(im) > cut))
    if name == "OOK":
        return (0j, 1 + 0j)
    order = {"4ASK": 4, "8ASK": 8}[name]
    return tuple(complex(level) for level in range(1 - order, order, 2))


def _dvb_table(name: str) -> tuple[complex, ...]:
    """Return what GNU Radio's DVB-S2X modulator sends for every symbol."""
    from gnuradio import blocks, dtv, gr

    order, graph, sink = int(name.removesuffix("APSK")), gr.top_block(), blocks.vector_sink_c()
    rate, kind = getattr(dtv, APSK[name]), getattr(dtv, f"MOD_{name}")
    modulator = dtv.dvbs2_modulator_bc(dtv.FECFRAME_NORMAL, rate, kind, dtv.INTERPOLATION_OFF)
    graph.connect(blocks.vector_source_b(list(range(order)) * 1000, False), modulator, sink)
    graph.run()
    return tuple(sink.data()[:order])


def _analog(graph: Any, name: str, rng: np.random.Generator) -> Any:
    """Connect a message to an AM or FM modulator, and return its last block."""
    from gnuradio import analog, blocks
    from gnuradio import filter as filters

    bandwidth = rng.uniform(0.01, 0.05)  # cycles per sample
    taps = filters.firdes.low_pass(1.0, 1.0, bandwidth, 0.01)
    # Three standard deviations of the filtered noise are 1.
    size = 1 / (3 * float(np.linalg.norm(taps)))
    source = analog.noise_source_f(analog.GR_GAUSSIAN, size, int(rng.integers(1, 2**31)))
    message = filters.fft_filter_fff(1, taps)
    graph.connect(source, message)
    if name == "FM":
        last = analog.frequency_modulator_fc(2 * math.pi * rng.uniform(0.02, 0.06))
        graph.connect(message, last)
        return last
    last = filters.hilbert_fc(401) if "SSB" in name else blocks.float_to_complex()
    graph.connect(message, last)
    if name.endswith("WC"):
        index, carrier = blocks.multiply_const_cc(rng.uniform(0.5, 1.0)), blocks.add_const_cc(1.0)
        graph.connect(last, index, carrier)
        last = carrier
    return last


def _power(signal_NT: npt.NDArray[np.complex64]) -> npt.NDArray[np.float64]:
    power_N: npt.NDArray[np.float64] = np.mean(np.abs(signal_NT) ** 2, axis=1, dtype=np.float64)
    return power_N


def _version() -> str:
    from gnuradio import gr

    return str(gr.version())


if __name__ == "__main__":
    main()
