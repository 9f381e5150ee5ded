"""amc-sweep next and give-back: one configuration for any launcher, and its return."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import click

from amc_agents.commands.options import seconds
from amc_agents.open_target import open_target
from amc_agents.sweep_control import NoSuchSweepError
from amc_analysis.reading.wandb_api import translate_errors
from amc_core.command_line import OutputFolder, Refusal, refuse
from amc_sweeps.backend.options import BackendChoice, backend_options
from amc_sweeps.backend.stderr import say
from amc_sweeps.number_formats import duration

SWEEP_IS_OVER = 3
LATER = 75  # EX_TEMPFAIL of sysexits(3)
DEFAULT_LEASE_S = 3600.0


@click.command("next", short_help="Hand out one configuration of a sweep, for any launcher.")
@click.argument("sweep")
@click.option(
    "--lease",
    callback=seconds,
    metavar="24h",
    help="Hold the run for so long, until its trial's first word. [default: 1h; needs an embedded server]",
)
@click.option(
    "--folder",
    type=OutputFolder(),
    default=Path("wandb"),
    show_default=True,
    help="Where the run's parameter file goes; the trial must see it.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of lines for a shell.")
@backend_options
def next_command(sweep: str, lease: float | None, folder: Path, as_json: bool, choice: BackendChoice) -> None:
    """Hand out the next configuration of SWEEP, so that a Makefile, a CI job or Ray runs it with plain wandb.

    \b
    next=$(amc-sweep next 94fqx0gz) && eval "$next" && eval "$AMC_COMMAND"
    amc-sweep next 94fqx0gz --json --lease 24h > run.json

    It prints the run's id and environment, its parameters, and the command that `wandb agent` would start. Set the
    environment and start your program: `wandb.init()` finds its run and its parameters. The key is not printed.

    Each call counts as an agent of its own. Nobody watches the trial: a run that never begins is handed out again when
    its lease ends, and at once after `amc-sweep give-back RUN`. A run that falls silent is crashed after five minutes.

    --json: {schema, version, run, sweep, parameters, environment, command, continues, lease_s}.

    Exit codes: 0 handed out, 1 the server does not answer, 2 refused, 3 the sweep is over, 75 nothing now: try again
    later, 130 interrupted.
    """
    from amc_agents.next_run import NextRun, NoRun, draw

    target = open_target(sweep, choice, "sweep")
    has_leases = target.backend.kind == "embedded"
    if lease is not None and not has_leases:
        refuse(
            f"--lease needs our embedded server, and {target.backend.base_url} is another W&B: leave it out. That "
            "W&B decides how long it waits for the trial"
        )
    lease_s = (lease or DEFAULT_LEASE_S) if has_leases else None
    with translate_errors(target.backend):
        try:
            found = draw(target.api, target.path, target.backend.base_url, folder.resolve(), lease_s)
        except NoSuchSweepError as error:
            raise Refusal(str(error)) from error
        except OSError as error:
            raise click.ClickException(f"the parameter file cannot be written: {error}") from error
    if not isinstance(found, NextRun):
        is_over = found is NoRun.SWEEP_IS_OVER
        say(f"sweep {target.path} {'is over' if is_over else 'has no run now: try again later'}")
        sys.exit(SWEEP_IS_OVER if is_over else LATER)
    held = "" if found.lease_s is None else f", held for {duration(found.lease_s)}"
    say(f"run {found.path}{' continues' if found.continues else ''}{held}")
    if as_json:
        click.echo(json.dumps(found.to_mapping(), indent=2))
        return
    for name, value in found.environment.items():
        click.echo(f"export {name}={shlex.quote(value)}")
    click.echo(f"AMC_COMMAND={shlex.quote(shlex.join(found.command))}")


@click.command("give-back", short_help="Return a run of amc-sweep next that will not begin.")
@click.argument("run")
@backend_options
def give_back_command(run: str, choice: BackendChoice) -> None:
    """Return a RUN that `amc-sweep next` handed out and that no trial has begun. It is handed out again at once.

    \b
    amc-sweep give-back kx81m2ab

    Exit codes: 0 returned, 1 the server does not answer, 2 refused: the run has begun, 130 interrupted.
    """
    from amc_agents.next_run import give_back
    from amc_sweeps.runs.run_states import RunState

    target = open_target(run, choice, "run")
    if target.backend.kind != "embedded":
        refuse(
            f"{target.backend.base_url} is another W&B than our embedded server, and takes no run back. Start "
            "its trial, or wait until that W&B hands the run out again"
        )
    if target.api_object.state != RunState.PENDING:
        refuse(f"run {target.path} is {target.api_object.state}: only a run that has not begun can be given back")
    with translate_errors(target.backend):
        give_back(target.api, target.path)
    click.echo(f"run {target.path} is given back: the next agent that asks gets it")
