"""What a fleet reads from W&B. The server is a fake that rejects what W&B's cloud would reject."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from amc_agents.fleet.trial_evidence import NO_RECORD, WandbRecord
from amc_agents.fleet.watch import SweepReader, Watcher


class Cloud:
    """Answers queries on runs; it rejects fields that are not in W&B's public schema."""

    def __init__(self, *, own_fields: bool = False) -> None:
        self.summaries: dict[str, Any] = {}
        self.asked: list[str] = []
        self.away = False
        self.state = "RUNNING"  # of the sweep
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
            return {"project": {"sweep": {"state": self.state, "config": "metric: {name: loss}"}}}
        runs = json.loads(variables["filters"])["name"]["$in"]
        edges = [
            {"node": {"name": run, "state": "running", "summaryMetrics": json.dumps(self.summaries[run])}}
            for run in runs
            if run in self.summaries
        ]
        return {"project": {"runs": {"edges": edges}}}


def test_after_a_rejected_query_the_embedded_server_s_fields_are_left_out() -> None:
    cloud = Cloud()
    cloud.summaries["r1"] = {"epoch": 4, "val/combined_acc": 0.3, "best/combined_acc": 0.5, "end_reason": "patience"}
    reader = SweepReader(cloud, "team/project/sweep")
    for _ in range(2):
        records = reader.records(["r1", "r2"], "val/combined_acc", minimise=False)
        assert records == {"r1": WandbRecord("running", "patience", None, None, 4, 0.5)}
    assert ["shouldStop" in document for document in cloud.asked] == [True, False, False]
    assert reader.sweep() == {"state": "RUNNING", "config": "metric: {name: loss}"}


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
def test_the_peak_is_read_from_any_form_of_summary(summary: dict[str, Any], minimise: bool, peak: float | None) -> None:
    cloud = Cloud(own_fields=True)
    cloud.summaries["r1"] = summary
    assert SweepReader(cloud, "e/p/s").records(["r1"], "loss", minimise=minimise)["r1"].peak == peak


def test_the_best_value_of_all_polls_stays_even_while_the_server_is_away() -> None:
    cloud = Cloud(own_fields=True)
    watcher = Watcher(SweepReader(cloud, "e/p/s"), "loss", minimise=True)
    watcher.follow(["r1"])
    for value in (0.9, 0.4, 0.7):
        cloud.summaries["r1"] = {"loss": value}
        watcher.poll()
    cloud.away = True
    watcher.poll()
    record = watcher.record("r1")
    assert record.peak == 0.4
    assert watcher.error == "no route to host"
    assert watcher.record("r2") is NO_RECORD
    assert watcher.record(None) is NO_RECORD


def test_a_server_that_does_not_answer_is_an_error_before_the_client_gives_up() -> None:
    cloud, now, seen = Cloud(own_fields=True), [0.0], []
    cloud.summaries["r1"] = {}
    watcher = Watcher(SweepReader(cloud, "e/p/s"), None, minimise=True, clock=lambda: now[0])
    watcher.follow(["r1"])

    def wait() -> None:
        cloud.before_answering = lambda: None
        for now[0] in (9.0, 11.0):
            seen.append(watcher.error)

    cloud.before_answering = wait
    watcher.poll()
    assert seen == [None, "no answer for 10 s"]
    assert watcher.error is None


def test_a_pause_is_seen_while_no_trial_runs() -> None:
    cloud = Cloud()
    watcher = Watcher(SweepReader(cloud, "e/p/s"), "loss", minimise=True)
    seen = []
    for cloud.state in ("RUNNING", "PAUSED", "RUNNING"):
        watcher.poll()
        seen.append(watcher.is_paused)
    assert seen == [False, True, False]
