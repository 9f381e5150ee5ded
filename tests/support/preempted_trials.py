"""Trials as real processes that a test can preempt, with the real client, server and signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import torch
from client_scenarios import wait_until
from embedded_server import EmbeddedServer
from tiny_files import synthetic_file

from amc_agents.trial.end_and_history import read_rows
from amc_core.training.checkpoint import load_checkpoint

EPOCHS = 4
SMALL: dict[str, Any] = {
    "model_type": "test_byobnet",  # batch norm: running means
    "image_size": 32,
    "batch_size": 16,
    "epochs": EPOCHS,
    "epochs_per_cycle": 2,
    "base_lr": 0.0001,
    "max_lr": 0.001,
    "dropout": 0.3,  # draws random numbers
}
ALWAYS_DIFFERENT = ("_runtime", "_timestamp", "_step", "throughput/frames_per_s")


def frames(folder: Path) -> Path:
    """Write a file whose epochs take about a second."""
    return synthetic_file(folder, levels_db=(0, 10, 20), frames_per_cell=20)


class Machine:
    """A host with its own folder of runs, on which trials are started."""

    def __init__(self, name: str, folder: Path, server: EmbeddedServer | None, data: Path, **env: str) -> None:
        self.runs = folder / name / "runs"
        self.runs.mkdir(parents=True)
        self.folder = folder / name
        own = {"AMC_RUNS_DIR": str(self.runs), "AMC_DATA": str(data), "OMP_NUM_THREADS": "1"}
        wandb = {
            "WANDB_HOST": name,
            "WANDB_DIR": str(self.folder),
            "WANDB_SILENT": "false",
            "WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL": "1",
        }
        base = server.environment() if server else dict(os.environ)
        self.env = {**base, **EmbeddedServer.process_environment(), **own, **wandb, **env}
        # An agent finds its trial's command as in an activated environment.
        self.env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.env.update({name: base[name] for name in ("WANDB_BASE_URL", "WANDB_API_KEY") if name in base})

    def start(self, *command: str, **env: str) -> subprocess.Popen[str]:
        """Start a command in its own session."""
        with (self.folder / f"{command[0]}.log").open("a") as log:
            return subprocess.Popen(
                [*_resolved(command)],
                cwd=self.folder,
                env={**self.env, **env},
                stdout=log,
                stderr=log,
                text=True,
                start_new_session=True,
            )

    def train(self, run: str, flags: Mapping[str, Any] | None = None, **env: str) -> subprocess.Popen[str]:
        """Start a trial with this run id, as an agent would."""
        arguments = [f"--{name}={value}" for name, value in (SMALL if flags is None else flags).items()]
        return self.start("amc-train", *arguments, WANDB_RUN_ID=run, WANDB_PROJECT="demo", **env)

    def create_sweep(self, config: str) -> str:
        """Register a sweep in project ``demo`` and return ENTITY/PROJECT/ID."""
        (self.folder / "sweep.yaml").write_text(config)
        return self.wandb("sweep", "--project", "demo", "sweep.yaml").split("wandb agent ")[1].split()[0]

    def wandb(self, *arguments: str) -> str:
        """Run a command of the client and return its output."""
        return self._done(["wandb", *arguments])

    def python(self, code: str) -> str:
        """Run Python code and return its output."""
        return self._done([sys.executable, "-c", code])

    def _done(self, command: Sequence[str]) -> str:
        done = subprocess.run(
            _resolved(command), cwd=self.folder, env=self.env, text=True, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def amc_sweep(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command of amc-sweep to its end."""
        command = _resolved(("amc-sweep", *arguments))
        return subprocess.run(
            command, cwd=self.folder, env={**self.env, **env}, text=True, capture_output=True, check=False, timeout=120
        )

    def output(self, command: str = "amc-train") -> str:
        """Return the output of a command."""
        return (self.folder / f"{command}.log").read_text()

    def epochs(self, run: str) -> int:
        """Return how many epochs a trial has logged into its folder."""
        return len(read_rows(self.runs / run))

    def wait_for_epoch(self, run: str, epoch: int, process: subprocess.Popen[str] | None = None) -> None:
        """Wait until a trial is inside the epoch after this one."""
        wait_until(
            lambda: self.epochs(run) >= epoch or (process and process.poll() is not None), f"epoch {epoch} of {run}"
        )
        assert process is None or process.poll() is None, self.output()
        time.sleep(0.3)


def _resolved(command: Sequence[str]) -> list[str]:
    modules = {"amc-train": "amc_agents.trial.main", "amc-sweep": "amc_agents.commands"}
    if command[0] in modules:
        program = f"from {modules[command[0]]} import main; main()"
        return [sys.executable, "-c", program, *command[1:]]
    beside = Path(sys.executable).parent / command[0]  # independent of PATH
    return [str(beside) if beside.exists() else command[0], *command[1:]]


def signal_all(process: subprocess.Popen[str] | psutil.Process, number: signal.Signals) -> list[str]:
    """Send a signal to a process and all its descendants, as the end of a cgroup does; return their names."""
    processes = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    names = [target.name() for target in processes]
    for target in processes:
        target.send_signal(number)
    return names


def run_of(server: EmbeddedServer, run: str, project: str = "demo") -> dict[str, Any]:
    """Return the server's record of a run."""
    document = """query R($run: String!, $project: String!) { project(name: $project, entityName: "local") {
        run(name: $run) { state exitcode host config summaryMetrics tags
        history(minStep: 0, maxStep: 1000000, samples: 100000)
        files { edges { node { name } } } } } }"""
    project_node = server.graphql(document, run=run, project=project)["project"]
    record = project_node and project_node["run"]
    if record is None:
        return {"state": None, "history": []}
    record["history"] = [json.loads(line) for line in record["history"]]
    record["summary"] = json.loads(record.pop("summaryMetrics"))
    record["config"] = {name: entry.get("value") for name, entry in json.loads(record["config"]).items()}
    return dict(record)


def columns(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows without what differs between any two runs."""
    return [{name: value for name, value in row.items() if name not in ALWAYS_DIFFERENT} for row in rows]


def same_weights(first: Path, second: Path) -> bool:
    """Compare every tensor of two checkpoints: weights and optimiser state."""
    left, right = load_checkpoint(first), load_checkpoint(second)
    states = zip(
        left.training["optimiser"]["state"].values(), right.training["optimiser"]["state"].values(), strict=True
    )
    return (
        (left.epoch, left.model.keys()) == (right.epoch, right.model.keys())
        and all(torch.equal(left.model[name], right.model[name]) for name in left.model)
        and all(torch.equal(a[name], b[name]) for a, b in states for name in a)
    )
