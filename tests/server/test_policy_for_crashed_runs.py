"""A sweep's policy for crashed runs on the embedded server: given at its creation, kept, told, and followed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from in_process_server import GraphqlRefused, InProcessServer

from amc_server.http.imports import sweep_record
from amc_sweeps.runs.export_file import Export, write

BAYES = """
method: bayes
metric: {name: acc, goal: maximize}
parameters: {x: {min: 0.0, max: 1.0}}
"""
BEST = BAYES.replace("maximize", "maximize, impute: best")
CREATE = """mutation C($config: String, $crashed: String) {
    upsertSweep(input: {config: $config, projectName: "p", crashedRuns: $crashed}) { sweep { name crashedRuns } } }"""
PROPOSE = """query N($sweep: String!, $config: String!) { project(name: "p") { sweep(sweepName: $sweep) {
    proposedUpdate(config: $config) { changes effects } } } }"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[InProcessServer]:
    running = InProcessServer(tmp_path / "data")
    yield running
    running.close()


def create(server: InProcessServer, config: str = BAYES, crashed: str | None = None) -> tuple[str, str]:
    sweep = server.graphql(CREATE, config=config, crashed=crashed)["upsertSweep"]["sweep"]
    return sweep["name"], sweep["crashedRuns"]


def record(server: InProcessServer, sweep: str) -> dict[str, Any]:
    with server.storage.read() as store:
        stored = store.sweep_by_id(sweep)
        assert stored is not None
        return dict(sweep_record(store, stored))


def end(
    server: InProcessServer, sweep: str, run: str, *values: float, log: str | None = None, code: int | None = None
) -> None:
    """Record a run of the sweep: without an exit code its heartbeat stops."""
    server.begin(run, {"x": 0.5}, sweep=sweep)
    if values:
        server.log(run, *values)
    if log is not None:
        server.post(run, files={"output.log": {"offset": 0, "content": [f"2026-01-01T00:00:00.000000 {log}\n"]}})
    if code is None:
        server.advance(3600)
    else:
        server.finish(run, code)


def page(server: InProcessServer, sweep: str) -> dict[str, Any]:
    """Return what the script of the sweep's page gets; its view is a second old at most."""
    server.clock.advance(2)
    return dict(server.request("GET", f"/local/p/sweeps/{sweep}/data").json())


def told(server: InProcessServer, sweep: str) -> dict[str, str]:
    """Return what the sweep's page says that the search is told of each run."""
    return {row["id"]: row["treatment"] for _, row in page(server, sweep)["rows"]}


@pytest.mark.parametrize(
    ("config", "option", "policy"),
    [
        (BAYES, None, "auto"),
        (BEST, None, "best"),
        (BEST, "auto", "auto"),
        (BAYES, "extrapolate", "extrapolate"),
        (BAYES, "worst", "worst"),
    ],
)
def test_the_option_wins_over_the_file_and_auto_is_the_default(
    server: InProcessServer, config: str, option: str | None, policy: str
) -> None:
    sweep, found = create(server, config, option)
    assert found == policy
    assert record(server, sweep)["crashed_runs"] == policy


def test_a_policy_that_has_no_sense_is_refused_and_registers_nothing(server: InProcessServer) -> None:
    with pytest.raises(GraphqlRefused, match="only bayes learns from runs, and this sweep's method is random"):
        create(server, BAYES.replace("bayes", "random"), "auto")
    with pytest.raises(GraphqlRefused, match="'luck' is not allowed") as refusal:
        create(server, BAYES, "luck")
    assert refusal.value.status == 400
    assert server.graphql('{ project(name: "p") { sweeps { edges { node { name } } } } }')["project"] is None


def test_the_policy_of_a_sweep_that_exists_stays(server: InProcessServer) -> None:
    sweep, _ = create(server, BAYES, "ignore")
    change = 'mutation U($id: ID) { upsertSweep(input: {id: $id, crashedRuns: "auto"}) { sweep { name } } }'
    with pytest.raises(GraphqlRefused, match="set when a sweep is created"):
        server.graphql(change, id=server.sweep(sweep)["id"])


def test_an_update_says_what_another_impute_does(server: InProcessServer) -> None:
    def effects(sweep: str, config: str) -> list[str]:
        proposed = server.graphql(PROPOSE, sweep=sweep, config=config)["project"]["sweep"]["proposedUpdate"]
        return [line for line in proposed["effects"] if "crashed" in line]

    free, fixed = create(server)[0], create(server, BAYES, "ignore")[0]
    assert effects(free, BEST) == [
        "Search: what bayes learns from crashed runs changes from auto to best, for earlier runs, too."
    ]
    assert effects(fixed, BEST) == [
        "Search: metric.impute has no effect: the sweep was created with --crashed-runs ignore."
    ]
    assert effects(free, BAYES.replace("1.0", "0.5")) == []


def test_an_export_carries_the_policy_and_an_import_without_one_has_none_on_record(
    server: InProcessServer, tmp_path: Path
) -> None:
    sweep, _ = create(server, BEST, "extrapolate")
    file = write(Export("p", ({**record(server, sweep), "state": "RUNNING"},), ()))
    other = InProcessServer(tmp_path / "other")
    for _ in range(2):
        assert other.request("POST", "/import", file.encode()).status == 200
    assert record(other, sweep)["crashed_runs"] == "extrapolate"
    bare = {
        "id": "cloud001",
        "config": {"method": "bayes", "metric": {"name": "acc"}, "parameters": {"x": {"value": 1}}},
    }
    for _ in range(2):
        assert other.request("POST", "/import", write(Export("p", (bare,), ())).encode()).status == 200
    assert "crashed_runs" not in record(other, "cloud001"), "another server may have searched"
    reply = other.request("POST", "/import", write(Export("p", ({**bare, "crashed_runs": "luck"},), ())).encode())
    assert "crashed_runs is 'luck'" in reply.json()["errors"][0]["message"]
    other.close()


def test_a_data_folder_from_before_the_option_is_opened(tmp_path: Path) -> None:
    server = InProcessServer(tmp_path / "old")
    sweep, _ = create(server, BEST)
    server.close()
    with sqlite3.connect(tmp_path / "old" / "amc.sqlite3") as database:
        database.execute("ALTER TABLE sweeps DROP COLUMN crashed_runs")
    database.close()
    server.open()
    assert record(server, sweep)["crashed_runs"] == "best"
    server.close()


def test_the_page_says_what_the_search_is_told_of_each_run(server: InProcessServer) -> None:
    sweep, _ = create(server)
    end(server, sweep, "whole", 0.1, 0.5, code=0)
    end(server, sweep, "diverged", 0.1, code=80)
    end(server, sweep, "memory", 0.1, log="torch.OutOfMemoryError: CUDA out of memory", code=1)
    end(server, sweep, "disk", 0.1, log="OSError: [Errno 28] No space left on device", code=1)
    end(server, sweep, "defect", 0.1, log="RuntimeError: something", code=1)
    end(server, sweep, "lost", 0.1)
    end(server, sweep, "silent", code=1)
    assert told(server, sweep) == {
        "whole": "peak",
        "diverged": "constraint",
        "memory": "constraint",
        "disk": "extrapolated",
        "defect": "weighted",
        "lost": "extrapolated",
        "silent": "weighted",
    }
    server.close()
    server.open()
    assert told(server, sweep)["disk"] == "extrapolated"


def test_the_page_of_a_run_says_what_the_search_is_told_of_it(server: InProcessServer) -> None:
    sweep, _ = create(server)
    end(server, sweep, "disk", 0.1, log="OSError: [Errno 28] No space left on device", code=1)
    text = server.request("GET", "/local/p/runs/disk").body.decode()
    assert "extrapolated: its curve, extrapolated to full length" in text


def test_a_sweep_that_learns_from_no_run_tells_none_on_its_page(server: InProcessServer) -> None:
    sweep = server.create_sweep(BAYES.replace("bayes", "random"))
    end(server, sweep, "lost", 0.1)
    assert told(server, sweep) == {"lost": None}
    assert page(server, sweep)["crashedRuns"] is None
    assert page(server, create(server)[0])["crashedRuns"] == "auto"


def test_the_search_follows_the_causes_that_the_server_has_recorded(server: InProcessServer) -> None:
    """Twice the same curves: an upper half that diverged is left; one whose machines broke is searched."""

    def share_above(code: int, log: str) -> float:
        sweep, _ = create(server)
        for number in range(16):
            x = (number + 0.5) / 16
            run = f"{sweep}{number}"
            server.begin(run, {"x": x}, sweep=sweep)
            is_ended = x > 0.5
            curve = [share * x for share in (0.2, 0.6, 0.9, 1.0)][: 2 if is_ended else 4]
            server.log(run, *curve)
            if is_ended:
                server.post(run, files={"output.log": {"offset": 0, "content": [f"2026-01-01T00:00:00.0 {log}\n"]}})
            server.finish(run, code if is_ended else 0)
        drawn = [server.draw(server.create_agent(sweep))["args"]["x"]["value"] for _ in range(6)]
        return sum(x > 0.75 for x in drawn) / len(drawn)

    assert share_above(1, "OSError: [Errno 28] No space left on device") > share_above(80, "Diverged")


def test_a_run_of_the_sweep_that_names_no_cause_is_diagnosed_again_when_it_has_one(server: InProcessServer) -> None:
    sweep, _ = create(server)
    end(server, sweep, "run", 0.1)
    assert told(server, sweep) == {"run": "extrapolated"}
    server.begin("run", {"x": 0.5}, sweep=sweep)
    server.finish("run", 80)
    assert told(server, sweep) == {"run": "constraint"}
