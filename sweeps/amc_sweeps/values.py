"""Values in configurations, summaries and logged rows: numbers, and names with dots."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeGuard

MISSING: Any = object()  # for look_up, where None is a value

# Control characters except tab and newline, marks that turn the direction of text, and lone surrogates.
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_SEED = re.compile(r"(?:^|[._/-])seed$", re.IGNORECASE)
_PLAIN = frozenset({bool, int, float, type(None)})  # types of values without any text
_WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}  # how JSON carries values that are not finite


def printable(value: Any) -> Any:
    """Return a value with every text in it safe for a terminal: a control character becomes its escape.

    Otherwise the name of a run or a log line could move the cursor, or change the text on the screen.

    >>> printable({"name": "a\\x1b[2J", "lines": "1\\n2"})
    {'name': 'a\\\\x1b[2J', 'lines': '1\\n2'}
    """
    if type(value) in _PLAIN:
        return value
    if isinstance(value, str):
        if value.isprintable() or _UNPRINTABLE.search(value) is None:
            return value
        return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), value)
    if isinstance(value, Mapping):
        return value if _is_plain(value) else {printable(key): printable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [printable(item) for item in value]
        return items if isinstance(value, list) else tuple(items)
    return value


def _is_plain(values: Mapping[Any, Any]) -> bool:
    """Return whether a mapping has nothing to escape, like most summaries: in a fifth of the time of each key alone."""
    try:
        return _PLAIN.issuperset(map(type, values.values())) and "".join(values).isprintable()
    except TypeError:  # a key that is no text
        return False


def is_number(value: Any) -> TypeGuard[int | float]:
    """Return whether a value is a finite int or float; True and False are not numbers."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond every float
        return False


def is_whole(value: Any) -> TypeGuard[int]:
    """Return whether a value is an int; True and False are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_32_bit(value: Any) -> TypeGuard[int]:
    """Return whether a value is an int that GraphQL's Int holds; True and False are not."""
    return is_whole(value) and -(2**31) <= value < 2**31


def is_64_bit(value: Any) -> TypeGuard[int]:
    """Return whether a value is an int that a database holds; True and False are not."""
    return is_whole(value) and -(2**63) <= value < 2**63


def as_number(value: Any) -> float | None:
    """Return a logged value as a float, from a number or from the words NaN and Infinity of JSON; else None."""
    if isinstance(value, str):
        return _WORDS.get(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:  # an integer beyond every float
        return None


def without_bare_nan(value: Any) -> Any:
    """Return a value that strict JSON can hold: NaN and the infinities become the texts that W&B uses for them."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {key: without_bare_nan(item) for key, item in value.items()}
    return [without_bare_nan(item) for item in value] if isinstance(value, list) else value


def as_finite(value: Any) -> float | None:
    """Return a finite number as a float, anything else as None."""
    return float(value) if is_number(value) else None


def look_up(values: Any, name: str, default: Any = None) -> Any:
    """Return the value under a name, in which a dot may be part of a key or stand for nesting.

    The whole name is tried as a key first, then the shortest key that leads to a value:

    >>> look_up({"a": {"b.c": 1}}, "a.b.c")
    1
    """
    if not isinstance(values, Mapping):
        return default
    if name in values:
        return values[name]
    dot = name.find(".")
    while dot >= 0:
        if name[:dot] in values:
            value = look_up(values[name[:dot]], name[dot + 1 :], MISSING)
            if value is not MISSING:
                return value
        dot = name.find(".", dot + 1)
    return default


def names_seed(name: str) -> bool:
    """Return whether a parameter is a seed by its name: its values repeat a configuration."""
    return _SEED.search(name) is not None


def nest(items: Iterable[tuple[tuple[str, ...], Any]]) -> dict[str, Any]:
    """Return nested mappings from paths and values.

    >>> nest([(("a", "b"), 1), (("a", "c"), 2)])
    {'a': {'b': 1, 'c': 2}}
    """
    nested: dict[str, Any] = {}
    for path, value in items:
        inner = nested
        for key in path[:-1]:
            inner = inner.setdefault(key, {})
        inner[path[-1]] = value
    return nested
