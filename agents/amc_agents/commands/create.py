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
from amc_core.command_line import Refusal, refuse
from amc_sweeps.backend.choose import Backend
from amc_sweeps.backend.errors import BackendError
from amc_sweeps.backend.options import BackendChoice, backend_options, connect
from amc_sweeps.backend.patience import Silence, be_patient
from amc_sweeps.backend.references import Reference, find_target, named_server, parse_reference
from amc_sweeps.bounded_texts import MOST_SWEEP_BYTES, TextError, text_of_file
from amc_sweeps.grammar.sweep_config import MOST_SEED, SweepConfig
from amc_sweeps.number_formats import counted
from amc_sweeps.runs.crashed_runs import Policy, option_problem, policy_of
from amc_sweeps.runs.export_file import is_export, yaml_text

DEFAULT_PROJECT = "amc-sweeps"
_LONGEST_BEGINNING = 4096  # bytes; an export says what it is in its first line

# The wandb client's own mutation, with the inputs that only an embedded server has.
_CREATE = """
mutation UpsertSweep(
  $config: String, $description: String, $entityName: String, $projectName: String, $seed: Int64, $shuffle: Boolean
  $crashedRuns: String, $priorSweeps: [String!]
) {
  upsertSweep(input: {
    config: $config, description: $description, entityName: $entityName, projectName: $projectName
    seed: $seed, shuffle: $shuffle, crashedRuns: $crashedRuns, priorSweeps: $priorSweeps
  }) { sweep { name } configValidationWarnings }
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
@click.option(
    "--crashed-runs",
    type=click.Choice([policy.value for policy in Policy]),
    help="What bayes learns from runs that did not finish; wins over metric.impute. Embedded server only.",
)
@click.option(
    "--prior",
    "priors",
    multiple=True,
    metavar="SWEEP",
    help="An earlier sweep (id, path or URL) whose runs the search learns from; may be repeated. Embedded server only.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout instead of the agent command.")
@backend_options
def create_command(
    file: Path,
    dry_run: bool,
    name: str | None,
    seed: int | None,
    shuffle: bool,
    crashed_runs: str | None,
    priors: tuple[str, ...],
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

    --seed, --shuffle and --crashed-runs are not part of a sweep file, and W&B's own servers do not know them. A seed
    fixes what random draws, the order of --shuffle, and what bayes draws after the same results in the same order.

    --crashed-runs says what bayes learns from a run that failed, crashed or was killed. worst, best and latest mean
    what they mean for metric.impute. ignore: nothing. extrapolate: its curve, extrapolated to full length. auto: by the
    cause of its end; this is the default where the file names no metric.impute.

    --prior starts warm: bayes learns from the runs of an earlier sweep, grid and random leave out what it has tried in
    a finite space. run_cap does not count those runs. The earlier sweep stays as it is. It must be on the server where
    the new sweep is registered: a URL names that server, unless an option does.

    Exit codes: 0 registered (with --dry-run: it could be), 1 the server does not answer, 2 refused.
    """
    preflight = check_sweep(read_sweep_file(file), source=str(file), crashed_runs=crashed_runs)
    if preflight.sweep is None or preflight.problems:
        report(preflight, file)
        refuse(f"{file}: {counted(len(preflight.problems), 'problem')}; nothing was registered")
    method = preflight.sweep.method
    if shuffle and method != "grid":
        refuse(f"--shuffle: only a grid has an order, and {method} draws at random anyway; nothing was registered")
    problem = option_problem(crashed_runs, method)
    if problem is not None:
        refuse(f"{problem}; nothing was registered")
    if seed is not None and method == "grid" and not shuffle:
        warning = "warning: --seed has no effect, because a grid without --shuffle has one order"
        click.secho(warning, fg="yellow", err=True)
    policy = _policy(preflight.sweep, crashed_runs)
    facts = {**preflight_facts(preflight), "seed": seed, "shuffle": shuffle, "crashed_runs": policy}
    how = (" in a random order" if shuffle else "") + ("" if seed is None else f" with seed {seed}")
    how += "" if policy is None else f", crashed runs: {policy}"
    try:
        earlier = [parse_reference(prior) for prior in priors]
        choice = choice.or_at(named_server(earlier))
    except BackendError as error:
        raise _prior_refusal(error) from error
    if dry_run:
        report(preflight, file, how)
        if as_json:
            click.echo(json.dumps(facts, indent=2))
        return
    backend = connect(choice)
    search: dict[str, Any] = {"seed": seed, "shuffle": shuffle or None, "crashedRuns": crashed_runs}
    search["priorSweeps"] = earlier or None
    if backend.kind != "embedded":
        if any(value is not None for value in search.values()):
            refuse(
                f"{backend.base_url} is not an embedded server, and other W&B servers take no --seed, --shuffle, "
                "--crashed-runs or --prior; nothing was registered. amc-sweep serve starts an embedded server"
            )
        policy = _policy(preflight.sweep, None, is_embedded=False)
        facts, how = {**facts, "crashed_runs": policy}, "" if policy is None else f", crashed runs: {policy}"
        if policy is Policy.WORST and "impute" not in preflight.sweep.raw["metric"]:
            warning = (
                "metric.impute: W&B's own engine gives every crashed or stopped run the worst value, and avoids "
                "configurations like it; write impute: best (or latest)"
            )
            click.secho(f"{file}: warning: {warning}", fg="yellow", err=True)
    report(preflight, file, how)
    sweep: dict[str, Any] = {**preflight.sweep.raw, **({"name": name} if name else {})}
    entity = choice.entity or os.environ.get("WANDB_ENTITY") or sweep.get("entity")
    project = choice.project or os.environ.get("WANDB_PROJECT") or sweep.get("project") or DEFAULT_PROJECT
    registered = register_sweep(sweep, backend, entity, project, search)
    agent = f"{backend.shell_prefix()}wandb agent {shlex.quote(registered['path'])}"
    click.echo(f"Sweep {registered['path']}\n  page   {registered['url']}\n{where_to_run(backend)}", err=True)
    if as_json:
        click.echo(json.dumps({**registered, "agent_command": agent, **facts}, indent=2))
    else:
        click.echo(agent)


def _policy(sweep: SweepConfig, option: str | None, *, is_embedded: bool = True) -> Policy | None:
    """Return what a sweep's search will learn from crashed runs; None if it learns from none."""
    if sweep.method != "bayes" or sweep.metric is None:
        return None
    return policy_of(option, sweep.metric.impute, is_embedded=is_embedded)


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
        with file.open("rb") as opened:  # once: it may be a pipe, such as <(envsubst < sweep.yaml)
            content = opened.read(MOST_SWEEP_BYTES + 1)
        if is_export(content[:_LONGEST_BEGINNING].decode(errors="replace")):
            raise Refusal(
                f"{file}: is an export of sweeps and their runs, and not a sweep file; to have them on a server, write "
                f"amc-sweep import {shlex.quote(str(file))}"
            )
        return text_of_file(content, MOST_SWEEP_BYTES)
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
        search: seed, shuffle, crashedRuns and priorSweeps (references), each None if it was not given. wandb.sweep has
            no such arguments.
    """
    from amc_analysis.reading.wandb_api import failure, open_api, translate_errors

    be_patient(os.environ)  # for wandb.sweep
    with translate_errors(backend):
        api = open_api(backend)
    import wandb

    from amc_analysis.reading.wandb_private import has_no_answer, page_address

    try:
        user = api.default_entity  # before the sweep: else the server may take it for a repeated request
        if any(value is not None for value in search.values()):
            priors = [_prior_id(prior, api, entity) for prior in search["priorSweeps"] or ()]
            search = {**search, "priorSweeps": priors or None}
            sweep_id = _register_with(search, sweep, api, entity, project)
        else:
            # wandb.sweep prints its own lines on stdout, which is for the agent command alone.
            with contextlib.redirect_stdout(io.StringIO()), Silence(backend.base_url).request():
                sweep_id = wandb.sweep(sweep, entity=entity, project=project)
        owner = entity or user
    except (wandb.Error, ValueError) as error:
        if has_no_answer(error):
            raise click.ClickException(failure(backend, error)) from error
        raise Refusal(f"{backend.base_url} refused the sweep: {error}") from error
    return {
        "sweep_id": sweep_id,
        "entity": str(owner),
        "project": project,
        "path": f"{owner}/{project}/{sweep_id}",
        "url": f"{page_address(backend.base_url)}/{owner}/{project}/sweeps/{sweep_id}",
    }


def _register_with(search: Mapping[str, Any], sweep: dict[str, Any], api: Any, entity: str | None, project: str) -> str:
    """Register a sweep with the options of its search, in one request, and return its id."""
    from amc_analysis.reading.wandb_private import send_query

    about = {"description": sweep.get("description"), "entityName": entity, "projectName": project}
    answer = send_query(api, _CREATE, config=yaml_text(sweep), **about, **search)["upsertSweep"]
    for warning in answer["configValidationWarnings"]:
        click.echo(warning, err=True)
    return str(answer["sweep"]["name"])


def _prior_id(prior: Reference, api: Any, entity: str | None) -> str:
    """Return the id of an earlier sweep, which may be of another project than the new one."""
    try:
        return find_target(prior, api, entity=entity, environ={}).path.rpartition("/")[2]
    except BackendError as error:
        raise _prior_refusal(error) from error


def _prior_refusal(error: BackendError) -> Refusal:
    return Refusal(f"nothing was registered, because of --prior: {error}")
