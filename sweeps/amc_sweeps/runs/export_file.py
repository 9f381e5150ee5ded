"""A sweep or a project as a file: configurations, states and whole histories, readable without any server.

One YAML document:

    format: amc-sweep-export
    version: 2
    project: radioml
    sweeps:
    - {id: ab12cd34, state: FINISHED, config: {method: bayes, ...}}
    runs:
    - id: x1y2z3
      sweep: ab12cd34
      state: crashed
      config: {max_lr: 0.001}
      summary: {val/combined_acc: 0.61}
      history: |
        {"_step": 0, "val/combined_acc": 0.4}
        {"_step": 1, "val/combined_acc": NaN}

A history is a text of one JSON object a row, because JSON is read a hundred times as fast as YAML is (150,000 rows take
a second); it may also be a list of mappings, which is all that version 1 knew. Version 1 is read like version 2.

What is absent is unknown; null is a value of its own: ``exit_code: null`` says that the trial gave none, no
``exit_code`` says that nobody knows; ``history: []`` that nothing was logged, no ``history`` that it was not kept.
Times are ISO 8601 in UTC. NaN and the infinities are YAML's ``.nan``, ``.inf`` and ``-.inf``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import yaml

from amc_sweeps.runs.run_states import RunState, SweepState

FORMAT = "amc-sweep-export"
VERSION = 2

Record = Mapping[str, Any]


class ExportFileError(ValueError):
    """A file that is no such export; ``problems`` lists every violation."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class Export:
    """What a file holds. Sweeps and runs are mappings, for absent and null are two things."""

    project: str
    sweeps: tuple[Record, ...]
    runs: tuple[Record, ...]


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _text_or_null(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _integer_or_null(value: Any) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool))


def _number_or_null(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _truth(value: Any) -> bool:
    return isinstance(value, bool)


def _mapping(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value) and _is_json(value)


def _rows(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(row, dict) for row in value) and _is_json(value)


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError, RecursionError):  # a date that is not quoted, binary data
        return False
    return True


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _time_or_null(value: Any) -> bool:
    return value is None or unix_time(value) is not None


def _id(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable() and 0 < len(value.strip()) <= 128 and "/" not in value


_Check = tuple[Callable[[Any], bool], str]

SWEEP_FIELDS: Mapping[str, _Check] = {
    "id": (_id, "1 to 128 printable characters without a slash"),
    "config": (_mapping, "a mapping: the sweep's YAML; dates in it are quoted"),
    "state": (lambda value: value in set(SweepState), f"one of {', '.join(SweepState)}"),
    "name": (_text_or_null, "a text or null"),
    "description": (_text_or_null, "a text or null"),
    "created_at": (_time_or_null, "a time in ISO 8601, or null"),
}
RUN_FIELDS: Mapping[str, _Check] = {
    "id": (_id, "1 to 128 printable characters without a slash"),
    "sweep": (_text_or_null, "the id of a sweep in this file, or null"),
    "state": (lambda value: value in set(RunState), f"one of {', '.join(RunState)}"),
    "name": (_text_or_null, "a text or null"),
    "created_at": (_time_or_null, "a time in ISO 8601, or null"),
    "heartbeat_at": (_time_or_null, "a time in ISO 8601, or null"),
    "exit_code": (_integer_or_null, "a whole number or null"),
    "stop_recorded": (_truth, "true or false"),
    "stop_reason": (_text_or_null, "a text or null"),
    "stop_band": (_integer_or_null, "a whole number or null"),
    "stop_value": (_number_or_null, "a number or null"),
    "stop_threshold": (_number_or_null, "a number or null"),
    "host": (_text_or_null, "a text or null"),
    "group": (_text_or_null, "a text or null"),
    "job_type": (_text_or_null, "a text or null"),
    "commit": (_text_or_null, "a text or null"),
    "notes": (_text_or_null, "a text or null"),
    "tags": (_texts, "a list of texts"),
    "config": (_mapping, "a mapping; dates in it are quoted"),
    "summary": (_mapping, "a mapping; dates in it are quoted"),
    "history": (_rows, "a text of one JSON object a row, or a list of mappings; dates in it are quoted"),
}
_SWEEP_NEEDS = ("id", "config")
_RUN_NEEDS = ("id", "state")


def write(export: Export) -> str:
    """Return the file's text; reading it gives the same export again."""
    document = {
        "format": FORMAT,
        "version": VERSION,
        "project": export.project,
        "sweeps": [dict(sweep) for sweep in export.sweeps],
        "runs": [_with_rows_as_text(run) for run in export.runs],
    }
    text: str = yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10**6)
    return text


class _Rows(str):
    """A history as a text of one JSON object a line."""

    __slots__ = ()


def _with_rows_as_text(run: Record) -> Record:
    if not run.get("history"):
        return dict(run)
    return {**run, "history": _Rows("".join(f"{json.dumps(row)}\n" for row in run["history"]))}


# libyaml's are ten times as fast, where PyYAML was built with it.
class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """Writes equal values out each time, for a file that people read has no ``&id001``; a history as a block."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_rows(self, data: _Rows) -> yaml.ScalarNode:
        node: yaml.ScalarNode = self.represent_scalar("tag:yaml.org,2002:str", str(data), style="|")
        return node


_Dumper.add_representer(_Rows, _Dumper.represent_rows)


def read(text: str) -> Export:
    """Return what a file's text holds.

    Raises:
        ExportFileError: with every violation.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        document = yaml.load(text, Loader=loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ExportFileError([f"this is not YAML: {error}"]) from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ExportFileError([f"this is no export of a sweep: it does not begin with 'format: {FORMAT}'"])
    version = document.get("version")
    if version not in (1, VERSION):
        newer = isinstance(version, int) and version > VERSION
        hint = ": it was written by a newer amc-sweep, install that one" if newer else ""
        raise ExportFileError([f"version {version!r} of the format is not known here, {VERSION} is{hint}"])
    problems = [f"unknown: {key}" for key in document if key not in ("format", "version", "project", "sweeps", "runs")]
    project = document.get("project")
    if not _id(project):
        problems.append(f"project is {project!r}; it is 1 to 128 printable characters without a slash")
    sweeps = _records(document.get("sweeps") or [], "sweeps", SWEEP_FIELDS, _SWEEP_NEEDS, problems)
    runs = _records(document.get("runs") or [], "runs", RUN_FIELDS, _RUN_NEEDS, problems)
    known = {sweep.get("id") for sweep in sweeps}
    problems += [
        f"runs: {run.get('id')} belongs to sweep {run['sweep']}, which is not in the file"
        for run in runs
        if run.get("sweep") is not None and run["sweep"] not in known
    ]
    if problems:
        raise ExportFileError(problems)
    return Export(str(project), tuple(sweeps), tuple(runs))


def _records(
    given: Any, what: str, fields: Mapping[str, _Check], needs: tuple[str, ...], problems: list[str]
) -> list[dict[str, Any]]:
    if not isinstance(given, list) or not all(isinstance(record, dict) for record in given):
        problems.append(f"{what} is a list of mappings")
        return []
    seen: set[Any] = set()
    for index, record in enumerate(given):
        where = f"{what}: {record.get('id', f'number {index + 1}')}"
        if isinstance(record.get("history"), str):
            try:
                record["history"] = [json.loads(line) for line in record["history"].splitlines()]
            except (ValueError, RecursionError) as error:
                problems.append(f"{where}: history holds a line that is not JSON: {error}")
                record["history"] = []
        problems += [f"{where} has no {name}" for name in needs if name not in record]
        for name, value in record.items():
            if name not in fields:
                problems.append(f"{where} has the unknown field {name!r}; known are {', '.join(fields)}")
            elif not fields[name][0](value):
                problems.append(f"{where}: {name} is {str(value)[:60]!r}; it is {fields[name][1]}")
        if isinstance(record.get("id"), str) and record["id"] in seen:
            problems.append(f"{where} is there twice")
        seen.add(str(record.get("id")))
    return given


def unix_time(value: Any) -> float | None:
    """Return Unix time of an ISO 8601 text, or of what YAML makes of one that is not quoted; None for anything else."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    if not isinstance(value, datetime):
        return None
    return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()


def was_alive(run: Record) -> bool:
    """Return whether a run had not ended when it was exported; how it did end the file cannot say."""
    return RunState(run["state"]).is_alive


def with_steps(run: Record) -> Record:
    """Return a run whose rows all have a ``_step``: where one lacks it, the one after the row's before, from 0 on.

    W&B's client asks for single metrics together with ``_step``, and would not see a row that has none.
    """
    if all("_step" in row for row in run.get("history", ())):
        return run
    rows, step = [], -1
    for row in run["history"]:
        given = row.get("_step", step + 1)
        rows.append({**row, "_step": given})
        step = given if isinstance(given, int) else step + 1
    return {**run, "history": rows}


def without_unknown(record: Record, unknown: Container[str]) -> Record:
    """Return a record without what a server has to hold something for, though nobody knows it.

    Args:
        record: what the server holds.
        unknown: the fields that the file lacked from which it took the record. One that has a value by now is known;
            the time of creation always has one.
    """
    return {
        name: value
        for name, value in record.items()
        if name not in unknown or not (name == "created_at" or value is None or value is False or value in ([], {}))
    }


def differing_fields(known: Record, given: Record) -> list[str]:
    """Return in which of the given fields two records differ; a field that one of them lacks is unknown, not other."""
    return [name for name, value in given.items() if name in known and not same_value(known[name], value)]


def same_value(one: Any, other: Any) -> bool:
    """Return whether two values are equal; NaN equals NaN, and times that name the same microsecond are equal."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same_value(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(same_value(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one) and math.isnan(other):
        return True
    if isinstance(one, bool) is not isinstance(other, bool):
        return False
    if one == other:
        return True
    times = unix_time(one), unix_time(other)
    return times[0] is not None and times[1] is not None and abs(times[0] - times[1]) < 2e-6
