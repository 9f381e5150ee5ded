"""kill -9 of the server at random moments under real wandb agents: they continue, and every row arrives once.

AMC_SOAK_AGENT_KILLS (default 20) is the number of kills.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from client_scenarios import Researcher
from embedded_server import EmbeddedServer
from results_file import keep

KILLS = int(os.environ.get("AMC_SOAK_AGENT_KILLS", "20"))
AGENTS = 3
ROWS = 40  # of a trial, in about five seconds
TRAIN = f"""
import time, wandb

run = wandb.init()
with open("begun.txt", "a") as file:
    print(run.config["a"], run.id, file=file)
for epoch in range({ROWS}):
    run.log({{"epoch": epoch, "acc": run.config["a"] + epoch / 1000}})
    time.sleep(0.12)
run.finish()
with open("ended.txt", "a") as file:
    print(run.config["a"], run.id, file=file)
"""
SWEEP = """
program: train.py
method: grid
metric: {name: acc, goal: maximize}
parameters:
  a: {values: %s}
"""
HISTORY = """query H($run: String!) { project(name: "demo", entityName: "local") { run(name: $run) {
    history(minStep: 0, maxStep: 1000000, samples: 100000) } } }"""

pytestmark = pytest.mark.client


@pytest.fixture
def researcher(tmp_path: Path) -> Iterator[Researcher]:
    folder = tmp_path / "work"
    folder.mkdir()
    with EmbeddedServer(tmp_path / "data") as server:
        person = Researcher(folder, server)
        (folder / "train.py").write_text(TRAIN)
        yield person
        person.end()


@pytest.mark.timeout(1500)
def test_real_agents_continue_when_the_server_is_killed_repeatedly(researcher: Researcher) -> None:
    server, rng, begin = researcher.server, random.Random(1), time.monotonic()
    size = max(6, KILLS * 2)  # configurations: more than the agents get through before the last kill
    sweep = researcher.create_sweep(SWEEP % list(range(size)))
    agents = [researcher.start_agent(sweep) for _ in range(AGENTS)]
    kills, taken_back = 0, 0
    while kills < KILLS and any(agent.poll() is None for agent in agents):
        time.sleep(rng.uniform(2, 9))
        before = _rows(researcher, sweep)
        server.kill()
        kills += 1
        time.sleep(rng.uniform(0, 1))
        server.restart()
        after = _rows(researcher, sweep)
        taken_back += sum(max(0, count - after.get(run, 0)) for run, count in before.items())
    codes = [agent.wait(timeout=900) for agent in agents]

    result = researcher.sweep(sweep)
    begun, ended = (_lines(researcher.folder / name) for name in ("begun.txt", "ended.txt"))
    lost, doubled = 0, 0
    for _, run in ended:  # finish() has returned: the server has acknowledged every row
        answer = server.graphql(HISTORY, run=run)["project"]["run"]
        steps = Counter(json.loads(line)["_step"] for line in answer["history"])
        lost += sum(step not in steps for step in range(ROWS))
        doubled += sum(count - 1 for count in steps.values())
    starts = Counter(configuration for configuration, _ in begun)
    started = Counter(run["a"] for run in result["runs"].values() if run["historyLineCount"] > 0)
    keep(
        "agents",
        full=kills >= 20,
        figures={
            "kill -9 of the server": kills,
            "real wandb agents": AGENTS,
            "trials ended with every row acknowledged": len(ended),
            "rows acknowledged": len(ended) * ROWS,
            "acknowledged rows lost": lost,
            "rows doubled": doubled,
            "rows seen before a kill and gone after it": taken_back,
            "configurations": size,
            "started exactly once, by the trials' own word": sum(count == 1 for count in starts.values()),
            "started exactly once, by the server's word": sum(count == 1 for count in started.values()),
            "runs handed out and never started": len(result["runs"]) - len(started),
            "agents' exit codes": ", ".join(map(str, codes)),
            "sweep at the end": result["state"],
            "minutes": (time.monotonic() - begin) / 60,
        },
    )
    assert kills == KILLS, "the grid was over before the last kill: give it more configurations"
    assert (lost, doubled, taken_back) == (0, 0, 0)
    assert len(ended) == len(starts) == len(started) == size
    assert set(starts.values()) == set(started.values()) == {1}
    assert (codes, result["state"]) == ([0] * AGENTS, "FINISHED")
    assert {run["state"] for run in result["runs"].values()} == {"finished"}


def _rows(researcher: Researcher, sweep: str) -> dict[str, Any]:
    return {name: run["historyLineCount"] for name, run in researcher.sweep(sweep)["runs"].items()}


def _lines(file: Path) -> list[list[str]]:
    return [line.split() for line in file.read_text().splitlines()]
