"""The metric's curves of whole sweeps, kept in memory beside the database for the writer.

Early stopping looks at every run's curve whenever one of them grows. Reading 150,000 values from the database takes
100 ms, and the writer would spend them on every post. The cache always equals what the current transaction sees. It is
emptied when a transaction is undone.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass
class _Curve:
    last_line: int = -(2**62)
    values: array[float] = field(default_factory=lambda: array("d"))


class CurveCache:
    """Curves by sweep and run. Only the thread that holds the writer may use it."""

    def __init__(self) -> None:
        self._sweeps: dict[int, dict[int, _Curve]] = {}

    def curves(self, sweep: int) -> Mapping[int, Sequence[float]] | None:
        """Return the sweep's curves, or None if they are not cached. The next post changes them."""
        cached = self._sweeps.get(sweep)
        return None if cached is None else {run: curve.values for run, curve in cached.items()}

    def keep(self, sweep: int, points: Mapping[int, Sequence[tuple[int, float]]]) -> None:
        """Store a sweep's curves, given for every run as (line, value) pairs in the order of lines."""
        self._sweeps[sweep] = {
            run: _Curve(pairs[-1][0], array("d", (value for _, value in pairs)))
            for run, pairs in points.items()
            if pairs
        }

    def append(self, sweep: int, run: int, first_line: int, points: Sequence[tuple[int, float]]) -> bool:
        """Append what a run logged from ``first_line`` on; return False if that overwrites cached values."""
        cached = self._sweeps.get(sweep)
        if cached is None or not points:
            return cached is None or run not in cached or cached[run].last_line < first_line
        curve = cached.setdefault(run, _Curve())
        if first_line <= curve.last_line:
            return False
        curve.values.extend(value for _, value in points)
        curve.last_line = points[-1][0]
        return True

    def clear(self) -> None:
        self._sweeps.clear()
