"""64 simulated agents at once, each posting 10-row batches of 40 metrics back to back: rows a second, heartbeats' p99.

Once with an empty data folder, once with one that already holds 50,000 runs and 5 million rows of the same sweep.
AMC_SOAK_LOAD_S (default 600) is the duration of each. The full run, without that variable, also asserts the rate, the
p99 of heartbeats in the first and in the last minute, and that memory stays low and flat. It needs a machine without
other work: the agents take their share of the same cores.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import shutil
import statistics
import threading
import time
from pathlib import Path

import psutil
import pytest
from embedded_server import EmbeddedServer
from results_file import keep
from simulated_agents import METRICS, Agent, Connection, Tally, Work, row

from amc_server.clock import SystemClock
from amc_server.scheduling.coordinator import Coordinator
from amc_server.store.records import Line
from amc_server.store.storage import Storage
from amc_server.store.writer import Writer

SECONDS = float(os.environ.get("AMC_SOAK_LOAD_S", "600"))
IS_FULL = not any(name.startswith("AMC_") for name in os.environ)  # such a variable shortens this or another part
LEAST_ROWS_A_SECOND, MOST_P99_S, MOST_MEMORY_MB, MOST_GROWTH_MB = 7000.0, 0.25, 300.0, 50.0
AGENTS = 64
STORED_RUNS = 50_000 if IS_FULL else 1000
STORED_ROWS = 100  # of each of them
SWEEP = (
    "method: random\nprogram: train.py\nmetric: {name: acc, goal: maximize}\n"
    "parameters: {a: {min: 0.0, max: 1.0}, b: {values: [1, 2, 3]}}\n"
)
COUNTS = """query C($sweep: String!, $cursor: String) { project(name: "soak", entityName: "local") {
    sweep(sweepName: $sweep) { runs(first: 1000, after: $cursor) {
        edges { node { name historyLineCount } } pageInfo { endCursor hasNextPage } } } } }"""
HISTORY = """query H($run: String!) { project(name: "soak", entityName: "local") { run(name: $run) {
    history(minStep: 0, maxStep: 1000000, samples: 100000) } } }"""


@pytest.mark.timeout(3000)
@pytest.mark.parametrize("stored_runs", [0, STORED_RUNS], ids=["empty", "large"])
def test_sixty_four_agents_at_once_lose_no_row(tmp_path: Path, stored_runs: int) -> None:
    sweep = _data_folder(tmp_path / "data", stored_runs)
    with EmbeddedServer(tmp_path / "data") as server:
        port = int(server.base_url.rsplit(":", 1)[1])

        def connect() -> Connection:
            return Connection(port, server.key, patience_s=120)

        state = json.loads(next((tmp_path / "data.state").glob("*.json")).read_text())
        process = psutil.Process(state["pid"])
        tally, stop = Tally(), threading.Event()
        agents = [Agent(connect, Work(sweep), tally, stop) for _ in range(AGENTS)]
        begin = time.monotonic()
        for agent in agents:
            agent.start()
        memory_mb, counts = [], [0]  # at the end of every part of a tenth
        for _ in range(10):
            time.sleep(SECONDS / 10)
            memory_mb.append(process.memory_info().rss / 1e6)
            counts.append(len(tally.heartbeat_s))
        rows, seconds = tally.rows, time.monotonic() - begin
        shares = [_cpu_s(process) / seconds for process in (process, psutil.Process())]
        stop.set()
        for agent in agents:
            agent.join(timeout=120)
        assert tally.failures == []
        reader = connect()
        stored = _stored(reader, sweep)
        lost = sum(max(0, count - stored.get(run, 0)) for run, count in tally.acknowledged.items())
        for run in list(tally.acknowledged)[:: max(1, len(tally.acknowledged) // 50)]:  # a sample is read whole
            lines = reader.graphql(HISTORY, run=run)["project"]["run"]["history"]
            assert [json.loads(line)["_step"] for line in lines] == list(range(stored[run]))
        reader.close()
        p99_s = [_p99(tally.heartbeat_s[first:end]) for first, end in itertools.pairwise(counts)]
        keep(
            f"load_{'large' if stored_runs else 'empty'}",
            full=IS_FULL,
            figures={
                "simulated agents": AGENTS,
                "metrics a row": METRICS,
                "seconds": seconds,
                "runs stored before": stored_runs,
                "rows stored before": stored_runs * STORED_ROWS,
                "runs stored after": len(stored),
                "acknowledged rows a second": rows / seconds,
                "acknowledged rows lost": lost,
                "heartbeats": counts[-1],
                "heartbeat p50, ms": statistics.median(tally.heartbeat_s) * 1000,
                "heartbeat p99, ms": _p99(tally.heartbeat_s) * 1000,
                "heartbeat p99 of each tenth of the time, ms": ", ".join(f"{p99 * 1000:.0f}" for p99 in p99_s),
                "slowest heartbeat, ms": max(tally.heartbeat_s) * 1000,
                "CPU cores that the server took": shares[0],
                "CPU cores that the simulated agents took": shares[1],
                "server's memory at each tenth of the time, MB": ", ".join(f"{value:.0f}" for value in memory_mb),
                "database at the end, GB": (tmp_path / "data" / "amc.sqlite3").stat().st_size / 1e9,
            },
        )
        assert lost == 0
        if IS_FULL:
            assert rows / seconds >= LEAST_ROWS_A_SECOND
            assert max(_p99(tally.heartbeat_s), p99_s[0], p99_s[-1]) < MOST_P99_S
            assert max(memory_mb) < MOST_MEMORY_MB
            assert memory_mb[-1] < memory_mb[0] + MOST_GROWTH_MB
    shutil.rmtree(tmp_path / "data")  # gigabytes, which pytest would keep for a while


def _data_folder(path: Path, runs: int) -> str:
    """Make a data folder whose one sweep has ended runs with all of their rows; return the sweep's id."""
    storage = Storage(path)
    coordinator = Coordinator(SystemClock(), seed=1)
    with storage.write() as store:
        sweep = coordinator.create_sweep(store, store.project_or_new("soak", time.time()), SWEEP)
        agent = coordinator.create_agent(store, sweep, "simulated")
    for first in range(0, runs, 1000):
        with storage.write() as store:
            for number in range(first, min(first + 1000, runs)):
                _store_run(store, sweep.pk, sweep.project, agent.pk, number)
    storage.close()
    return sweep.id


def _store_run(store: Writer, sweep: int, project: int, agent: int, number: int) -> None:
    parameters = {"a": number / STORED_RUNS, "b": 1}
    run = store.insert(
        "runs",
        project=project,
        id=f"old{number:05d}",
        sweep=sweep,
        origin="search",
        number=number,
        parameters=json.dumps(parameters),
        config=json.dumps({name: {"value": value} for name, value in parameters.items()}),
        summary=row(STORED_ROWS - 1),
        state="finished",
        agent=agent,
        hand_outs=1,
        started=1,
        exit_code=0,
        history_lines=STORED_ROWS,
        created_at=time.time(),
        ended_at=time.time(),
    )
    store.put_history(run, [Line(step, row(step), step) for step in range(STORED_ROWS)])
    store.put_points(sweep, run, 0, STORED_ROWS, [(step, step / 1000) for step in range(STORED_ROWS)])


def _stored(connection: Connection, sweep: str) -> dict[str, int]:
    """Return how many rows the server has of every run."""
    stored: dict[str, int] = {}
    cursor = None
    while True:
        runs = connection.graphql(COUNTS, sweep=sweep, cursor=cursor)["project"]["sweep"]["runs"]
        stored |= {edge["node"]["name"]: edge["node"]["historyLineCount"] for edge in runs["edges"]}
        if not runs["pageInfo"]["hasNextPage"]:
            return stored
        cursor = runs["pageInfo"]["endCursor"]


def _p99(seconds: list[float]) -> float:
    return statistics.quantiles(seconds, n=100)[98] if len(seconds) > 1 else math.nan


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
