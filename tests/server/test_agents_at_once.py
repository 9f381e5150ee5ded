"""Several agents that ask at the same time: in a finite space none trains what another one has trained or trains."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from in_process_server import InProcessServer

SPACE = """
method: {method}
metric: {{name: acc, goal: maximize}}
run_cap: 24
parameters: {{a: {{values: [1, 2, 3, 4]}}, b: {{values: [x, y, z]}}, c: {{values: [true, false]}}}}
"""


@pytest.mark.parametrize("method", ["bayes", "random"])
def test_four_agents_at_once_never_train_a_configuration_twice(tmp_path: Path, method: str) -> None:
    server = InProcessServer(tmp_path / "data")
    sweep = server.create_sweep(SPACE.format(method=method))
    agents = [server.create_agent(sweep) for _ in range(4)]
    running: dict[str, str] = {}
    trained = []
    for number in range(24):
        agent = agents[number % 4]
        if agent in running:
            is_crash = number % 5 == 0
            if not is_crash:
                server.log(running[agent], number / 24)
            server.finish(running[agent], exit_code=80 if is_crash else 0)
        command = server.draw(agent)
        values = {name: entry["value"] for name, entry in command["args"].items()}
        trained.append(json.dumps(values, sort_keys=True))
        server.begin(command["run_id"], values, sweep=sweep)
        running[agent] = command["run_id"]
    assert len(set(trained)) == 24
    server.close()
