"""Formats of numbers and given values for people, the same in every command, report and page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any


def percent(fraction: float, decimals: int = 0) -> str:
    """Write a fraction as a percentage.

    >>> percent(0.4176, 2)
    '41.76%'
    """
    return f"{fraction:.{decimals}%}"


def points(difference: float) -> str:
    """Write the size of a difference of two fractions in percentage points.

    >>> points(-0.021)
    '2.10 points'
    """
    return f"{100 * abs(difference):.2f} points"


def counted(number: float, noun: str, plural: str | None = None) -> str:
    """Write a number with its noun.

    >>> counted(1, "run"), counted(2000, "run"), counted(2, "entry", "entries")
    ('1 run', '2,000 runs', '2 entries')
    >>> counted(2**100, "configuration")
    'about 10^30 configurations'
    """
    if isinstance(number, int) and number > 10**15:
        return f"about 10^{int((number.bit_length() - 1) * math.log10(2))} {plural or noun + 's'}"
    return f"{number:,.0f} {noun if number == 1 else plural or noun + 's'}"


def duration(seconds: float) -> str:
    """Write a length of time with two units at most.

    >>> duration(5400), duration(59.6)
    ('1 h 30 min', '1 min')
    """
    whole = round(seconds)
    for unit_s, unit, part_s, part in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= unit_s:
            rest = whole % unit_s // part_s
            return f"{whole // unit_s} {unit}" + (f" {rest} {part}" if rest and whole < 10 * unit_s else "")
    return f"{whole} s"


def listed(words: Sequence[str], most: int = 4) -> str:
    """Write words with commas; of many the first ones, and how many more there are.

    >>> listed(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    text = ", ".join(words[:most])
    return text if len(words) <= most else f"{text} and {len(words) - most} more"


def quoted(value: Any, most: int = 100) -> str:
    """Write a given value for a message as Python does; of a long one the beginning, and how long it is.

    >>> quoted("adam"), quoted("x" * 1000, most=5)
    ("'adam'", "'xxxx... (1,002 characters)")
    """
    return shortened(repr(value), most)


def shortened(text: str, most: int = 100) -> str:
    """Return a text; one of more than twice ``most`` characters is cut, and its length is given."""
    return text if len(text) <= 2 * most else f"{text[:most]}... ({len(text):,} characters)"


def at_most(lines: Sequence[str], most: int = 50) -> list[str]:
    """Return the first lines, and one that says how many more there are.

    >>> at_most(["a", "b", "c"], most=2)
    ['a', 'b', 'and 1 more']
    """
    return [*lines[:most], *([f"and {len(lines) - most:,} more"] if len(lines) > most else [])]
