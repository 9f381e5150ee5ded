"""The embedded server at 1,000 runs x 150 rows in one sweep: suggestion, first page of runs, memory, cost of a row.

    python tests/benchmarks/bench_server.py [--runs 1000] [--rows 150] [--stored 10000,100000,1000000]

The suggestion is timed inside of an agent's heartbeat over HTTP, the first page through the real client. Prints a
Markdown table, and at the default sizes writes it to results/server.md.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / part) for part in ("tests/support", "tests/soak", "sweeps", "agents", "")]

from embedded_server import EmbeddedServer  # noqa: E402 - the path is set above
from machine import describe_machine, write_table  # noqa: E402
from simulated_agents import CREATE_AGENT, CREATE_SWEEP, HEARTBEAT, METRICS, UPSERT, Connection, row  # noqa: E402

from amc_sweeps.runs.export_file import Export, write  # noqa: E402

CONFIG = {
    "method": "bayes",
    "program": "train.py",
    "metric": {"name": "acc", "goal": "maximize"},
    "parameters": {
        "max_lr": {"distribution": "log_uniform_values", "min": 1e-5, "max": 0.1},
        "dropout": {"min": 0.0, "max": 0.5},
        "batch_size": {"values": [64, 128, 256]},
        "model_type": {"values": ["a", "b", "c", "d"]},
        "weight_decay": {"distribution": "log_uniform_values", "min": 1e-6, "max": 1e-2},
        "epochs": {"min": 5, "max": 50},
    },
}
RANDOM = (
    "method: random\nprogram: train.py\nmetric: {name: acc, goal: maximize}\nparameters: {a: {min: 0.0, max: 1.0}}\n"
)
BATCHES = 300
AGENTS_FIRST_HEARTBEAT_S = 5.0  # the client's own
FIRST_PAGE = """
import time, json, wandb
api = wandb.Api()
sweep = api.sweep("local/bench/bench001")
times = []
for _ in range(5):
    runs = wandb.Api().sweep("local/bench/bench001").runs
    begin = time.perf_counter()
    first = runs[0]
    times.append(time.perf_counter() - begin)
print(json.dumps(times))
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=150)
    parser.add_argument(
        "--stored", default="10000,100000,1000000", help="rows stored at which the cost of a row is measured"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measured = {**_sweep(Path(folder), arguments.runs, arguments.rows), **_rows(Path(folder), arguments.stored)}
    load = ", ".join(f"{value:.1f}" for value in psutil.getloadavg())
    rows = [f"| {what} | {value} | {wanted} |" for what, (value, wanted) in measured.items()]
    table = ["| what | measured | wanted |", "|---|---|---|", *rows]
    text = "\n".join([f"{describe_machine()} Load average at the end {load}.", "", *table])
    print(text)
    if vars(arguments) == vars(parser.parse_args([])):
        write_table("server", text, command="python tests/benchmarks/bench_server.py")


def _sweep(folder: Path, runs: int, rows: int) -> dict[str, tuple[str, str]]:
    rng = random.Random(1)
    with EmbeddedServer(folder / "sweep") as server:
        connection = _connect(server)
        sweep = {"id": "bench001", "state": "PAUSED", "config": CONFIG}
        text = write(Export("bench", (sweep,), tuple(_run(number, rows, rng) for number in range(runs))))
        imported_s = _timed(lambda: _import(server, text))
        document = """query S { project(name: "bench", entityName: "local") { sweep(sweepName: "bench001") { id } } }"""
        sweep_id = connection.graphql(document)["project"]["sweep"]["id"]
        resume = """mutation R($id: ID) { upsertSweep(input: {id: $id, state: "RUNNING"}) { sweep { name } } }"""
        connection.graphql(resume, id=sweep_id)
        suggestions = [_draw(connection) for _ in range(12)]
        firsts = []
        for pause_s in (0.0, AGENTS_FIRST_HEARTBEAT_S):
            server.stop()
            server.restart()
            time.sleep(pause_s)
            firsts.append(_draw(connection))
        environment = server.environment(WANDB_SILENT="true", WANDB_DIR=str(folder))
        command = [sys.executable, "-c", FIRST_PAGE]
        done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=True)
        pages = json.loads(done.stdout.strip().splitlines()[-1])
        memory = _memory_mb(folder / "sweep.state")
        connection.close()
    return {
        f"next bayes suggestion at {runs:,} runs x {rows} rows, median of {len(suggestions)}": (
            f"{statistics.median(suggestions) * 1000:.0f} ms",
            "100 ms",
        ),
        "the first one, 5 s after a start of the server, when an agent that starts with it asks": (
            f"{firsts[1] * 1000:.0f} ms",
            "100 ms",
        ),
        "the first one, asked for as soon as the server answers": (f"{firsts[0] * 1000:.0f} ms", ""),
        "first page of Api.sweep().runs, median of 5": (f"{statistics.median(pages) * 1000:.0f} ms", "300 ms"),
        "memory of the server afterwards": (f"{memory:.0f} MB", "400 MB"),
        f"amc-sweep import of {runs * rows:,} rows, its start included": (f"{imported_s:.1f} s", "20 s"),
    }


def _rows(folder: Path, stored: str) -> dict[str, tuple[str, str]]:
    """Return what a batch of 10 rows of 40 metrics costs with so many rows in the database."""
    costs: dict[int, tuple[float, float]] = {}
    with EmbeddedServer(folder / "rows") as server:
        connection = _connect(server)
        sweep = connection.graphql(CREATE_SWEEP, config=RANDOM, projectName="bench")["upsertSweep"]["sweep"]["name"]

        def begin(run: str) -> None:
            connection.graphql(
                UPSERT, name=run, project="bench", config='{"a": {"value": 1}}', sweep=sweep, host="bench"
            )

        at = 0
        for target in sorted(int(number) for number in stored.split(",")):
            while at < target:
                begin(f"r{at}")
                _post(connection, f"r{at}", 0, 1000)
                at += 1000
            begin(f"probe{target}")
            before = _cpu_s(folder / "rows.state")
            times = [
                _timed(lambda target=target, first=first: _post(connection, f"probe{target}", first, 10))  # type: ignore[misc]
                for first in range(0, BATCHES * 10, 10)
            ]
            costs[target] = (statistics.median(times), (_cpu_s(folder / "rows.state") - before) / BATCHES)
        connection.close()
    wall, cpu = costs[min(costs)]
    return {
        f"10-row batch of {METRICS} metrics with {target:,} rows stored: median of {BATCHES}; the server's CPU time": (
            f"{seconds * 1000:.2f} ms; {cpu_s * 1000:.2f} ms",
            "" if target == min(costs) else f"1.5 x the first; is {seconds / wall:.2f} x; {cpu_s / cpu:.2f} x",
        )
        for target, (seconds, cpu_s) in costs.items()
    }


def _run(number: int, rows: int, rng: random.Random) -> dict[str, object]:
    config = {
        "max_lr": 10 ** rng.uniform(-5, -1),
        "dropout": rng.uniform(0.0, 0.5),
        "batch_size": rng.choice([64, 128, 256]),
        "model_type": rng.choice("abcd"),
        "weight_decay": 10 ** rng.uniform(-6, -2),
        "epochs": rng.randint(5, 50),
    }
    history = [{"_step": step, "acc": rng.random(), "loss": rng.random(), "epoch": step} for step in range(rows)]
    own = {"id": f"run{number:05d}", "sweep": "bench001", "state": "finished", "config": config}
    return {**own, "summary": history[-1], "history": history}


def _import(server: EmbeddedServer, text: str) -> None:
    environment = server.environment()
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(text)
        file.flush()
        command = "from amc_agents.commands import main; main()"
        subprocess.run([sys.executable, "-c", command, "import", file.name], env=environment, check=True, stderr=-3)


def _draw(connection: Connection) -> float:
    """Return how long an agent's heartbeat takes that draws a new run, in seconds."""
    agent = connection.graphql(CREATE_AGENT, host="bench", projectName="bench", sweep="bench001")["createAgent"][
        "agent"
    ]
    begin = time.perf_counter()
    answer = connection.graphql(HEARTBEAT, id=agent["id"], metrics="{}", runState="{}")
    seconds = time.perf_counter() - begin
    (command,) = json.loads(answer["agentHeartbeat"]["commands"])
    assert command["type"] == "run"
    return seconds


def _body(first: int, count: int) -> dict[str, object]:
    lines = [row(step) for step in range(first, first + count)]
    return {"files": {"wandb-history.jsonl": {"offset": first, "content": lines}}}


def _post(connection: Connection, run: str, first: int, count: int) -> None:
    connection.post(f"/files/local/bench/{run}/file_stream", _body(first, count))


def _connect(server: EmbeddedServer) -> Connection:
    return Connection(int(server.base_url.rsplit(":", 1)[1]), server.key, patience_s=60)


def _timed(work: Callable[[], None]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def _memory_mb(state: Path) -> float:
    return float(_process(state).memory_info().rss / 1e6)


def _cpu_s(state: Path) -> float:
    times = _process(state).cpu_times()
    return float(times.user + times.system)


def _process(state: Path) -> psutil.Process:
    (file,) = state.glob("*.json")
    return psutil.Process(json.loads(file.read_text())["pid"])


if __name__ == "__main__":
    main()
