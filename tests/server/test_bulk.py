"""The bulk operation: every run and row in one reply, and of what the asker knows only what is new."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from in_process_server import InProcessServer

from amc_server.http.bulk import read_request, reply

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
    """Return the first line of a reply, and the rows by run that came after it."""
    reply = server.request("POST", "/bulk", json.dumps(request).encode())
    assert reply.status == 200, reply.body
    line, _, rest = reply.body.partition(b"\n")
    head = json.loads(line)
    rows: dict[str, list[dict[str, Any]]] = {}
    for run in head["runs"]:
        while len(rows.get(run["id"], ())) < run["history"]["rows"]:
            size, _, rest = rest.partition(b"\n")
            rows.setdefault(run["id"], []).extend(json.loads(rest[: int(size)]))
            rest = rest[int(size) :]
    assert rest == b""
    return head, rows


def marks(head: dict[str, Any]) -> dict[str, list[Any]]:
    """Return what an asker keeps of a reply."""
    return {run["id"]: [run["history"]["token"], run["history"]["lines"]] for run in head["runs"]}


def test_every_run_of_a_sweep_comes_with_every_row(server: InProcessServer, sweep: str) -> None:
    server.begin("one", {"a": 0.5}, sweep=sweep)
    server.log("one", 0.1, 0.2)
    server.begin("two", sweep=sweep)
    server.begin("elsewhere")
    head, rows = ask(server, sweep=sweep)
    assert (head["entity"], head["project"], head["sweep"]["id"]) == ("local", "p", sweep)
    assert [run["id"] for run in head["runs"]] == ["one", "two"]
    assert head["runs"][0]["config"] == {"a": 0.5}
    assert [row["acc"] for row in rows["one"]] == [0.1, 0.2]
    assert "two" not in rows


def test_rows_go_out_as_they_were_logged_bare_nan_and_all(server: InProcessServer, sweep: str) -> None:
    server.begin("one", sweep=sweep)
    server.log("one", math.nan, math.inf)
    server.post("one", files={"wandb-history.jsonl": {"offset": 2, "content": ['{"deep": {"er": [1, "é"]}}']}})
    _, rows = ask(server, sweep=sweep)
    assert [repr(row.get("acc")) for row in rows["one"]] == ["nan", "inf", "None"]
    assert rows["one"][2] == {"deep": {"er": [1, "é"]}}


def test_a_long_history_comes_in_several_pieces(
    server: InProcessServer, sweep: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amc_server.http.bulk.ROWS_AN_ARRAY", 3)
    server.begin("long", sweep=sweep)
    server.log("long", *(number / 10 for number in range(8)))
    server.log("long", 0.9, offset=20)  # lines in between were never sent
    reply = server.request("POST", "/bulk", json.dumps({"sweep": sweep}).encode())
    assert reply.body.count(b"\n") == 1 + 4
    assert [row["acc"] for row in ask(server, sweep=sweep)[1]["long"]] == [*(n / 10 for n in range(8)), 0.9]


def test_of_what_is_known_only_later_rows_are_sent(server: InProcessServer, sweep: str) -> None:
    for run in ("one", "two"):
        server.begin(run, sweep=sweep)
        server.log(run, 0.1, 0.2)
    known = marks(ask(server, sweep=sweep)[0])
    server.log("two", 0.3, offset=2)
    head, rows = ask(server, sweep=sweep, known=known)
    assert [run["history"]["first"] for run in head["runs"]] == [2, 2]
    assert [row["acc"] for row in rows["two"]] == [0.3]
    assert "one" not in rows


def test_what_was_rewritten_or_begun_anew_is_sent_whole(server: InProcessServer, sweep: str) -> None:
    for run in ("rewritten", "anew", "shorter"):
        server.begin(run, sweep=sweep)
        server.log(run, 0.1, 0.2)
    known = marks(ask(server, sweep=sweep)[0])
    server.log("rewritten", 0.7, 0.8, 0.9)
    head = server.sweep(sweep)["runs"]["anew"]
    server.graphql("mutation D($id: ID!) { deleteRun(input: {id: $id}) { clientMutationId } }", id=head["id"])
    server.advance(1)
    server.begin("anew", sweep=sweep)
    server.log("anew", 0.1, 0.2)
    known["shorter"][1] = 5
    head, rows = ask(server, sweep=sweep, known=known)
    assert {run["id"]: run["history"]["first"] for run in head["runs"]} == dict.fromkeys(
        ("rewritten", "anew", "shorter"), 0
    )
    assert [row["acc"] for row in rows["rewritten"]] == [0.7, 0.8, 0.9]


def test_who_started_a_run_and_how_it_ended_is_told(server: InProcessServer, sweep: str) -> None:
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


def test_a_project_has_the_runs_of_no_sweep_and_named_runs_may_be_any(server: InProcessServer, sweep: str) -> None:
    server.begin("in a sweep", sweep=sweep)
    server.begin("single")
    assert [run["id"] for run in ask(server, project="p")[0]["runs"]] == ["single"]
    named = ask(server, project="p", runs=["single", "in a sweep", "nonesuch"])[0]["runs"]
    assert [(run["id"], run["sweep"]) for run in named] == [("single", None), ("in a sweep", sweep)]


@pytest.mark.parametrize(
    "wanted", [{"sweep": "nonesuch"}, {"project": "nonesuch"}, {"entity": "other", "project": "p"}]
)
def test_what_is_not_there_is_answered_by_nothing(server: InProcessServer, wanted: dict[str, str]) -> None:
    head, _ = ask(server, **wanted)
    assert (head["project"], head["sweep"], head["runs"]) == (None, None, [])


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
def test_what_is_no_request_is_refused(server: InProcessServer, body: bytes) -> None:
    assert server.request("POST", "/bulk", body).status == 400


def test_nobody_reads_without_the_key(server: InProcessServer) -> None:
    assert server.request("POST", "/bulk", b"{}", auth=False).status == 401


def test_who_hangs_up_in_the_middle_leaves_no_snapshot_open(server: InProcessServer, sweep: str) -> None:
    server.begin("one", sweep=sweep)
    server.log("one", 0.1)
    pieces = reply(server.storage, read_request({"sweep": sweep}))
    next(pieces)
    pieces.close()
    connection = server.storage._idle.get_nowait()
    server.storage._idle.put(connection)
    assert not connection.in_transaction
