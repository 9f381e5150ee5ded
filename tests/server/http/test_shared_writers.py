"""A run that several clients write at a time keeps every line of each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from in_process_server import InProcessServer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[InProcessServer]:
    running = InProcessServer(tmp_path / "data")
    running.begin("r", {"lr": 0.5})
    yield running
    running.close()


def post(server: InProcessServer, writer: str, offset: int, rows: list[dict[str, Any]], **more: Any) -> None:
    files = {"wandb-history.jsonl": {"offset": offset, "content": [json.dumps(row) for row in rows]}}
    body = json.dumps({"files": {**files, **more}}).encode()
    headers = {"x-wandb-use-async-filestream": "true", "x-wandb-async-client-id": writer}
    assert server.request("POST", "/files/local/p/r/file_stream", body, headers).json() == {}


def record(server: InProcessServer) -> dict[str, Any]:
    query = '{ project(name: "p") { run(name: "r") { config summaryMetrics historyLineCount logLineCount } } }'
    return dict(server.graphql(query)["project"]["run"])


def test_lines_of_two_writers_with_equal_numbers_are_all_kept_and_none_twice(server: InProcessServer) -> None:
    post(server, "one", 0, [{"a": 1}])
    post(server, "two", 1, [{"b": 0}, {"b": 1}])
    post(server, "one", 1, [{"a": 2}])
    server.close()
    server.open()
    post(server, "two", 1, [{"b": 0}, {"b": 1}, {"b": 2}])  # two of them a second time: their reply was lost
    history = server.history("r")
    assert [{key: value for key, value in row.items() if key != "_step"} for row in history] == [
        {"a": 1},
        {"b": 0},
        {"b": 1},
        {"a": 2},
        {"b": 2},
    ]
    assert [row["_step"] for row in history] == [0, 1, 2, 3, 4], "a row without a step gets the run's"
    assert record(server)["historyLineCount"] == 5


def test_the_summary_and_config_hold_what_each_writer_knows(server: InProcessServer) -> None:
    for writer, summary in (("one", {"a": 1}), ("two", {"b": 2}), ("one", {"a": 3})):
        post(server, writer, 0, [summary], **{"wandb-summary.json": {"offset": 0, "content": [json.dumps(summary)]}})
    assert json.loads(record(server)["summaryMetrics"]) == {"a": 3, "b": 2}
    server.begin("r", {"seen by two": 1})
    assert set(json.loads(record(server)["config"])) >= {"lr", "seen by two"}


def test_a_console_line_that_is_rewritten_keeps_its_place(server: InProcessServer) -> None:
    for writer, offset, line in (("one", 0, "10%"), ("two", 0, "hello"), ("one", 0, "100%")):
        post(server, writer, offset, [], **{"output.log": {"offset": offset, "content": [line]}})
    query = '{ project(name: "p") { run(name: "r") { logLines(first: 9) { edges { node { line } } } } } }'
    edges = server.graphql(query)["project"]["run"]["logLines"]["edges"]
    assert [edge["node"]["line"] for edge in edges] == ["100%", "hello"]


def test_a_writer_without_a_plain_name_is_refused(server: InProcessServer) -> None:
    headers = {"x-wandb-use-async-filestream": "true", "x-wandb-async-client-id": ""}
    reply = server.request("POST", "/files/local/p/r/file_stream", b"{}", headers)
    assert reply.status == 400
    assert "X-WANDB-ASYNC-CLIENT-ID" in reply.body.decode()
