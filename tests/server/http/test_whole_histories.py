"""The bulk operation: every run and row in one reply, without the rows that the client has."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from in_process_server import InProcessServer

from amc_server.http.whole_histories import read_request, reply

CONFIG = """
method: random
metric: {name: acc, goal: maximize}
parameters: {a: {min: 0.0, max: 1.0}}
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[InProcessServer]:
    running = InProcessServer(tmp_path / "data")
    yield running
    running.close()


@pytest.fixture
def sweep(server: InProcessServer) -> str:
    return server.create_sweep(CONFIG)


def ask(server: InProcessServer, **request: Any) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """Return the first line of a reply, and the rows by run."""
    reply = server.request("POST", "/bulk", json.dumps(request).encode())
    assert reply.status == 200, reply.body
    line, _, rest = reply.body.partition(b"\n")
    first_line = json.loads(line)
    rows: dict[str, list[dict[str, Any]]] = {}
    for run in first_line["runs"]:
        while len(rows.get(run["id"], ())) < run["history"]["rows"]:
            size, _, rest = rest.partition(b"\n")
            rows.setdefault(run["id"], []).extend(json.loads(rest[: int(size)]))
            rest = rest[int(size) :]
    assert rest == b""
    return first_line, rows


def marks(first_line: dict[str, Any]) -> dict[str, list[Any]]:
    """Return ``known`` for the next request of the same client."""
    return {run["id"]: [run["history"]["token"], run["history"]["lines"]] for run in first_line["runs"]}


def test_every_run_of_a_sweep_is_sent_with_every_row(server: InProcessServer, sweep: str) -> None:
    server.begin("one", {"a": 0.5}, sweep=sweep)
    server.log("one", 0.1, 0.2)
    server.begin("two", sweep=sweep)
    server.begin("elsewhere")
    first_line, rows = ask(server, sweep=sweep)
    assert (first_line["entity"], first_line["project"], first_line["sweep"]["id"]) == ("local", "p", sweep)
    assert [run["id"] for run in first_line["runs"]] == ["one", "two"]
    assert first_line["runs"][0]["config"] == {"a": 0.5}
    assert [row["acc"] for row in rows["one"]] == [0.1, 0.2]
    assert "two" not in rows


def test_rows_are_sent_as_they_were_logged_with_bare_nan(server: InProcessServer, sweep: str) -> None:
    server.begin("one", sweep=sweep)
    server.log("one", math.nan, math.inf)
    server.post("one", files={"wandb-history.jsonl": {"offset": 2, "content": ['{"deep": {"er": [1, "é"]}}']}})
    _, rows = ask(server, sweep=sweep)
    assert [repr(row.get("acc")) for row in rows["one"]] == ["nan", "inf", "None"]
    assert rows["one"][2] == {"deep": {"er": [1, "é"]}}


def test_a_long_history_is_sent_in_several_arrays(
    server: InProcessServer, sweep: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amc_server.http.whole_histories.ROWS_AN_ARRAY", 3)
    server.begin("long", sweep=sweep)
    server.log("long", *(number / 10 for number in range(8)))
    server.log("long", 0.9, offset=20)  # lines in between were never sent
    reply = server.request("POST", "/bulk", json.dumps({"sweep": sweep}).encode())
    assert reply.body.count(b"\n") == 1 + 3
    assert [row["acc"] for row in ask(server, sweep=sweep)[1]["long"]] == [*(n / 10 for n in range(8)), 0.9]


def test_only_rows_after_the_known_ones_are_sent(server: InProcessServer, sweep: str) -> None:
    for run in ("one", "two"):
        server.begin(run, sweep=sweep)
        server.log(run, 0.1, 0.2)
    known = marks(ask(server, sweep=sweep)[0])
    server.log("two", 0.3, offset=2)
    first_line, rows = ask(server, sweep=sweep, known=known)
    assert [run["history"]["first"] for run in first_line["runs"]] == [2, 2]
    assert [row["acc"] for row in rows["two"]] == [0.3]
    assert "one" not in rows


def test_a_rewritten_or_restarted_run_is_sent_completely(server: InProcessServer, sweep: str) -> None:
    for run in ("rewritten", "anew", "shorter"):
        server.begin(run, sweep=sweep)
        server.log(run, 0.1, 0.2)
    known = marks(ask(server, sweep=sweep)[0])
    server.log("rewritten", 0.7, 0.8, 0.9)
    run = server.sweep(sweep)["runs"]["anew"]
    server.graphql("mutation D($id: ID!) { deleteRun(input: {id: $id}) { clientMutationId } }", id=run["id"])
    server.advance(1)
    server.begin("anew", sweep=sweep)
    server.log("anew", 0.1, 0.2)
    known["shorter"][1] = 5
    first_line, rows = ask(server, sweep=sweep, known=known)
    assert {run["id"]: run["history"]["first"] for run in first_line["runs"]} == dict.fromkeys(
        ("rewritten", "anew", "shorter"), 0
    )
    assert [row["acc"] for row in rows["rewritten"]] == [0.7, 0.8, 0.9]


def test_the_agent_and_the_end_of_a_run_are_sent(server: InProcessServer, sweep: str) -> None:
    agent = server.create_agent(sweep)
    run = server.draw(agent)["run_id"]
    server.begin(run)
    server.post(run, files={"output.log": {"offset": 0, "content": ["ERROR 2025-07-01T12:00:00.0 MemoryError\n"]}})
    server.finish(run, exit_code=1)
    (entry,) = ask(server, sweep=sweep)[0]["runs"]
    assert entry["agent"]
    assert (entry["agent_host"], entry["state"], entry["exit_code"]) == ("box", "failed", 1)
    assert entry["stop_recorded"] is False
    assert entry["log"] == ["MemoryError"]


def test_a_project_gives_its_runs_without_a_sweep_and_named_runs_may_be_any(
    server: InProcessServer, sweep: str
) -> None:
    server.begin("in a sweep", sweep=sweep)
    server.begin("single")
    assert [run["id"] for run in ask(server, project="p")[0]["runs"]] == ["single"]
    named = ask(server, project="p", runs=["single", "in a sweep", "nonesuch"])[0]["runs"]
    assert [(run["id"], run["sweep"]) for run in named] == [("single", None), ("in a sweep", sweep)]


@pytest.mark.parametrize(
    "request_body", [{"sweep": "nonesuch"}, {"project": "nonesuch"}, {"entity": "other", "project": "p"}]
)
def test_a_missing_sweep_or_project_gives_an_empty_reply(server: InProcessServer, request_body: dict[str, str]) -> None:
    first_line, _ = ask(server, **request_body)
    assert (first_line["project"], first_line["sweep"], first_line["runs"]) == (None, None, [])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"sweep": 3}',
        b'{"runs": "a"}',
        b'{"known": []}',
        b'{"known": {"a": "b"}}',
        b'{"known": {"a": [1, 2]}}',
    ],
)
def test_an_invalid_request_is_refused(server: InProcessServer, body: bytes) -> None:
    assert server.request("POST", "/bulk", body).status == 400


def test_reading_needs_the_key(server: InProcessServer) -> None:
    assert server.request("POST", "/bulk", b"{}", auth=False).status == 401


def test_a_client_that_disconnects_leaves_no_snapshot_open(server: InProcessServer, sweep: str) -> None:
    server.begin("one", sweep=sweep)
    server.log("one", 0.1)
    pieces = reply(server.storage, read_request({"sweep": sweep}))
    next(pieces)
    pieces.close()
    connection = server.storage._idle.get_nowait()
    server.storage._idle.put(connection)
    assert not connection.in_transaction
