"""Trials as real processes on machines that a test can stop; the client, the server and the signals are real."""

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

from amc_agents.trial.run_folder import read_rows
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
NO_TWO_ALIKE = ("_runtime", "_timestamp", "_step", "throughput/frames_per_s")


def frames(folder: Path) -> Path:
    """Write a file whose epochs take about a second."""
    return synthetic_file(folder, levels_db=(0, 10, 20), frames_per_cell=20)


class Machine:
    """A host with its own folder of runs."""

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
        # An agent finds the programs that it starts as in an activated environment.
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
        """Run a command of the wandb client and return its output."""
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
        """Run one of our commands to its end."""
        command = _resolved(("amc-sweep", *arguments))
        return subprocess.run(
            command, cwd=self.folder, env={**self.env, **env}, text=True, capture_output=True, check=False, timeout=120
        )

    def output(self, command: str = "amc-train") -> str:
        """Return the output of a command so far."""
        return (self.folder / f"{command}.log").read_text()

    def epochs(self, run: str) -> int:
        """Return the number of epochs that a trial has logged into its folder."""
        return len(read_rows(self.runs / run))

    def wait_for_epoch(self, run: str, epoch: int, process: subprocess.Popen[str] | None = None) -> None:
        """Wait until a trial has logged this epoch and works on the next."""
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
    beside = Path(sys.executable).parent / command[0]  # whatever PATH is
    return [str(beside) if beside.exists() else command[0], *command[1:]]


def signal_everybody(process: subprocess.Popen[str] | psutil.Process, number: signal.Signals) -> list[str]:
    """Send a signal to a process and all its descendants, as the end of a cgroup does; return their names."""
    everybody = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    names = [member.name() for member in everybody]
    for member in everybody:
        member.send_signal(number)
    return names


def run_of(server: EmbeddedServer, run: str, project: str = "demo") -> dict[str, Any]:
    """Return a run as the server stores it."""
    document = """query R($run: String!, $project: String!) { project(name: $project, entityName: "local") {
        run(name: $run) { state exitcode host config summaryMetrics tags
        history(minStep: 0, maxStep: 1000000, samples: 100000)
        files { edges { node { name } } } } } }"""
    begun = server.graphql(document, run=run, project=project)["project"]
    found = begun and begun["run"]
    if found is None:
        return {"state": None, "history": []}
    found["history"] = [json.loads(line) for line in found["history"]]
    found["summary"] = json.loads(found.pop("summaryMetrics"))
    found["config"] = {name: entry.get("value") for name, entry in json.loads(found["config"]).items()}
    return dict(found)


def columns(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows without the columns that differ between any two runs."""
    return [{name: value for name, value in row.items() if name not in NO_TWO_ALIKE} for row in rows]


def same_weights(one: Path, other: Path) -> bool:
    """Return whether all tensors of two checkpoints are equal, weights and optimiser state."""
    mine, yours = load_checkpoint(one), load_checkpoint(other)
    states = zip(
        mine.training["optimiser"]["state"].values(), yours.training["optimiser"]["state"].values(), strict=True
    )
    return (
        (mine.epoch, mine.model.keys()) == (yours.epoch, yours.model.keys())
        and all(torch.equal(mine.model[name], yours.model[name]) for name in mine.model)
        and all(torch.equal(a[name], b[name]) for a, b in states for name in a)
    )
