"""Versions of the client: what old ones ask for, and what untested ones are told."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from in_process_server import GraphqlRefused, InProcessServer

from amc_server.clients import is_tested, range_hint, version_of


@pytest.fixture
def server(tmp_path: Path) -> Iterator[InProcessServer]:
    running = InProcessServer(tmp_path / "data")
    yield running
    running.close()


@pytest.mark.parametrize(
    ("user_agent", "version", "tested"),
    [
        ("W&B Public Client 0.31.0", "0.31.0", True),
        ("W&B Public Client 0.31.12", "0.31.12", True),
        ("W&B Public Client 0.31.0rc1", "0.31.0rc1", True),
        ("W&B Internal Client 0.19.0", "0.19.0", True),
        ("W&B Public Client 0.32.0", "0.32.0", False),
        ("W&B Internal Client 0.18.7", "0.18.7", False),
        ("W&B Public Client 1.31.0", "1.31.0", False),
    ],
)
def test_the_version_of_a_client_is_compared_with_the_tested_range(user_agent: str, version: str, tested: bool) -> None:
    assert version_of(user_agent) == version
    assert is_tested(version) is tested
    assert (version in range_hint(version)) is not tested


@pytest.mark.parametrize("user_agent", [None, "", "wandb-core", "curl/8", "W&B Public Client x"])
def test_a_client_without_a_version_gets_no_guess(user_agent: str | None) -> None:
    assert version_of(user_agent) is None
    assert range_hint(None) == "this server is tested with wandb >=0.19,<0.32"


def test_an_untested_client_is_served_and_logged_once(
    server: InProcessServer, caplog: pytest.LogCaptureFixture
) -> None:
    body = json.dumps({"query": "{ viewer { id } }"}).encode()
    with caplog.at_level(logging.WARNING, logger="amc_server"):
        for _ in range(3):
            reply = server.request("POST", "/graphql", body, {"user-agent": "W&B Public Client 0.99.1"})
            assert reply.json()["data"]["viewer"]
    (warning,) = [record for record in caplog.records if "0.99.1" in record.getMessage()]
    assert ">=0.19,<0.32" in warning.getMessage()


def test_the_error_for_an_unknown_field_begins_with_the_tested_range(server: InProcessServer) -> None:
    body = json.dumps({"query": "query New { brandNewThing { id } }"}).encode()
    reply = server.request("POST", "/graphql", body, {"user-agent": "W&B Public Client 0.99.1"})
    (error,) = reply.json()["errors"]  # old clients print the first only
    assert error["message"].startswith("this server is tested with wandb >=0.19,<0.32, this client says it is 0.99.1")
    assert "brandNewThing" in error["message"]


BEGIN = """mutation UpsertBucket($name: String, $host: String, $config: JSONString) {
    upsertBucket(input: {name: $name, modelName: "p", host: $host, config: $config}) { bucket { name } } }"""


@pytest.mark.parametrize(
    ("version", "user_agent", "statuses"),
    [
        ("0.31.0", "wandb-core", [200, 200]),
        ("0.19.0", "wandb-core", [200, 200]),
        ("0.33.0", "wandb-core", [429, 200, 200]),
        ("0.18.7", "wandb-core", [429, 200, 200]),
        ("0.17.9", "W&B Internal Client 0.17.9", [429, 429, 429, 200, 200]),  # it prints the third text
    ],
)
def test_a_run_of_an_untested_client_is_told_the_range_and_then_begins(
    server: InProcessServer, version: str, user_agent: str, statuses: list[int]
) -> None:
    for run in ("first", "second"):
        variables = {"name": run, "host": "box", "config": json.dumps({"_wandb": {"value": {"cli_version": version}}})}
        body = json.dumps({"query": BEGIN, "variables": variables}).encode()
        replies = [server.request("POST", "/graphql", body, {"user-agent": user_agent}) for _ in statuses]
        assert [reply.status for reply in replies] == statuses
        told = [reply.body.decode() for reply in replies if reply.status == 429]
        assert all(text.startswith(range_hint(version)) and 'pip install "wandb>=0.19,<0.32"' in text for text in told)


def test_what_clients_before_0_28_ask_before_a_sync_has_an_answer(server: InProcessServer) -> None:
    server.begin("r")
    data = server.graphql("""query Old {
        ServerSettingsType: __type(name: "ServerSettings") { fields { name } }
        QueryType: __type(name: "Query") { fields { name } }
        serverInfo { cliVersionInfo latestLocalVersionInfo { outOfDate latestVersionString } }
        project(name: "p") { run(name: "r", desc: "d") { name } bucket(name: "r", desc: "d") { name } }
    }""")
    assert data["ServerSettingsType"]["fields"] == [{"name": "serverMessages"}]
    versions = data["serverInfo"]["cliVersionInfo"]
    assert is_tested(versions["min_cli_version"]), versions
    assert is_tested(versions["max_cli_version"]), versions
    assert data["serverInfo"]["latestLocalVersionInfo"] is None, "or the client advertises a newer W&B server"
    upserted = server.graphql("""mutation Old { upsertBucket(input: {name: "r", modelName: "p"}) {
        serverSettings { serverMessages { utfText plainText htmlText messageType messageLevel } } } }""")
    assert upserted["upsertBucket"]["serverSettings"] == {"serverMessages": []}


def test_pages_of_clients_before_0_28_hold_every_step_once(server: InProcessServer) -> None:
    server.begin("r")
    server.log("r", *[float(value) for value in range(7)])
    query = (
        """query H($spec: JSONString!) { project(name: "p") { run(name: "r") { sampledHistory(specs: [$spec]) } } }"""
    )
    steps = []
    for first in (0, 2, 4, 6):  # they name the first step of the next page as maxStep
        spec = {"keys": ["_step", "acc"], "minStep": first, "maxStep": min(first + 2, 7), "samples": 2}
        (rows,) = server.graphql(query, spec=json.dumps(spec))["project"]["run"]["sampledHistory"]
        steps += [row["_step"] for row in rows]
    assert steps == list(range(7))


ALERT = """mutation Alert($title: String!) { notifyScriptableRunAlert(input: {entityName: "local", projectName: "p",
    runName: "r", title: $title, text: "t"}) { success } }"""


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (ALERT, "nobody is notified"),
        ("mutation Unknown($title: String!) { brandNewThing(title: $title) { id } }", "brandNewThing"),
    ],
)
def test_wandb_core_is_told_of_a_refused_mutation_before_it_gets_the_error(
    server: InProcessServer, document: str, words: str
) -> None:
    server.begin("r")
    for title in ("loss is NaN", "again"):
        body = json.dumps({"query": document, "variables": {"title": title}}).encode()
        told, refused = (server.request("POST", "/graphql", body, {"user-agent": "wandb-core"}) for _ in range(2))
        assert (told.status, refused.status) == (429, 200)
        assert words in told.body.decode()
        assert refused.json()["errors"] == [{"message": told.body.decode()}]
    plain = server.request("POST", "/graphql", body, {"user-agent": "W&B Public Client 0.31.0"})
    assert words in plain.json()["errors"][0]["message"], "the public API raises the error at once"


def test_a_forked_run_has_the_rows_of_its_parent_up_to_the_step(server: InProcessServer) -> None:
    server.begin("parent")
    server.log("parent", *[float(value) for value in range(5)])
    fork = {"value": {"t": {}, "branch_point": {"run_id": "parent", "step": 2}}}
    mutation = """mutation U($name: String!, $config: JSONString) { upsertBucket(input:
        {name: $name, modelName: "p", host: "h", config: $config}) { bucket { historyLineCount } } }"""
    for _ in range(2):  # the second time is a repeat after a lost reply
        run = server.graphql(mutation, name="child", config=json.dumps({"_wandb": fork}))["upsertBucket"]["bucket"]
        assert run["historyLineCount"] == 3, "from there the client counts its own rows"
    server.log("child", 9.0, offset=3)
    assert [row["acc"] for row in server.history("child")] == [0.0, 1.0, 2.0, 9.0]
    fork["value"]["branch_point"] = {"run_id": "nowhere", "step": 2}
    with pytest.raises(GraphqlRefused, match="no run 'nowhere' in project 'p'") as refusal:
        server.graphql(mutation, name="orphan", config=json.dumps({"_wandb": fork}))
    assert refusal.value.status == 400


def test_a_rewind_is_refused_with_the_fork_that_does_the_same(server: InProcessServer) -> None:
    server.begin("r")
    with pytest.raises(GraphqlRefused, match=r'wandb.init\(fork_from="r\?_step=2"\)'):
        server.graphql("""mutation R { rewindRun(input: {runName: "r", projectName: "p", metricName: "_step",
            metricValue: 2}) { rewoundRun { id } } }""")
