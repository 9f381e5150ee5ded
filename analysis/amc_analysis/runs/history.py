"""The whole history of one run by column: which rows hold a metric, and what they hold. Numbers only."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from amc_sweeps.values import as_number


@dataclass(frozen=True, eq=False)
class Column:
    """One metric as it was logged."""

    rows: NDArray[np.int64]  # (N,) positions of the rows that hold it, ascending
    values: NDArray[np.float64]  # (N,) NaN and infinities included

    def __len__(self) -> int:
        """Return how many rows hold it."""
        return len(self.rows)


EMPTY = Column(np.empty(0, np.int64), np.empty(0, np.float64))


@dataclass(frozen=True, eq=False)
class History:
    """Every logged row of one run, in the order of logging."""

    length: int = 0
    columns: Mapping[str, Column] = field(default_factory=dict)  # nested values under their dotted path

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, Any]]) -> History:
        """Sort logged rows into columns; what is no number is left out."""
        gathered: dict[str, tuple[list[int], list[float]]] = {}
        length = 0
        for row in rows:
            _gather(row, "", length, gathered)
            length += 1
        columns = {
            name: Column(np.asarray(positions, np.int64), np.asarray(values, np.float64))
            for name, (positions, values) in gathered.items()
        }
        return cls(length, columns)

    @classmethod
    def from_json(cls, text: bytes) -> History:
        """Read a JSON array of logged rows; the bare NaN and Infinity that W&B's own JSON has are understood.

        Rows that all hold the same plain numbers, as most loops log them, are taken as one table: ten times as fast.
        """
        try:
            rows = orjson.loads(text)
        except orjson.JSONDecodeError:  # bare NaN
            rows = json.loads(text)
        return _table(rows) or cls.from_rows(rows)

    def extended(self, later: History) -> History:
        """Return this history with rows that were logged after it."""
        columns = dict(self.columns)
        for name, column in later.columns.items():
            before = self.column(name)
            columns[name] = Column(
                np.concatenate([before.rows, column.rows + self.length]),
                np.concatenate([before.values, column.values]),
            )
        return History(self.length + later.length, columns)

    def column(self, name: str) -> Column:
        """Return a metric's column; an empty one where it was never logged."""
        return self.columns.get(name, EMPTY)

    def aligned(self, *names: str) -> tuple[NDArray[np.float64], ...]:
        """Return the values of several metrics over the rows that hold all of them, each (N,)."""
        columns = [self.column(name) for name in names]
        shared = columns[0].rows
        for column in columns[1:]:
            shared = np.intersect1d(shared, column.rows, assume_unique=True)
        return tuple(column.values[np.searchsorted(column.rows, shared)] for column in columns)


def _table(rows: Sequence[Mapping[str, Any]]) -> History | None:
    """Return rows of one shape as a history; None where they are of several, or hold more than plain numbers."""
    if not rows:
        return History()
    shapes = {tuple(row) for row in rows}  # names in their order: the values are taken by place
    flat = list(chain.from_iterable(row.values() for row in rows))
    if len(shapes) > 1 or not set(map(type, flat)) <= {float, int}:
        return None
    try:
        values = np.array(flat, np.float64).reshape(len(rows), -1).T.copy()
    except OverflowError:  # an integer beyond every float
        return None
    positions = np.arange(len(rows))
    return History(
        len(rows), {name: Column(positions, column) for name, column in zip(shapes.pop(), values, strict=True)}
    )


def _gather(row: Mapping[str, Any], prefix: str, position: int, into: dict[str, tuple[list[int], list[float]]]) -> None:
    for name, value in row.items():
        if isinstance(value, Mapping):
            _gather(value, f"{prefix}{name}.", position, into)
            continue
        number = as_number(value)
        if number is not None:
            positions, values = into.setdefault(prefix + name, ([], []))
            positions.append(position)
            values.append(number)
