"""amc-sweep pause, stop and cancel: as `wandb sweep --pause` and its sisters, with what follows for living runs."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import click

from amc_agents.commands.targets import SweepTarget, open_sweep
from amc_agents.sweep_control import Action, Change, SweepControlError, change_state, living_runs
from amc_analysis.reading.wandb_api import translate_errors
from amc_sweeps.backend.options import FAILED, BackendChoice, Refusal, backend_options


def change(chosen: SweepTarget, action: Action) -> Change:
    """Change a sweep's state.

    Raises:
        Refusal: when it cannot be changed so.
        click.ClickException: when the server does not answer as it should.
    """
    with translate_errors(chosen.backend):
        try:
            return change_state(chosen.api, chosen.path, action)
        except SweepControlError as error:
            raise Refusal(str(error)) from error


def say(changed: Change, *, as_json: bool) -> None:
    """Print what was done: one JSON object on stdout, or what follows in words on stderr."""
    if as_json:
        click.echo(json.dumps({**asdict(changed), "changed": changed.is_new}, indent=2))
    else:
        click.echo(changed.summary(), err=True)


_json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")


@click.command("pause", short_help="Begin no more runs until the sweep is resumed.")
@click.argument("sweep")
@_json_option
@backend_options
def pause_command(
    sweep: str,
    as_json: bool,
    choice: BackendChoice,
) -> None:
    """Let SWEEP begin no more runs until it is resumed; living runs go on, agents wait.

    \b
    amc-sweep pause 94fqx0gz
    amc-sweep resume 94fqx0gz

    Exit codes: 0 paused (or paused already), 1 the server does not answer, 2 refused.
    """
    chosen = open_sweep(sweep, choice)
    say(change(chosen, Action.PAUSE), as_json=as_json)


@click.command("stop", short_help="Begin no more runs; living ones may come to the end.")
@click.argument("sweep")
@_json_option
@backend_options
def stop_command(
    sweep: str,
    as_json: bool,
    choice: BackendChoice,
) -> None:
    """Let SWEEP begin no more runs; living runs go on to their own end, then their agents end.

    \b
    amc-sweep stop 94fqx0gz

    Exit codes: 0 stopped (or stopped already), 1 the server does not answer, 2 refused.
    """
    chosen = open_sweep(sweep, choice)
    say(change(chosen, Action.STOP), as_json=as_json)


@click.command("cancel", short_help="End a sweep and its living runs.")
@click.argument("sweep")
@click.option("--yes", is_flag=True, help="Do not ask before living runs are ended.")
@_json_option
@backend_options
def cancel_command(
    sweep: str,
    yes: bool,
    as_json: bool,
    choice: BackendChoice,
) -> None:
    """End SWEEP and every living run of it; on a terminal it asks first where runs are alive.

    A trial of amc-train saves a checkpoint before it ends, and its run counts as cancelled, not as failed.

    \b
    amc-sweep cancel 94fqx0gz
    amc-sweep cancel 94fqx0gz --yes --json

    Exit codes: 0 cancelled (or cancelled already), 1 the server does not answer or you said no, 2 refused.
    """
    chosen = open_sweep(sweep, choice)
    if not yes and _somebody_can_answer() and not _agreed(chosen):
        click.echo("nothing was changed", err=True)
        sys.exit(FAILED)
    say(change(chosen, Action.CANCEL), as_json=as_json)


def _somebody_can_answer() -> bool:
    return sys.stdin.isatty()


def _agreed(chosen: SweepTarget) -> bool:
    with translate_errors(chosen.backend):
        alive = living_runs(chosen.api, chosen.path)
    return alive == 0 or click.confirm(f"End {alive} living run{'' if alive == 1 else 's'}?", err=True)
