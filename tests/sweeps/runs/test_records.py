"""Records of runs: points of the metric, values that are not finite, the choice of the metric, times."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest

from amc_analysis.runs.history import History
from amc_analysis.runs.records import not_finite_of, points_of
from amc_sweeps.runs.records import MetricError, choose_metric, parse_time, summary_number
from amc_sweeps.values import as_number, look_up


def test_every_row_counts_and_keeps_its_epoch_step_and_time() -> None:
    rows = [{"val/acc": 0.1 * n, "epoch": n, "_step": 10 * n, "_timestamp": 1000.5 + n} for n in range(1, 1200)]
    history = History.from_rows(rows)
    points = points_of(history, "val/acc")
    assert len(points) == 1199
    assert (points[-1].epoch, points[-1].step, points[-1].time_s) == (1199, 11990, 2199.5)
    assert not_finite_of(history) == ()


def test_rows_without_the_metric_give_no_points() -> None:
    rows = [{"train/loss": 1.0, "epoch": 1}, {"val/acc": 0.5, "epoch": 1}, {"val/acc": 0.6}, {"val/acc": None}]
    points = points_of(History.from_rows(rows), "val/acc")
    assert [(point.value, point.epoch) for point in points] == [(0.5, 1), (0.6, None)]


def test_values_that_are_not_finite_come_as_floats_or_as_words() -> None:
    rows = [{"loss": math.nan}, {"loss": "NaN"}, {"loss": "Infinity"}, {"loss": "-Infinity"}, {"loss": 1}]
    history = History.from_rows(rows)
    assert [repr(point.value) for point in points_of(history, "loss")] == ["nan", "nan", "inf", "-inf", "1.0"]
    assert not_finite_of(history) == (), "the last one is finite"


def test_metrics_whose_last_value_is_not_finite_are_listed() -> None:
    rows = [{"a": 1.0, "b": "NaN", "c": math.inf}, {"a": "NaN", "b": 2.0, "_runtime": math.nan}]
    assert not_finite_of(History.from_rows(rows)) == ("a", "c")


@pytest.mark.parametrize("value", [True, None, "0.5", {"min": 1}, [1.0]])
def test_a_value_that_is_not_a_number_is_none(value: object) -> None:
    assert as_number(value) is None


def test_names_with_slashes_and_dots_are_taken_literally_before_they_are_paths() -> None:
    row = {"val/acc": 1, "val.acc": 2, "val": {"acc": 3, "deep": {"er": 4}}}
    assert (look_up(row, "val/acc"), look_up(row, "val.acc"), look_up(row, "val.deep.er")) == (1, 2, 4)
    assert look_up(row, "val.none.er") is None


def test_a_summary_of_define_metric_gives_its_best_value() -> None:
    summary = {"loss": {"min": 0.15, "max": 9.0}, "acc": {"max": 0.9, "last": 0.1}, "plain": "NaN"}
    assert summary_number(summary, "loss", "minimize") == 0.15
    assert summary_number(summary, "acc", "maximize") == 0.9
    assert summary_number(summary, "absent", "maximize") is None


def test_the_metric_comes_from_the_sweep_and_minimizes_by_default() -> None:
    assert choose_metric({"metric": {"name": "loss"}}).goal == "minimize"
    chosen = choose_metric({"metric": {"name": "acc", "goal": "maximize"}})
    assert (chosen.name, chosen.goal) == ("acc", "maximize")
    assert choose_metric({"metric": {"name": "acc", "goal": "maximize"}}, "loss", "minimize").name == "loss"
    assert choose_metric({"metric": {"name": "acc", "goal": "maximize"}}, "acc").goal == "maximize"


def test_the_error_asks_for_an_unknown_metric_or_goal() -> None:
    with pytest.raises(MetricError, match="--metric NAME --goal"):
        choose_metric({"parameters": {}})
    with pytest.raises(MetricError, match="give its --goal"):
        choose_metric({"metric": {"name": "acc", "goal": "maximize"}}, "loss")


@pytest.mark.parametrize("text", ["2025-07-01T12:00:00Z", "2025-07-01T12:00:00", "2025-07-01T14:00:00+02:00"])
def test_times_without_a_zone_are_utc(text: str) -> None:
    parsed = parse_time(text)
    assert parsed is not None
    assert parsed.astimezone(UTC) == datetime(2025, 7, 1, 12, tzinfo=UTC)


def test_a_value_that_is_not_a_time_is_none() -> None:
    assert parse_time(None) is None
    assert parse_time("yesterday") is None
