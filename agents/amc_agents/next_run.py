"""One configuration of a sweep for any launcher: what ``wandb agent`` asks of the server and gives to its trial.

Each request counts as an agent of its own, since nothing reports on the trial but the trial itself.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Any

import yaml

from amc_agents.sweep_control import query_sweep
from amc_analysis.reading.wandb_private import agent_command, send_query
from amc_sweeps.bounded_texts import TextError, read_yaml

# The client's own mutations.
_CREATE_AGENT = """
mutation CreateAgent($host: String!, $projectName: String, $entityName: String, $sweep: String!) {
  createAgent(input: {host: $host, projectName: $projectName, entityName: $entityName, sweep: $sweep}) { agent { id } }
}
"""
_HEARTBEAT = """
mutation Heartbeat($id: ID!, $metrics: JSONString, $runState: JSONString) {
  agentHeartbeat(input: {id: $id, metrics: $metrics, runState: $runState}) { agent { id } commands }
}
"""
# Of our embedded server.
_LEASE = """
mutation LeaseRun($entity: String, $project: String!, $run: String!, $seconds: Float!) {
  leaseRun(input: {entityName: $entity, projectName: $project, runName: $run, seconds: $seconds}) { success }
}
"""
_GIVE_BACK = """
mutation GiveBackRun($entity: String, $project: String!, $run: String!) {
  giveBackRun(input: {entityName: $entity, projectName: $project, runName: $run}) { success }
}
"""


class NoRun(Enum):
    """Why the server hands out no run."""

    LATER = auto()  # the sweep is paused, or its last runs are under way: one of them may come back
    SWEEP_IS_OVER = auto()


@dataclass(frozen=True)
class NextRun:
    """A run that was handed out, and what its trial needs."""

    path: str  # ENTITY/PROJECT/RUN
    sweep: str  # ENTITY/PROJECT/ID
    parameters: Mapping[str, Any]  # as the sweep chose them
    environment: Mapping[str, str]  # without the key
    command: tuple[str, ...]  # what `wandb agent` would start
    continues: bool  # it had a trial before, which was preempted
    lease_s: float | None  # for which the server holds it; None: as long as another W&B does

    def to_mapping(self) -> dict[str, Any]:
        """Return plain JSON types: the schema of ``--json``."""
        return {
            "schema": "amc-sweep next",
            "version": 1,
            "run": self.path,
            "sweep": self.sweep,
            "parameters": dict(self.parameters),
            "environment": dict(self.environment),
            "command": list(self.command),
            "continues": self.continues,
            "lease_s": self.lease_s,
        }


def draw(api: Any, sweep: str, base_url: str, folder: Path, lease_s: float | None) -> NextRun | NoRun:
    """Ask for a run of a sweep, hold it, and write its parameter file.

    Args:
        api: a ``wandb.Api``.
        sweep: ENTITY/PROJECT/ID.
        base_url: of the W&B.
        folder: of the parameter file.
        lease_s: how long to hold the run for its trial; None where the W&B has no leases.

    Raises:
        NoSuchSweepError: there is no such sweep.
        OSError: the parameter file cannot be written; the run was given back where the W&B can do that.
        wandb.Error: the server does not answer as it should.
    """
    entity, project, sweep_id = sweep.split("/")
    sweep_config = _read_config(query_sweep(api, sweep, "config")["config"])
    host = socket.gethostname()
    agent = send_query(api, _CREATE_AGENT, host=host, projectName=project, entityName=entity, sweep=sweep_id)
    answer = send_query(api, _HEARTBEAT, id=agent["createAgent"]["agent"]["id"], metrics="{}", runState="{}")
    commands = json.loads(answer["agentHeartbeat"]["commands"] or "[]")
    command = next((command for command in commands if command.get("type") in {"run", "resume"}), None)
    if command is None:
        is_over = any(command.get("type") == "exit" for command in commands)
        return NoRun.SWEEP_IS_OVER if is_over else NoRun.LATER
    run_id = command["run_id"]
    where = {"entity": entity, "project": project, "run": run_id}
    if lease_s is not None:
        send_query(api, _LEASE, **where, seconds=lease_s)
    parameter_file = folder / f"sweep-{sweep_id}" / f"config-{run_id}.yaml"
    try:
        line = agent_command(sweep_config.get("command"), command, parameter_file)
    except OSError:
        if lease_s is not None:
            send_query(api, _GIVE_BACK, **where)
        raise
    environment = {
        "WANDB_BASE_URL": base_url,
        "WANDB_ENTITY": entity,
        "WANDB_PROJECT": project,
        "WANDB_SWEEP_ID": sweep_id,
        "WANDB_RUN_ID": run_id,
        "WANDB_SWEEP_PARAM_PATH": str(parameter_file),
    }
    parameters = {name: entry["value"] for name, entry in command["args"].items()}
    continues = command["type"] == "resume"
    return NextRun(f"{entity}/{project}/{run_id}", sweep, parameters, environment, tuple(line), continues, lease_s)


def give_back(api: Any, run: str) -> None:
    """Return a run that was handed out and has not begun; it is handed out again at once.

    Args:
        api: a ``wandb.Api``.
        run: ENTITY/PROJECT/RUN.

    Raises:
        wandb.Error: the run has begun, is no run of a sweep, or the W&B is not our embedded server.
    """
    entity, project, run_id = run.split("/")
    send_query(api, _GIVE_BACK, entity=entity, project=project, run=run_id)


def _read_config(text: str) -> Mapping[str, Any]:
    try:
        config, _ = read_yaml(text)
    except (yaml.YAMLError, TextError):
        return {}
    return config if isinstance(config, Mapping) else {}
