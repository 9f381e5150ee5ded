"""Reading a sweep: whole histories, values that are not finite, and servers that tell less than all."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from amc_analysis.runs import (
    MetricError,
    SweepUnreadableError,
    as_number,
    choose_metric,
    look_up,
    parse_time,
    read_history,
    read_sweep,
    summary_number,
)


def test_every_row_counts_and_keeps_its_epoch_step_and_time() -> None:
    rows = [{"val/acc": 0.1 * n, "epoch": n, "_step": 10 * n, "_timestamp": 1000.5 + n} for n in range(1, 1200)]
    points, not_finite = read_history(rows, "val/acc")
    assert len(points) == 1199
    assert (points[-1].epoch, points[-1].step, points[-1].time_s) == (1199, 11990, 2199.5)
    assert not_finite == ()


def test_rows_without_the_metric_are_no_points() -> None:
    points, _ = read_history([{"train/loss": 1.0}, {"val/acc": 0.5}, {"val/acc": None}], "val/acc")
    assert [point.value for point in points] == [0.5]


def test_values_that_are_not_finite_come_as_floats_or_as_words() -> None:
    rows = [{"loss": math.nan}, {"loss": "NaN"}, {"loss": "Infinity"}, {"loss": "-Infinity"}, {"loss": 1}]
    points, not_finite = read_history(rows, "loss")
    assert [repr(point.value) for point in points] == ["nan", "nan", "inf", "-inf", "1.0"]
    assert not_finite == (), "the last one is finite"


def test_the_last_value_of_every_metric_tells_what_diverged() -> None:
    rows = [{"a": 1.0, "b": "NaN", "c": math.inf}, {"a": "NaN", "b": 2.0, "_runtime": math.nan}]
    assert read_history(rows, "a")[1] == ("a", "c")


@pytest.mark.parametrize("value", [True, None, "0.5", {"min": 1}, [1.0]])
def test_what_is_no_number_is_none(value: object) -> None:
    assert as_number(value) is None


def test_names_with_slashes_and_dots_are_taken_literally_before_they_are_paths() -> None:
    row = {"val/acc": 1, "val.acc": 2, "val": {"acc": 3, "deep": {"er": 4}}}
    assert (look_up(row, "val/acc"), look_up(row, "val.acc"), look_up(row, "val.deep.er")) == (1, 2, 4)
    assert look_up(row, "val.none.er") is None


def test_a_summary_kept_by_define_metric_gives_its_best() -> None:
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


def test_a_metric_that_cannot_be_told_is_asked_for() -> None:
    with pytest.raises(MetricError, match="--metric NAME --goal"):
        choose_metric({"parameters": {}})
    with pytest.raises(MetricError, match="give its --goal"):
        choose_metric({"metric": {"name": "acc", "goal": "maximize"}}, "loss")


@pytest.mark.parametrize("text", ["2025-07-01T12:00:00Z", "2025-07-01T12:00:00", "2025-07-01T14:00:00+02:00"])
def test_times_are_utc_whether_they_say_so_or_not(text: str) -> None:
    parsed = parse_time(text)
    assert parsed is not None
    assert parsed.astimezone(UTC) == datetime(2025, 7, 1, 12, tzinfo=UTC)


def test_no_time_is_none() -> None:
    assert parse_time(None) is None
    assert parse_time("yesterday") is None


@dataclass
class FakeLine:
    content: str


@dataclass
class FakeRun:
    """A run as ``wandb.Api`` gives it."""

    id: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    state: str = "finished"
    name: str = "a-name"
    config: dict[str, Any] = field(default_factory=dict)
    summary_metrics: dict[str, Any] = field(default_factory=dict)
    created_at: str = "2025-07-01T12:00:00Z"
    heartbeat_at: str = "2025-07-01T12:30:00Z"
    rawconfig: dict[str, Any] = field(default_factory=lambda: {"_wandb": {"e": {"0": {"host": "gpu-3"}}}})
    broken: bool = False

    def scan_history(self) -> Iterator[dict[str, Any]]:
        if self.broken:
            raise RuntimeError("HTTP 500")
        return iter(self.rows)

    def console_logs(self, last: int) -> list[FakeLine]:
        return [FakeLine("MemoryError\n")][:last]


class FakeSweep:
    name = "a sweep"
    state = "running"
    config: Mapping[str, Any] = {"metric": {"name": "acc", "goal": "maximize"}}


class FakeApi:
    """A server that tells no flags: the bulk operation of the client fails on it."""

    def __init__(self, *runs: FakeRun) -> None:
        self._runs = runs

    def sweep(self, path: str) -> FakeSweep:
        if path != "e/p/s":
            raise ValueError(f"Could not find sweep {path}")
        return FakeSweep()

    def runs(self, _path: str, **_: Any) -> list[FakeRun]:
        return list(self._runs)


def test_without_the_bulk_operation_flags_are_unknown_and_the_rest_stands() -> None:
    read = read_sweep(FakeApi(FakeRun("a", [{"acc": 0.5}])), "e/p/s")
    (run,) = read.runs
    assert (run.exit_code, run.stop_recorded) == (None, None)
    assert run.curve == [0.5]
    assert read.state == "RUNNING"


def test_runs_keep_their_order_and_progress_is_told() -> None:
    told: list[tuple[int, int]] = []
    api = FakeApi(*(FakeRun(f"r{i}") for i in range(20)))
    read = read_sweep(api, "e/p/s", progress=lambda done, total: told.append((done, total)))
    assert [run.run_id for run in read.runs] == [f"r{i}" for i in range(20)]
    assert told[-1] == (20, 20)


def test_one_unreadable_history_does_not_hide_the_other_runs() -> None:
    read = read_sweep(FakeApi(FakeRun("bad", broken=True), FakeRun("good", [{"acc": 0.5}])), "e/p/s")
    assert [run.unread for run in read.runs] == ["RuntimeError: HTTP 500", None]
    assert read.runs[1].curve == [0.5]


def test_logs_are_read_only_where_an_end_needs_explaining() -> None:
    crashed, said, fine = (
        FakeRun("crashed", state="crashed"),
        FakeRun("said", state="crashed", summary_metrics={"end_reason": "diverged"}),
        FakeRun("fine"),
    )
    read = read_sweep(FakeApi(crashed, said, fine), "e/p/s")
    assert [run.log_tail for run in read.runs] == ["MemoryError", None, None]


def test_the_host_is_where_the_client_leaves_it() -> None:
    nowhere = FakeRun("b", rawconfig={})
    assert [run.host for run in read_sweep(FakeApi(FakeRun("a"), nowhere), "e/p/s").runs] == ["gpu-3", None]


def test_a_sweep_that_is_not_there_is_said_so() -> None:
    with pytest.raises(SweepUnreadableError, match="sweep e/p/other cannot be read"):
        read_sweep(FakeApi(), "e/p/other")
