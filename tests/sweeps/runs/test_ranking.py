"""Runs are ranked by peak; hidden gems are good runs that were cut short."""

from __future__ import annotations

import math

import pytest
from sweep_records import MAXIMISE, run

from amc_sweeps.runs.causes import Cause, Diagnosis
from amc_sweeps.runs.ranked_run import RankedRun
from amc_sweeps.runs.ranking import matching_test_metric, rank
from amc_sweeps.runs.records import Metric, RunRecord

NAN = math.nan


def ranked(*pairs: tuple[RunRecord, Cause], metric: Metric = MAXIMISE) -> tuple[RankedRun, ...]:
    diagnoses = {record.run_id: Diagnosis(cause, "certain", "as given") for record, cause in pairs}
    return rank([record for record, _ in pairs], diagnoses, metric)


def order(entries: tuple[RankedRun, ...]) -> list[tuple[str, int | None]]:
    return [(entry.run.run_id, entry.rank) for entry in entries]


def gems(entries: tuple[RankedRun, ...]) -> set[str]:
    return {entry.run.run_id for entry in entries if entry.is_gem}


def test_runs_are_ranked_by_peak_and_not_by_last_value() -> None:
    entries = ranked(
        (run("steady", [0.1, 0.3, 0.40]), Cause.COMPLETED),
        (run("fell", [0.1, 0.5, 0.05]), Cause.COMPLETED),
    )
    assert order(entries) == [("fell", 1), ("steady", 2)]
    assert (entries[0].peak, entries[0].peak_epoch, entries[0].last) == (0.5, 2, 0.05)


def test_minimize_reverses_the_order_and_the_peak() -> None:
    loss = Metric("val/loss", "minimize")
    entries = ranked((run("high", [3, 2]), Cause.COMPLETED), (run("low", [3, 1, 9]), Cause.COMPLETED), metric=loss)
    assert order(entries) == [("low", 1), ("high", 2)]
    assert (entries[0].peak, entries[0].smoothed_peak) == (1, 3)


def test_a_value_that_is_not_finite_is_never_a_peak() -> None:
    (entry,) = ranked((run("a", [0.2, math.inf, 0.3, NAN]), Cause.DIVERGED))
    assert (entry.peak, entry.peak_epoch, entry.epochs) == (0.3, 3, 4)
    assert entry.last is not None
    assert math.isnan(entry.last)


def test_runs_without_a_finite_value_come_last_and_unranked() -> None:
    entries = ranked(
        (run("nothing"), Cause.OUT_OF_MEMORY), (run("nan", [NAN]), Cause.DIVERGED), (run("a", [0.1]), Cause.COMPLETED)
    )
    assert order(entries) == [("a", 1), ("nothing", None), ("nan", None)]
    assert gems(entries) == set()


def test_equal_peaks_share_a_rank() -> None:
    entries = ranked(*((run(name, values), Cause.COMPLETED) for name, values in [("b", [5.0]), ("a", [5]), ("c", [4])]))
    assert order(entries) == [("a", 1), ("b", 1), ("c", 3)]


def test_among_equal_peaks_the_higher_smoothed_peak_comes_first() -> None:
    entries = ranked((run("spike", [1, 5, 1]), Cause.COMPLETED), (run("held", [4, 5, 4]), Cause.COMPLETED))
    assert order(entries) == [("held", 1), ("spike", 1)]


def test_the_peak_epoch_is_the_logged_one_else_the_position() -> None:
    counted, named = run("counted", [1, 2], named=False), run("named", [1, 2])
    assert [entry.peak_epoch for entry in ranked((counted, Cause.COMPLETED))] == [2]
    assert [entry.peak_epoch for entry in ranked((named, Cause.COMPLETED))] == [2]


def test_a_run_with_a_summary_alone_is_ranked_by_it() -> None:
    (entry,) = ranked((run("a", summary={"val/combined_acc": {"max": 0.4, "last": 0.1}}), Cause.COMPLETED))
    assert (entry.peak, entry.peak_epoch) == (0.4, None)


def test_a_crashed_run_above_the_best_completed_one_is_a_gem() -> None:
    """As in the 2025 research log: 47.15% before the crash, above most runs that completed."""
    entries = ranked(
        (run("whole", [0.30, 0.40]), Cause.COMPLETED),
        *((run(f"crash{i}", [0.41 + i / 100]), Cause.LOST) for i in range(5)),
        (run("worse", [0.35]), Cause.LOST),
    )
    assert gems(entries) == {f"crash{i}" for i in range(5)}


def test_a_run_cut_short_among_the_best_three_is_a_gem() -> None:
    entries = ranked(
        (run("first", [0.9]), Cause.PATIENCE),
        (run("second", [0.8]), Cause.EARLY_STOPPED),
        (run("third", [0.7]), Cause.CANCELLED),
        (run("fourth", [0.6]), Cause.LOST),
    )
    assert gems(entries) == {"second", "third"}


@pytest.mark.parametrize("cause", [Cause.COMPLETED, Cause.PATIENCE, Cause.RUNNING])
def test_runs_that_ended_well_or_still_run_are_never_gems(cause: Cause) -> None:
    assert gems(ranked((run("a", [0.9]), cause), (run("b", [0.5]), Cause.COMPLETED))) == set()


def test_if_no_run_ended_well_only_the_best_three_are_gems() -> None:
    entries = ranked(*((run(f"r{i}", [i]), Cause.LOST) for i in range(1, 6)))
    assert gems(entries) == {"r5", "r4", "r3"}


def test_an_equal_peak_is_not_better() -> None:
    whole = [(run(f"w{i}", [0.5]), Cause.COMPLETED) for i in range(4)]
    entries = ranked(
        *whole, *[(run(f"best{i}", [0.6]), Cause.COMPLETED) for i in range(3)], (run("x", [0.6]), Cause.LOST)
    )
    assert gems(entries) == {"x"}, "it shares rank 1"
    entries = ranked((run("w", [0.9]), Cause.COMPLETED), *whole[:3], (run("x", [0.5]), Cause.LOST))
    assert gems(entries) == {"x"}, "it shares rank 2"


@pytest.mark.parametrize(
    ("metric", "test"),
    [
        ("val/combined_acc", "test/combined_acc"),
        ("val_acc", "test_acc"),
        ("validation.loss", "test.loss"),
        ("acc/val", "acc/test"),
        ("value", None),
        ("accuracy", None),
    ],
)
def test_the_test_metric_is_named_after_the_validation_metric(metric: str, test: str | None) -> None:
    assert matching_test_metric(metric) == test


def test_test_values_are_shown_but_do_not_rank() -> None:
    entries = ranked(
        (run("a", [0.5], summary={"test/combined_acc": 0.1}), Cause.COMPLETED),
        (run("b", [0.4], summary={"test/combined_acc": 0.9}), Cause.COMPLETED),
    )
    assert [(entry.run.run_id, entry.test) for entry in entries] == [("a", 0.1), ("b", 0.9)]


@pytest.mark.parametrize(("runs", "expected"), [(1, set()), (2, {"r2"}), (3, {"r3", "r2"}), (4, {"r4", "r3", "r2"})])
def test_the_last_of_few_runs_is_not_a_gem(runs: int, expected: set[str]) -> None:
    assert gems(ranked(*((run(f"r{i}", [i]), Cause.LOST) for i in range(1, runs + 1)))) == expected
