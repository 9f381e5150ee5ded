"""list, status, pause, stop and cancel with the real client, at the embedded server and at a plain W&B server."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from embedded_server import EmbeddedServer
from operated_sweep import METRIC, PATH, PROJECT, SWEEP_ID, OperatedSweep, ended_runs
from plain_wandb import PlainWandb

pytestmark = pytest.mark.client


@pytest.fixture(scope="module")
def operated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatedSweep]:
    folder = tmp_path_factory.mktemp("operated")
    with EmbeddedServer(folder / "data") as server, PlainWandb(server) as plain:
        operated = OperatedSweep(server, plain, folder)
        operated.import_runs(ended_runs())
        with operated.start_agents() as agents:
            assert agents.stdout is not None
            assert agents.stderr is not None
            line = agents.stdout.readline()
            assert line, agents.stderr.read()
            operated.runs_by_host = json.loads(line)
            yield operated
            agents.communicate("leave\n", timeout=60)


@pytest.mark.compatibility("status")
@pytest.mark.parametrize("plain", [False, True], ids=["embedded", "plain"])
def test_status_shows_the_state_of_a_sweep(operated: OperatedSweep, plain: bool) -> None:
    status = operated.json("status", SWEEP_ID, plain=plain)
    assert status["sweep"]["path"] == PATH
    assert status["sweep"]["state"] == "RUNNING"
    assert status["runs"]["total"] == 6
    assert status["runs"]["expected"] == 10
    assert status["runs"]["by_state"] == {
        **{"finished": 1, "killed": 1, "failed": 1, "crashed": 1},
        **{"running": 1, "pending": 1},
    }
    assert status["runs"]["by_cause"] == {"completed": 1, "early_stopped": 1, "diverged": 1, "lost": 1}
    assert (status["best"]["run_id"], status["best"]["peak"], status["best"]["peak_epoch"]) == ("lost", 0.8, 5)
    assert [(agent["host"], agent["is_alive"], agent["runs"]) for agent in status["agents"]] in (
        [("gpu-1", True, 1), ("gpu-2", True, 1)],
        [("gpu-2", True, 1), ("gpu-1", True, 1)],
    )
    assert status["epochs"]["saved_by_hyperband"] == 4
    assert status["epochs"]["spent"] in (20, 21, 22)  # of the living run, 0 to 2 epochs have arrived
    assert status["time_left"]["seconds"] is not None
    assert "4 runs to come and 2 alive" in status["time_left"]["because"]
    failures = {host["host"]: (host["failed"], host["ended"]) for host in status["failures_by_host"]}
    assert sum(failed for failed, _ in failures.values()) == 2
    if not plain:  # the public API has a run's host only in its configuration, which an import lacks
        assert failures == {"gpu-2": (2, 2)}


def test_a_plain_wandb_is_read_after_it_refused_extra_fields(operated: OperatedSweep) -> None:
    operated.call("status", SWEEP_ID, plain=True)
    assert "stopReason" in operated.plain.refused
    assert "/healthz" in operated.plain.refused


@pytest.mark.parametrize("form", [f"{PROJECT}/{SWEEP_ID}", PATH, "URL"])
def test_status_accepts_a_sweep_in_every_form(operated: OperatedSweep, form: str) -> None:
    url = f"{operated.server.base_url}/{PROJECT.join(['local/', ''])}/sweeps/{SWEEP_ID}"
    ended = operated.call("status", url if form == "URL" else form)
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert lines[0] == f"operated sweep ({PATH}): running, maximize {METRIC}"
    assert "Best      80.00% peak at epoch 5 of run-lost (lost), lost" in lines
    assert "Failures  gpu-2: 2 of 2 ended runs (1 lost, 1 diverged)" in lines
    assert any(line.startswith("Agents    2 alive, 0 silent") for line in lines)


@pytest.mark.compatibility("list")
@pytest.mark.parametrize("plain", [False, True], ids=["embedded", "plain"])
def test_list_shows_every_sweep_with_its_runs_by_state(operated: OperatedSweep, plain: bool) -> None:
    (row,) = [row for row in operated.json("list", plain=plain) if row["sweep_id"] == SWEEP_ID]
    assert (row["path"], row["name"], row["state"]) == (PATH, "operated sweep", "RUNNING")
    assert (row["runs"], row["runs_expected"], row["best"]) == (6, 10, 0.8)
    assert row["by_state"]["finished"] == 1
    ended = operated.call("list", PROJECT, plain=plain)
    assert PATH in ended.stdout
    assert "6 of 10" in ended.stdout


def test_list_refuses_an_unknown_project_and_names_the_known_ones(operated: OperatedSweep) -> None:
    ended = operated.call("list", "nowhere")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert f"local has no project nowhere; it has: {PROJECT}" in ended.stderr


def test_an_unknown_sweep_is_refused_with_code_2(operated: OperatedSweep) -> None:
    for command in ("status", "pause", "stop", "cancel"):
        ended = operated.call(command, f"local/{PROJECT}/nosuchid")
        assert ended.returncode == 2, (command, ended.stderr)
        assert "amc-sweep list shows" in ended.stderr
        assert "Traceback" not in ended.stderr


@pytest.mark.compatibility("pause, stop, cancel, resume SWEEP")
@pytest.mark.parametrize("plain", [False, True], ids=["embedded", "plain"])
def test_a_sweep_is_paused_resumed_stopped_and_cancelled(operated: OperatedSweep, plain: bool) -> None:
    """Runs after the tests above: it ends the sweep, and resumes it for the next test."""
    paused = operated.json("pause", SWEEP_ID, plain=plain)
    assert (paused["before"], paused["after"], paused["alive"], paused["changed"]) == ("RUNNING", "PAUSED", 2, True)
    again = operated.call("pause", SWEEP_ID, plain=plain)
    assert again.returncode == 0
    assert "paused already: no new run begins, 2 living runs may finish" in again.stderr
    assert "the sweep is paused" in operated.json("status", SWEEP_ID, plain=plain)["time_left"]["because"]
    stopped = operated.call("stop", SWEEP_ID, plain=plain)
    assert "is stopped: no new run begins, 2 living runs may finish" in stopped.stderr
    refused = operated.call("pause", SWEEP_ID, plain=plain)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "cannot be paused: it is finished" in refused.stderr
    refused = operated.call("cancel", SWEEP_ID, plain=plain)
    assert refused.returncode == 2
    assert "resume it first" in refused.stderr
    _resume(operated)


def test_cancelling_ends_the_living_runs(operated: OperatedSweep) -> None:
    cancelled = operated.json("cancel", SWEEP_ID)
    assert (cancelled["before"], cancelled["after"], cancelled["alive"]) == ("RUNNING", "CANCELED", 2)
    document = '{ project(name: "operated", entityName: "local") { sweep(sweepName: "94fqx0gz") { runs { edges { node {'
    document += " name shouldStop } } } } } }"
    runs = operated.server.graphql(document)["project"]["sweep"]["runs"]["edges"]
    asked = {edge["node"]["name"] for edge in runs if edge["node"]["shouldStop"]}
    assert {name for names in operated.runs_by_host.values() for name in names} <= asked


def _resume(operated: OperatedSweep) -> None:
    document = '{ project(name: "operated", entityName: "local") { sweep(sweepName: "94fqx0gz") { id } } }'
    pk = operated.server.graphql(document)["project"]["sweep"]["id"]
    change = 'mutation R($id: ID) { upsertSweep(input: {id: $id, state: "RUNNING"}) { sweep { state } } }'
    assert operated.server.graphql(change, id=pk)["upsertSweep"]["sweep"]["state"] == "RUNNING"
