"""kill -9 of the server at random moments, under load: no acknowledged row is lost or doubled.

AMC_SOAK_KILLS (default 200) is the number of kills.
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from embedded_server import EmbeddedServer
from results_file import keep
from simulated_agents import CREATE_SWEEP, Agent, Connection, Tally, Work

KILLS = int(os.environ.get("AMC_SOAK_KILLS", "200"))
AGENTS = 8
GRID = (
    "method: grid\nprogram: train.py\nmetric: {name: acc, goal: maximize}\n"
    "parameters: {a: {values: %s}, b: {values: [0, 1]}}\n"
)
HISTORY = """query H($run: String!) { project(name: "soak", entityName: "local") { run(name: $run) { state
    history(minStep: 0, maxStep: 1000000, samples: 100000) } } }"""
RUNS = """query S($sweep: String!) { project(name: "soak", entityName: "local") { sweep(sweepName: $sweep) {
    state runs { edges { node { name state config historyLineCount } } } } } }"""


@pytest.mark.timeout(3000)
def test_a_repeatedly_killed_server_loses_and_doubles_no_row_and_starts_each_configuration_once(
    tmp_path: Path,
) -> None:
    size = max(20, KILLS * 12)  # configurations: more than the agents get through before the last kill
    rng = random.Random(1)
    begin = time.monotonic()
    with EmbeddedServer(tmp_path / "data") as server:
        port = int(server.base_url.rsplit(":", 1)[1])

        def connect() -> Connection:
            return Connection(port, server.key, patience_s=60)

        reader = connect()
        sweep = reader.graphql(CREATE_SWEEP, config=GRID % list(range(size // 2)), projectName="soak")
        work = Work(sweep["upsertSweep"]["sweep"]["name"], rows_a_run=60, rows_a_batch=10, pause_s=0.08)
        tally, stop = Tally(), threading.Event()
        agents = [Agent(connect, work, tally, stop) for _ in range(AGENTS)]
        for agent in agents:
            agent.start()
        kills = 0
        while kills < KILLS and any(agent.is_alive() for agent in agents):
            time.sleep(rng.uniform(0.05, 1.2))
            server.kill()
            kills += 1
            server.restart()
        for agent in agents:
            agent.join(timeout=900)
        assert not any(agent.is_alive() for agent in agents)
        assert tally.failures == []

        sweep_node = reader.graphql(RUNS, sweep=work.sweep)["project"]["sweep"]
        nodes = [edge["node"] for edge in sweep_node["runs"]["edges"]]
        started = [node for node in nodes if node["historyLineCount"] > 0]
        lost, doubled, rows = 0, 0, 0
        for node in nodes:
            answer = reader.graphql(HISTORY, run=node["name"])["project"]["run"]
            steps = [json.loads(line)["_step"] for line in answer["history"]]
            rows += len(steps)
            counts = Counter(steps)
            doubled += sum(count - 1 for count in counts.values())
            lost += sum(step not in counts for step in range(tally.acknowledged.get(node["name"], 0)))
        reader.close()
        configurations = Counter(
            json.dumps(json.loads(node["config"])["a"]) + json.dumps(json.loads(node["config"])["b"])
            for node in started
        )
        twice = sum(count - 1 for count in configurations.values())
        keep(
            "faults",
            full=kills >= 200,
            figures={
                "kill -9 of the server": kills,
                "simulated agents": AGENTS,
                "acknowledged rows": tally.rows,
                "rows stored": rows,
                "acknowledged rows lost": lost,
                "rows doubled": doubled,
                "configurations": 2 * (size // 2),
                "of them started": len(configurations),
                "started twice": twice,
                "sweep at the end": sweep_node["state"],
                "minutes": (time.monotonic() - begin) / 60,
            },
        )
        assert kills == KILLS, "the grid was over before the last kill: give it more configurations"
        assert (lost, doubled, twice) == (0, 0, 0)
        assert len(configurations) == 2 * (size // 2), "every point of the grid was started"
        assert {node["state"] for node in started} == {"finished"}
