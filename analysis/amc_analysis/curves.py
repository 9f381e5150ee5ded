"""Learning curves as plain SVG coordinates: what the page's template draws. Pure numbers, no markup."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import quantiles

from amc_analysis.findings import Findings
from amc_analysis.ranking import RankedRun
from amc_analysis.report import Scale, group_of, label, scale_of

WIDTH, HEIGHT = 920.0, 380.0  # of the drawing, px at full size
LEFT, RIGHT, TOP, BOTTOM = 64.0, 16.0, 12.0, 40.0  # margins that hold the labels
FAR_OUT = 3.0  # interquartile ranges beyond which a value is drawn at the edge: one divergence must not flatten all

_Place = Callable[[float], float]  # from a value to its coordinate


@dataclass(frozen=True)
class Curve:
    """One run's line: its pieces between values that are not finite, and its peak."""

    run_id: str
    group: str  # "ended well", "cut short", "failed" or "running or unknown": the colour
    is_gem: bool
    title: str
    pieces: tuple[str, ...]  # "x,y x,y ..." each
    peak: tuple[float, float] | None


@dataclass(frozen=True)
class Tick:
    """A label at a place of an axis."""

    at: float
    text: str


@dataclass(frozen=True)
class Chart:
    """All curves and both axes."""

    curves: tuple[Curve, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    x_label: str
    clipped: bool  # some values lie outside the drawn range
    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT
    right: float = WIDTH - RIGHT
    top: float = TOP
    bottom: float = HEIGHT - BOTTOM


def chart_of(findings: Findings) -> Chart | None:
    """Lay out the learning curves; None when no run has a finite value."""
    values = [value for entry in findings.ranked for value in entry.run.curve]
    if not values:
        return None
    scale = scale_of(findings)
    low, high = visible_range(values)
    places = {entry.run.run_id: _epochs(entry) for entry in findings.ranked}
    ends = [place for epochs in places.values() for place in epochs]
    first, last = min(ends), max(ends)

    def x(epoch: float) -> float:
        return round(LEFT + (epoch - first) / (last - first or 1) * (WIDTH - LEFT - RIGHT), 1)

    def y(value: float) -> float:
        share = (min(max(value, low), high) - low) / (high - low)
        return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)

    drawn = [_curve(entry, places[entry.run.run_id], scale, x, y) for entry in reversed(findings.ranked)]
    named = all(point.epoch is not None for entry in findings.ranked for point in entry.run.points)
    return Chart(
        curves=tuple(curve for curve in drawn if curve.pieces),
        x_ticks=tuple(Tick(x(at), f"{at:g}") for at in round_ticks(first, last, 10, whole=True)),
        y_ticks=tuple(Tick(y(at), _tick_text(at, scale)) for at in round_ticks(low, high, 6)),
        x_label="epoch" if named else "logged values",
        clipped=low > min(values) or high < max(values),
    )


def visible_range(values: Sequence[float]) -> tuple[float, float]:
    """Return the range of values worth drawing: all of it, unless a few lie far out."""
    low, high = min(values), max(values)
    if len(values) >= 4:
        lower, _, upper = quantiles(values, n=4)
        reach = FAR_OUT * (upper - lower)
        if reach > 0:
            low, high = max(low, lower - reach), min(high, upper + reach)
    if high <= low:
        pad = abs(low) * 0.05 or 0.5
        return low - pad, high + pad
    return low, high


def round_ticks(low: float, high: float, at_most: int, *, whole: bool = False) -> list[float]:
    """Return round numbers within a range: multiples of 1, 2 or 5 times a power of ten."""
    span = high - low
    if span <= 0:
        return [low]
    rough = span / at_most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    step = max(step, 1.0) if whole else step
    count = math.ceil(low / step - 1e-9)
    ticks = []
    while count * step <= high + 1e-9 * span:
        ticks.append(count * step)
        count += 1
    return ticks


def _epochs(entry: RankedRun) -> list[float]:
    return [
        float(count) if point.epoch is None or not math.isfinite(point.epoch) else point.epoch
        for count, point in enumerate(entry.run.points, start=1)
    ]


def _curve(entry: RankedRun, epochs: Sequence[float], scale: Scale, x: _Place, y: _Place) -> Curve:
    pieces: list[list[str]] = [[]]
    peak = None
    for epoch, point in zip(epochs, entry.run.points, strict=True):
        if not math.isfinite(point.value):
            pieces.append([])
            continue
        pieces[-1].append(f"{x(epoch)},{y(point.value)}")
        if peak is None and point.value == entry.peak:
            peak = (x(epoch), y(point.value))
    return Curve(
        run_id=entry.run.run_id,
        group=group_of(entry.cause),
        is_gem=entry.is_gem,
        title=f"{label(entry)}: peak {scale.text(entry.peak)}, {entry.cause}",
        pieces=tuple(" ".join(piece) for piece in pieces if piece),
        peak=peak,
    )


def _tick_text(value: float, scale: Scale) -> str:
    return f"{100 * value:g}%" if scale.percentage else f"{value:.6g}"
