"""The metric's curves of whole sweeps, kept in memory beside the database for the writer.

Early stopping looks at every run's curve whenever one of them grows: reading 150,000 values from the database takes
100 ms, which the writer would spend on every post. What is kept here is only ever a copy of what the transaction at
hand sees; when one is undone, all copies are dropped.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass
class _Curve:
    last_line: int = -1
    values: array[float] = field(default_factory=lambda: array("d"))


class CurveCache:
    """Curves by sweep and run; for one thread at a time, the one that holds the writer."""

    def __init__(self) -> None:
        self._sweeps: dict[int, dict[int, _Curve]] = {}

    def curves(self, sweep: int) -> Mapping[int, Sequence[float]] | None:
        """Return the sweep's curves, or None when they are not known here. They change with the next post."""
        known = self._sweeps.get(sweep)
        return None if known is None else {run: curve.values for run, curve in known.items()}

    def keep(self, sweep: int, points: Mapping[int, Sequence[tuple[int, float]]]) -> None:
        """Take over a sweep's curves: for every run its (line, value) pairs in the order of lines."""
        self._sweeps[sweep] = {
            run: _Curve(pairs[-1][0], array("d", (value for _, value in pairs)))
            for run, pairs in points.items()
            if pairs
        }

    def grow(self, sweep: int, run: int, first_line: int, points: Sequence[tuple[int, float]]) -> bool:
        """Append what a run logged from ``first_line`` on; False when that overwrites what is known here."""
        known = self._sweeps.get(sweep)
        if known is None or not points:
            return known is None or run not in known or known[run].last_line < first_line
        curve = known.setdefault(run, _Curve())
        if first_line <= curve.last_line:
            return False
        curve.values.extend(value for _, value in points)
        curve.last_line = points[-1][0]
        return True

    def drop(self) -> None:
        """Forget everything; it is read again when it is needed."""
        self._sweeps.clear()
