"""W&B's filters and orders of runs and artifacts: the part of MongoDB's query language that the client documents."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeVar, cast

import re2

from amc_server.errors import Refused
from amc_server.json_texts import read_json_object, without_surrogates
from amc_server.store.reader import Reader
from amc_server.store.records import Project, Run
from amc_sweeps.runs.export_file import unix_time
from amc_sweeps.values import MISSING, as_number, look_up

Predicate = Callable[["Fields"], bool]
T = TypeVar("T")

LONGEST_PATTERN = 1000  # characters
LONGEST_FIELD = 1000  # characters of the name of a field
MOST_CONDITIONS = 200  # of filters; a list for $in may be long
MOST_ORDERS = 10  # fields that an order names

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
        return self.run.summary_values

    def get(self, path: str) -> Any:
        """Return the value at a path, or ``MISSING``.

        Raises:
            Refused: the path is no field of a run.
        """
        if len(path) > LONGEST_FIELD:
            raise Refused(f"a field has {len(path):,} characters, at most {LONGEST_FIELD:,} are allowed: {path[:60]!r}")
        section, _, rest = path.partition(".")
        if section == "config":
            value = look_up(self._config, rest.removesuffix(".value"), MISSING)
            if value is MISSING and ".value." in rest:  # W&B stores {"net": {"value": {"depth": 3}}}
                value = look_up(self._config, rest.replace(".value.", ".", 1), MISSING)
            return value
        if section in ("summary_metrics", "summary", "summaryMetrics"):
            return look_up(self._summary, rest, MISSING)
        if section == "tags":
            tags = self.run.tag_names
            return tags if not rest else rest in tags
        if path == "sweep":
            return MISSING if self._sweep_id is None else self._sweep_id
        column = _COLUMNS.get(path.lower())
        if column is None:
            raise Refused(
                f"runs cannot be filtered or ordered by {path[:100]!r}; possible are config.*, summary_metrics.*, "
                f"tags, sweep, {', '.join(sorted(set(_COLUMNS)))}"
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
    filters = {} if text in (None, "", "null") else read_json_object(text or "", "filters")
    conditions = _count_conditions(filters)
    if conditions > MOST_CONDITIONS:
        raise Refused(f"the filters have {conditions:,} conditions, at most {MOST_CONDITIONS} are allowed: use $in")
    return filters


def _count_conditions(value: Any) -> int:
    if isinstance(value, Mapping):
        return len(value) + sum(map(_count_conditions, value.values()))
    return sum(map(_count_conditions, value)) if isinstance(value, list) else 0


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
        if not isinstance(operand, str):
            raise Refused("$regex takes a text")
        compiled = pattern(operand)
        return lambda actual: isinstance(actual, str) and compiled.search(without_surrogates(actual)) is not None
    if name in ("$in", "$nin"):
        if not isinstance(operand, list):
            raise Refused(f"{name} takes a list")
        return _is_in(operand) if name == "$in" else _negated(_is_in(operand))
    if name not in _OPERATORS:
        raise Refused(_unknown(name))
    test = _OPERATORS[name]
    return lambda actual: test(actual, operand)


def _is_in(items: Sequence[Any]) -> Callable[[Any], bool]:
    """Return the test whether a value equals one of many; scalars are found without a walk through them."""
    scalars = {(isinstance(item, bool), item) for item in items if not isinstance(item, Mapping | list)}
    others = [item for item in items if isinstance(item, Mapping | list)]

    def test(actual: Any) -> bool:
        if actual is MISSING:
            return (False, None) in scalars
        if isinstance(actual, list):
            return any(_equals(actual, item) for item in items)
        if isinstance(actual, Mapping):
            return any(_equals(actual, item) for item in others)
        return (isinstance(actual, bool), actual) in scalars

    return test


def _negated(test: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda actual: not test(actual)


def _unknown(name: str) -> str:
    operators = ("$and", "$or", "$nor", "$not", "$regex", "$in", "$nin", *_OPERATORS)
    return f"unknown filter operator {name[:60]!r}; known are {', '.join(operators)}"


def pattern(text: str, name: str = "$regex") -> Any:
    """Compile a pattern by RE2, whose searches take time linear in the text, whatever the pattern is.

    Raises:
        Refused: RE2 does not know the pattern; it has no look-around and no back-references.
    """
    options = re2.Options()
    options.log_errors = False  # to stderr
    if len(text) > LONGEST_PATTERN:
        raise Refused(f"{name} has {len(text):,} characters, at most {LONGEST_PATTERN:,} are allowed")
    try:
        return re2.compile(text, options)
    except (re2.error, UnicodeEncodeError) as error:
        reason = error.args[0]
        raise Refused(
            f"{name} {text[:100]!r} is not understood: {reason.decode() if isinstance(reason, bytes) else error}. "
            "Patterns are RE2's: no look-around, no back-references."
        ) from error


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
    "$exists": lambda actual, operand: (actual is not MISSING) is bool(operand),
}


def sort(runs: Sequence[Fields], order: str | None) -> list[Fields]:
    """Return the runs in W&B's order, such as ``+created_at`` or ``-summary_metrics.val/loss,+name``.

    Runs without the value, or with a value that has no order (NaN, a mapping), come last in both directions.
    """
    ordered = list(runs)
    keys = [part.strip() for part in (order or "+created_at").split(",") if part.strip()]
    if len(keys) > MOST_ORDERS:
        raise Refused(f"the order names {len(keys):,} fields, at most {MOST_ORDERS} are allowed")
    for key in reversed(keys):
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
    number = as_number(value)
    return _LAST if number is None or math.isnan(number) else (0, number, "")


class _NamedValues:
    """A version or a collection of artifacts as filters see it; times are in Unix time."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def get(self, path: str) -> Any:
        """Return the value of a name, in snake or camel case, or ``MISSING``.

        Raises:
            Refused: there is no such name.
        """
        name = re.sub(r"(?<=[a-z])([A-Z])", r"_\1", path[:LONGEST_FIELD]).lower()
        if name not in self._values:
            allowed = ", ".join(sorted(self._values))
            raise Refused(f"artifacts cannot be filtered or ordered by {path[:80]!r} here; possible are {allowed}")
        value = self._values[name]
        return MISSING if value is None else value


def select(
    items: Iterable[T], values_of: Callable[[T], Mapping[str, Any]], filters: str | None, order: str | None
) -> list[T]:
    """Return the items that match, in an order such as ``-created_at``; without one as they come.

    Raises:
        Refused: the filters or the order name no value, or are not in W&B's language.
    """
    matches = predicate(read_filters(filters))
    by_fields = {cast(Fields, _NamedValues(values_of(item))): item for item in items}
    matching = [fields for fields in by_fields if matches(fields)]
    return [by_fields[fields] for fields in (sort(matching, order) if order else matching)]
