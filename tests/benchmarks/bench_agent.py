"""What ``amc-sweep agent`` costs over plain ``wandb agent``: both on the same machine in turns, the same trials.

A trial computes a fixed amount in plain Python. Measured for every trial: its computing, and the time from its being
handed out to the next one's, which is what a sweep's length is made of. The agent looks at its trial every five
seconds, so the second is a multiple of five and a bit. Starting is told apart: it happens once.

Run by hand:  python tests/benchmarks/bench_agent.py [--pairs 3] [--trials 4] [--rounds 60]
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from machine import add_write_options, describe_machine, keep_table, unlike_committed

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from embedded_server import EmbeddedServer

TRIAL = """
import sys, time, wandb
rounds = int(sys.argv[-1].partition("=")[2])
run = wandb.init()
began = time.perf_counter()
for epoch in range(rounds):
    total = 0
    for k in range(700_000):
        total += k * k
    run.log({"epoch": epoch})
run.summary["computing_s"] = time.perf_counter() - began
run.finish()
"""
SWEEP = "program: train.py\nmethod: random\nparameters: {rounds: {value: %d}}\n"
RUNS = """query R($sweep: String!) { project(name: "bench", entityName: "local") { sweep(sweepName: $sweep) {
    runs { edges { node { createdAt state summaryMetrics } } } } } }"""
STARTED_S = 10.0
CREATE = """mutation C($config: String) { upsertSweep(input: {config: $config, projectName: "bench"}) {
    sweep { name } } }"""


@dataclass
class Side:
    """One of the two, over all its turns."""

    name: str
    command: list[str]
    periods_s: list[float] = field(default_factory=list)  # from hand-out to hand-out
    computing_s: list[float] = field(default_factory=list)
    starts_s: list[float] = field(default_factory=list)  # from the command to the first hand-out
    own_cpu: list[float] = field(default_factory=list)  # share of one core that the command itself took, once started


def main() -> None:
    """Print the table; with the default arguments write it to results/agent.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--trials", type=int, default=4, help="trials of one turn")
    parser.add_argument("--rounds", type=int, default=60, help="how much one trial computes")
    add_write_options(parser, "agent")
    options = parser.parse_args()
    ours = [sys.executable, "-c", "from amc_agents.commands import main; main()", "agent", "--workers", "1"]
    sides = [
        Side("wandb agent", [str(Path(sys.executable).parent / "wandb"), "agent"]),
        Side("amc-sweep agent", ours),
    ]
    with tempfile.TemporaryDirectory() as name, EmbeddedServer(Path(name) / "data") as server:
        folder = Path(name) / "work"
        folder.mkdir()
        (folder / "train.py").write_text(TRIAL)
        for pair in range(options.pairs):
            for side in sides if pair % 2 == 0 else reversed(sides):
                turn(side, server, folder, options)
    text = report(sides, options)
    print(text)
    keep_table("agent", text, options, worse=unlike_committed(parser, options))


def turn(side: Side, server: EmbeddedServer, folder: Path, options: argparse.Namespace) -> None:
    """Run some trials and note what they took."""
    sweep = server.graphql(CREATE, config=SWEEP % options.rounds)["upsertSweep"]["sweep"]["name"]
    env = {**EmbeddedServer.process_environment(), **server.environment(WANDB_DIR=str(folder), WANDB_SILENT="true")}
    began, wall = time.perf_counter(), time.time()
    command = [*side.command, "--count", str(options.trials), f"local/bench/{sweep}"]
    with (folder / "said.log").open("ab") as log:
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log)
    taken: list[tuple[float, float]] = []  # when, and the seconds of CPU by then
    while process.poll() is None:
        with contextlib.suppress(psutil.Error):
            times = psutil.Process(process.pid).cpu_times()
            taken.append((time.perf_counter() - began, times.user + times.system))
        time.sleep(0.5)
    if process.returncode != 0:
        raise SystemExit((folder / "said.log").read_text())
    edges = server.graphql(RUNS, sweep=sweep)["project"]["sweep"]["runs"]["edges"]
    nodes = sorted((edge["node"] for edge in edges), key=lambda node: str(node["createdAt"]))
    assert [node["state"] for node in nodes] == ["finished"] * options.trials
    created = [timestamp(node["createdAt"]) for node in nodes]
    side.periods_s += [later - earlier for earlier, later in itertools.pairwise(created)]
    side.computing_s += [json.loads(node["summaryMetrics"])["computing_s"] for node in nodes]
    side.starts_s.append(created[0] - wall)
    (from_s, before), (to_s, after) = next(one for one in taken if one[0] > STARTED_S), taken[-1]
    side.own_cpu.append((after - before) / (to_s - from_s))


def timestamp(text: str) -> float:
    """Return Unix time."""
    from datetime import UTC, datetime

    found = datetime.fromisoformat(text)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def report(sides: list[Side], options: argparse.Namespace) -> str:
    """Return the table."""
    plain, ours = sides
    rows = [
        ("from one trial to the next, s, median", [statistics.median(side.periods_s) for side in sides]),
        ("the same, mean", [statistics.mean(side.periods_s) for side in sides]),
        ("computing of a trial, s, median", [statistics.median(side.computing_s) for side in sides]),
        ("the same, fastest", [min(side.computing_s) for side in sides]),
        ("from the command to the first trial, once, s", [statistics.median(side.starts_s) for side in sides]),
    ]
    lines = [f"| | {plain.name} | {ours.name} | more |", "|---|---:|---:|---:|"]
    lines += [f"| {what} | {one:.3f} | {other:.3f} | {other / one - 1:+.1%} |" for what, (one, other) in rows]
    return "\n".join(
        [
            f"## {options.pairs} turns each, {options.trials} trials a turn, one worker",
            "",
            f"{describe_machine()} Load average {os.getloadavg()[0]:.1f}: other work disturbs both.",
            "",
            *lines,
            "",
            f"Once started, the process of {ours.name} took {statistics.median(ours.own_cpu):.2%} of one core, "
            f"that of {plain.name} {statistics.median(plain.own_cpu):.2%}.",
        ]
    )


if __name__ == "__main__":
    main()
