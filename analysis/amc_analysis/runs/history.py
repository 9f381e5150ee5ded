"""The whole history of one run by column: the rows that hold a metric, and its values. Only numbers are kept."""

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
    """The logged values of one metric."""

    rows: NDArray[np.int64]  # (N,) positions of the rows that hold it, ascending
    values: NDArray[np.float64]  # (N,) NaN and infinities included

    def __len__(self) -> int:
        """Return the number of rows that hold the metric."""
        return len(self.rows)


EMPTY = Column(np.empty(0, np.int64), np.empty(0, np.float64))


@dataclass(frozen=True, eq=False)
class History:
    """The logged rows of one run, in the order of logging."""

    length: int = 0
    columns: Mapping[str, Column] = field(default_factory=dict)  # a nested value has a dotted name

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, Any]]) -> History:
        """Return the history of some rows; values that are not numbers are left out."""
        lists: dict[str, tuple[list[int], list[float]]] = {}
        length = 0
        for row in rows:
            _append(row, "", length, lists)
            length += 1
        columns = {
            name: Column(np.asarray(positions, np.int64), np.asarray(values, np.float64))
            for name, (positions, values) in lists.items()
        }
        return cls(length, columns)

    @classmethod
    def from_json(cls, text: bytes) -> History:
        """Return the history of a JSON array of rows, in which NaN and Infinity may stand bare as W&B writes them.

        Rows with the same names and only numbers, as most loops log them, are read as one table: ten times as fast.
        """
        try:
            rows = orjson.loads(text)
        except orjson.JSONDecodeError:  # bare NaN
            rows = json.loads(text)
        return _from_table(rows) or cls.from_rows(rows)

    def extended(self, later: History) -> History:
        """Return this history with the rows of a later one after it."""
        columns = dict(self.columns)
        for name, column in later.columns.items():
            earlier = self.column(name)
            columns[name] = Column(
                np.concatenate([earlier.rows, column.rows + self.length]),
                np.concatenate([earlier.values, column.values]),
            )
        return History(self.length + later.length, columns)

    def column(self, name: str) -> Column:
        """Return a metric's column; it is empty where the metric was never logged."""
        return self.columns.get(name, EMPTY)

    def aligned(self, *names: str) -> tuple[NDArray[np.float64], ...]:
        """Return the values of several metrics in the rows that hold all of them, each (N,)."""
        columns = [self.column(name) for name in names]
        if not all(map(len, columns)):
            return tuple(EMPTY.values for _ in names)
        shared = columns[0].rows
        for column in columns[1:]:
            shared = np.intersect1d(shared, column.rows, assume_unique=True)
        return tuple(column.values[np.searchsorted(column.rows, shared)] for column in columns)


def _from_table(rows: Sequence[Mapping[str, Any]]) -> History | None:
    """Return the history of rows with the same names; None where names differ, or a value is not a plain number."""
    if not rows:
        return History()
    name_orders = {tuple(row) for row in rows}  # also their order is the same: values are taken by position
    flat = list(chain.from_iterable(row.values() for row in rows))
    if len(name_orders) > 1 or not set(map(type, flat)) <= {float, int}:
        return None
    try:
        values = np.array(flat, np.float64).reshape(len(rows), -1).T.copy()
    except OverflowError:  # an integer larger than every float
        return None
    positions = np.arange(len(rows))
    return History(
        len(rows), {name: Column(positions, column) for name, column in zip(name_orders.pop(), values, strict=True)}
    )


def _append(
    row: Mapping[str, Any], prefix: str, position: int, lists: dict[str, tuple[list[int], list[float]]]
) -> None:
    for name, value in row.items():
        if isinstance(value, Mapping):
            _append(value, f"{prefix}{name}.", position, lists)
            continue
        number = as_number(value)
        if number is not None:
            positions, values = lists.setdefault(prefix + name, ([], []))
            positions.append(position)
            values.append(number)
