"""What is read of W&B while a fleet works. The server is a fake: it refuses what W&B's cloud would refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from amc_agents.fleet.evidence import Record
from amc_agents.fleet.watch import Sweep, Watch


class Cloud:
    """Answers run queries; knows no field that W&B's public schema has not."""

    def __init__(self, *, own_fields: bool = False) -> None:
        self.summaries: dict[str, Any] = {}
        self.asked: list[str] = []
        self.away = False
        self.before_answering: Callable[[], None] = lambda: None
        self._own_fields = own_fields
        self._service_api = SimpleNamespace(execute_graphql=self._execute)

    def _execute(self, document: str, variables: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(document)
        self.before_answering()
        if self.away:
            raise ConnectionError("no route to host")
        if "shouldStop" in document and not self._own_fields:
            raise ValueError('Cannot query field "shouldStop" on type "Run"')
        if "sweep(" in document:
            return {"project": {"sweep": {"state": "RUNNING", "config": "metric: {name: loss}"}}}
        wanted = json.loads(variables["filters"])["name"]["$in"]
        edges = [
            {"node": {"name": run, "state": "running", "summaryMetrics": json.dumps(self.summaries[run])}}
            for run in wanted
            if run in self.summaries
        ]
        return {"project": {"runs": {"edges": edges}}}


def test_a_server_that_lacks_our_own_fields_is_asked_without_them_from_then_on() -> None:
    cloud = Cloud()
    cloud.summaries["r1"] = {"epoch": 4, "val/combined_acc": 0.3, "best/combined_acc": 0.5, "end_reason": "patience"}
    sweep = Sweep(cloud, "team/project/sweep")
    for _ in range(2):
        found = sweep.records(["r1", "r2"], "val/combined_acc", minimise=False)
        assert found == {"r1": Record("running", "patience", None, None, 4, 0.5)}
    assert ["shouldStop" in document for document in cloud.asked] == [True, False, False]
    assert sweep.look() == {"state": "RUNNING", "config": "metric: {name: loss}"}


@pytest.mark.parametrize(
    ("summary", "minimise", "peak"),
    [
        ({"loss": 2.0}, True, 2.0),
        ({"loss": {"min": 1.5, "max": 9}}, True, 1.5),
        ({"loss": {"min": 1.5, "max": 9}}, False, 9.0),
        ({"loss": "NaN"}, True, None),
        ({"loss": float("nan")}, True, None),
        ({}, True, None),
    ],
)
def test_the_peak_is_read_however_the_script_logs_it(
    summary: dict[str, Any], minimise: bool, peak: float | None
) -> None:
    cloud = Cloud(own_fields=True)
    cloud.summaries["r1"] = summary
    assert Sweep(cloud, "e/p/s").records(["r1"], "loss", minimise=minimise)["r1"].peak == peak


def test_the_best_value_that_was_seen_stays_and_a_server_that_is_away_changes_nothing() -> None:
    cloud = Cloud(own_fields=True)
    watch = Watch(Sweep(cloud, "e/p/s"), "loss", minimise=True)
    watch.want(["r1"])
    for value in (0.9, 0.4, 0.7):
        cloud.summaries["r1"] = {"loss": value}
        watch.look()
    cloud.away = True
    watch.look()
    record = watch.record("r1")
    assert record is not None
    assert record.peak == 0.4
    assert watch.trouble == "no route to host"
    assert watch.record("r2") is None
    assert watch.record(None) is None


def test_a_server_that_does_not_answer_is_trouble_before_the_client_gives_up() -> None:
    cloud, now, seen = Cloud(own_fields=True), [0.0], []
    cloud.summaries["r1"] = {}
    watch = Watch(Sweep(cloud, "e/p/s"), None, minimise=True, clock=lambda: now[0])
    watch.want(["r1"])

    def wait() -> None:
        for now[0] in (9.0, 11.0):
            seen.append(watch.trouble)

    cloud.before_answering = wait
    watch.look()
    assert seen == [None, "no answer for 10 s"]
    assert watch.trouble is None
