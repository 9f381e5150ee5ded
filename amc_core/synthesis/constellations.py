"""Symbol tables of the linear modulations, and the rings of APSK, which differ between sources.

In names: K rings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Rings:
    """An APSK constellation of a standard: the rings from the inside out."""

    counts: tuple[int, ...]  # (K,) points of each
    radii: tuple[float, ...]  # (K,), only their ratios matter
    # (K, points of a quadrant): their angles over pi / 5040; the other quadrants mirror them. Empty: points lie evenly,
    # the first half a step from the axis.
    angles: tuple[tuple[int, ...], ...] = ()


# DVB-S2X, ETSI EN 302 307-2, section 5.4: 64APSK at code rates 128/180, 7/9 and 132/180; 128APSK at 135/180. Read from
# gr-dtv of GNU Radio, which implements them.
DVB_S2X: Mapping[str, Mapping[str, Rings]] = MappingProxyType(
    {
        "64APSK": {
            "16+16+16+16": Rings((16, 16, 16, 16), (1.0, 1.88, 2.72, 3.95)),
            "8+16+20+20": Rings((8, 16, 20, 20), (1.0, 2.2, 3.6, 5.2)),
            "4+12+20+28": Rings((4, 12, 20, 28), (1.0, 2.4, 4.3, 7.0)),
        },
        "128APSK": {
            "16+16+16+16+16+48": Rings(
                (16, 16, 16, 16, 16, 48),
                (1.0, 1.715, 2.118, 2.681, 2.75, 3.819),
                (
                    (332, 927, 1593, 2187),
                    (242, 1017, 1503, 2278),
                    (414, 845, 1673, 2106),
                    (427, 834, 1686, 2094),
                    (133, 1126, 1393, 2387),
                    (111, 330, 528, 732, 929, 1149, 1372, 1590, 1789, 1993, 2190, 2408),
                ),
            )
        },
    }
)
_RINGS_FROM_ZERO = frozenset({"64APSK", "128APSK"})  # the rings of the others start at half their angular step
_PSK_ORDER = {"BPSK": 2, "QPSK": 4, "OQPSK": 4, "8PSK": 8, "16PSK": 16, "32PSK": 32}
_ASK_ORDER = {"4ASK": 4, "8ASK": 8}

# Modulations made of a symbol table and a pulse, OQPSK included; the others are AM, FM and GMSK.
LINEAR: tuple[str, ...] = tuple(
    name for name in CLASSES if name in {"OOK", *_PSK_ORDER, *_ASK_ORDER, *_APSK_POINTS} or name.endswith("QAM")
)


def symbol_table(
    modulation: str, radii: Mapping[str, Sequence[float] | str] = MappingProxyType({})
) -> npt.NDArray[np.complex64]:
    """Return the constellation's points with unit mean power.

    Args:
        modulation: one of LINEAR.
        radii: of the rings of APSK constellations, in place of those in APSK_RADII, or the name of a table of DVB_S2X.

    Raises:
        ValueError: the modulation has no symbol table, or the radii do not fit.
    """
    if modulation in _PSK_ORDER:
        order = _PSK_ORDER[modulation]
        offset = math.pi / order if order == 4 else 0.0
        points = np.exp(1j * (2 * math.pi * np.arange(order) / order + offset))
    elif modulation in _APSK_POINTS:
        points = _apsk(modulation, checked_radii(modulation, radii.get(modulation, APSK_RADII[modulation])))
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


def checked_radii(modulation: str, radii: Sequence[float] | str) -> tuple[float, ...] | str:
    """Return the radii of all rings, or the name of a table. If the innermost ring is left out, they are ratios to it.

    Raises:
        ValueError: the modulation is not APSK, the number of rings is wrong, the radii do not increase, or there is no
            such table.
    """
    if modulation not in _APSK_POINTS:
        raise ValueError(f"{modulation}: has no rings; only {', '.join(_APSK_POINTS)} have rings")
    if isinstance(radii, str):
        if radii not in (tables := DVB_S2X.get(modulation, {})):
            known = f"; DVB-S2X has {', '.join(tables)}" if tables else ""
            raise ValueError(f"{modulation}: {radii} is no table of rings{known}; or give ratios of radii")
        return radii
    n_rings = len(_APSK_POINTS[modulation])
    all_radii = (1.0, *radii) if len(radii) == n_rings - 1 else tuple(radii)
    if len(all_radii) != n_rings or not all(0 < low < high < math.inf for low, high in pairwise(all_radii)):
        example = [round(radius / APSK_RADII[modulation][0], 2) for radius in APSK_RADII[modulation][1:]]
        raise ValueError(
            f"{modulation}: {list(radii)} does not fit its {n_rings} rings; give the increasing ratios of the outer "
            f"rings to the innermost one, such as {example}"
        )
    return all_radii


def _apsk(modulation: str, radii: tuple[float, ...] | str) -> npt.NDArray[np.complex128]:
    start = 0.0 if modulation in _RINGS_FROM_ZERO and not isinstance(radii, str) else 0.5
    rings = DVB_S2X[modulation][radii] if isinstance(radii, str) else Rings(_APSK_POINTS[modulation], radii)
    angles = [2 * math.pi * (np.arange(count) + start) / count for count in rings.counts]
    if rings.angles:
        first = [math.pi / 5040 * np.array(quadrant) for quadrant in rings.angles]
        angles = [np.concatenate([angle, math.pi - angle, math.pi + angle, -angle]) for angle in first]
    return np.concatenate([radius * np.exp(1j * angle) for radius, angle in zip(rings.radii, angles, strict=True)])


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
