"""How values of a sweep's metric are written for people."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from amc_sweeps.number_formats import percent, points
from amc_sweeps.runs.ranked_run import RankedRun

LARGEST_IN_FULL = 1e6  # from here on values are written as powers of ten


@dataclass(frozen=True)
class MetricScale:
    """Values as percentages where the metric is an accuracy that is logged as a fraction; else with fixed decimals."""

    percentage: bool
    decimals: int = 3  # of values that are no percentages

    def text(self, value: float | None) -> str:
        """Write a value."""
        if value is None:
            return "-"
        if math.isnan(value):
            return "NaN"
        if math.isinf(value):
            return "inf" if value > 0 else "-inf"
        if self.percentage:
            return percent(value, 2)
        return f"{value:.{self.decimals}f}" if abs(value) < LARGEST_IN_FULL else f"{value:.3g}"

    def difference(self, value: float) -> str:
        return points(value) if self.percentage else f"{abs(value):.3g}"

    def signed(self, value: float | None) -> str:
        return "-" if value is None else ("-" if value < 0 else "+") + self.difference(value)


def metric_scale(metric: str, ranked: Sequence[RankedRun]) -> MetricScale:
    """Return how the values of a metric are written, judged by its name and by the values that were logged."""
    peaks = [entry.peak for entry in ranked if entry.peak is not None]
    curves = [curve for entry in ranked if (curve := entry.run.curve)]
    return scale_of(metric, peaks, [*map(min, curves), *map(max, curves)])


def scale_of(metric: str, peaks: Sequence[float], others: Sequence[float] = ()) -> MetricScale:
    """Return how the values of a metric are written, by the peaks of its runs and other values of them."""
    values = [*others, *peaks]
    is_accuracy = re.search(r"(?:^|[^A-Za-z])acc(?:uracy)?(?:_mean|_peak)?$", metric, re.IGNORECASE) is not None
    sizes = [abs(peak) for peak in peaks if peak]
    # As many decimals as give a typical peak four digits, the same for all: columns of numbers line up.
    decimals = 3 - math.floor(math.log10(median(sizes))) if sizes else 3
    return MetricScale(
        percentage=is_accuracy and bool(values) and all(0 <= value <= 1 for value in values),
        decimals=min(max(decimals, 0), 8),
    )


def interval_text(interval: tuple[float, float]) -> str:
    """Write an interval of fractions as percentages."""
    return f"{percent(interval[0])} to {percent(interval[1])}"
