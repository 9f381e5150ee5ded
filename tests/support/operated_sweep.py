"""A sweep on a server for tests of commands: runs that ended in four ways, and agents with their heartbeats."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner
from embedded_server import EmbeddedServer
from plain_wandb import KEY, PlainWandb

from amc_agents.commands import main
from amc_sweeps.runs import export_file

SWEEP_ID, PROJECT, METRIC = "94fqx0gz", "operated", "val/combined_acc"
PATH = f"local/{PROJECT}/{SWEEP_ID}"

CONFIG = {
    "program": "train.py",
    "method": "random",
    "metric": {"name": METRIC, "goal": "maximize"},
    "run_cap": 10,
    "early_terminate": {"type": "hyperband", "min_iter": 2, "eta": 2, "strict": True},
    "parameters": {"lr": {"values": [0.1, 0.2]}, "epochs": {"value": 6}},
}

# Two agents and a living run by the client, until a line comes on stdin. They send heartbeats, or the
# run that was never started would expire after a minute; on a busy machine the tests take longer.
AGENTS = """
import json, select, sys, wandb
from amc_analysis.reading.wandb_private import send_query
BEGIN = "mutation B($host: String!, $sweep: String!, $project: String!, $entity: String!) { createAgent(input: \\
    {host: $host, sweep: $sweep, projectName: $project, entityName: $entity}) { agent { id } } }"
BEAT = "mutation H($id: ID!, $runs: JSONString) { agentHeartbeat(input: {id: $id, runState: $runs}) { commands } }"
entity, project, sweep = sys.argv[1].split("/")
api = wandb.Api()
names, agents = {}, {}
for host in ("gpu-1", "gpu-2"):
    begun = send_query(api, BEGIN, host=host, sweep=sweep, project=project, entity=entity)
    agents[host] = begun["createAgent"]["agent"]["id"]
    commands = send_query(api, BEAT, id=agents[host], runs="{}")["agentHeartbeat"]["commands"]
    names[host] = [command["run_id"] for command in json.loads(commands)]
run = wandb.init(id=names["gpu-1"][0], entity=entity, project=project, config={"epochs": 6})
for epoch in (1, 2):
    run.log({"epoch": epoch, "val/combined_acc": 0.2 + epoch / 100})
print(json.dumps(names), flush=True)
while not select.select([sys.stdin], [], [], 10)[0]:
    for host, agent in agents.items():
        send_query(api, BEAT, id=agent, runs=json.dumps({names[host][0]: True}))
run.finish()
"""


def _run(run_id: str, state: str, values: list[float], host: str, **fields: Any) -> dict[str, Any]:
    history = [{"_step": n, "epoch": n + 1, METRIC: value} for n, value in enumerate(values)]
    summary = {"_runtime": 60 * len(values), **fields.pop("summary", {})}
    return {
        "id": run_id,
        "sweep": SWEEP_ID,
        "state": state,
        "name": f"run-{run_id}",
        "created_at": "2025-07-01T12:00:00Z",
        "heartbeat_at": "2025-07-01T12:10:00Z",
        "host": host,
        "config": {"lr": 0.1, "epochs": 6},
        "summary": summary,
        "history": history,
        **fields,
    }


def ended_runs() -> list[dict[str, Any]]:
    """Return runs that ended in four ways on two hosts: 20 epochs, 4 saved, the best peak in the lost run."""
    return [
        _run("whole", "finished", [0.3, 0.4, 0.5, 0.6, 0.6, 0.5], "gpu-1", exit_code=0, summary=_end("completed")),
        _run("early", "killed", [0.1, 0.1], "gpu-1", **_stopped_early(), summary=_end("stopped")),
        _run("broken", "failed", [0.2] * 4, "gpu-2", exit_code=80, summary=_end("diverged")),
        _run("lost", "crashed", [0.3, 0.5, 0.7, 0.7, 0.8, 0.7, 0.7, 0.7], "gpu-2", exit_code=None),
    ]


def _end(reason: str) -> dict[str, str]:
    return {"end_reason": reason}


def _stopped_early() -> dict[str, Any]:
    decision = {"stop_reason": "hyperband", "stop_band": 2, "stop_value": 0.1, "stop_threshold": 0.4}
    return {"exit_code": 0, "stop_recorded": True, **decision}


_used: list[str] = []  # the address of the server that the client in this process was set up for


def _use_server(base_url: str) -> None:
    """Let the client read its settings anew if it has read those of another server."""
    if "wandb" in sys.modules and _used != [base_url]:
        sys.modules["wandb"].teardown()
    _used[:] = [base_url]


@dataclass
class OperatedSweep:
    """A server with the sweep, and amc-sweep as a user runs it, at the embedded or a plain W&B."""

    server: EmbeddedServer
    plain: PlainWandb
    folder: Path
    runs_by_host: dict[str, list[str]] = field(default_factory=dict)  # handed out to the host's agent

    def environment(self, *, plain: bool = False) -> dict[str, str]:
        """Return the environment of a user of this W&B."""
        own = {f"WANDB_{name}": str(self.folder) for name in ("CONFIG_DIR", "CACHE_DIR", "DATA_DIR", "DIR")}
        own |= {"HOME": str(self.folder), "NETRC": str(self.folder / "netrc"), "WANDB_SILENT": "true"}
        own |= {"WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL": "1"}
        if plain:
            own |= {"WANDB_BASE_URL": self.plain.base_url, "WANDB_API_KEY": KEY}
        return {**self.server.process_environment(), **self.server.environment(), **own}

    def call(
        self, *arguments: str, plain: bool = False, typed: str | None = None, program: click.Command = main
    ) -> subprocess.CompletedProcess[str]:
        """Run amc-sweep, or another command, in this process, and return how it ended; wandb is imported only once."""
        whole = self.environment(plain=plain)
        names = {name for name in whole if name.startswith("WANDB_")} | {"HOME", "NETRC", "AMC_STATE_DIR"}
        wanted = {name: whole.get(name) for name in names}
        # The client puts them into the environment of this process.
        wanted |= {
            "WANDB_ENTITY": None,
            "WANDB_PROJECT": None,
            "WANDB_SERVICE": None,
            "AMC_STATE_DIR": str(self.folder / "state"),
        }
        _use_server(whole["WANDB_BASE_URL"])
        with contextlib.chdir(self.folder), warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # as in a process of its own
            result = CliRunner().invoke(program, arguments, input=typed, env=wanted)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return subprocess.CompletedProcess(arguments, result.exit_code, result.stdout, result.stderr)

    def start(self, *command: str, base_url: str = "", plain: bool = True) -> subprocess.Popen[str]:
        """Start a command in a process of its own; amc-sweep need not be installed."""
        if command[0] == "amc-sweep":
            command = (sys.executable, "-c", "from amc_agents.commands import main; main()", *command[1:])
        environment = self.environment(plain=plain)
        return subprocess.Popen(
            command,
            env=environment | ({"WANDB_BASE_URL": base_url} if base_url else {}),
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def json(self, *arguments: str, plain: bool = False) -> Any:
        """Run amc-sweep with --json and return what it printed."""
        ended = self.call(*arguments, "--json", plain=plain)
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout)

    def import_runs(self, runs: list[dict[str, Any]]) -> None:
        """Import the sweep with these runs."""
        sweep = {"id": SWEEP_ID, "state": "RUNNING", "name": "operated sweep", "config": CONFIG}
        file = self.folder / "sweep.yaml"
        file.write_text(export_file.write(export_file.Export(PROJECT, (sweep,), tuple(runs))))
        ended = self.call("import", str(file))
        assert ended.returncode == 0, ended.stderr

    def start_agents(self) -> subprocess.Popen[str]:
        """Start two agents and one living run; they end with their stdin."""
        return subprocess.Popen(
            [sys.executable, "-c", AGENTS, PATH],
            env=self.environment(),
            cwd=self.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
