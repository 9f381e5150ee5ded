"""amc-sweep create: check a sweep file, register it, print the command for the agents."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from amc_agents.preflight.check_sweep import Preflight, check_sweep
from amc_sweeps.backend.choose import Backend
from amc_sweeps.backend.options import BackendChoice, Refusal, backend_options, connect, refuse
from amc_sweeps.bounded_texts import MOST_SWEEP_BYTES, TextError, read_file
from amc_sweeps.grammar.sweep_config import MOST_SEED
from amc_sweeps.number_formats import counted
from amc_sweeps.runs.export_file import is_export, yaml_text

DEFAULT_PROJECT = "amc-sweeps"
_LONGEST_BEGINNING = 4096  # bytes; an export says what it is in its first line

# The wandb client's own mutation, with the two inputs that only an embedded server has.
_CREATE = """
mutation UpsertSweep(
  $config: String, $description: String, $entityName: String, $projectName: String, $seed: Int64, $shuffle: Boolean
) {
  upsertSweep(input: {
    config: $config, description: $description, entityName: $entityName, projectName: $projectName
    seed: $seed, shuffle: $shuffle
  }) { sweep { name } }
}
"""


@click.command("create", short_help="Check a sweep file, register it, print the agent command.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Check the file and show what it would do; register nothing.")
@click.option("--name", help="Name of the sweep (default: the file's own).")
@click.option(
    "--seed",
    type=click.IntRange(0, MOST_SEED),
    help="Seed of the search: the same file and seed give the same configurations. Embedded server only.",
)
@click.option("--shuffle", is_flag=True, help="Walk a grid in a random order. Embedded server only.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout instead of the agent command.")
@backend_options
def create_command(
    file: Path,
    dry_run: bool,
    name: str | None,
    seed: int | None,
    shuffle: bool,
    as_json: bool,
    choice: BackendChoice,
) -> None:
    """Check the sweep FILE, register it with W&B, and print the agent command.

    The file is checked against W&B's grammar and against what amc-train accepts. All problems are reported at once,
    with exit code 2, and nothing is registered. Only the agent command goes to stdout:

    \b
    amc-sweep create sweeps/resnet50_focused.yaml --dry-run
    amc-sweep create sweeps/resnet50_focused.yaml
    eval "$(amc-sweep create sweeps/smoke.yaml)"      # register, and be its first agent

    The project is --project, else WANDB_PROJECT, the file's own project, or amc-sweeps.

    --seed and --shuffle are not part of a sweep file, and W&B's own servers do not know them. A seed fixes what random
    draws, the order of --shuffle, and what bayes draws after the same results in the same order.

    Exit codes: 0 registered (with --dry-run: it could be), 2 refused.
    """
    preflight = check_sweep(read_sweep_file(file), source=str(file))
    if preflight.sweep is None or preflight.problems:
        report(preflight, file)
        refuse(f"{file}: {counted(len(preflight.problems), 'problem')}; nothing was registered")
    method = preflight.sweep.method
    if shuffle and method != "grid":
        refuse(f"--shuffle: only a grid has an order, and {method} draws at random anyway; nothing was registered")
    if seed is not None and method == "grid" and not shuffle:
        warning = "warning: --seed has no effect, because a grid without --shuffle has one order"
        click.secho(warning, fg="yellow", err=True)
    facts = {**preflight_facts(preflight), "seed": seed, "shuffle": shuffle}
    how = (" in a random order" if shuffle else "") + ("" if seed is None else f" with seed {seed}")
    if dry_run:
        report(preflight, file, how)
        if as_json:
            click.echo(json.dumps(facts, indent=2))
        return
    backend = connect(choice)
    if backend.kind != "embedded" and (seed is not None or shuffle):
        refuse(
            f"{backend.base_url} is not an embedded server, and other W&B servers take no --seed and no --shuffle; "
            "nothing was registered. amc-sweep serve starts an embedded server"
        )
    report(preflight, file, how)
    sweep: dict[str, Any] = {**preflight.sweep.raw, **({"name": name} if name else {})}
    entity = choice.entity or os.environ.get("WANDB_ENTITY") or sweep.get("entity")
    project = choice.project or os.environ.get("WANDB_PROJECT") or sweep.get("project") or DEFAULT_PROJECT
    search = {"seed": seed, "shuffle": shuffle or None}
    registered = register_sweep(sweep, backend, entity, project, search)
    agent = f"{backend.shell_prefix()}wandb agent {shlex.quote(registered['path'])}"
    click.echo(f"Sweep {registered['path']}\n  page   {registered['url']}\n{where_to_run(backend)}", err=True)
    if as_json:
        click.echo(json.dumps({**registered, "agent_command": agent, **facts}, indent=2))
    else:
        click.echo(agent)


def where_to_run(backend: Backend) -> str:
    if backend.is_on_this_machine:
        return (
            f"Run this on this machine. Other machines do not reach {backend.base_url}: "
            "docs/two-machines.md has a tunnel and amc-sweep serve --host."
        )
    key = ", with the server's key file at this path" if backend.kind == "embedded" and backend.key_file else ""
    return f"Run this on every GPU box{key}:"


def read_sweep_file(file: Path) -> str:
    """Return the text of a sweep file, or refuse one that cannot be read."""
    try:
        with file.open("rb") as opened:
            beginning = opened.read(_LONGEST_BEGINNING).decode(errors="replace")
        if is_export(beginning):
            raise Refusal(
                f"{file}: is an export of sweeps and their runs, and not a sweep file; to have them on a server, write "
                f"amc-sweep import {shlex.quote(str(file))}"
            )
        return read_file(file, MOST_SWEEP_BYTES)
    except (OSError, TextError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise Refusal(f"{file}: cannot be read: {reason}") from error


def report(preflight: Preflight, file: Path, how: str = "") -> None:
    """Print on stderr what is wrong with a sweep file, what may be, and what it would do.

    ``how`` says more of the search than the file does.
    """
    for problem in preflight.problems:
        click.secho(f"{file}: problem: {problem}", fg="red", err=True)
    for warning in preflight.warnings:
        click.secho(f"{file}: warning: {warning}", fg="yellow", err=True)
    if preflight.sweep is None or preflight.problems:
        return
    count = preflight.configurations
    size = "infinitely many configurations" if count is None else counted(count, "configuration")
    cap = f", run_cap {preflight.sweep.run_cap}" if preflight.sweep.run_cap else ""
    click.echo(f"{file}: {size}, searched by {preflight.sweep.method}{how}{cap}", err=True)
    if preflight.epochs_at_most is not None:
        click.echo(f"{file}: at most {counted(preflight.epochs_at_most, 'epoch')} in all", err=True)
    if preflight.bands_epochs:
        click.echo(f"{file}: Hyperband judges runs at epochs {', '.join(map(str, preflight.bands_epochs))}", err=True)


def preflight_facts(preflight: Preflight) -> dict[str, Any]:
    """Return what is known of a checked sweep file, for --json."""
    return {
        "configurations": preflight.configurations,
        "bands_epochs": list(preflight.bands_epochs),
        "warnings": list(preflight.warnings),
    }


def register_sweep(
    sweep: dict[str, Any], backend: Backend, entity: str | None, project: str, search: Mapping[str, Any]
) -> dict[str, str]:
    """Register a sweep.

    Args:
        search: seed and shuffle, each None if it was not given. wandb.sweep has no such arguments.
    """
    import wandb

    from amc_analysis.reading.wandb_api import open_api
    from amc_analysis.reading.wandb_private import page_address

    try:
        # wandb.sweep prints its own lines on stdout, which is for the agent command alone.
        with contextlib.redirect_stdout(io.StringIO()):
            api = open_api(backend)
            user = api.default_entity  # before the sweep: else the server may take it for a repeated request
            if any(value is not None for value in search.values()):
                sweep_id = _register_with(search, sweep, api, entity, project)
            else:
                sweep_id = wandb.sweep(sweep, entity=entity, project=project)
            owner = entity or user
    except (wandb.Error, ValueError) as error:
        raise Refusal(f"{backend.base_url} refused the sweep: {error}") from error
    return {
        "sweep_id": sweep_id,
        "entity": str(owner),
        "project": project,
        "path": f"{owner}/{project}/{sweep_id}",
        "url": f"{page_address(backend.base_url)}/{owner}/{project}/sweeps/{sweep_id}",
    }


def _register_with(search: Mapping[str, Any], sweep: dict[str, Any], api: Any, entity: str | None, project: str) -> str:
    """Register a sweep with its seed and its shuffling, in one request, and return its id."""
    from amc_analysis.reading.wandb_private import send_query

    about = {"description": sweep.get("description"), "entityName": entity, "projectName": project}
    answer = send_query(api, _CREATE, config=yaml_text(sweep), **about, **search)
    return str(answer["upsertSweep"]["sweep"]["name"])
