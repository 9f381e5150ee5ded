"""Symbol tables of the linear modulations, and the rings of APSK, which differ between sources."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from amc_core.modulations import CLASSES

# Radii of the rings from the inside out; only their ratios matter.
# 16 and 32: DVB-S2, ETSI EN 302 307-1, tables 9 and 10, code rate 3/4. At rate 8/9, 16APSK has 2.60, 32APSK 2.54, 4.33.
# 64 and 128: the tables of liquid-dsp (J. Gaeddert).
APSK_RADII: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {
        "16APSK": (1.0, 2.85),
        "32APSK": (1.0, 2.84, 5.27),
        "64APSK": (0.18916586, 0.52466476, 0.88613129, 1.30529201),
        "128APSK": (0.20241030, 0.46255755, 0.70972824, 0.99172282, 1.34806108),
    }
)
_APSK_POINTS = {
    "16APSK": (4, 12),
    "32APSK": (4, 12, 16),
    "64APSK": (4, 14, 20, 26),
    "128APSK": (8, 18, 24, 36, 42),
}
_RINGS_FROM_ZERO = frozenset({"64APSK", "128APSK"})  # the rings of the others start at half their angular step
_PSK_ORDER = {"BPSK": 2, "QPSK": 4, "OQPSK": 4, "8PSK": 8, "16PSK": 16, "32PSK": 32}
_ASK_ORDER = {"4ASK": 4, "8ASK": 8}

# Modulations made of a symbol table and a pulse, OQPSK included; the others are AM, FM and GMSK.
LINEAR: tuple[str, ...] = tuple(
    name for name in CLASSES if name in {"OOK", *_PSK_ORDER, *_ASK_ORDER, *_APSK_POINTS} or name.endswith("QAM")
)


def symbol_table(
    modulation: str, radii: Mapping[str, Sequence[float]] = MappingProxyType({})
) -> npt.NDArray[np.complex64]:
    """Return the constellation's points with unit mean power.

    Args:
        modulation: one of LINEAR.
        radii: of the rings of APSK constellations, in place of those in APSK_RADII.

    Raises:
        ValueError: the modulation has no symbol table, or the radii do not fit.
    """
    if modulation in _PSK_ORDER:
        order = _PSK_ORDER[modulation]
        offset = math.pi / order if order == 4 else 0.0
        points = np.exp(1j * (2 * math.pi * np.arange(order) / order + offset))
    elif modulation in _APSK_POINTS:
        start = 0.0 if modulation in _RINGS_FROM_ZERO else 0.5
        ring_radii = checked_radii(modulation, radii.get(modulation, APSK_RADII[modulation]))
        points = np.concatenate(
            [
                radius * np.exp(2j * math.pi * (np.arange(count) + start) / count)
                for count, radius in zip(_APSK_POINTS[modulation], ring_radii, strict=True)
            ]
        )
    elif modulation.endswith("QAM"):
        points = _qam(int(modulation.removesuffix("QAM")))
    elif modulation in _ASK_ORDER:
        points = _levels(_ASK_ORDER[modulation]).astype(np.complex128)
    elif modulation == "OOK":
        points = np.array([0.0, 1.0], dtype=np.complex128)
    else:
        raise ValueError(f"{modulation}: no symbol table; there are tables for {', '.join(LINEAR)}")
    table: npt.NDArray[np.complex64] = (points / np.sqrt(np.mean(np.abs(points) ** 2))).astype(np.complex64)
    return table


def checked_radii(modulation: str, radii: Sequence[float]) -> tuple[float, ...]:
    """Return the radii of all rings. If the innermost ring is left out, the radii are ratios to it.

    Raises:
        ValueError: the modulation is not APSK, the number of rings is wrong, or the radii do not increase.
    """
    if modulation not in _APSK_POINTS:
        raise ValueError(f"{modulation}: has no rings; only {', '.join(_APSK_POINTS)} have rings")
    n_rings = len(_APSK_POINTS[modulation])
    all_radii = (1.0, *radii) if len(radii) == n_rings - 1 else tuple(radii)
    if len(all_radii) != n_rings or not all(0 < low < high < math.inf for low, high in pairwise(all_radii)):
        example = [round(radius / APSK_RADII[modulation][0], 2) for radius in APSK_RADII[modulation][1:]]
        raise ValueError(
            f"{modulation}: {list(radii)} does not fit its {n_rings} rings; give the increasing ratios of the outer "
            f"rings to the innermost one, such as {example}"
        )
    return all_radii


def _levels(order: int) -> npt.NDArray[np.float64]:
    """Return the amplitudes -(M-1), ..., -1, 1, ..., M-1 of pulse-amplitude modulation."""
    return np.arange(1 - order, order, 2, dtype=np.float64)


def _qam(order: int) -> npt.NDArray[np.complex128]:
    """Return a square grid; for an odd power of 2 a cross, which is a square without its corners."""
    bits = order.bit_length() - 1
    if bits % 2 == 0:
        levels = _levels(1 << (bits // 2))
        square: npt.NDArray[np.complex128] = (levels[:, None] + 1j * levels).ravel()
        return square
    side = 3 << ((bits - 3) // 2)  # 6 for 32QAM, 12 for 128QAM
    levels = _levels(side)
    grid: npt.NDArray[np.complex128] = (levels[:, None] + 1j * levels).ravel()
    corner = side - side // 3  # a corner is a square of side/6 points each way
    return grid[~((np.abs(grid.real) > corner) & (np.abs(grid.imag) > corner))]
