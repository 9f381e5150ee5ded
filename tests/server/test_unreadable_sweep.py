"""A stored sweep whose YAML cannot be read any more: it alone stops, and everybody is told why."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from embedded_server import EmbeddedServer
from in_process_server import GraphqlRefused, InProcessServer
from operated_sweep import PATH, PROJECT, SWEEP_ID, OperatedSweep, ended_runs
from plain_wandb import PlainWandb

from amc_sweeps.runs.export_file import read

SWEEP = "method: grid\nmetric: {name: acc, goal: maximize}\nparameters: {a: {values: [1, 2, 3]}}\n"
REASON = "configuration unreadable: "
TEXTS = ["method: grid\nparameters: {a: ", "[1]", "", "method: annealing\nparameters: {a: {values: [1]}}\n"]


def break_config(data: Path, sweep: str, text: str) -> None:
    """Write into the database, as an older version or a hand would."""
    with contextlib.closing(sqlite3.connect(data / "amc.sqlite3")) as database:
        database.execute("UPDATE sweeps SET config = ? WHERE id = ?", (text, sweep))
        database.commit()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[InProcessServer]:
    running = InProcessServer(tmp_path / "data")
    yield running
    running.close()


@pytest.mark.parametrize("text", TEXTS)
def test_it_stops_alone_and_its_agents_are_told(server: InProcessServer, text: str) -> None:
    broken, other = server.create_sweep(SWEEP), server.create_sweep(SWEEP)
    agent, other_agent = server.create_agent(broken), server.create_agent(other)
    run = server.draw(agent)["run_id"]
    server.begin(run, {"a": 1})
    break_config(server.folder, broken, text)
    assert server.log(run, 0.5) == {}, "the trial goes on"
    assert server.heartbeat(agent, [run]) == []
    server.finish(run)
    told = server.heartbeat(agent)
    assert [command["type"] for command in told] == ["exit", "stop"]
    assert f"of sweep {broken} cannot begin ({REASON}" in told[1]["run_id"], "the agent logs it"
    with pytest.raises(GraphqlRefused, match=REASON):
        server.create_agent(broken)
    assert server.draw(other_agent)["args"] == {"a": {"value": 1}}
    assert server.sweep(broken)["runs"][run]["state"] == "finished"
    server.set_state(broken, "CANCELED")
    assert server.heartbeat(agent) == [{"type": "exit"}]


@pytest.mark.parametrize("text", TEXTS)
def test_it_is_shown_with_the_reason_and_its_runs(server: InProcessServer, text: str) -> None:
    broken = server.create_sweep(SWEEP)
    run = server.draw(server.create_agent(broken))["run_id"]
    server.begin(run, {"a": 1})
    server.log(run, 0.5)
    break_config(server.folder, broken, text)
    document = """query S($sweep: String!) { project(name: "p") { sweep(sweepName: $sweep) { method description config
        bestLoss runCountExpected unknownFacts runs { edges { node { name } } } } } }"""
    node = server.graphql(document, sweep=broken)["project"]["sweep"]
    assert node["description"].startswith(REASON)
    assert (node["method"], node["bestLoss"], node["runCountExpected"]) == ("unreadable", None, None)
    assert node["unknownFacts"] == ["config"]
    assert [edge["node"]["name"] for edge in node["runs"]["edges"]] == [run]
    for path in ("/local/p", f"/local/p/sweeps/{broken}", f"/local/p/runs/{run}"):
        page = server.request("GET", path)
        assert (page.status, REASON in page.body.decode()) == (200, True), path
    assert server.request("GET", "/").status == 200
    first_line = server.request("POST", "/bulk", json.dumps({"sweep": broken}).encode()).body.splitlines()[0]
    sent = json.loads(first_line)
    assert sent["sweep"]["description"].startswith(REASON)
    assert [entry["id"] for entry in sent["runs"]] == [run]


def test_a_valid_configuration_mends_it(server: InProcessServer) -> None:
    broken = server.create_sweep(SWEEP)
    agent = server.create_agent(broken)
    run = server.draw(agent)["run_id"]
    server.begin(run, {"a": 1})
    server.log(run, 0.5)
    server.finish(run)
    break_config(server.folder, broken, TEXTS[0])
    document = """mutation U($id: ID, $config: String) { upsertSweep(input: {id: $id, config: $config}) {
        sweep { bestLoss description } } }"""
    node = server.graphql(document, id=server.sweep(broken)["id"], config=SWEEP)["upsertSweep"]["sweep"]
    assert node == {"bestLoss": 0.5, "description": None}
    assert server.draw(agent)["args"] == {"a": {"value": 2}}


def test_a_queued_run_with_unreadable_parameters_is_given_up_and_not_begun(server: InProcessServer) -> None:
    sweep = server.create_sweep(SWEEP)
    document = """mutation E($id: ID!, $config: JSONString!) { enqueueSweepRun(input: {id: $id, config: $config}) {
        id } }"""
    queued = server.graphql(document, id=server.sweep(sweep)["id"], config='{"a": 2}')["enqueueSweepRun"]["id"]
    with contextlib.closing(sqlite3.connect(server.folder / "amc.sqlite3")) as database:
        database.execute("UPDATE runs SET parameters = '{'")
        database.commit()
    assert server.draw(server.create_agent(sweep))["args"] == {"a": {"value": 1}}
    assert server.sweep(sweep)["runs"][queued]["state"] == "failed"


@pytest.mark.client
def test_real_agents_and_commands_tell_their_user(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path / "data") as server, PlainWandb(server) as plain:
        operated = OperatedSweep(server, plain, tmp_path)
        operated.import_runs(ended_runs())
        break_config(server.data, SWEEP_ID, TEXTS[0])
        env = operated.environment() | {"WANDB_SILENT": "false"}
        options: dict[str, Any] = {"env": env, "cwd": tmp_path, "capture_output": True, "text": True, "timeout": 90}
        agent = subprocess.run(["wandb", "agent", PATH], check=False, **options)
        assert REASON in agent.stderr + agent.stdout
        (row,) = operated.json("list")
        assert row["problem"].startswith(REASON)
        assert row["runs"] == 4
        assert REASON in " ".join(operated.call("list").stdout.split())
        status = operated.call("status", SWEEP_ID)
        assert status.returncode == 0, status.stderr
        assert REASON in status.stdout
        assert operated.json("status", SWEEP_ID)["runs"]["total"] == 4
        exported = operated.call("export", PROJECT, str(tmp_path / "project.yaml"))
        assert f"sweep {SWEEP_ID} is left out, its runs are kept without it: {REASON}" in exported.stderr
        assert len(read((tmp_path / "project.yaml").read_text()).runs) == 4
