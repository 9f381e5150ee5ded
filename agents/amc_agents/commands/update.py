"""amc-sweep update: give a sweep another config, after showing what that changes."""

from __future__ import annotations

import getpass
import json
import socket
import sys
from pathlib import Path
from typing import Any

import click

from amc_agents.commands.create import preflight_facts, read_sweep_file, report
from amc_agents.open_target import OpenTarget, open_target
from amc_agents.preflight.check_sweep import check_sweep
from amc_agents.sweep_control import query_sweep
from amc_analysis.reading.wandb_api import translate_errors
from amc_core.command_line import FAILED, Refusal, refuse
from amc_sweeps.backend.options import BackendChoice, backend_options
from amc_sweeps.number_formats import counted
from amc_sweeps.runs.export_file import yaml_text

_PROPOSAL = """
query ProposedUpdate($entity: String, $project: String, $sweep: String!, $config: String!) {
  project(name: $project, entityName: $entity) { sweep(sweepName: $sweep) {
    id config proposedUpdate(config: $config) { problem changes effects } } } }
"""
_UPDATE = """
mutation UpsertSweep($id: ID, $config: String, $expected: String, $author: String) {
  upsertSweep(input: {id: $id, config: $config, expectedConfig: $expected, author: $author}) { sweep { config } } }
"""


@click.command("update", short_help="Give a sweep that runs another config.")
@click.argument("sweep")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Show what would change; change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask; needed where there is no terminal.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
@backend_options
def update_command(sweep: str, file: Path, dry_run: bool, yes: bool, as_json: bool, choice: BackendChoice) -> None:
    """Give SWEEP the config in FILE, and keep its runs; only an embedded server can do this.

    FILE is checked as amc-sweep create does. The command then shows what changes, how many runs had each value that is
    dropped, and what this does to the search, to Hyperband and to the runs. It asks before it changes anything. If
    somebody else changes the sweep meanwhile, nothing is changed.

    \b
    amc-sweep update 94fqx0gz sweeps/narrower.yaml --dry-run
    amc-sweep update 94fqx0gz sweeps/narrower.yaml --yes --json

    The server keeps a note of every change: amc-sweep status and amc-analyze show it. A finished sweep stays finished
    until amc-sweep resume. A cancelled one must be resumed first.

    --json: {sweep, changed, changes, effects, configurations, bands_epochs, warnings}; changes and effects are lists of
    sentences.

    Exit codes: 0 changed (or nothing changes), 1 the server does not answer or you said no, 2 refused.
    """
    preflight = check_sweep(read_sweep_file(file), source=str(file))
    if preflight.sweep is None or preflight.problems:
        report(preflight, file)
        refuse(f"{file}: {counted(len(preflight.problems), 'problem')}; nothing was changed")
    target = open_target(sweep, choice, "sweep")
    if target.backend.kind != "embedded":
        refuse(
            f"{target.backend.base_url} keeps the config of a sweep that exists, so nothing was changed. Create a new "
            f"sweep that learns from its runs: wandb sweep --prior_run RUN --prior_run RUN {file}"
        )
    report(preflight, file)
    config = yaml_text(preflight.sweep.raw)
    proposal = _propose(target, config)
    if proposal["problem"] is not None:
        raise Refusal(proposal["problem"])
    lines = [*proposal["changes"], *proposal["effects"]]
    click.echo("\n".join(f"  {line}" for line in lines) if lines else f"{file}: nothing changes", err=True)
    is_applied = bool(lines) and not dry_run
    if is_applied and not yes:
        _confirm(target)
    if is_applied:
        _apply(target, proposal, config)
        click.echo(f"sweep {target.path} was changed", err=True)
    if as_json:
        document = {"sweep": target.path, "changed": is_applied}
        document |= {name: proposal[name] for name in ("changes", "effects")}
        click.echo(json.dumps({**document, **preflight_facts(preflight)}, indent=2))


def _propose(target: OpenTarget, config: str) -> dict[str, Any]:
    """Return the sweep's present config, and what another would change."""
    from amc_analysis.reading.wandb_private import send_query

    entity, project, sweep_id = target.path.split("/")
    with translate_errors(target.backend):
        variables = {"entity": entity, "project": project, "sweep": sweep_id, "config": config}
        sweep = send_query(target.api, _PROPOSAL, **variables)["project"]["sweep"]
    return {"id": sweep["id"], "config": sweep["config"], **sweep["proposedUpdate"]}


def _confirm(target: OpenTarget) -> None:
    if not sys.stdin.isatty():
        refuse("nothing was changed: there is no terminal to ask on. Give --yes to change the sweep.")
    if not click.confirm(f"Change sweep {target.path}?", err=True):
        click.echo("nothing was changed", err=True)
        sys.exit(FAILED)


def _apply(target: OpenTarget, proposal: dict[str, Any], config: str) -> None:
    import wandb

    from amc_analysis.reading.wandb_private import send_query

    variables = {"id": proposal["id"], "config": config, "expected": proposal["config"], "author": _author()}
    with translate_errors(target.backend):
        try:
            send_query(target.api, _UPDATE, **variables)
        except wandb.Error:
            if query_sweep(target.api, target.path, "config")["config"] == proposal["config"]:
                raise
            refuse(
                f"sweep {target.path} was changed by somebody else in the meantime, so nothing was changed now. "
                "Look at the changes again: repeat the command."
            )


def _author() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container may have no user of this number
        user = "unknown"
    return f"{user}@{socket.gethostname()}"
