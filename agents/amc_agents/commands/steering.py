"""amc-sweep pause, stop and cancel: as ``wandb sweep --pause`` and the like, with the effect on living runs."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import click

from amc_agents.open_target import OpenTarget, open_target
from amc_agents.sweep_control import Action, SweepControlError, change_state, living_runs
from amc_analysis.reading.wandb_api import translate_errors
from amc_core.command_line import FAILED, Refusal
from amc_sweeps.backend.options import BackendChoice, backend_options
from amc_sweeps.number_formats import counted


def change_sweep(sweep: OpenTarget, action: Action, *, as_json: bool) -> None:
    """Change a sweep's state; print one JSON object on stdout, or the effect in words on stderr."""
    with translate_errors(sweep.backend):
        try:
            change = change_state(sweep.api, sweep.path, action)
        except SweepControlError as error:
            raise Refusal(str(error)) from error
    if as_json:
        click.echo(json.dumps({**asdict(change), "changed": change.is_new}, indent=2))
    else:
        click.echo(change.summary(), err=True)


_json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")


@click.command("pause", short_help="Start no more runs until the sweep is resumed.")
@click.argument("sweep")
@_json_option
@backend_options
def pause_command(sweep: str, as_json: bool, choice: BackendChoice) -> None:
    """Start no more runs of SWEEP until it is resumed; living runs continue, agents wait.

    \b
    amc-sweep pause 94fqx0gz
    amc-sweep resume 94fqx0gz

    Exit codes: 0 paused (or paused already), 1 the server does not answer, 2 refused.
    """
    change_sweep(open_target(sweep, choice, "sweep"), Action.PAUSE, as_json=as_json)


@click.command("stop", short_help="Start no more runs; living ones may finish.")
@click.argument("sweep")
@_json_option
@backend_options
def stop_command(sweep: str, as_json: bool, choice: BackendChoice) -> None:
    """Start no more runs of SWEEP; living runs continue to their own end, then their agents end.

    \b
    amc-sweep stop 94fqx0gz

    Exit codes: 0 stopped (or stopped already), 1 the server does not answer, 2 refused.
    """
    change_sweep(open_target(sweep, choice, "sweep"), Action.STOP, as_json=as_json)


@click.command("cancel", short_help="End a sweep and its living runs.")
@click.argument("sweep")
@click.option("--yes", is_flag=True, help="Do not ask before living runs are ended.")
@_json_option
@backend_options
def cancel_command(sweep: str, yes: bool, as_json: bool, choice: BackendChoice) -> None:
    """End SWEEP and all its living runs; on a terminal, ask first if runs are alive.

    A trial of amc-train saves a checkpoint before it ends, and its run counts as cancelled, not as failed.

    \b
    amc-sweep cancel 94fqx0gz
    amc-sweep cancel 94fqx0gz --yes --json

    Exit codes: 0 cancelled (or cancelled already), 1 the server does not answer or you said no, 2 refused.
    """
    target = open_target(sweep, choice, "sweep")
    if not yes and _is_interactive() and not _confirm(target):
        click.echo("nothing was changed", err=True)
        sys.exit(FAILED)
    change_sweep(target, Action.CANCEL, as_json=as_json)


def _is_interactive() -> bool:
    return sys.stdin.isatty()


def _confirm(sweep: OpenTarget) -> bool:
    with translate_errors(sweep.backend):
        alive = living_runs(sweep.api, sweep.path)
    return alive == 0 or click.confirm(f"End {counted(alive, 'living run')}?", err=True)
