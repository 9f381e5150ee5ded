"""The statements that ``--supports`` takes, read from text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import yaml

from amc_analysis.runs.parameters import Parameter, text_of
from amc_sweeps.bounded_texts import TextError, read_yaml
from amc_sweeps.grammar.configurations import value_key
from amc_sweeps.number_formats import listed, quoted, shortened
from amc_sweeps.runs.ranked_run import RankedRun
from amc_sweeps.values import is_number

FORMS = (
    "PARAMETER=VALUE beats PARAMETER=VALUE",
    "failure of PARAMETER=VALUE above PARAMETER=VALUE",
    "best is RUN",
)
_COMPARISON = re.compile(
    r"(?P<failure>failure\s+of\s+)?(?P<first>\S.*?)\s+(?P<verb>beats|above)\s+(?P<second>\S.*)", re.S | re.I
)
_BEST = re.compile(r"best\s+is\s+(?P<run>\S.*)", re.S | re.I)
_QUOTES = ('""', "''", "“”")  # around a whole statement, where a shell or an editor left them


class StatementError(ValueError):
    """A statement cannot be read; the message says what can."""


@dataclass(frozen=True)
class Comparison:
    """One group of runs has better peaks, or more failures, than another."""

    text: str
    about: Literal["performance", "failures"]
    parameter: Parameter
    labels: tuple[str, str]  # of the two values, the one that should win or fail more first
    runs: tuple[tuple[int, ...], tuple[int, ...]]  # positions of their runs in the ranking


@dataclass(frozen=True)
class BestRun:
    """One run has the best peak."""

    text: str
    entry: RankedRun


Statement = Comparison | BestRun


def read_statement(text: str, ranked: Sequence[RankedRun], parameters: Sequence[Parameter]) -> Statement:
    """Read a statement about a sweep's runs.

    A value is written as in the sweep's file. ``LOW..HIGH`` stands for all numbers between the two, ends included.

    Raises:
        StatementError: the form, a parameter, a value or a run is unknown.
    """
    stripped = text.strip()
    if len(stripped) > 1 and stripped[0] + stripped[-1] in _QUOTES:
        stripped = stripped[1:-1].strip()
    if best := _BEST.fullmatch(stripped):
        return BestRun(stripped, _run(best["run"], ranked))
    match = _COMPARISON.fullmatch(stripped)
    if match is None or (match["failure"] is None) != (match["verb"].lower() == "beats"):
        raise StatementError(
            f"{quoted(text)} is no statement that can be checked: write {', or '.join(map(repr, FORMS))}"
        )
    (name, first), (other, second) = (_sides(match[side], text) for side in ("first", "second"))
    if name != other:
        raise StatementError(
            f"{quoted(text)} compares {shortened(name)} with {shortened(other)}: both sides need the same parameter"
        )
    parameter = next((parameter for parameter in parameters if parameter.name == name), None)
    if parameter is None:
        names = listed([parameter.name for parameter in parameters], most=12) or "none"
        raise StatementError(f"{shortened(name)} is no searched parameter of this sweep: {names}")
    runs = (_runs(parameter, first), _runs(parameter, second))
    if set(runs[0]) & set(runs[1]):
        raise StatementError(f"{quoted(text)}: some runs are on both sides; give values that exclude each other")
    return Comparison(stripped, "failures" if match["failure"] else "performance", parameter, (first, second), runs)


def _run(name: str, ranked: Sequence[RankedRun]) -> RankedRun:
    entries = [entry for entry in ranked if entry.run.run_id == name] or [
        entry for entry in ranked if entry.run.name == name
    ]
    if not entries:
        ids = listed([entry.run.run_id for entry in ranked], most=8) or "none"
        raise StatementError(f"no run of this sweep has the id or the name {quoted(name)}; its runs: {ids}")
    if len(entries) > 1:
        raise StatementError(
            f"{len(entries)} runs have the name {quoted(name)}: give the id, such as {entries[0].run.run_id}"
        )
    return entries[0]


def _sides(side: str, text: str) -> tuple[str, str]:
    name, equals, value = side.partition("=")
    if not (name.strip() and equals and value.strip()):
        raise StatementError(f"{quoted(text)}: {quoted(side)} must be PARAMETER=VALUE")
    return name.strip(), value.strip()


def _runs(parameter: Parameter, value: str) -> tuple[int, ...]:
    """Return the positions of the runs with a value, or with one in a range."""
    low, dots, high = value.partition("..")
    if dots and parameter.kind == "ordered":
        ends = [_value(end) for end in (low, high)]
        if not (is_number(ends[0]) and is_number(ends[1]) and ends[0] <= ends[1]):
            raise StatementError(f"{parameter.name}={shortened(value)}: a range is LOW..HIGH, two numbers")
        levels = [index for index, level in enumerate(parameter.levels) if ends[0] <= level <= ends[1]]
    else:
        key = value_key(_value(value))
        levels = [index for index, level in enumerate(parameter.levels) if value_key(level) == key]
        # A text such as 1e-3 is no number in YAML, and the quotes of a text are easily lost in a shell.
        levels = levels or [index for index, level in enumerate(parameter.levels) if _is_same(level, value)]
    if not levels:
        values = listed([text_of(level) for level in parameter.levels], most=8) or "none"
        raise StatementError(f"no run has {parameter.name}={shortened(value)}; its values: {values}")
    return tuple(position for position, level in enumerate(parameter.index.tolist()) if level in levels)


def _value(text: str) -> Any:
    try:
        value, _ = read_yaml(text)
    except (yaml.YAMLError, TextError):
        return text
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _is_same(level: Any, text: str) -> bool:
    return str(level) == text or text_of(level) == text
