"""A metric that only the summary holds: the search, Hyperband, the target and the ranking see the same value."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from in_process_server import InProcessServer

BAYES = """
method: bayes
metric: {name: %s, goal: maximize}
parameters: {x: {min: 0.0, max: 1.0}}
"""
RANDOM = """
method: random
metric: {name: acc.max, goal: maximize%s}
%s
parameters: {x: {min: 0.0, max: 1.0}}
"""
HYPERBAND = "early_terminate: {type: hyperband, min_iter: 2, eta: 3, strict: true}"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[InProcessServer]:
    running = InProcessServer(tmp_path / "data")
    yield running
    running.close()


def post(server: InProcessServer, run: str, summary: Mapping[str, Any], row: int | None = None) -> dict[str, Any]:
    """Send a summary, and a row of history that lacks the metric."""
    files: dict[str, Any] = {"wandb-summary.json": {"offset": 0, "content": [json.dumps(summary)]}}
    if row is not None:
        files["wandb-history.jsonl"] = {"offset": row, "content": [json.dumps({"_step": row, "loss": 1.0})]}
    return server.post(run, files=files)


def begin(server: InProcessServer, sweep: str) -> str:
    run = str(server.draw(server.create_agent(sweep))["run_id"])
    server.begin(run)
    return run


@pytest.mark.parametrize(
    ("metric", "summary"), [("score", lambda x: {"score": x}), ("acc.max", lambda x: {"acc": {"max": x}})]
)
def test_bayes_learns_from_a_metric_in_the_summary(server: InProcessServer, metric: str, summary: Any) -> None:
    sweep = server.create_sweep(BAYES % metric)
    drawn = []
    for _ in range(20):
        command = server.draw(server.create_agent(sweep))
        x = command["args"]["x"]["value"]
        drawn.append(x)
        server.begin(command["run_id"])
        post(server, command["run_id"], summary(x), row=0)
        server.finish(command["run_id"])
    assert statistics.mean(drawn[12:]) > 0.75, "0.5 is blind"
    assert server.sweep(sweep)["bestLoss"] == max(drawn)


def test_hyperband_stops_by_a_metric_in_the_summary(server: InProcessServer) -> None:
    sweep = server.create_sweep(RANDOM % ("", HYPERBAND))
    good, bad = begin(server, sweep), begin(server, sweep)
    for row, (high, low) in enumerate([(0.5, 0.3), (0.8, 0.3)]):
        assert post(server, good, {"acc": {"max": high}}, row) == {}
        stopped = post(server, bad, {"acc": {"max": low}}, row)
    assert stopped == {"stopped": True}
    record = server.sweep(sweep)["runs"][bad]
    assert (record["stopBand"], record["stopValue"]) == (2, 0.3)


def test_a_repeated_summary_without_new_rows_is_no_new_value(server: InProcessServer) -> None:
    sweep = server.create_sweep(RANDOM % ("", HYPERBAND))
    good, bad = begin(server, sweep), begin(server, sweep)
    for row in range(2):
        post(server, good, {"acc": {"max": 0.8}}, row)
    for _ in range(3):
        assert post(server, bad, {"acc": {"max": 0.1}}, 0) == {}


def test_a_target_is_reached_in_the_summary(server: InProcessServer) -> None:
    sweep = server.create_sweep(RANDOM % (", target: 0.9", ""))
    run = begin(server, sweep)
    post(server, run, {"acc": {"max": 0.8}})
    assert server.sweep(sweep)["state"] == "RUNNING"
    post(server, run, {"acc": {"max": 0.95}})
    assert server.sweep(sweep)["state"] == "FINISHED"


def test_the_best_value_is_the_one_that_the_summary_ends_with(server: InProcessServer) -> None:
    sweep = server.create_sweep(BAYES % "score")
    run = begin(server, sweep)
    for row, score in enumerate([0.2, 0.9, 0.4]):
        post(server, run, {"score": score}, row)
    assert server.sweep(sweep)["bestLoss"] == 0.4


def test_values_of_the_history_replace_those_of_the_summary(server: InProcessServer) -> None:
    sweep = server.create_sweep(BAYES % "acc")
    run = begin(server, sweep)
    post(server, run, {"acc": 0.9}, 0)
    server.log(run, 0.3, 0.4, offset=1)
    post(server, run, {"acc": 0.4})
    assert server.sweep(sweep)["bestLoss"] == 0.4


def test_a_summary_that_is_changed_through_the_api_counts(server: InProcessServer) -> None:
    sweep = server.create_sweep(BAYES % "score")
    run = begin(server, sweep)
    server.finish(run)
    document = """mutation U($id: String, $summary: JSONString) {
        upsertBucket(input: {id: $id, summaryMetrics: $summary}) { inserted } }"""
    server.graphql(document, id=server.sweep(sweep)["runs"][run]["id"], summary='{"score": 0.7}')
    assert server.sweep(sweep)["bestLoss"] == 0.7


def test_an_updated_sweep_reads_its_new_metric_from_the_summary(server: InProcessServer) -> None:
    sweep = server.create_sweep(BAYES % "acc")
    run = begin(server, sweep)
    server.log(run, 0.3)
    post(server, run, {"score": 0.6})
    update = "mutation U($id: ID, $config: String) { upsertSweep(input: {id: $id, config: $config}) { sweep { id } } }"
    server.graphql(update, id=server.sweep(sweep)["id"], config=BAYES % "score")
    assert server.sweep(sweep)["bestLoss"] == 0.6
