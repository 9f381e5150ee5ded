"""Which agent gets a run, waits or exits, and which runs are stopped: by pure decisions and by requests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from in_process_server import GraphqlRefused, InProcessServer

from amc_server.scheduling.coordinator import Coordinator
from amc_server.scheduling.scheduler import agent_must_stop
from amc_server.scheduling.state_inference import Limits
from amc_sweeps.grammar.configurations import value_key

GRID = """
method: grid
program: train.py
metric: {name: acc, goal: maximize}
parameters:
  a: {values: [1, 2, 3]}
  opt: {parameters: {b: {value: 5}}}
"""
RANDOM = """
method: random
program: train.py
metric: {name: acc, goal: maximize%s}
%s
parameters:
  lr: {min: 0.0, max: 1.0}
"""
ENQUEUE = """mutation EnqueueSweepRun($id: ID!, $config: JSONString!, $displayName: String) {
    enqueueSweepRun(input: {id: $id, config: $config, displayName: $displayName}) { id runQueueItemId } }"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[InProcessServer]:
    running = InProcessServer(tmp_path / "data")
    yield running
    running.close()


def finish_one(server: InProcessServer, agent: str, *values: float) -> str:
    run = str(server.draw(agent)["run_id"])
    server.begin(run)
    if values:
        server.log(run, *values)
    server.finish(run)
    return run


def test_two_agents_share_a_grid_and_exit_when_all_runs_have_ended(server: InProcessServer) -> None:
    sweep = server.create_sweep(GRID)
    first, second = server.create_agent(sweep), server.create_agent(sweep)
    commands = [server.draw(first), server.draw(second)]
    assert commands[0]["args"] == {"a": {"value": 1}, "opt": {"value": {"b": 5}}}
    assert commands[0]["program"] == "train.py"
    for command in commands:
        server.begin(command["run_id"])
    server.finish(commands[0]["run_id"])
    third = server.draw(first)
    assert [command["args"]["a"]["value"] for command in (*commands, third)] == [1, 2, 3]
    server.begin(third["run_id"])
    server.finish(commands[1]["run_id"])
    assert server.heartbeat(second) == []  # the last run may still be lost, and then this agent gets it
    server.finish(third["run_id"])
    assert server.heartbeat(second) == [{"type": "exit"}]
    assert server.heartbeat(first) == [{"type": "exit"}]
    ended = server.sweep(sweep)
    assert (ended["state"], ended["runCount"], ended["runCountExpected"]) == ("FINISHED", 3, 3)


def test_a_grid_finishes_with_its_last_run_without_another_heartbeat(server: InProcessServer) -> None:
    sweep = server.create_sweep(GRID)
    for _ in range(3):
        finish_one(server, server.create_agent(sweep))  # as `wandb agent --count 1` does
    server.advance(1)
    assert server.sweep(sweep)["state"] == "FINISHED"


def test_a_grid_proposes_an_undone_or_deleted_point_again(
    server: InProcessServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = server.create_sweep(GRID)
    agent = server.create_agent(sweep)
    with monkeypatch.context() as broken:
        broken.setattr(Coordinator, "_hand_out", None)
        with pytest.raises(GraphqlRefused):
            server.draw(agent)
    first = server.draw(agent)
    assert first["args"]["a"] == {"value": 1}
    run = server.sweep(sweep)["runs"][first["run_id"]]["id"]
    server.graphql("mutation D($id: ID!) { deleteRun(input: {id: $id}) { clientMutationId } }", id=run)
    assert server.draw(agent)["args"] == first["args"]


def test_an_agent_with_a_living_run_gets_no_second_run(server: InProcessServer) -> None:
    agent = server.create_agent(server.create_sweep(GRID))
    run = server.draw(agent)["run_id"]
    assert server.heartbeat(agent, [run]) == []


def test_run_cap_ends_the_sweep_after_that_many_runs(server: InProcessServer) -> None:
    sweep = server.create_sweep(RANDOM % ("", "run_cap: 2"))
    agent = server.create_agent(sweep)
    finish_one(server, agent)
    finish_one(server, agent)
    assert server.heartbeat(agent) == [{"type": "exit"}]
    assert server.sweep(sweep)["state"] == "FINISHED"


def test_a_resumed_sweep_at_its_run_cap_finishes_again_when_an_agent_asks(server: InProcessServer) -> None:
    sweep = server.create_sweep(RANDOM % ("", "run_cap: 1"))
    agent = server.create_agent(sweep)
    finish_one(server, agent)
    server.advance(1)
    server.set_state(sweep, "RUNNING")
    assert server.sweep(sweep)["state"] == "RUNNING", "a run can be queued"
    assert server.heartbeat(agent) == [{"type": "exit"}]
    assert server.sweep(sweep)["state"] == "FINISHED"


def test_a_reached_target_ends_the_sweep_but_not_its_living_runs(server: InProcessServer) -> None:
    sweep = server.create_sweep(RANDOM % (", target: 0.9", ""))
    agents = [server.create_agent(sweep) for _ in range(2)]
    runs = [server.draw(agent)["run_id"] for agent in agents]
    for run in runs:
        server.begin(run)
    assert server.log(runs[0], 0.5) == {}
    assert server.log(runs[0], 0.95, offset=1) == {}
    assert server.sweep(sweep)["state"] == "FINISHED"
    assert server.log(runs[1], 0.1) == {}
    assert server.heartbeat(agents[1], [runs[1]]) == []
    server.finish(runs[1])
    assert server.heartbeat(agents[1]) == [{"type": "exit"}]
    assert server.states(sweep) == ["running", "finished"]


def test_agents_of_a_paused_sweep_wait_until_it_is_resumed(server: InProcessServer) -> None:
    sweep = server.create_sweep(GRID)
    agent = server.create_agent(sweep)
    server.set_state(sweep, "PAUSED")
    assert server.heartbeat(agent) == []
    server.set_state(sweep, "RUNNING")
    assert server.draw(agent)["args"]["a"] == {"value": 1}


def test_a_stopped_sweep_begins_no_run_and_lets_living_runs_end(server: InProcessServer) -> None:
    sweep = server.create_sweep(GRID)
    agent = server.create_agent(sweep)
    run = server.draw(agent)["run_id"]
    server.begin(run)
    server.set_state(sweep, "FINISHED")
    assert server.log(run, 0.1) == {}
    assert server.heartbeat(agent, [run]) == []
    assert server.heartbeat(agent) == [{"type": "exit"}]


def test_a_cancelled_sweep_ends_its_living_runs(server: InProcessServer) -> None:
    sweep = server.create_sweep(GRID)
    agent = server.create_agent(sweep)
    run = server.draw(agent)["run_id"]
    server.begin(run)
    server.graphql(ENQUEUE, id=server.sweep(sweep)["id"], config='{"a": 2}')
    server.set_state(sweep, "CANCELED")
    assert server.log(run, 0.1) == {"stopped": True}
    server.finish(run, 255)
    assert server.states(sweep) == ["killed", "killed"]
    assert server.sweep(sweep)["runs"][run]["stopReason"] == "cancelled"
    assert server.heartbeat(agent) == [{"type": "exit"}]


def test_a_finished_sweep_that_is_resumed_asks_its_search_again(server: InProcessServer) -> None:
    sweep = server.create_sweep(GRID)
    agent = server.create_agent(sweep)
    for _ in range(3):
        finish_one(server, agent)
    assert server.heartbeat(agent) == [{"type": "exit"}]
    update = (
        "mutation U($id: ID, $config: String) { upsertSweep(input: {id: $id, config: $config}) { sweep { name } } }"
    )
    server.graphql(update, id=server.sweep(sweep)["id"], config=GRID.replace("3]", "3, 4]"))
    server.set_state(sweep, "RUNNING")
    assert server.draw(agent)["args"]["a"] == {"value": 4}


def test_a_queued_run_comes_first(server: InProcessServer) -> None:
    sweep = server.create_sweep(RANDOM % ("", ""))
    queued = server.graphql(ENQUEUE, id=server.sweep(sweep)["id"], config='{"lr": {"value": 0.25}}', displayName="mine")
    command = server.draw(server.create_agent(sweep))
    assert command["run_id"] == queued["enqueueSweepRun"]["id"]
    assert command["args"] == {"lr": {"value": 0.25}}


QUEUE = '{"a": {"value": 2}, "seed": {"value": 7}}'


@pytest.mark.parametrize("end", ["run_cap", "stopped", "target"])
def test_a_finished_sweep_goes_on_for_its_queued_runs_alone(server: InProcessServer, end: str) -> None:
    more = {"run_cap": ("", "run_cap: 1"), "stopped": ("", ""), "target": (", target: 0.5", "")}
    sweep = server.create_sweep(RANDOM % more[end])
    agent = server.create_agent(sweep)
    finish_one(server, agent, 0.6)
    if end == "stopped":
        server.set_state(sweep, "FINISHED")
    assert server.heartbeat(agent) == [{"type": "exit"}]
    ended = server.sweep(sweep)
    assert ended["state"] == "FINISHED"
    queued = server.graphql(ENQUEUE, id=ended["id"], config=QUEUE, displayName="again")["enqueueSweepRun"]["id"]
    assert server.sweep(sweep)["state"] == "RUNNING"
    later = server.create_agent(sweep)
    command = server.draw(later)
    assert (command["run_id"], command["args"]["seed"]) == (queued, {"value": 7})
    server.begin(queued)
    server.log(queued, 0.7)  # reaches the target once more
    assert server.sweep(sweep)["state"] == "RUNNING"
    server.finish(queued)
    assert server.heartbeat(later) == [{"type": "exit"}], "the search proposes nothing more"
    assert (server.sweep(sweep)["state"], server.sweep(sweep)["runCount"]) == ("FINISHED", 2)


def test_hyperband_stops_no_queued_run(server: InProcessServer) -> None:
    early = "early_terminate: {type: hyperband, min_iter: 2, eta: 3, strict: true}"
    sweep = server.create_sweep(RANDOM % ("", early))
    agent = server.create_agent(sweep)
    for _ in range(3):
        finish_one(server, agent, 0.8, 0.9, 0.9)
    server.graphql(ENQUEUE, id=server.sweep(sweep)["id"], config='{"lr": {"value": 0.25}}', displayName="again")
    queued = server.draw(agent)["run_id"]
    server.begin(queued)
    drawn = server.draw(server.create_agent(sweep))["run_id"]
    server.begin(drawn)
    for run in (queued, drawn):
        server.log(run, 0.1, 0.1)
    runs = server.sweep(sweep)["runs"]
    assert (runs[queued]["shouldStop"], runs[drawn]["shouldStop"]) == (False, True)


def test_a_cancelled_sweep_accepts_no_queued_run(server: InProcessServer) -> None:
    sweep = server.create_sweep(GRID)
    server.set_state(sweep, "CANCELED")
    with pytest.raises(GraphqlRefused, match="resume it before"):
        server.graphql(ENQUEUE, id=server.sweep(sweep)["id"], config='{"a": 2}')


def test_prior_runs_count_as_tried_and_not_against_run_cap(server: InProcessServer) -> None:
    server.begin("old", {"a": 1, "opt": {"b": 5}, "other": 3})
    server.log("old", 0.3, 0.9)
    server.finish("old")
    sweep = server.create_sweep(GRID + "run_cap: 1\n", priorRunsFilters='{"$or": [{"name": "old"}]}')
    assert server.sweep(sweep)["bestLoss"] == 0.9
    assert server.draw(server.create_agent(sweep))["args"]["a"] == {"value": 2}


def test_a_run_that_was_not_handed_out_counts_as_tried(server: InProcessServer) -> None:
    sweep = server.create_sweep(GRID)
    server.begin("joined", {"a": 1, "opt": {"b": 5}}, sweep=sweep)
    assert server.draw(server.create_agent(sweep))["args"]["a"] == {"value": 2}


def test_bayes_draws_different_configurations_for_simultaneous_agents(server: InProcessServer) -> None:
    config = "method: bayes\nmetric: {name: acc}\nparameters: {a: {values: [1, 2, 3, 4]}, b: {values: [1, 2, 3]}}\n"
    sweep = server.create_sweep(config)
    drawn = [server.draw(server.create_agent(sweep))["args"] for _ in range(12)]
    assert len({value_key(args) for args in drawn}) == 12


def test_the_server_seed_reproduces_a_sweep(tmp_path: Path) -> None:
    draws = []
    for name in ("one", "two"):
        server = InProcessServer(tmp_path / name, seed=7)
        sweep = server.create_sweep(RANDOM % ("", ""))
        draws.append([server.draw(server.create_agent(sweep))["args"] for _ in range(3)])
        server.close()
    assert draws[0] == draws[1]


def test_hyperband_records_why_it_stops_a_run_and_tells_the_trial(server: InProcessServer) -> None:
    early = "early_terminate: {type: hyperband, min_iter: 2, eta: 3, strict: true}"
    sweep = server.create_sweep(RANDOM % ("", early))
    good, bad = [server.draw(server.create_agent(sweep))["run_id"] for _ in range(2)]
    for run in (good, bad):
        server.begin(run)
    assert server.log(good, 0.5, 0.8) == {}
    assert server.log(bad, 0.9, 0.3) == {"stopped": True}
    record = server.sweep(sweep)["runs"][bad]
    assert (record["stopReason"], record["stopBand"], record["stopValue"]) == ("hyperband", 2, 0.3)
    assert record["shouldStop"] is True
    assert server.post(good) == {}
    server.finish(bad, 255)
    assert server.sweep(sweep)["runs"][bad]["state"] == "killed"


def test_hyperband_does_not_stop_a_run_that_has_died(server: InProcessServer) -> None:
    early = "early_terminate: {type: hyperband, min_iter: 2, eta: 3, strict: true}"
    sweep = server.create_sweep(RANDOM % ("", early))
    agent, other = server.create_agent(sweep), server.create_agent(sweep)
    dead, better = server.draw(agent)["run_id"], server.draw(other)["run_id"]
    for run in (dead, better):
        server.begin(run)
    server.log(dead, 0.1, 0.2)
    server.heartbeat(agent, [])  # kill -9: the agent no longer lists it
    server.log(better, 0.5, 0.8)
    server.advance(61)
    server.heartbeat(agent, [])
    record = server.sweep(sweep)["runs"][dead]
    assert (record["state"], record["stopReason"]) == ("crashed", None)


def test_nan_never_reaches_a_band(server: InProcessServer) -> None:
    early = "early_terminate: {type: hyperband, min_iter: 2, eta: 3, strict: true}"
    sweep = server.create_sweep(RANDOM % ("", early))
    good, broken = [server.draw(server.create_agent(sweep))["run_id"] for _ in range(2)]
    for run in (good, broken):
        server.begin(run)
    server.log(good, 0.5, 0.8)
    assert server.log(broken, 0.1, float("nan"), float("inf"), float("-inf")) == {}
    assert server.log(broken, 0.2, offset=4) == {"stopped": True}


def test_a_row_that_is_sent_twice_counts_once_towards_a_band(server: InProcessServer) -> None:
    early = "early_terminate: {type: hyperband, min_iter: 2, eta: 3, strict: true}"
    sweep = server.create_sweep(RANDOM % ("", early))
    good, bad = [server.draw(server.create_agent(sweep))["run_id"] for _ in range(2)]
    for run in (good, bad):
        server.begin(run)
    server.log(good, 0.5, 0.8)
    assert server.log(bad, 0.1) == {}
    assert server.log(bad, 0.1) == {}
    assert server.log(bad, 0.2, offset=1) == {"stopped": True}


def test_the_agent_is_told_to_stop_a_trial_that_does_not_ask(
    server: InProcessServer,
) -> None:
    sweep = server.create_sweep(GRID)
    agent = server.create_agent(sweep)
    run = server.draw(agent)["run_id"]
    server.begin(run)
    stop = "mutation StopRun($id: ID!) { stopRun(input: {id: $id}) { success } }"
    server.graphql(stop, id=server.sweep(sweep)["runs"][run]["id"])
    assert server.log(run, 0.1) == {"stopped": True}
    server.advance(20)
    assert server.heartbeat(agent, [run]) == []
    server.advance(11)
    assert server.heartbeat(agent, [run]) == [{"type": "stop", "run_id": run}]


@pytest.mark.parametrize(
    ("stop_s", "delivered_s", "must"),
    [(5.0, None, False), (59.0, None, False), (60.0, None, True), (40.0, 29.0, False), (40.0, 30.0, True)],
)
def test_the_agent_is_told_after_the_trial_has_had_time_to_end(
    stop_s: float, delivered_s: float | None, must: bool
) -> None:
    assert agent_must_stop(stop_s=stop_s, delivered_s=delivered_s, limits=Limits()) is must


ENDLESS = "method: random\nparameters: {a: {min: 0.0, max: 1.0}}\n"


def _growth(server: InProcessServer, request: Callable[[], object], state: str, agent: int) -> float:
    """Return how many more steps of SQLite's virtual machine a request takes for every other run of that state."""

    def instructions() -> int:
        count = 0

        def tick() -> None:
            nonlocal count
            count += 1

        request()  # the search has read what is new
        server.storage._connection.set_progress_handler(tick, 1)
        request()
        server.storage._connection.set_progress_handler(None, 1)
        return count

    few = instructions()
    with server.storage.write() as store:
        for number in range(1000):
            row = {"project": 1, "sweep": 1, "origin": "search", "state": state, "parameters": "{}"}
            store.insert("runs", id=f"r{number}", number=number, created_at=1.0, agent=agent, **row)
    return (instructions() - few) / 1000


def test_drawing_a_run_costs_the_same_however_many_have_ended(server: InProcessServer) -> None:
    agent = server.create_agent(server.create_sweep(ENDLESS))
    grown = _growth(server, lambda: server.draw(agent), "finished", agent=1)
    assert grown < 8, f"{grown:.0f} steps more for every ended run: only counting them may look at all"


def test_a_heartbeat_costs_the_same_however_many_other_agents_train(server: InProcessServer) -> None:
    sweep = server.create_sweep(ENDLESS)
    agent, _ = server.create_agent(sweep), server.create_agent(sweep)
    run = server.draw(agent)["run_id"]
    assert _growth(server, lambda: server.heartbeat(agent, [run]), "running", agent=2) < 0.1
