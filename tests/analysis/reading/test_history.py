"""A run's history by column."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amc_analysis.runs.history import History


def test_a_column_has_the_rows_that_hold_its_metric() -> None:
    history = History.from_rows([{"epoch": 1, "a": 0.5}, {"b": 2.0}, {"epoch": 2, "a": "NaN", "note": "text"}])

    assert history.length == 3
    assert set(history.columns) == {"epoch", "a", "b"}
    np.testing.assert_array_equal(history.column("a").rows, [0, 2])
    assert math.isnan(history.column("a").values[1])
    assert len(history.column("never")) == 0


def test_aligned_values_are_of_the_shared_rows() -> None:
    history = History.from_rows([{"epoch": 1, "a": 5}, {"epoch": 2}, {"epoch": 3, "a": 7}, {"a": 9}])

    epoch, a = history.aligned("epoch", "a")

    np.testing.assert_array_equal(epoch, [1, 3])
    np.testing.assert_array_equal(a, [5, 7])


def test_a_nested_value_has_a_dotted_name_and_true_is_no_number() -> None:
    history = History.from_rows([{"acc": {"snr": {"0": 0.5}}, "done": True}])

    assert set(history.columns) == {"acc.snr.0"}


def same(first: History, second: History) -> bool:
    """Return whether two histories are equal; NaN equals NaN."""
    return (
        first.length == second.length
        and first.columns.keys() == second.columns.keys()
        and all(
            np.array_equal(first.column(name).rows, second.column(name).rows)
            and np.array_equal(first.column(name).values, second.column(name).values, equal_nan=True)
            for name in first.columns
        )
    )


VALUES = st.floats() | st.integers(-(2**70), 2**400) | st.booleans() | st.none() | st.text(max_size=3)
ROWS = st.lists(st.dictionaries(st.sampled_from("abc"), VALUES | st.dictionaries(st.sampled_from("xy"), VALUES)))


@settings(deadline=None)
@given(ROWS)
def test_json_gives_the_same_history_as_its_rows(rows: list[dict[str, Any]]) -> None:
    assert same(History.from_json(json.dumps(rows).encode()), History.from_rows(rows))


@pytest.mark.parametrize("odd", [True, "NaN", None, math.nan, {"deep": 1.0}, 10**400])
def test_one_odd_value_among_plain_numbers_changes_nothing_else(odd: object) -> None:
    rows: list[dict[str, Any]] = [{"a": 1.0, "b": 2}, {"a": 0.5, "b": odd}]
    assert same(History.from_json(json.dumps(rows).encode()), History.from_rows(rows))


@settings(deadline=None)
@given(ROWS, ROWS)
def test_an_extended_history_equals_the_history_of_all_rows(
    before: list[dict[str, Any]], later: list[dict[str, Any]]
) -> None:
    assert same(History.from_rows(before).extended(History.from_rows(later)), History.from_rows(before + later))
