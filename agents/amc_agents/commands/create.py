"""amc-sweep create: check a sweep file, register it, print the command for the agents."""

from __future__ import annotations

import contextlib
import io
import json
import os
from pathlib import Path
from typing import Any

import click

from amc_agents.preflight.check_sweep import Preflight, check_sweep
from amc_sweeps.backend.choose import Backend
from amc_sweeps.backend.options import BackendChoice, Refusal, backend_options, connect, refuse
from amc_sweeps.bounded_texts import MOST_SWEEP_BYTES, TextError, read_file
from amc_sweeps.number_formats import counted

DEFAULT_PROJECT = "amc-sweeps"


@click.command("create", short_help="Check a sweep file, register it, print the agent command.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Check the file and show what it would do; register nothing.")
@click.option("--name", help="Name of the sweep (default: the file's own).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout instead of the agent command.")
@backend_options
def create_command(file: Path, dry_run: bool, name: str | None, as_json: bool, choice: BackendChoice) -> None:
    """Check the sweep FILE, register it with W&B, and print the agent command.

    The file is checked against W&B's grammar and against what amc-train accepts. All problems are reported at once,
    with exit code 2, and nothing is registered. Only the agent command goes to stdout:

    \b
    amc-sweep create sweeps/resnet50_focused.yaml --dry-run
    amc-sweep create sweeps/resnet50_focused.yaml
    eval "$(amc-sweep create sweeps/smoke.yaml)"      # register, and be its first agent

    The project is --project, else WANDB_PROJECT, the file's own project, or amc-sweeps.

    Exit codes: 0 registered (with --dry-run: it could be), 2 refused.
    """
    preflight = check_sweep(_read(file), source=str(file))
    if preflight.sweep is None or preflight.problems:
        _report(preflight, file)
        refuse(f"{file}: {counted(len(preflight.problems), 'problem')}; nothing was registered")
    if dry_run:
        _report(preflight, file)
        if as_json:
            click.echo(json.dumps(_facts(preflight), indent=2))
        return
    backend = connect(choice)
    _report(preflight, file)
    sweep: dict[str, Any] = {**preflight.sweep.raw, **({"name": name} if name else {})}
    entity = choice.entity or os.environ.get("WANDB_ENTITY") or sweep.get("entity")
    project = choice.project or os.environ.get("WANDB_PROJECT") or sweep.get("project") or DEFAULT_PROJECT
    registered = _register(sweep, backend, entity, project)
    agent = f"{backend.shell_prefix()}wandb agent {registered['path']}"
    click.echo(f"Sweep {registered['path']}\n  page   {registered['url']}\nRun this on every GPU box:", err=True)
    if as_json:
        click.echo(json.dumps({**registered, "agent_command": agent, **_facts(preflight)}, indent=2))
    else:
        click.echo(agent)


def _read(file: Path) -> str:
    try:
        return read_file(file, MOST_SWEEP_BYTES)
    except (OSError, TextError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise Refusal(f"{file}: cannot be read: {reason}") from error


def _report(preflight: Preflight, file: Path) -> None:
    for problem in preflight.problems:
        click.secho(f"{file}: problem: {problem}", fg="red", err=True)
    for warning in preflight.warnings:
        click.secho(f"{file}: warning: {warning}", fg="yellow", err=True)
    if preflight.sweep is None or preflight.problems:
        return
    count = preflight.configurations
    size = "infinitely many configurations" if count is None else counted(count, "configuration")
    cap = f", run_cap {preflight.sweep.run_cap}" if preflight.sweep.run_cap else ""
    click.echo(f"{file}: {size}, searched by {preflight.sweep.method}{cap}", err=True)
    if preflight.epochs_at_most is not None:
        click.echo(f"{file}: at most {counted(preflight.epochs_at_most, 'epoch')} in all", err=True)
    if preflight.bands_epochs:
        click.echo(f"{file}: Hyperband judges runs at epochs {', '.join(map(str, preflight.bands_epochs))}", err=True)


def _facts(preflight: Preflight) -> dict[str, Any]:
    return {
        "configurations": preflight.configurations,
        "bands_epochs": list(preflight.bands_epochs),
        "warnings": list(preflight.warnings),
    }


def _register(sweep: dict[str, Any], backend: Backend, entity: str | None, project: str) -> dict[str, str]:
    import wandb

    from amc_analysis.reading.wandb_api import open_api
    from amc_analysis.reading.wandb_private import page_address

    try:
        # wandb.sweep prints its own lines on stdout, which is for the agent command alone.
        with contextlib.redirect_stdout(io.StringIO()):
            api = open_api(backend)
            sweep_id = wandb.sweep(sweep, entity=entity, project=project)
            owner = entity or api.default_entity
    except (wandb.Error, ValueError) as error:
        raise Refusal(f"{backend.base_url} refused the sweep: {error}") from error
    return {
        "sweep_id": sweep_id,
        "entity": str(owner),
        "project": project,
        "path": f"{owner}/{project}/{sweep_id}",
        "url": f"{page_address(backend.base_url)}/{owner}/{project}/sweeps/{sweep_id}",
    }
