"""W&B's run filters (MongoDB's query language, the part that the client documents) and orders, over run records."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from amc_server.errors import Refused
from amc_server.store.records import Run
from amc_sweeps.runs.export_file import unix_time

Predicate = Callable[["Fields"], bool]

LONGEST_SEARCHED = 1000  # letters of a text that $regex looks at
MOST_REPETITIONS = 4  # in a pattern

_MISSING = object()
_COLUMNS = {
    "name": "id",
    "run_id": "id",
    "state": "state",
    "created_at": "created_at",
    "createdat": "created_at",
    "heartbeat_at": "heartbeat_at",
    "heartbeatat": "heartbeat_at",
    "updated_at": "heartbeat_at",
    "updatedat": "heartbeat_at",
    "display_name": "display_name",
    "displayname": "display_name",
    "group": "group_name",
    "job_type": "job_type",
    "jobtype": "job_type",
    "host": "host",
    "notes": "notes",
    "description": "description",
    "commit": "git_commit",
}
_TIMES = frozenset({"created_at", "heartbeat_at"})  # columns in Unix time, which clients write as ISO 8601


class Fields:
    """A run as filters see it: ``state``, ``config.lr.value`` or ``config.lr``, ``summary_metrics.val/loss`` ..."""

    def __init__(self, run: Run, sweep_id: str | None) -> None:
        self.run = run
        self._sweep_id = sweep_id

    @cached_property
    def _config(self) -> dict[str, Any]:
        return self.run.config_values()

    @cached_property
    def _summary(self) -> dict[str, Any]:
        return dict(json.loads(self.run.summary))

    def get(self, path: str) -> Any:
        """Return the value at a path, or ``_MISSING``."""
        section, _, rest = path.partition(".")
        if section == "config":
            return _look_up(self._config, rest.removesuffix(".value"))
        if section in ("summary_metrics", "summary", "summaryMetrics"):
            return _look_up(self._summary, rest)
        if section == "tags":
            tags = json.loads(self.run.tags)
            return tags if not rest else rest in tags
        if path == "sweep":
            return _MISSING if self._sweep_id is None else self._sweep_id
        column = _COLUMNS.get(path.lower())
        if column is None:
            raise Refused(
                f"runs cannot be filtered or ordered by {path!r}; possible are config.*, summary_metrics.*, tags, "
                f"sweep, {', '.join(sorted(set(_COLUMNS)))}"
            )
        value = getattr(self.run, column)
        if value is None:
            return _MISSING
        return round(value, 6) if column in _TIMES else value  # an ISO text says no less than a microsecond


def _look_up(values: Any, path: str) -> Any:
    """Return the value of a key that may itself hold dots, or of a nested one."""
    if not isinstance(values, Mapping):
        return _MISSING
    if path in values:
        return values[path]
    first, _, rest = path.partition(".")
    while rest:
        if first in values:
            found = _look_up(values[first], rest)
            if found is not _MISSING:
                return found
        more, _, rest = rest.partition(".")
        first = f"{first}.{more}"
    return _MISSING


def read_filters(text: str | None) -> dict[str, Any]:
    """Return the filters in a JSON text.

    Raises:
        Refused: when it is no JSON object.
    """
    try:
        filters = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        raise Refused(f"filters are not JSON: {error}") from error
    if filters is None:
        return {}
    if not isinstance(filters, dict):
        raise Refused('filters are a JSON object, such as {"state": "finished"}')
    return filters


def sweep_of(filters: Mapping[str, Any]) -> str | None:
    """Return the one sweep that filters ask for, so that only its runs are read."""
    if isinstance(filters.get("sweep"), str):
        return str(filters["sweep"])
    parts = filters.get("$and")
    if isinstance(parts, list):
        found = (sweep_of(part) for part in parts if isinstance(part, Mapping))
        return next((sweep for sweep in found if sweep is not None), None)
    return None


def predicate(filters: Mapping[str, Any]) -> Predicate:
    """Return the test that filters amount to.

    Raises:
        Refused: for an operator that is not W&B's.
    """
    tests = [_clause(key, value) for key, value in filters.items()]
    return lambda fields: all(test(fields) for test in tests)


def _clause(key: str, value: Any) -> Predicate:
    if key in ("$and", "$or", "$nor"):
        if not isinstance(value, list) or not all(isinstance(part, Mapping) for part in value):
            raise Refused(f"{key} takes a list of filters")
        parts = [predicate(part) for part in value]
        if key == "$and":
            return lambda fields: all(part(fields) for part in parts)
        if key == "$or":
            return lambda fields: any(part(fields) for part in parts)
        return lambda fields: not any(part(fields) for part in parts)
    if key == "$not":
        if not isinstance(value, Mapping):
            raise Refused("$not takes a filter")
        inner = predicate(value)
        return lambda fields: not inner(fields)
    if key.startswith("$"):
        raise Refused(_unknown(key))
    test = _condition(_in_unix_time(key, value) if _COLUMNS.get(key.lower()) in _TIMES else value)
    return lambda fields: test(fields.get(key))


def _in_unix_time(key: str, value: Any) -> Any:
    """Return a condition on a time with every ISO 8601 text in it as Unix time.

    Raises:
        Refused: where it compares with what is no time, which would match nothing without a word.
    """
    if isinstance(value, Mapping):
        if "$regex" in value:
            raise Refused(f"{key} is a time and cannot be searched by $regex; compare it with $gte and $lt")
        return {name: inner if name == "$exists" else _in_unix_time(key, inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_in_unix_time(key, each) for each in value]
    seconds = unix_time(value)
    if seconds is None and value is not None:
        raise Refused(
            f"{key} is compared with {str(value)[:60]!r}: a time in ISO 8601 is needed, as 2025-07-01T12:00:00Z"
        )
    return seconds


def _condition(value: Any) -> Callable[[Any], bool]:
    if isinstance(value, Mapping) and any(str(key).startswith("$") for key in value):
        tests = [_operator(str(key), operand) for key, operand in value.items()]
        return lambda found: all(test(found) for test in tests)
    return lambda found: _equals(found, value)


def _operator(name: str, operand: Any) -> Callable[[Any], bool]:
    if name == "$not":
        inner = _condition(operand)
        return lambda found: not inner(found)
    if name == "$regex":
        pattern = _pattern(str(operand))
        return lambda found: isinstance(found, str) and pattern.search(found[:LONGEST_SEARCHED]) is not None
    if name not in _OPERATORS:
        raise Refused(_unknown(name))
    if name in ("$in", "$nin") and not isinstance(operand, list):
        raise Refused(f"{name} takes a list")
    test = _OPERATORS[name]
    return lambda found: test(found, operand)


def _unknown(name: str) -> str:
    return f"unknown filter operator {name!r}; known are $and, $or, $nor, $not, $regex, {', '.join(_OPERATORS)}"


def _pattern(text: str) -> re.Pattern[str]:
    """Compile a pattern of which no text can make a search that never ends.

    Raises:
        Refused: for one that is no pattern, or that repeats what itself repeats or branches: ``(a+)+``, ``(a|ab)*``.
    """
    try:
        pattern = re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise Refused(f"$regex {text[:100]!r}: {error}") from error
    plain = re.sub(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", "x", text, flags=re.DOTALL)  # without escapes and character sets
    groups: list[bool] = []  # of every open group: whether something in it repeats or branches
    unlimited = 0
    for index, letter in enumerate(plain):
        if letter == "(":
            groups.append(False)
        elif letter == ")" and groups:
            repeats = groups.pop()
            if repeats and plain[index + 1 : index + 2] in ("*", "+", "{"):
                raise Refused(
                    f"$regex {text[:100]!r} repeats what itself repeats or branches: that could take for ever"
                )
            groups = [group or repeats for group in groups]
        elif letter in "*+{|":
            groups = [True] * len(groups)
            unlimited += letter != "|"
    if unlimited > MOST_REPETITIONS:
        raise Refused(f"$regex {text[:100]!r} has {unlimited} repetitions, {MOST_REPETITIONS} are possible")
    return pattern


def _equals(found: Any, wanted: Any) -> bool:
    if found is _MISSING:
        return wanted is None
    if isinstance(found, list) and not isinstance(wanted, list):
        return wanted in found
    if isinstance(found, bool) is not isinstance(wanted, bool):
        return False
    return bool(found == wanted)


def _compares(order: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def test(found: Any, wanted: Any) -> bool:
        try:
            return found is not _MISSING and order(found, wanted)
        except TypeError:  # a number and a text have no order
            return False

    return test


_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "$eq": _equals,
    "$ne": lambda found, wanted: not _equals(found, wanted),
    "$gt": _compares(lambda found, wanted: found > wanted),
    "$gte": _compares(lambda found, wanted: found >= wanted),
    "$lt": _compares(lambda found, wanted: found < wanted),
    "$lte": _compares(lambda found, wanted: found <= wanted),
    "$in": lambda found, wanted: any(_equals(found, item) for item in wanted),
    "$nin": lambda found, wanted: not any(_equals(found, item) for item in wanted),
    "$exists": lambda found, wanted: (found is not _MISSING) is bool(wanted),
}


def sort(runs: Sequence[Fields], order: str | None) -> list[Fields]:
    """Return the runs in W&B's order, such as ``+created_at`` or ``-summary_metrics.val/loss,+name``.

    Runs without the value, or with one that has no order (NaN, a mapping), come last either way.
    """
    ordered = list(runs)
    for key in reversed([part.strip() for part in (order or "+created_at").split(",") if part.strip()]):
        path, descending = key.lstrip("+-"), key.startswith("-")
        ordered.sort(key=lambda fields, path=path: _rank(fields.get(path)), reverse=descending)  # type: ignore[misc]
        ordered.sort(key=lambda fields, path=path: _rank(fields.get(path)) == _LAST)  # type: ignore[misc]
    return ordered


_LAST = (2, 0.0, "")


def _rank(value: Any) -> tuple[int, float, str]:
    if isinstance(value, Mapping):  # define_metric(summary="min") makes the summary {"min": value}
        value = next(iter(value.values()), None) if len(value) == 1 else None
    if isinstance(value, str):
        return (1, 0.0, value)
    if isinstance(value, int | float) and not math.isnan(value):
        return (0, float(value), "")
    return _LAST
