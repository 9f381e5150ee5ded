"""The parts of a report's sections; every renderer writes them in its own format."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_NUMBER = re.compile(r"[-+]?[\d.]+(?!\w)|-$|n < \d")


def is_figure(text: str) -> bool:
    """Return whether a cell holds a number, or the mark of a missing one."""
    return _NUMBER.match(text) is not None


@dataclass(frozen=True)
class Table:
    """Rows of text."""

    titles: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    bold_rows: int = 0  # the first ones; a page sets them off

    def is_numeric(self, column: int) -> bool:
        """Return whether a column holds numbers, which are aligned to the right."""
        return all(is_figure(row[column]) for row in self.rows)


@dataclass(frozen=True)
class Command:
    """A line to copy."""

    text: str


@dataclass(frozen=True)
class Warned:
    """A warning, with the name of its rule."""

    name: str
    severity: str  # error, warning or note
    text: str
    more: Sequence[str] = ()  # other warnings of this rule; a page shows them on demand


Block = str | Table | Command | Warned


@dataclass(frozen=True)
class Section:
    """One part of a report."""

    key: str
    title: str
    blocks: tuple[Block, ...]
    shown: int | None = None  # warnings that a page shows, the others on demand; None: all
