"""Values in configurations, summaries and logged rows: numbers, and names with dots."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

_WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}  # how JSON carries what is not finite


def as_number(value: Any) -> float | None:
    """Read a logged value: a number, or one of the words that JSON carries for what is not finite."""
    if isinstance(value, str):
        return _WORDS.get(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:  # an integer beyond every float
        return None


def look_up(row: Mapping[str, Any], name: str) -> Any:
    """Return the value under a name, taken as it stands or as a dotted path into nested mappings; None if absent."""
    if name in row:
        return row[name]
    found: Any = row
    for piece in name.split("."):
        if not isinstance(found, Mapping) or piece not in found:
            return None
        found = found[piece]
    return found
