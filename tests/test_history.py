"""A run's history by column."""

import math

import numpy as np

from amc_analysis.history import History


def test_a_column_knows_which_rows_hold_it() -> None:
    history = History.from_rows([{"epoch": 1, "a": 0.5}, {"b": 2.0}, {"epoch": 2, "a": "NaN", "note": "text"}])

    assert history.length == 3
    assert set(history.columns) == {"epoch", "a", "b"}
    np.testing.assert_array_equal(history.column("a").rows, [0, 2])
    assert math.isnan(history.column("a").values[1])
    assert len(history.column("never")) == 0


def test_aligned_columns_share_their_rows() -> None:
    history = History.from_rows([{"epoch": 1, "a": 5}, {"epoch": 2}, {"epoch": 3, "a": 7}, {"a": 9}])

    epoch, a = history.aligned("epoch", "a")

    np.testing.assert_array_equal(epoch, [1, 3])
    np.testing.assert_array_equal(a, [5, 7])


def test_nested_values_lie_under_their_dotted_path_and_truth_values_are_no_numbers() -> None:
    history = History.from_rows([{"acc": {"snr": {"0": 0.5}}, "done": True}])

    assert set(history.columns) == {"acc.snr.0"}
