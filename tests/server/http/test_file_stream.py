"""The posts of a trial: stored once however often they are sent, refused completely if a part is wrong."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from in_process_server import InProcessServer

from amc_server.errors import Refused
from amc_server.http.file_stream import read_post
from amc_server.http.write_queue import WriteQueue
from amc_server.store.logged_values import metric_points
from amc_server.store.storage import Storage
from amc_sweeps.grammar.parse import parse


@pytest.fixture
def server(tmp_path: Path) -> Iterator[InProcessServer]:
    running = InProcessServer(tmp_path / "data")
    running.begin("r")
    yield running
    running.close()


def logged_value(row: dict[str, Any], metric: str) -> float | None:
    config = {"method": "random", "metric": {"name": metric}, "parameters": {"a": {"min": 0.0, "max": 1.0}}}
    points = metric_points([(0, row)], parse(config))
    return points[0][1] if points else None


def steps(server: InProcessServer) -> list[float]:
    return [row["acc"] for row in server.history("r")]


def test_a_chunk_that_is_sent_again_changes_nothing(server: InProcessServer) -> None:
    for _ in range(3):
        server.log("r", 0.1, 0.2)
    server.log("r", 0.3, offset=2)
    server.log("r", 0.1, 0.2)
    assert steps(server) == [0.1, 0.2, 0.3]


def test_a_chunk_replaces_the_lines_at_its_offset(server: InProcessServer) -> None:
    server.post("r", files={"output.log": {"offset": 0, "content": ["one", "10 %", "three"]}})
    server.post("r", files={"output.log": {"offset": 1, "content": ["90 %"]}})
    query = """{ project(name: "p") { run(name: "r") { logLineCount
        logLines(first: 10) { edges { node { number line level timestamp } } } } } }"""
    run = server.graphql(query)["project"]["run"]
    assert run["logLineCount"] == 3
    assert [edge["node"]["line"] for edge in run["logLines"]["edges"]] == ["one", "90 %", "three"]


def test_a_console_line_has_its_time_and_its_stream(server: InProcessServer) -> None:
    lines = ["2026-01-02T03:04:05.678901 to stdout", "ERROR 2026-01-02T03:04:05.678902 to stderr"]
    server.post("r", files={"output.log": {"offset": 0, "content": lines}})
    query = (
        '{ project(name: "p") { run(name: "r") { logLines(last: 5) { edges { node { line level timestamp } } } } } }'
    )
    nodes = [edge["node"] for edge in server.graphql(query)["project"]["run"]["logLines"]["edges"]]
    assert nodes == [
        {"line": "to stdout", "level": "info", "timestamp": "2026-01-02T03:04:05.678901"},
        {"line": "to stderr", "level": "error", "timestamp": "2026-01-02T03:04:05.678902"},
    ]


def test_the_summary_is_replaced_and_a_resume_gets_the_line_counts(server: InProcessServer) -> None:
    server.log("r", 0.1, 0.2)
    server.post("r", files={"wandb-summary.json": {"offset": 0, "content": ['{"acc": 0.1}']}})
    server.post("r", files={"wandb-summary.json": {"offset": 0, "content": ['{"acc": 0.2}']}})
    server.post("r", files={"wandb-events.jsonl": {"offset": 0, "content": ['{"system.cpu": 5}']}})
    query = """{ model(name: "p", entityName: "local") { bucket(name: "r", missingOk: true) { summaryMetrics
        historyLineCount eventsLineCount logLineCount historyTail eventsTail wandbConfig(keys: ["t"]) } } }"""
    run = server.graphql(query)["model"]["bucket"]
    assert json.loads(run["summaryMetrics"]) == {"acc": 0.2}
    assert (run["historyLineCount"], run["eventsLineCount"], run["logLineCount"]) == (2, 1, 0)
    assert json.loads(json.loads(run["historyTail"])[-1])["acc"] == 0.2
    assert "t" in json.loads(run["wandbConfig"])


def test_a_run_that_was_only_handed_out_cannot_be_resumed(server: InProcessServer) -> None:
    sweep = server.create_sweep("method: random\nparameters: {a: {min: 0.0, max: 1.0}}\n")
    run = server.draw(server.create_agent(sweep))["run_id"]
    query = 'query R($run: String!) { model(name: "p") { bucket(name: $run, missingOk: true) { id } } }'
    assert server.graphql(query, run=run)["model"]["bucket"] is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"files": []}',
        b'{"files": {"wandb-history.jsonl": []}}',
        b'{"files": {"wandb-history.jsonl": {"offset": -1, "content": ["{}"]}}}',
        b'{"files": {"wandb-history.jsonl": {"offset": 1e3, "content": ["{}"]}}}',
        b'{"files": {"wandb-history.jsonl": {"offset": 99999999999999999999, "content": ["{}"]}}}',
        b'{"files": {"wandb-history.jsonl": {"offset": true, "content": ["{}"]}}}',
        b'{"files": {"wandb-history.jsonl": {"offset": 0, "content": ["{}", 5]}}}',
        b'{"files": {"wandb-history.jsonl": {"offset": 0, "content": ["not json"]}}}',
        b'{"files": {"wandb-history.jsonl": {"offset": 0, "content": ["{}", "[1]"]}}}',
        b'{"files": {"wandb-summary.json": {"offset": 0, "content": ["nope"]}}}',
        b'{"complete": true, "exitcode": "one"}',
        b'{"complete": true, "exitcode": 1e99}',
        b"[" * 50_000,
    ],
)
def test_a_bad_post_gets_400_with_the_reason_and_is_not_stored(server: InProcessServer, body: bytes) -> None:
    reply = server.request("POST", "/files/local/p/r/file_stream", body)
    assert reply.status == 400
    assert len(reply.json()["errors"][0]["message"]) > 10
    assert server.history("r") == []


@pytest.mark.parametrize("path", ["/files/local/p/nothere/file_stream", "/files/team/p/r/file_stream"])
def test_a_post_to_a_missing_run_gets_404_which_the_client_does_not_retry(server: InProcessServer, path: str) -> None:
    assert server.request("POST", path, b"{}").status == 404


def test_lone_surrogates_are_replaced_before_text_is_stored() -> None:
    post = read_post(b'{"files": {"output.log": {"offset": 0, "content": ["a\\ud800b"]}}}')
    assert post.lines["output.log"][0].body == "a?b"


def test_a_row_without_a_step_still_counts_as_a_line() -> None:
    post = read_post(b'{"files": {"wandb-history.jsonl": {"offset": 3, "content": ["{\\"acc\\": 1}"]}}}')
    assert [(line.number, line.step) for line in post.lines["wandb-history.jsonl"]] == [(3, None)]


@pytest.mark.parametrize(
    ("row", "value"),
    [
        ({"val/acc": 0.5}, 0.5),
        ({"val/acc": 1}, 1.0),
        ({"val/acc": True}, None),
        ({"val/acc": "0.5"}, None),
        ({"val/acc": float("nan")}, None),
        ({"val/acc": float("inf")}, None),
        ({"val/acc": 10**400}, None),
        ({}, None),
    ],
)
def test_only_finite_numbers_are_values_of_a_metric(row: dict[str, Any], value: float | None) -> None:
    assert logged_value(row, "val/acc") == value


def test_a_dot_in_a_metrics_name_may_stand_for_nesting() -> None:
    assert logged_value({"val.acc": 0.25}, "val.acc") == 0.25
    assert logged_value({"val": {"acc": 0.5}}, "val.acc") == 0.5
    assert logged_value({"val": 3}, "val.acc") is None


def test_a_bad_exit_code_is_named() -> None:
    with pytest.raises(Refused, match="exitcode"):
        read_post(b'{"complete": true, "exitcode": true}')


def test_posts_that_wait_for_the_writer_queue_one_task(tmp_path: Path) -> None:
    async def scenario(storage: Storage) -> list[dict[str, Any]]:
        writes = WriteQueue(storage)
        with storage.write_unflushed(urgent=True):
            replies = [asyncio.create_task(writes.write(1, lambda: lambda store: {"n": 1})) for _ in range(100)]
            await asyncio.sleep(0)  # every task hands in its post
            assert writes._thread._work_queue.qsize() <= 1
        return await asyncio.gather(*replies)

    with contextlib.closing(Storage(tmp_path / "queue")) as storage:
        assert asyncio.run(scenario(storage)) == [{"n": 1}] * 100
