"""Names with dots, numbers and number formats."""

from __future__ import annotations

import doctest
import math
from typing import Any

import pytest

from amc_sweeps import number_formats, values
from amc_sweeps.backend import references
from amc_sweeps.grammar.trial_program import is_trial_program
from amc_sweeps.number_formats import duration
from amc_sweeps.values import MISSING, as_finite, as_number, is_number, look_up, nest


@pytest.mark.parametrize("module", [number_formats, references, values])
def test_the_examples_in_the_docstrings_hold(module: Any) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize(
    ("held", "name", "expected"),
    [
        ({"a.b": 1, "a": {"b": 2}}, "a.b", 1),
        ({"a": {"b": 2}}, "a.b", 2),
        ({"a": {"b.c": 3}}, "a.b.c", 3),
        ({"a.b": {"c": 4}}, "a.b.c", 4),
        ({"a": {"x": 0}, "a.b": {"c": 5}}, "a.b.c", 5),
        ({"a": None}, "a", None),
        ({"a": 1}, "a.b", MISSING),
        ({}, "", MISSING),
        (7, "a", MISSING),
    ],
)
def test_a_dot_may_be_part_of_a_key_or_stand_for_nesting(held: Any, name: str, expected: Any) -> None:
    assert look_up(held, name, MISSING) is expected or look_up(held, name, MISSING) == expected


def test_looking_up_what_is_missing_gives_none_by_default() -> None:
    assert look_up({}, "a.b") is None


@pytest.mark.parametrize("value", [True, None, "1", "NaN", math.nan, math.inf, 10**400, [1]])
def test_values_that_are_not_finite_numbers(value: Any) -> None:
    assert not is_number(value)
    assert as_finite(value) is None


def test_values_that_are_numbers() -> None:
    assert is_number(0)
    assert is_number(-1.5)
    assert as_number("-Infinity") == -math.inf
    assert as_number("one") is None
    assert as_number(10**400) is None


def test_paths_make_nested_mappings() -> None:
    assert nest([(("a",), 1), (("b", "c", "d"), 2), (("b", "e"), 3)]) == {"a": 1, "b": {"c": {"d": 2}, "e": 3}}


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.4, "59 s"), (61, "1 min 1 s"), (86400, "1 d"), (90000, "1 d 1 h")]
)
def test_a_duration_has_at_most_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("program", "is_ours"),
    [("amc-train", True), ("/opt/bin/amc-train", True), ("amc-train.py", False), ("train.py", False), (None, False)],
)
def test_the_trial_program_is_recognised_by_name_or_path(program: str | None, is_ours: bool) -> None:
    assert is_trial_program(program) is is_ours
