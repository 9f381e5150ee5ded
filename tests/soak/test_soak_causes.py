"""The cause of 70 real runs with a known end, as amc-analyze gives it, with the real client and the real server.

Half of the runs log their end reason, as amc-train does. The other half are of a script without end reasons.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from embedded_server import EmbeddedServer
from results_file import keep

from amc_analysis.analyse import rank_runs
from amc_analysis.reading.reader import read
from amc_analysis.reading.sources import Selection
from amc_analysis.reading.whole_histories import BulkSource

pytestmark = [pytest.mark.client, pytest.mark.timeout(1500)]

TRIAL = Path(__file__).with_name("trial_with_known_end.py")
AT_ONCE = 6
# known end -> (expected cause, copies of each flavour)
ENDS = {
    "completed": ("completed", 4),
    "patience": ("patience", 4),
    "diverged": ("diverged", 4),
    "out_of_memory": ("out_of_memory", 3),
    "lost": ("lost", 4),
    "preempted": ("preempted", 3),
    "hyperband_stream": ("early_stopped", 4),
    "hyperband_agent": ("early_stopped", 3),
    "cancelled": ("cancelled", 3),
}
FOREIGN_ONLY = {"out_of_gpu_memory": ("out_of_memory", 1)}
CUT_SHORT = {"early_stopped", "cancelled", "preempted"}
CRASHES = {"lost", "error", "killed_by_signal", "node_failure", "diverged", "out_of_memory", "unknown"}

CREATE = """
import json, sys, wandb
print("ID", wandb.sweep(json.loads(sys.argv[1]), project="ends"))
"""
HYPERBAND = {"type": "hyperband", "min_iter": 3, "eta": 3}


class Trials:
    """Starts sweeps, trials and agents on one server, in one folder."""

    def __init__(self, server: EmbeddedServer, folder: Path) -> None:
        self.server = server
        self.folder = folder
        settings = {f"WANDB_{name}": str(folder / name.lower()) for name in ("CONFIG_DIR", "CACHE_DIR", "DATA_DIR")}
        settings |= {"HOME": str(folder), "NETRC": str(folder / ".netrc"), "WANDB_SILENT": "true"}
        settings |= {"WANDB_DIR": str(folder), "WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL": "1", "WANDB_PROJECT": "ends"}
        self.environment = {**server.environment(), **EmbeddedServer.process_environment(), **server.environment()}
        self.environment |= settings

    def create_sweep(self, **more: object) -> str:
        config = {
            "method": "grid",
            "program": str(TRIAL),
            "command": ["${env}", sys.executable, "${program}", "${args}"],
            "metric": {"name": "val/acc", "goal": "maximize"},
            "parameters": {"known_end": {"value": "hyperband_agent"}, "copy": {"values": ["1", "2", "3"]}},
            **more,
        }
        command = [sys.executable, "-c", CREATE, json.dumps(config)]
        done = subprocess.run(
            command, env=self.environment, cwd=self.folder, capture_output=True, text=True, check=True
        )
        return next(line.split()[1] for line in done.stdout.splitlines() if line.startswith("ID"))

    def trial(self, sweep: str, known_end: str, flavour: str, copy: int) -> subprocess.Popen[str]:
        name = f"{known_end}-{flavour}-{copy}"
        return subprocess.Popen(
            [sys.executable, str(TRIAL), f"--known_end={known_end}", f"--flavour={flavour}", f"--copy={copy}"],
            # Several hosts: many runs that are lost together on one host count as a fault of that host.
            env={**self.environment, "WANDB_SWEEP_ID": sweep, "WANDB_RUN_ID": name, "WANDB_HOST": f"gpu-{copy}"},
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def agent(self, sweep: str) -> subprocess.Popen[bytes]:
        command = [str(Path(sys.executable).with_name("wandb")), "agent", "--count", "1", f"local/ends/{sweep}"]
        quiet = subprocess.DEVNULL
        return subprocess.Popen(command, env=self.environment, cwd=self.folder, stdout=quiet, stderr=quiet)

    def rows(self, run: str) -> int:
        document = 'query R($run: String!) { project(name: "ends", entityName: "local") { run(name: $run) {'
        node = self.server.graphql(document + " historyLineCount } } }", run=run)["project"]["run"]
        return int(node["historyLineCount"]) if node else 0

    def analyze(self, sweep: str, *options: str) -> list[dict[str, object]]:
        command = [sys.executable, "-c", "from amc_analysis.cli import main; main()", f"local/ends/{sweep}", "--json"]
        done = subprocess.run(
            [*command, *options], env=self.environment, cwd=self.folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return list(json.loads(done.stdout)["runs"])


def run_to_its_end(trials: Trials, sweep: str, known_end: str, flavour: str, copy: int) -> None:
    trial = trials.trial(sweep, known_end, flavour, copy)
    assert trial.stdout is not None
    with trial.stdout:
        if known_end == "lost":
            assert any("LOGGED" in line for line in trial.stdout)
            deadline = time.monotonic() + 60
            while trials.rows(f"{known_end}-{flavour}-{copy}") < 5 and time.monotonic() < deadline:
                time.sleep(0.5)
            trial.send_signal(signal.SIGKILL)
        trial.wait(timeout=400)


def test_95_percent_of_causes_are_right_and_no_early_stop_is_called_a_crash(tmp_path: Path) -> None:
    limits = ("silence_s=25", "unlisted_s=10", "stop_grace_s=5", "stop_delivery_s=12")
    options = tuple(word for limit in limits for word in ("--limit", limit))
    with EmbeddedServer(tmp_path / "data", options=options) as server:
        trials = Trials(server, tmp_path)
        free = trials.create_sweep(early_terminate=HYPERBAND)
        by_agents = trials.create_sweep(
            early_terminate=HYPERBAND,
            parameters={
                "known_end": {"value": "hyperband_agent"},
                "flavour": {"values": ["own", "foreign"]},
                "copy": {"values": ["1", "2", "3"]},
            },
        )
        cancelled = trials.create_sweep()
        flavours = ("own", "foreign")
        short_jobs = [
            (free, end, flavour, copy)
            for end, (_, copies) in {**ENDS, **FOREIGN_ONLY}.items()
            if end not in {"hyperband_agent", "hyperband_stream", "cancelled"}
            for flavour in (flavours if end in ENDS else ("foreign",))
            for copy in range(copies)
        ]
        short_jobs += [(by_agents, "completed", flavour, copy) for flavour in flavours for copy in (10, 11)]
        short_jobs += [(cancelled, "completed", "foreign", 12)]
        random.Random(1).shuffle(short_jobs)
        short_jobs.sort(key=lambda job: job[1] != "completed")  # Hyperband compares a run with earlier runs
        long_jobs = [
            (sweep, end, flavour, copy)
            for sweep, end in ((free, "hyperband_stream"), (cancelled, "cancelled"))
            for flavour in flavours
            for copy in range(ENDS[end][1])
        ]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda job: run_to_its_end(trials, *job), short_jobs))
        agents = [trials.agent(by_agents) for _ in range(2 * ENDS["hyperband_agent"][1])]
        threads = [threading.Thread(target=run_to_its_end, args=(trials, *job)) for job in long_jobs]
        for thread in threads:
            thread.start()
        _wait_until_alive(trials, [job for job in long_jobs if job[1] == "cancelled"])
        subprocess.run(
            [str(Path(sys.executable).with_name("wandb")), "sweep", "--cancel", f"local/ends/{cancelled}"],
            env=trials.environment,
            cwd=tmp_path,
            check=True,
            capture_output=True,
        )
        for thread in threads:
            thread.join()
        for agent in agents:
            agent.wait(timeout=300)
        _wait_until_over(trials, (free, by_agents, cancelled))
        without_facts = [run for sweep in (free, by_agents, cancelled) for run in causes_without_flags(server, sweep)]
        causes = {
            source: [run for sweep in (free, by_agents, cancelled) for run in trials.analyze(sweep, *options)]
            for source, options in (("bulk operation", ()), ("public API", ("--public-api", "--no-cache")))
        }
    _check(causes, without_facts)


def causes_without_flags(server: EmbeddedServer, sweep: str) -> list[dict[str, object]]:
    """Return the causes for a server without stop flags and exit codes, on which a stopped run has crashed."""
    record = read(BulkSource(server.base_url, server.key), Selection(sweep_id=sweep))
    unknown = {"stop_recorded": None, "stop_reason": None, "stop_decision": None, "exit_code": None, "agent": None}
    runs = [
        replace(run, **unknown, state="crashed" if run.state == "killed" else run.state)  # type: ignore[arg-type]
        for run in record.runs
    ]
    ranked = rank_runs(replace(record, runs=tuple(runs))).ranked
    return [{"config": dict(entry.run.config), "cause": str(entry.cause)} for entry in ranked]


def _wait_until_alive(trials: Trials, jobs: list[tuple[str, str, str, int]]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if all(trials.rows(f"{end}-{flavour}-{copy}") >= 3 for _, end, flavour, copy in jobs):
            return
        time.sleep(1.0)
    raise AssertionError("the runs that will be cancelled did not start")


def _wait_until_over(trials: Trials, sweeps: tuple[str, ...]) -> None:
    """Wait until the server has given every silent run its final state."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        states = Counter(str(run["state"]) for sweep in sweeps for run in trials.analyze(sweep))
        if not states.keys() & {"running", "pending", "preempting"}:
            return
        time.sleep(3.0)
    raise AssertionError(f"runs are still alive: {states}")


def _check(causes: dict[str, list[dict[str, object]]], without_facts: list[dict[str, object]]) -> None:
    figures: dict[str, object] = {}
    expected = {end: cause for end, (cause, _) in {**ENDS, **FOREIGN_ONLY}.items()}
    wrong: list[str] = []
    for source, runs in causes.items():
        table: dict[tuple[str, str], Counter[str]] = {}
        for run in runs:
            config = run["config"]
            assert isinstance(config, dict)
            end, flavour = str(config["known_end"]), str(config["flavour"])
            table.setdefault((end, flavour), Counter())[str(run["cause"])] += 1
            if run["cause"] != expected[end]:
                wrong.append(f"{source}: {run['run_id']} ({end}, {flavour}): {run['cause']}, {run['because']}")
        right = sum(counts[expected[end]] for (end, _), counts in table.items())
        figures[f"{source}: right"] = f"{right} of {len(runs)} ({right / len(runs):.1%})"
        figures[f"{source}: early stops, cancellations, preemptions called a crash"] = sum(
            count
            for (end, _), counts in table.items()
            for cause, count in counts.items()
            if expected[end] in CUT_SHORT and cause in CRASHES
        )
        for (end, flavour), counts in sorted(table.items()):
            figures[f"{source}: {end}, {flavour}"] = ", ".join(f"{count} {cause}" for cause, count in counts.items())
    right = sum(run["cause"] == expected[str(run["config"]["known_end"])] for run in without_facts)  # type: ignore[index]
    figures["without flags and exit codes, for comparison: right"] = f"{right} of {len(without_facts)}"
    mistakes = Counter(
        f"{run['config']['known_end']} of {run['config']['flavour']} called {run['cause']}"  # type: ignore[index]
        for run in without_facts
        if run["cause"] != expected[str(run["config"]["known_end"])]  # type: ignore[index]
    )
    figures["the same: wrong"] = ", ".join(f"{count} {what}" for what, count in mistakes.items()) or "none"
    keep("causes", full=True, figures=figures)
    print("\n".join(wrong), os.linesep)
    for source, runs in causes.items():
        assert len(runs) >= 60
        assert sum(line.startswith(source) for line in wrong) <= 0.05 * len(runs), wrong
        assert figures[f"{source}: early stops, cancellations, preemptions called a crash"] == 0
