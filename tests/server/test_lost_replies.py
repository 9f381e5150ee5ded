"""Replies that are lost on the way: the client sends the request again, and nothing is lost, doubled or blamed."""

from __future__ import annotations

import heapq
import itertools
import json
import random
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from in_process_server import InProcessServer

GRID = """
method: grid
program: train.py
metric: {name: acc, goal: maximize}
parameters:
  a: {values: [%s]}
"""
RETRIES_S = (2, 4.3, 8.6, 17, 33, 60)  # between the client's repetitions of a request, as measured; then every 60 s
ROWS = 3


@pytest.fixture
def server(tmp_path: Path) -> Iterator[InProcessServer]:
    running = InProcessServer(tmp_path / "data")
    yield running
    running.close()


@pytest.mark.parametrize("waits_s", [(0,) * 5, RETRIES_S, (30,) * 10, (54,) * 5])
def test_an_agent_that_asks_again_gets_the_same_run(server: InProcessServer, waits_s: tuple[float, ...]) -> None:
    agent = server.create_agent(server.create_sweep(GRID % "1, 2, 3, 4"))
    first = server.draw(agent)
    for wait_s in waits_s[:-1]:
        server.advance(wait_s)
        assert server.draw(agent) == first
    assert first["args"] == {"a": {"value": 1}}


def test_a_lost_reply_that_hands_out_a_preempted_run_is_repeated_as_resume(server: InProcessServer) -> None:
    agent = server.create_agent(server.create_sweep(GRID % "1, 2"))
    run = server.draw(agent)["run_id"]
    server.begin(run)
    server.post(run, preempting=True)
    server.finish(run, 75)
    assert [(server.draw(agent)["type"], server.draw(agent)["run_id"]) for _ in range(2)] == [("resume", run)] * 2


def test_a_trial_that_dies_before_it_begins_keeps_no_agent_from_other_configurations(server: InProcessServer) -> None:
    sweep = server.create_sweep(GRID % "1, 2, 3")
    agent = server.create_agent(sweep)
    drawn = []
    for _ in range(400):
        server.advance(5)
        commands = server.heartbeat(agent)
        if commands and commands[0]["type"] == "exit":
            break
        if commands:
            drawn.append(commands[0]["args"]["a"]["value"])
            if drawn[-1] != 1:
                server.begin(commands[0]["run_id"])
                server.finish(commands[0]["run_id"])
    assert server.states(sweep) == ["failed", "finished", "finished"]
    assert drawn.index(2) == 2, "once more, because the reply may have been lost; then another"
    assert drawn.count(1) < 30


def test_an_outage_of_all_replies_counts_against_no_run(server: InProcessServer) -> None:
    sweep = server.create_sweep(GRID % "1, 2")
    agents = [server.create_agent(sweep) for _ in range(3)]
    for second in range(0, 300, 5):
        server.advance(5)
        for number, agent in enumerate(agents):
            if second % 60 == 5 * number or number == 0:
                server.heartbeat(agent)
    assert set(server.states(sweep)) == {"pending"}
    trained = []
    for _ in range(40):
        server.advance(5)
        for agent in agents:
            for command in server.heartbeat(agent):
                if command["type"] == "run":
                    trained.append(command["args"]["a"]["value"])
                    server.begin(command["run_id"])
                    server.finish(command["run_id"])
    assert sorted(trained) == [1, 2]
    assert server.sweep(sweep)["state"] == "FINISHED"


def test_the_last_post_of_a_preempted_trial_may_be_repeated_while_the_run_goes_on(server: InProcessServer) -> None:
    sweep = server.create_sweep(GRID % "1")
    run = server.draw(server.create_agent(sweep))["run_id"]
    last_post = {
        "files": {"wandb-summary.json": {"offset": 0, "content": ['{"_runtime": 7.1}']}},
        "complete": True,
        "exitcode": 75,
    }
    server.begin(run)
    server.post(run, preempting=True)
    server.post(run, **last_post)
    assert server.draw(server.create_agent(sweep))["run_id"] == run
    server.post(run, **last_post)
    assert server.states(sweep) == ["pending"]
    server.begin(run)
    server.log(run, 0.5)
    server.post(run, **last_post)
    assert server.states(sweep) == ["running"]
    server.finish(run)
    assert server.states(sweep) == ["finished"]


def test_a_change_that_is_repeated_after_the_last_post_opens_no_run_again(server: InProcessServer) -> None:
    server.begin("r")
    server.finish("r")
    document = (
        'mutation U($c: JSONString) { upsertBucket(input: {name: "r", modelName: "p", config: $c}) { inserted } }'
    )
    server.graphql(document, c='{"a": {"value": 1}}')
    query = 'query { project(name: "p") { run(name: "r") { state config } } }'
    assert server.graphql(query)["project"]["run"] == {"state": "finished", "config": '{"a": {"value": 1}}'}


def test_an_agent_that_registers_twice_is_listed_once(server: InProcessServer) -> None:
    sweep = server.create_sweep(GRID % "1, 2")
    server.create_agent(sweep)
    agent = server.create_agent(sweep)
    for _ in range(13):
        server.advance(5)
        server.heartbeat(agent, ["x"])
    query = 'query Q($s: String!) { project(name: "p") { sweep(sweepName: $s) { agents { edges { node { id } } } } } }'
    edges = server.graphql(query, s=sweep)["project"]["sweep"]["agents"]["edges"]
    assert [edge["node"]["id"] for edge in edges] == [agent]


def test_a_repeated_deletion_deletes_no_other_run(server: InProcessServer) -> None:
    delete = "mutation D($id: ID!) { deleteRun(input: {id: $id}) { clientMutationId } }"
    first = server.begin("first")["bucket"]["id"]
    server.graphql(delete, id=first)
    server.begin("second")
    server.graphql(delete, id=first)
    query = 'query { project(name: "p") { runs { edges { node { name } } } } }'
    assert server.graphql(query)["project"]["runs"]["edges"] == [{"node": {"name": "second"}}]


def test_a_request_for_a_sweep_that_is_sent_again_creates_no_second_one(server: InProcessServer) -> None:
    first = server.create_sweep(GRID % "1, 2")
    server.advance(2)
    assert server.create_sweep(GRID % "1, 2") == first
    assert server.create_sweep(GRID % "1, 2, 3") != first
    server.graphql("query { viewer { id } }")  # as every new client does
    assert server.create_sweep(GRID % "1, 2") != first


def test_a_queued_run_of_the_same_name_and_values_is_the_same_request_sent_again(server: InProcessServer) -> None:
    sweep = server.sweep(server.create_sweep(GRID % "1, 2"))["id"]
    document = """mutation E($id: ID!, $config: JSONString!, $name: String) {
        enqueueSweepRun(input: {id: $id, config: $config, displayName: $name}) { id } }"""

    def queue(a: int, name: str | None) -> str:
        config = json.dumps({"a": {"value": a}})
        return str(server.graphql(document, id=sweep, config=config, name=name)["enqueueSweepRun"]["id"])

    first = queue(1, "again")
    server.advance(2)
    assert queue(1, "again") == first
    assert len({first, queue(2, "again"), queue(1, "other"), queue(1, None), queue(1, None)}) == 5


Task = Generator[Any, Any, None]


class Clients:
    """Agents and their trials in simulated time, over a network that loses replies.

    A task yields seconds to wait, or a request to send; it goes on with the reply. A request whose reply is lost is
    sent again, as the client does, until one arrives.
    """

    def __init__(self, server: InProcessServer, loses: Callable[[str, float, int], bool]) -> None:
        self._server = server
        self._loses = loses
        self._events: list[tuple[float, int, str, Task, Callable[[], Any] | None, int]] = []
        self._numbers = itertools.count()
        self.now = 0.0

    def start(self, box: str, task: Task) -> None:
        self._step(box, task, None)

    def _step(self, box: str, task: Task, reply: Any) -> None:
        try:
            wanted = task.send(reply)
        except StopIteration:
            return
        if callable(wanted):
            self._schedule(0.0, box, task, wanted)
        else:
            self._schedule(wanted, box, task, None)

    def _schedule(self, wait_s: float, box: str, task: Task, request: Any, attempt: int = 0) -> None:
        heapq.heappush(self._events, (self.now + wait_s, next(self._numbers), box, task, request, attempt))

    def run(self, until_s: float) -> None:
        """Let everything happen until no task is left; fails after ``until_s``."""
        while self._events:
            at, _, box, task, request, attempt = heapq.heappop(self._events)
            assert at < until_s, "the sweep does not end"
            while self.now < at:
                step = min(at - self.now, 15.0)
                self._server.advance(step)
                self.now += step
            reply = request() if request is not None else None
            if request is not None and self._loses(box, self.now, attempt):
                self._schedule(RETRIES_S[min(attempt, len(RETRIES_S) - 1)], box, task, request, attempt + 1)
            else:
                self._step(box, task, reply)


class Box:
    """A machine with one agent, which trains what it is given."""

    def __init__(self, name: str, server: InProcessServer, clients: Clients, preempts: set[int]) -> None:
        self.name = name
        self._server = server
        self._clients = clients
        self._preempts = preempts
        self._living: set[str] = set()
        self.trained: list[int] = []

    def agent(self, sweep: str) -> Task:
        agent = yield lambda: self._server.create_agent(sweep)
        while True:
            yield 5.0
            listed = list(self._living)
            commands = yield lambda listed=listed: self._server.heartbeat(agent, listed)
            for command in commands:
                if command["type"] == "exit":
                    return
                self._living.add(command["run_id"])
                self._clients.start(self.name, self._trial(command["run_id"], command["args"]["a"]["value"]))

    def _trial(self, run: str, a: int) -> Task:
        begun = yield lambda: self._server.begin(run, {"a": a})
        first = begun["bucket"]["historyLineCount"]
        is_preempted = a in self._preempts
        self._preempts.discard(a)
        for row in range(first, ROWS):
            yield 20.0
            yield lambda row=row: self._server.log(run, a + row / 10, offset=row)
            if is_preempted:
                yield lambda: self._server.post(run, preempting=True)
                row_sent = {"offset": row, "content": [json.dumps({"_step": row, "acc": a + row / 10})]}
                files = {"wandb-history.jsonl": row_sent}
                yield lambda files=files: self._server.post(run, files=files, complete=True, exitcode=75)
                self._living.discard(run)
                return
        yield lambda: self._server.finish(run)
        self._living.discard(run)
        self.trained.append(a)


@pytest.mark.parametrize("seed", range(12))
def test_lost_replies_lose_double_and_blame_no_configuration(server: InProcessServer, seed: int) -> None:
    rng = random.Random(seed)
    outages = {f"box{number}": rng.uniform(0, 150) for number in range(3)}
    if seed % 3 == 0:  # the server's own network
        outages = dict.fromkeys(outages, outages["box0"])

    def loses(box: str, now: float, attempt: int) -> bool:
        """Lose every reply once, or those of five minutes, or any with a chance of a third."""
        if seed % 2:
            return attempt == 0
        return outages[box] <= now < outages[box] + 300 or rng.random() < 1 / 3

    sweep = server.create_sweep(GRID % ", ".join(map(str, range(7))))
    clients = Clients(server, loses)
    boxes = [Box(name, server, clients, {2} if name == "box0" else set()) for name in outages]
    for box in boxes:
        clients.start(box.name, box.agent(sweep))
    clients.run(until_s=3600)
    assert sorted(itertools.chain.from_iterable(box.trained for box in boxes)) == list(range(7))
    answer = server.sweep(sweep)
    assert answer["state"] == "FINISHED"
    runs = [(json.loads(run["config"])["a"]["value"], run["state"]) for run in answer["runs"].values()]
    assert sorted(runs) == [(a, "finished") for a in range(7)]
    for name, run in answer["runs"].items():
        a = json.loads(run["config"])["a"]["value"]
        assert [row["acc"] for row in server.history(name)] == [a + row / 10 for row in range(ROWS)]
