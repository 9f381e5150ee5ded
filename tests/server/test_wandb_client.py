"""The real wandb client and the real server, each in its own process."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from client_scenarios import GRID, QUICK, Researcher, Scenario, wait_until
from embedded_server import EmbeddedServer
from limiting_proxy import LimitingProxy

pytestmark = pytest.mark.client


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(tmp_path / "data", options=("--limit", "unlisted_s=4")) as running:
        yield running


@pytest.fixture
def researcher(tmp_path: Path, server: EmbeddedServer) -> Iterator[Researcher]:
    folder = tmp_path / "work"
    folder.mkdir()
    person = Researcher(folder, server)
    yield person
    person.end()


@pytest.mark.parametrize("scenario", QUICK, ids=lambda scenario: scenario.__name__)
def test_the_client_is_served(researcher: Researcher, scenario: Scenario) -> None:
    scenario(researcher, lambda: None)
    log = (researcher.server.data / "server.log").read_text()
    assert "graphql not understood" not in log
    assert '"level": "error"' not in log


def test_a_killed_and_restarted_server_loses_and_doubles_nothing(
    server: EmbeddedServer, researcher: Researcher
) -> None:
    sweep = researcher.create_sweep(GRID % "1, 2, 3")
    agents = [researcher.start_agent(sweep, EPOCHS="60", PAUSE_S="0.1") for _ in range(2)]

    def rows() -> dict[int, list[float]]:
        epochs = {}
        for name, run in researcher.sweep(sweep)["runs"].items():
            document = """query H($run: String!) { project(name: "demo", entityName: "local") { run(name: $run) {
                history(minStep: 0, maxStep: 1000000, samples: 100000) } } }"""
            lines = server.graphql(document, run=name)["project"]["run"]["history"]
            epochs[run["a"]] = [json.loads(line)["epoch"] for line in lines]
        return epochs

    wait_until(lambda: sum(map(len, rows().values())) > 20, "rows arrive")
    acknowledged = rows()
    server.kill()
    time.sleep(3)
    server.restart()
    assert all(rows()[a][: len(epochs)] == epochs for a, epochs in acknowledged.items())
    for agent in agents:
        assert agent.wait(timeout=120) == 0
    assert rows() == {a: list(range(60)) for a in (1, 2, 3)}
    ended = researcher.sweep(sweep)
    assert ended["state"] == "FINISHED"
    assert [run["state"] for run in ended["runs"].values()] == ["finished"] * 3


def test_every_reply_may_be_lost_once(server: EmbeddedServer, researcher: Researcher) -> None:
    sweep = researcher.create_sweep(GRID % "1, 2")

    def changes_state(path: str, body: bytes) -> bool:
        return b"mutation" in body or path.endswith("/file_stream")

    with LimitingProxy(server.base_url, changes_state, loses_replies=True) as proxy:
        agent = researcher.start_agent(sweep, WANDB_BASE_URL=proxy.base_url)
        assert agent.wait(timeout=150) == 0
    lost = b"".join(body for _, _, body in proxy.refused)
    assert all(name in lost for name in (b"CreateAgent", b"Heartbeat", b"UpsertBucket", b"CreateRunFiles", b"complete"))
    ended = researcher.sweep(sweep)
    assert ended["state"] == "FINISHED"
    runs = [(run["a"], run["state"], run["historyLineCount"]) for run in ended["runs"].values()]
    assert runs == [(1, "finished", 3), (2, "finished", 3)]


def test_a_bad_sweep_is_refused_by_the_cli_with_every_problem(researcher: Researcher) -> None:
    (researcher.folder / "sweep.yaml").write_text("method: gird\nparameters: {a: {min: 2, max: 1}}\nbogus: 1\n")
    with pytest.raises(AssertionError) as refusal:
        researcher.wandb("sweep", "--project", "demo", "sweep.yaml")
    message = str(refusal.value)
    assert "gird" in message
    assert "bogus" in message
    assert "parameters.a" in message
    assert "Traceback" not in message
