"""A cluster of simulated agents at the pace of the wandb client: what each costs the embedded server.

Every agent sends a heartbeat each 5 s and its trial one post each 15 s, with a row, system metrics and console lines.
What 1,000 agents cost is computed from the table of 64; that of 1,000 shows how far the arithmetic holds.
AMC_SOAK_CLUSTER_S: the seconds of each.
"""

from __future__ import annotations

import json
import os
import statistics
import threading
import time
from pathlib import Path

import psutil
import pytest
from embedded_server import EmbeddedServer
from results_file import keep
from simulated_agents import Agent, Connection, Tally, Work

SECONDS = float(os.environ.get("AMC_SOAK_CLUSTER_S", "60"))
IS_FULL = "AMC_SOAK_CLUSTER_S" not in os.environ
BEGIN_S = 30.0  # for all agents to start; they are not measured meanwhile
POST_EVERY_S = 15.0  # as the client does; its heartbeat is in simulated_agents
MOST_P99_S = 0.25
SWEEP = (
    "method: random\nprogram: train.py\nmetric: {name: acc, goal: maximize}\nparameters: {a: {min: 0.0, max: 1.0}}\n"
    "early_terminate: {type: hyperband, min_iter: 10, eta: 3}\n"
)
CREATE = """mutation U($config: String) { upsertSweep(input: {config: $config, projectName: "soak"}) {
    sweep { name } } }"""


@pytest.mark.timeout(3000)
@pytest.mark.parametrize("agents", [64, 1000])
def test_a_cluster_at_the_pace_of_the_client_is_served(tmp_path: Path, agents: int) -> None:
    data = tmp_path / "data"
    with EmbeddedServer(data) as server:
        port = int(server.base_url.rsplit(":", 1)[1])
        sweep = server.graphql(CREATE, config=SWEEP)["upsertSweep"]["sweep"]["name"]
        state = json.loads(next((tmp_path / "data.state").glob("*.json")).read_text())
        process = psutil.Process(state["pid"])
        empty = (data / "amc.sqlite3").stat().st_size
        tally, stop = Tally(), threading.Event()
        work = Work(sweep, rows_a_run=10_000, rows_a_batch=1, pause_s=POST_EVERY_S, with_machine=True)
        crowd = [Agent(lambda: Connection(port, server.key, patience_s=120), work, tally, stop) for _ in range(agents)]
        for agent in crowd:
            agent.start()
            time.sleep(BEGIN_S / 2 / agents)  # as they would not all start in one moment
        time.sleep(BEGIN_S / 2)
        begin, cpu_s, rows, beats = time.monotonic(), _cpu_s(process), tally.rows, len(tally.heartbeat_s)
        time.sleep(SECONDS)
        seconds, cpu_s = time.monotonic() - begin, _cpu_s(process) - cpu_s
        posts, beat_s = tally.rows - rows, tally.heartbeat_s[beats:]
        memory_mb, connections = process.memory_info().rss / 1e6, _connections(process)
        stop.set()
        for agent in crowd:
            agent.join(timeout=120)
        assert tally.failures == []
        whole = tally.rows
    size = sum(path.stat().st_size for path in data.glob("amc.sqlite3*")) - empty
    p99_s = statistics.quantiles(beat_s, n=100)[98]
    keep(
        f"cluster_{agents}",
        full=IS_FULL,
        figures={
            "simulated agents": agents,
            "seconds": seconds,
            "heartbeats a second": len(beat_s) / seconds,
            "posts a second, each with a row": posts / seconds,
            "CPU cores that the server took": cpu_s / seconds,
            "server's CPU time a request, ms": 1000 * cpu_s / (posts + len(beat_s)),
            "server's memory, MB": memory_mb,
            "connections": connections,
            "database, bytes a post": size / whole,
            "heartbeat p50, ms": 1000 * statistics.median(beat_s),
            "heartbeat p99, ms": 1000 * p99_s,
        },
    )
    assert posts / seconds > 0.9 * agents / POST_EVERY_S, "the server keeps up with the posts"
    if IS_FULL and agents == 64:
        assert p99_s < MOST_P99_S


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _connections(process: psutil.Process) -> int:
    return sum(connection.status == psutil.CONN_ESTABLISHED for connection in process.net_connections())
