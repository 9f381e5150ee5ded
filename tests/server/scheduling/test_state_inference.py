"""Run states from facts: by pure rules, and by requests with a clock that tests move."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from in_process_server import InProcessServer

from amc_server.scheduling.state_inference import Facts, Limits, infer, is_abandoned

LIMITS = Limits()
GRID = """
method: grid
program: train.py
metric: {name: acc, goal: maximize}
parameters:
  a: {values: [1, 2, 3]}
"""
LIVING = Facts(
    started=True,
    exit_code=None,
    preempting=False,
    stop_recorded=False,
    given_up=False,
    handed_out=True,
    silent_s=0.0,
    listed_s=0.0,
    unlisted_s=None,
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[InProcessServer]:
    running = InProcessServer(tmp_path / "data")
    yield running
    running.close()


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        (replace(LIVING, started=False), "pending"),
        (LIVING, "running"),
        (replace(LIVING, exit_code=0), "finished"),
        (replace(LIVING, exit_code=7), "failed"),
        (replace(LIVING, exit_code=0, stop_recorded=True), "killed"),
        (replace(LIVING, exit_code=255, stop_recorded=True), "killed"),
        (replace(LIVING, stop_recorded=True), "running"),
        (replace(LIVING, stop_recorded=True, unlisted_s=0.0), "killed"),
        (replace(LIVING, stop_recorded=True, silent_s=300.0), "killed"),
        (replace(LIVING, silent_s=299.0), "running"),
        (replace(LIVING, silent_s=300.0), "crashed"),
        (replace(LIVING, silent_s=60.0, unlisted_s=60.0), "crashed"),
        (replace(LIVING, silent_s=59.0, unlisted_s=200.0), "running"),
        (replace(LIVING, silent_s=200.0, unlisted_s=59.0), "running"),
        (replace(LIVING, preempting=True), "preempting"),
        (replace(LIVING, preempting=True, exit_code=75), "preempted"),
        (replace(LIVING, preempting=True, exit_code=0), "finished"),
        (replace(LIVING, preempting=True, silent_s=300.0), "preempted"),
        (replace(LIVING, preempting=True, exit_code=75, stop_recorded=True), "killed"),
        (replace(LIVING, started=False, given_up=True), "failed"),
        (replace(LIVING, started=False, handed_out=False, stop_recorded=True), "killed"),
        (replace(LIVING, started=False, stop_recorded=True, silent_s=10.0), "pending"),
    ],
)
def test_the_state_follows_from_the_facts(facts: Facts, state: str) -> None:
    assert infer(facts, LIMITS) == state


@pytest.mark.parametrize(
    ("silent_s", "listed_s", "abandoned"),
    [(59.0, None, False), (60.0, None, True), (600.0, 5.0, False), (600.0, 60.0, True)],
)
def test_a_hand_out_is_abandoned_if_neither_trial_nor_agent_reports(
    silent_s: float, listed_s: float | None, abandoned: bool
) -> None:
    facts = replace(LIVING, started=False, silent_s=silent_s, listed_s=listed_s)
    assert is_abandoned(facts, LIMITS) is abandoned


def test_a_run_goes_from_pending_to_running_to_finished(server: InProcessServer) -> None:
    sweep = server.create_sweep(GRID)
    assert server.sweep(sweep)["state"] == "PENDING"
    run = server.draw(server.create_agent(sweep))["run_id"]
    assert server.sweep(sweep)["state"] == "RUNNING"
    assert server.states(sweep) == ["pending"]
    server.begin(run)
    assert server.states(sweep) == ["running"]
    server.finish(run)
    assert server.states(sweep) == ["finished"]
    assert server.sweep(sweep)["runs"][run]["exitcode"] == 0


def test_a_run_crashes_after_five_minutes_of_silence_and_runs_again_after_a_post(server: InProcessServer) -> None:
    sweep = server.create_sweep(GRID)
    run = server.draw(server.create_agent(sweep))["run_id"]
    server.begin(run)
    server.advance(299)
    assert server.states(sweep) == ["running"]
    server.advance(2)
    assert server.states(sweep) == ["crashed"]
    server.log(run, 0.5)
    assert server.states(sweep) == ["running"]
    server.finish(run)
    assert server.states(sweep) == ["finished"]


def test_a_run_crashes_a_minute_after_its_agent_stopped_listing_it(server: InProcessServer) -> None:
    sweep = server.create_sweep(GRID)
    agent = server.create_agent(sweep)
    run = server.draw(agent)["run_id"]
    server.begin(run)
    server.advance(5)
    server.heartbeat(agent, [run])
    server.advance(5)
    server.heartbeat(agent)  # kill -9: the agent notices at once and asks for the next run
    server.advance(59)
    assert server.states(sweep)[0] == "running"
    server.advance(2)
    assert server.states(sweep)[0] == "crashed"


def test_a_run_stays_alive_after_its_counted_agent_has_exited(server: InProcessServer) -> None:
    sweep = server.create_sweep(GRID)
    agent = server.create_agent(sweep)
    run = server.draw(agent)["run_id"]
    server.begin(run)
    for _ in range(10):  # `wandb agent --count 1` sends no more heartbeats; the trial posts every 30 s
        server.advance(30)
        server.post(run)
    assert server.states(sweep) == ["running"]


def test_a_changed_host_clock_causes_no_timeout(server: InProcessServer) -> None:
    sweep = server.create_sweep(GRID)
    run = server.draw(server.create_agent(sweep))["run_id"]
    server.begin(run)
    server.clock.set_wall(86_400)
    server.advance(1)
    server.clock.set_wall(-2 * 86_400)
    server.advance(1)
    assert server.states(sweep) == ["running"]


def test_timeouts_restart_with_the_server(server: InProcessServer) -> None:
    sweep = server.create_sweep(GRID)
    run = server.draw(server.create_agent(sweep))["run_id"]
    server.begin(run)
    server.close()
    server.clock.advance(3600)
    server.open()
    server.advance(200)
    assert server.states(sweep) == ["running"]
    server.advance(101)
    assert server.states(sweep) == ["crashed"]


def test_a_run_whose_trial_always_dies_before_it_begins_is_handed_out_three_times(server: InProcessServer) -> None:
    sweep = server.create_sweep(GRID)
    agent = server.create_agent(sweep)
    first = server.draw(agent)
    for _ in range(2):
        server.advance(5)
        assert server.heartbeat(agent, [first["run_id"]]) == []  # the agent has started a process
        server.advance(61)
        reissued = server.draw(agent)
        assert (reissued["run_id"], reissued["args"]) == (first["run_id"], first["args"])
    server.advance(5)
    server.heartbeat(agent, [first["run_id"]])
    server.advance(61)
    assert server.states(sweep) == ["failed"]
    assert server.draw(agent)["run_id"] != first["run_id"]


def test_a_slow_run_that_its_agent_lists_is_not_reissued(server: InProcessServer) -> None:
    sweep = server.create_sweep(GRID)
    agent = server.create_agent(sweep)
    run = server.draw(agent)["run_id"]
    for _ in range(30):
        server.advance(5)
        assert server.heartbeat(agent, [run]) == []
    assert server.states(sweep) == ["pending"]
    assert server.draw(server.create_agent(sweep))["run_id"] != run


@pytest.mark.parametrize("exit_code", [0, 1, 255])
def test_a_run_with_a_recorded_stop_ends_killed_and_is_never_handed_out_again(
    server: InProcessServer, exit_code: int
) -> None:
    sweep = server.create_sweep(GRID)
    agent = server.create_agent(sweep)
    run = server.draw(agent)["run_id"]
    server.begin(run)
    stop = "mutation StopRun($id: ID!) { stopRun(input: {id: $id}) { success } }"
    server.graphql(stop, id=server.sweep(sweep)["runs"][run]["id"])
    assert server.log(run, 0.1) == {"stopped": True}
    server.post(run, preempting=True)
    server.finish(run, exit_code)
    assert server.states(sweep) == ["killed"]
    drawn = {server.draw(server.create_agent(sweep))["run_id"] for _ in range(2)}
    assert run not in drawn


def test_a_stopped_run_is_killed_without_a_last_post(server: InProcessServer) -> None:
    sweep = server.create_sweep(GRID)
    agent = server.create_agent(sweep)
    run = server.draw(agent)["run_id"]
    server.begin(run)
    stop = "mutation StopRun($id: ID!) { stopRun(input: {id: $id}) { success } }"
    server.graphql(stop, id=server.sweep(sweep)["runs"][run]["id"])
    server.heartbeat(agent)
    assert server.states(sweep)[0] == "killed"


def test_a_preempted_run_is_handed_out_again_exactly_once(server: InProcessServer) -> None:
    sweep = server.create_sweep(GRID)
    run = server.draw(server.create_agent(sweep))["run_id"]
    server.begin(run)
    server.log(run, 0.1, 0.2)
    server.post(run, preempting=True)
    assert server.states(sweep) == ["preempting"]
    server.finish(run, 75)
    assert server.states(sweep) == ["preempted"]
    commands = [server.draw(server.create_agent(sweep)) for _ in range(3)]
    assert [(command["type"], command["run_id"] == run) for command in commands] == [
        ("resume", True),
        ("run", False),
        ("run", False),
    ]
    assert server.begin(run)["bucket"]["historyLineCount"] == 2
    server.finish(run)
    assert server.states(sweep)[0] == "finished"


def test_a_run_that_is_preempted_repeatedly_is_not_given_up(server: InProcessServer) -> None:
    sweep = server.create_sweep(GRID)
    run = server.draw(server.create_agent(sweep))["run_id"]
    for _ in range(5):
        server.begin(run)
        server.post(run, preempting=True)
        server.finish(run, 75)
        assert server.draw(server.create_agent(sweep))["run_id"] == run
    server.advance(61)
    assert server.draw(server.create_agent(sweep))["run_id"] == run


def test_an_ended_run_without_a_sweep_runs_again_after_init(server: InProcessServer) -> None:
    server.begin("mine")
    server.finish("mine", 1)
    query = 'query { project(name: "p") { run(name: "mine") { state exitcode } } }'
    assert server.graphql(query)["project"]["run"] == {"state": "failed", "exitcode": 1}
    server.begin("mine")
    assert server.graphql(query)["project"]["run"] == {"state": "running", "exitcode": None}


def _resume(server: InProcessServer, run: str, **more: str) -> None:
    """Do what ``wandb.init(resume="must")`` does: ask for the run, then upsert it by its global id with the host."""
    query = 'query Q($run: String!) { model(name: "p", entityName: "local") { bucket(name: $run) { id } } }'
    bucket = server.graphql(query, run=run)["model"]["bucket"]
    document = """mutation UpsertBucket($id: String, $name: String, $host: String) {
        upsertBucket(input: {id: $id, name: $name, modelName: "p", host: $host}) { bucket { id } } }"""
    server.graphql(document, id=bucket["id"], name=run, **more)


def test_a_killed_run_that_its_trial_resumes_has_no_stop_any_more(server: InProcessServer) -> None:
    sweep = server.create_sweep(GRID)
    agent = server.create_agent(sweep)
    run = server.draw(agent)["run_id"]
    server.begin(run)
    stop = "mutation StopRun($id: ID!) { stopRun(input: {id: $id}) { success } }"
    server.graphql(stop, id=server.sweep(sweep)["runs"][run]["id"])
    server.heartbeat(agent)  # its trial has ended without a last post
    assert server.states(sweep)[0] == "killed"
    _resume(server, run)  # a user has changed it through the API
    assert server.states(sweep)[0] == "killed"
    _resume(server, run, host="gpu-2")
    assert server.states(sweep)[0] == "running"
    assert server.log(run, 0.1) == {}, "no stop is recorded any more"


def test_a_run_that_was_preempted_in_its_first_epoch_can_be_resumed(server: InProcessServer) -> None:
    sweep = server.create_sweep(GRID)
    run = server.draw(server.create_agent(sweep))["run_id"]
    server.begin(run)
    server.post(run, preempting=True)
    server.finish(run, 75)
    assert server.draw(server.create_agent(sweep))["run_id"] == run
    _resume(server, run, host="gpu-2")
    assert server.states(sweep)[0] == "running"
