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

A history is a text of one JSON object a row, because JSON is read a hundred times as fast as YAML (150,000 rows take a
second). In a file written by hand it may be a list of mappings.

A missing field is unknown, and null is a value. ``exit_code: null`` says that the trial gave no exit code; a missing
``exit_code`` says that nobody recorded it. ``history: []`` says that nothing was logged; a missing ``history`` says
that it was not saved. Times are ISO 8601 in UTC. NaN and the infinities are YAML's ``.nan``, ``.inf`` and ``-.inf``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import yaml

from amc_sweeps.bounded_texts import TextError, check_size, read_json, read_yaml
from amc_sweeps.grammar.sweep_config import SEEDS, is_seed
from amc_sweeps.number_formats import at_most, quoted
from amc_sweeps.runs.crashed_runs import Policy
from amc_sweeps.runs.records import LATEST_TIME, parse_time
from amc_sweeps.runs.run_states import RunState, SweepState
from amc_sweeps.values import as_number, is_32_bit, is_64_bit, is_whole

FORMAT = "amc-sweep-export"
VERSION = 2
MOST_BYTES = 512 * 1024**2

Record = Mapping[str, Any]

_FIRST_KEY = re.compile(rf"""^\{{?\s*["']?format["']?\s*:\s*["']?{FORMAT}\b""", re.MULTILINE)


class ExportFileError(ValueError):
    """The text is not a valid export; ``problems`` lists every violation."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class Export:
    """The content of a file. Sweeps and runs are mappings, because a missing field and null differ."""

    project: str
    sweeps: tuple[Record, ...]
    runs: tuple[Record, ...]


def is_export(beginning: str) -> bool:
    """Return whether a text that begins like this is an export file; the rest of it may be damaged."""
    return _FIRST_KEY.search(beginning) is not None


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable() and 0 < len(value.strip()) <= 128 and "/" not in value


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value) and _is_json(value)


def _is_history(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(row, dict) for row in value) and _is_json(value)


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError, RecursionError):  # a date that is not quoted, binary data
        return False
    return True


_Check = tuple[Callable[[Any], bool], str]

_ID: _Check = (_is_id, "1 to 128 printable characters without a slash")
_TEXT: _Check = (lambda value: value is None or isinstance(value, str), "a text or null")
_TIME: _Check = (
    lambda value: value is None or ((time := unix_time(value)) is not None and 0 <= time <= LATEST_TIME),
    "a time in ISO 8601 from 1970 to 9999, or null",
)
_WHOLE: _Check = (lambda value: value is None or is_32_bit(value), "a whole number within 32 bits, or null")
_NUMBER: _Check = (
    lambda value: value is None or is_64_bit(value) or (isinstance(value, float) and math.isfinite(value)),
    "a finite number or null; a whole one within 64 bits",
)
_MAPPING: _Check = (_is_mapping, "a mapping; dates in it are quoted")


def _are_updates(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(item, Mapping)
        and item.keys() - {"author"} == {"at", "config"}
        and item["at"] is not None
        and _TIME[0](item["at"])
        and _TEXT[0](item.get("author"))
        and _is_mapping(item["config"])
        for item in value
    )


SWEEP_FIELDS: Mapping[str, _Check] = {
    "id": _ID,
    "config": (_is_mapping, "a mapping: the sweep's YAML; dates in it are quoted"),
    "state": (lambda value: value in list(SweepState), f"one of {', '.join(SweepState)}"),
    "name": _TEXT,
    "description": _TEXT,
    "created_at": _TIME,
    "seed": (is_seed, SEEDS),
    "shuffle": (lambda value: isinstance(value, bool), "true or false"),
    "crashed_runs": (lambda value: value is None or value in list(Policy), f"one of {', '.join(Policy)}, or null"),
    "updates": (_are_updates, "a list of {at: a time, author: a text or null, config: the sweep's YAML before it}"),
}
RUN_FIELDS: Mapping[str, _Check] = {
    "id": _ID,
    "sweep": (_TEXT[0], "the id of a sweep in this file, or null"),
    "state": (lambda value: value in list(RunState), f"one of {', '.join(RunState)}"),
    "name": _TEXT,
    "created_at": _TIME,
    "heartbeat_at": _TIME,
    "exit_code": _WHOLE,
    "stop_recorded": (lambda value: isinstance(value, bool), "true or false"),
    "stop_reason": _TEXT,
    "stop_band": _WHOLE,
    "stop_value": _NUMBER,
    "stop_threshold": _NUMBER,
    "host": _TEXT,
    "group": _TEXT,
    "job_type": _TEXT,
    "commit": _TEXT,
    "notes": _TEXT,
    "tags": (
        lambda value: isinstance(value, list) and all(isinstance(item, str) for item in value),
        "a list of texts",
    ),
    "config": _MAPPING,
    "summary": _MAPPING,
    "history": (_is_history, "a text of one JSON object a row, or a list of mappings; dates in it are quoted"),
}
_SWEEP_REQUIRED = ("id", "config")
_RUN_REQUIRED = ("id", "state")


def write(export: Export) -> str:
    """Return the text of a file; ``read`` gives the same export again."""
    document = {
        "format": FORMAT,
        "version": VERSION,
        "project": export.project,
        "sweeps": [dict(sweep) for sweep in export.sweeps],
        "runs": [_with_rows_as_text(run) for run in export.runs],
    }
    return yaml_text(document)


def yaml_text(value: Any) -> str:
    """Return a value as YAML, equal parts written out each time."""
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10**6)
    return text


class _Rows(str):
    """A history as a text of one JSON object a line."""

    __slots__ = ()


def _with_rows_as_text(run: Record) -> Record:
    if not run.get("history"):
        return dict(run)
    return {**run, "history": _Rows("".join(f"{json.dumps(row)}\n" for row in run["history"]))}


# The classes of libyaml are ten times as fast, where PyYAML was built with it.
class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """Writes equal values each time, without ``&id001``, because people read the file; a history as a block."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_rows(self, data: _Rows) -> yaml.ScalarNode:
        node: yaml.ScalarNode = self.represent_scalar("tag:yaml.org,2002:str", str(data), style="|")
        return node


_Dumper.add_representer(_Rows, _Dumper.represent_rows)


def read(text: str) -> Export:
    """Return the content of a file.

    Raises:
        ExportFileError: with every violation.
    """
    try:
        check_size(text, MOST_BYTES)
        document, _ = read_yaml(text)
    except yaml.MarkedYAMLError as error:
        raise ExportFileError([f"this is not YAML: {error}"]) from error
    except TextError as error:
        raise ExportFileError([str(error)]) from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ExportFileError([f"this is not an export of a sweep: it does not begin with 'format: {FORMAT}'"])
    version = document.get("version")
    if version != VERSION:
        hint = ""
        if version == 1:
            hint = f": write 'version: {VERSION}' in its place, the fields of version 1 mean the same"
        elif is_whole(version) and version > VERSION:
            hint = ": the file was written by a newer amc-sweep, install that one"
        raise ExportFileError([f"version {quoted(version)} of the format is not read, only version {VERSION}{hint}"])
    problems = [
        f"unknown: {str(key)[:60]}" for key in document if key not in ("format", "version", "project", "sweeps", "runs")
    ]
    project = document.get("project")
    if not _is_id(project):
        problems.append(f"project is {str(project)[:60]!r}; it must be {_ID[1]}")
    sweeps = _records(document.get("sweeps") or [], "sweeps", SWEEP_FIELDS, _SWEEP_REQUIRED, problems)
    runs = _records(document.get("runs") or [], "runs", RUN_FIELDS, _RUN_REQUIRED, problems)
    sweep_ids = {str(sweep.get("id")) for sweep in sweeps}
    problems += [
        f"runs: {str(run.get('id'))[:60]} belongs to sweep {run['sweep'][:60]}, which is not in the file"
        for run in runs
        if isinstance(run.get("sweep"), str) and run["sweep"] not in sweep_ids
    ]
    if problems:
        raise ExportFileError(at_most(problems))
    return Export(str(project), tuple(sweeps), tuple(runs))


def _records(
    records: Any, section: str, fields: Mapping[str, _Check], required: tuple[str, ...], problems: list[str]
) -> list[dict[str, Any]]:
    """Return the records of a section with histories as lists; add what is wrong with them to ``problems``."""
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        problems.append(f"{section} is not a list of mappings")
        return []
    ids: set[Any] = set()
    for index, record in enumerate(records):
        where = f"{section}: {str(record.get('id', f'number {index + 1}'))[:60]}"
        if isinstance(record.get("history"), str):
            try:
                record["history"] = [read_json(line) for line in record["history"].splitlines()]
            except TextError as error:
                problems.append(f"{where}: history holds a line that cannot be read: {error}")
                record["history"] = []
        problems += [f"{where} has no {name}" for name in required if name not in record]
        for name, value in record.items():
            if name not in fields:
                problems.append(f"{where} has the unknown field {str(name)[:60]!r}; known are {', '.join(fields)}")
            elif not fields[name][0](value):
                problems.append(f"{where}: {name} is {str(value)[:60]!r}; it must be {fields[name][1]}")
        if isinstance(record.get("id"), str) and record["id"] in ids:
            problems.append(f"{where} occurs twice")
        ids.add(str(record.get("id")))
    return records


def unix_time(value: Any) -> float | None:
    """Return the Unix time of an ISO 8601 text, or of the date that YAML makes of one; None for anything else."""
    time = parse_time(value)
    # Not time.timestamp(): it raises for the first and the last day of the calendar.
    return None if time is None else (time - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()


def was_alive(run: Record) -> bool:
    """Return whether a run had not ended when it was exported; the file does not say how it ended later."""
    return RunState(run["state"]).is_alive


def with_steps(run: Record) -> Record:
    """Return a run whose rows all have a ``_step``; a row without one gets the step after the row before, from 0 on.

    W&B's client asks for a metric together with ``_step``, and would skip a row that has none.
    """
    if all("_step" in row for row in run.get("history", ())):
        return run
    rows, step = [], -1
    for row in run["history"]:
        number = row.get("_step", step + 1)
        rows.append({**row, "_step": number})
        step = number if isinstance(number, int) else step + 1
    return {**run, "history": rows}


def without_unknown(record: Record, unknown_fields: Container[str]) -> Record:
    """Return a server's record without the fields that the server had to fill although their values are unknown.

    Args:
        record: the server's record.
        unknown_fields: those that were missing in the file that the server imported. A field that has got a value since
            then is known. The time of creation always has a value, so it stays unknown.
    """
    return {
        name: value
        for name, value in record.items()
        if name not in unknown_fields
        or not (name == "created_at" or value is None or value is False or value in ([], {}))
    }


def differing_fields(record: Record, expected: Record) -> list[str]:
    """Return the expected fields in which two records differ. A field that one lacks is unknown, not different."""
    return [name for name, value in expected.items() if name in record and not same_value(record[name], value)]


def same_value(value: Any, other: Any) -> bool:
    """Return whether two values are equal; NaN equals NaN, and so do times within two microseconds.

    The words NaN and Infinity equal the numbers, because W&B's API gives the numbers as these words.
    """
    if isinstance(value, Mapping) and isinstance(other, Mapping):
        return value.keys() == other.keys() and all(same_value(part, other[key]) for key, part in value.items())
    if isinstance(value, list | tuple) and isinstance(other, list | tuple):
        return len(value) == len(other) and all(map(same_value, value, other))
    if isinstance(value, float | str) and isinstance(other, float | str):
        first, second = as_number(value), as_number(other)
        if first is not None and second is not None and (first == second or (math.isnan(first) and math.isnan(second))):
            return True
    if isinstance(value, bool) is not isinstance(other, bool):
        return False
    if value == other:
        return True
    times = unix_time(value), unix_time(other)
    return times[0] is not None and times[1] is not None and abs(times[0] - times[1]) < 2e-6
