"""The widths of a table's columns on a terminal: names are shortened and texts wrapped, figures never.

What still does not fit is printed below, with the first column again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size

from amc_analysis.report.blocks import Table, is_figure

SHORTEST_NAME = 8  # characters
BETWEEN = 2  # columns between two cells


@dataclass(frozen=True)
class Part:
    """Columns that are printed side by side."""

    columns: tuple[int, ...]
    widths: tuple[int, ...]  # in characters of the terminal


def fit(table: Table, width: int) -> list[Part]:
    """Return the columns of a table in as few parts as fit into ``width``, each part with the first column."""
    texts = [[title, *(row[column] for row in table.rows)] for column, title in enumerate(table.titles)]
    natural = [max(map(cell_len, cells)) for cells in texts]
    least = [min(_least(cells), size) for cells, size in zip(texts, natural, strict=True)]
    groups: list[list[int]] = [[0]]
    for column in range(1, len(texts)):
        if len(groups[-1]) > 1 and _total([least[index] for index in [*groups[-1], column]]) > width:
            groups.append([0])
        groups[-1].append(column)
    return [
        Part(tuple(group), _shared([natural[column] for column in group], [least[column] for column in group], width))
        for group in groups
    ]


def shortened(text: str, width: int) -> str:
    """Return a name that fits; a text of several words is left to be wrapped.

    >>> shortened("bottleneck_128", 8)
    'bottlen…'
    """
    if cell_len(text) <= width or " " in text or is_figure(text):
        return text
    return set_cell_size(text, width - 1).rstrip() + "…"


def _least(cells: Sequence[str]) -> int:
    """Return the least width of a column: its figures, the longest word of its title, the start of a name."""
    title, *values = cells
    figures = [cell_len(value) for value in values if is_figure(value)]
    return max([*figures, *map(cell_len, title.split()), SHORTEST_NAME if len(figures) < len(values) else 1])


def _shared(natural: Sequence[int], least: Sequence[int], width: int) -> tuple[int, ...]:
    """Return the widths of columns that share a line: the widest one above its least width gives way first."""
    widths = list(natural)
    while _total(widths) > width:
        candidates = [index for index in range(len(widths)) if widths[index] > least[index]]
        if not candidates:
            break
        widths[max(candidates, key=lambda index: widths[index])] -= 1
    return tuple(widths)


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + BETWEEN * (len(widths) - 1)
