"""W&B's filters and orders of runs: the part of MongoDB's query language that the client documents."""

from __future__ import annotations

import json
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from amc_server.errors import Refused
from amc_server.json_texts import read_json_object
from amc_server.store.reader import Reader
from amc_server.store.records import Project, Run
from amc_sweeps.runs.export_file import unix_time
from amc_sweeps.values import MISSING, look_up

Predicate = Callable[["Fields"], bool]

LONGEST_SEARCHED = 1000  # characters of a text that $regex searches
MOST_REPETITIONS = 4  # in a pattern

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
_TIMES = frozenset({"created_at", "heartbeat_at"})  # columns in Unix time; clients write ISO 8601


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
        """Return the value at a path, or ``MISSING``.

        Raises:
            Refused: the path is no field of a run.
        """
        section, _, rest = path.partition(".")
        if section == "config":
            return look_up(self._config, rest.removesuffix(".value"), MISSING)
        if section in ("summary_metrics", "summary", "summaryMetrics"):
            return look_up(self._summary, rest, MISSING)
        if section == "tags":
            tags = json.loads(self.run.tags)
            return tags if not rest else rest in tags
        if path == "sweep":
            return MISSING if self._sweep_id is None else self._sweep_id
        column = _COLUMNS.get(path.lower())
        if column is None:
            raise Refused(
                f"runs cannot be filtered or ordered by {path!r}; possible are config.*, summary_metrics.*, tags, "
                f"sweep, {', '.join(sorted(set(_COLUMNS)))}"
            )
        value = getattr(self.run, column)
        if value is None:
            return MISSING
        return round(value, 6) if column in _TIMES else value  # an ISO text has microseconds


def read_filters(text: str | None) -> dict[str, Any]:
    """Return the filters in a JSON text; none for no text and for ``null``.

    Raises:
        Refused: the text is not a JSON object.
    """
    return {} if text in (None, "", "null") else read_json_object(text or "", "filters")


def find_runs(store: Reader, project: Project, filters: Mapping[str, Any]) -> list[Fields]:
    """Return the project's runs that match, oldest first."""
    matches = predicate(filters)
    sweeps = {sweep.pk: sweep.id for sweep in store.sweeps(project.pk)}
    sweep_id = _sweep_in(filters)
    if sweep_id is None:
        runs = store.runs(project.pk)
    else:
        sweep = store.sweep(project.pk, sweep_id)
        runs = store.runs_of_sweep(sweep.pk) if sweep else []
    candidates = (Fields(run, sweeps.get(run.sweep or 0)) for run in runs)
    return [fields for fields in candidates if matches(fields)]


def _sweep_in(filters: Mapping[str, Any]) -> str | None:
    """Return the one sweep that filters ask for, so that only its runs are read."""
    if isinstance(filters.get("sweep"), str):
        return str(filters["sweep"])
    parts = filters.get("$and")
    if isinstance(parts, list):
        sweeps = (_sweep_in(part) for part in parts if isinstance(part, Mapping))
        return next((sweep for sweep in sweeps if sweep is not None), None)
    return None


def predicate(filters: Mapping[str, Any]) -> Predicate:
    """Return the function that tells whether a run matches the filters.

    Raises:
        Refused: an operator is not W&B's.
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
    """Return a condition on a time with its ISO 8601 texts replaced by Unix time.

    Raises:
        Refused: it compares with something that is not a time, which would silently match nothing.
    """
    if isinstance(value, Mapping):
        if "$regex" in value:
            raise Refused(f"{key} is a time and cannot be searched by $regex; compare it with $gte and $lt")
        return {name: inner if name == "$exists" else _in_unix_time(key, inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_in_unix_time(key, item) for item in value]
    seconds = unix_time(value)
    if seconds is None and value is not None:
        raise Refused(
            f"{key} is compared with {str(value)[:60]!r}: a time in ISO 8601 is needed, as 2025-07-01T12:00:00Z"
        )
    return seconds


def _condition(value: Any) -> Callable[[Any], bool]:
    if isinstance(value, Mapping) and any(str(key).startswith("$") for key in value):
        tests = [_operator(str(key), operand) for key, operand in value.items()]
        return lambda actual: all(test(actual) for test in tests)
    return lambda actual: _equals(actual, value)


def _operator(name: str, operand: Any) -> Callable[[Any], bool]:
    if name == "$not":
        inner = _condition(operand)
        return lambda actual: not inner(actual)
    if name == "$regex":
        pattern = _pattern(str(operand))
        return lambda actual: isinstance(actual, str) and pattern.search(actual[:LONGEST_SEARCHED]) is not None
    if name not in _OPERATORS:
        raise Refused(_unknown(name))
    if name in ("$in", "$nin") and not isinstance(operand, list):
        raise Refused(f"{name} takes a list")
    test = _OPERATORS[name]
    return lambda actual: test(actual, operand)


def _unknown(name: str) -> str:
    return f"unknown filter operator {name!r}; known are $and, $or, $nor, $not, $regex, {', '.join(_OPERATORS)}"


def _pattern(text: str) -> re.Pattern[str]:
    """Compile a pattern whose search always ends soon.

    Raises:
        Refused: the pattern is invalid, or repeats a group that repeats or branches, such as ``(a+)+``, ``(a|ab)*``.
    """
    try:
        pattern = re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise Refused(f"$regex {text[:100]!r}: {error}") from error
    plain = re.sub(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", "x", text, flags=re.DOTALL)  # without escapes and character sets
    groups: list[bool] = []  # for every open group, whether something in it repeats or branches
    unlimited = 0
    for index, letter in enumerate(plain):
        if letter == "(":
            groups.append(False)
        elif letter == ")" and groups:
            repeats = groups.pop()
            if repeats and plain[index + 1 : index + 2] in ("*", "+", "{"):
                raise Refused(f"$regex {text[:100]!r} repeats a group that repeats or branches: it could run for ever")
            groups = [group or repeats for group in groups]
        elif letter in "*+{|":
            groups = [True] * len(groups)
            unlimited += letter != "|"
    if unlimited > MOST_REPETITIONS:
        raise Refused(f"$regex {text[:100]!r} has {unlimited} repetitions, {MOST_REPETITIONS} are allowed")
    return pattern


def _equals(actual: Any, operand: Any) -> bool:
    if actual is MISSING:
        return operand is None
    if isinstance(actual, list) and not isinstance(operand, list):
        return operand in actual
    if isinstance(actual, bool) is not isinstance(operand, bool):
        return False
    return bool(actual == operand)


def _compares(order: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def test(actual: Any, operand: Any) -> bool:
        try:
            return actual is not MISSING and order(actual, operand)
        except TypeError:  # a number and a text have no order
            return False

    return test


_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "$eq": _equals,
    "$ne": lambda actual, operand: not _equals(actual, operand),
    "$gt": _compares(operator.gt),
    "$gte": _compares(operator.ge),
    "$lt": _compares(operator.lt),
    "$lte": _compares(operator.le),
    "$in": lambda actual, operand: any(_equals(actual, item) for item in operand),
    "$nin": lambda actual, operand: not any(_equals(actual, item) for item in operand),
    "$exists": lambda actual, operand: (actual is not MISSING) is bool(operand),
}


def sort(runs: Sequence[Fields], order: str | None) -> list[Fields]:
    """Return the runs in W&B's order, such as ``+created_at`` or ``-summary_metrics.val/loss,+name``.

    Runs without the value, or with a value that has no order (NaN, a mapping), come last in both directions.
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
