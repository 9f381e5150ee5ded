"""amc-sweep resume: a sweep hands out runs again, or a run continues from its checkpoint."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from amc_agents.commands.options import runs_dir_option
from amc_agents.commands.steering import change_sweep
from amc_agents.open_target import OpenTarget, open_target
from amc_agents.sweep_control import Action
from amc_analysis.reading.wandb_api import translate_errors
from amc_core.command_line import Refusal, refuse
from amc_core.config import check_value, parse_flag
from amc_sweeps.backend.options import BackendChoice, backend_options

if TYPE_CHECKING:
    from amc_agents.trial.relaunch import TrialCommand


@click.command("resume")
@click.argument("target", metavar="RUN|SWEEP")
@click.option("--epochs", metavar="N", help="For a run: its number of epochs in all, instead of the recorded one.")
@click.option("--patience", metavar="N", help="For a run: its patience, instead of the recorded one; null: none.")
@click.option(
    "--data", metavar="FILE", help="For a run: its data file here (default: AMC_DATA, else the recorded path)."
)
@runs_dir_option
@click.option("--print", "only_print", is_flag=True, help="Print the command that continues the run; start nothing.")
@click.option("--json", "as_json", is_flag=True, help="For a sweep: print one JSON object on stdout.")
@backend_options
def resume_command(
    target: str,
    epochs: str | None,
    patience: str | None,
    data: str | None,
    runs_dir: Path,
    only_print: bool,
    as_json: bool,
    choice: BackendChoice,
) -> None:
    """Continue a RUN from its checkpoint, as the same run, or let a SWEEP hand out runs again.

    A run continues here, in the foreground, whether it crashed, was killed, preempted or stopped. It starts from the
    later of two checkpoints: in its folder, or with W&B. Nothing is logged twice, and its numbers are those of an
    uninterrupted run. A run that ended by itself needs more --epochs or a larger --patience.

    \b
    amc-sweep resume 94fqx0gz                         # a sweep that was paused or stopped
    amc-sweep resume kx81m2ab                         # a run, on the machine that has its folder
    amc-sweep resume my-team/radioml/kx81m2ab --epochs 200

    Exit codes: of a sweep 0 resumed, 1 the server does not answer, 2 refused; of a run those of amc-train, 2 refused.
    """
    changes = {name: _value(name, text) for name, text in (("epochs", epochs), ("patience", patience)) if text}
    opened = open_target(target, choice, "run", "sweep")
    if opened.kind == "sweep":
        if changes or data or only_print:
            refuse(f"{opened.path} is a sweep: --epochs, --patience, --data and --print are for a run")
        change_sweep(opened, Action.RESUME, as_json=as_json)
        return
    trial = _prepare_trial(opened, changes, data, runs_dir)
    if only_print:
        click.echo(trial.shell_line(opened.backend))
        return
    click.echo(f"continuing run {opened.path}; its page: {opened.api_object.url}", err=True)
    environment = trial.process_environment(opened.backend)
    sys.modules["wandb"].teardown()  # the client's own process would outlive this one
    os.execve(sys.executable, trial.command(), environment)  # from here on, signals reach the trial


def _value(name: str, text: str) -> Any:
    value, problem = check_value(name, parse_flag(name, text))
    if problem is not None:
        refuse(f"--{problem}")
    return value


def _prepare_trial(run: OpenTarget, changes: dict[str, Any], data: str | None, runs_dir: Path) -> TrialCommand:
    """Return the trial, after every check that could refuse it: nothing has changed the run yet."""
    from amc_agents.trial import relaunch

    entity, project, run_id = run.path.split("/")
    config = dict(run.api_object.config)
    try:
        settings = relaunch.recorded_settings(config)
        relaunch.require_ended(run.path, run.api_object.state, getattr(run.api_object, "heartbeat_at", None))
        relaunch.require_epochs_left(dict(run.api_object.summary_metrics), settings, changes)
        with translate_errors(run.backend):
            _require_checkpoint(run, runs_dir / run_id)
        relaunch.require_same_frames(relaunch.choose_data_file(settings["data"], data), config)
    except relaunch.RelaunchError as error:
        raise Refusal(f"{run.path} cannot be continued: {error}") from error
    flags = {"runs_dir": runs_dir, **({"data": data} if data else {}), **changes}
    return relaunch.TrialCommand(
        tuple(relaunch.as_flag(name, value) for name, value in flags.items()),
        {"WANDB_ENTITY": entity, "WANDB_PROJECT": project, "WANDB_RUN_ID": run_id, "WANDB_RESUME": "must"},
    )


def _require_checkpoint(run: OpenTarget, folder: Path) -> None:
    from amc_agents.trial.relaunch import RelaunchError
    from amc_agents.trial.resume_checkpoint import find_artifact

    if (folder / "last.pt").is_file() or find_artifact(run.api, run.path) is not None:
        return
    project, _, run_id = run.path.rpartition("/")
    raise RelaunchError(
        f"it has no checkpoint: {(folder / 'last.pt').resolve()} does not exist, and W&B has no artifact "
        f"{project}/checkpoint-{run_id}. Resume it on the machine that has the folder, name the folder's parent with "
        f"--runs-dir or AMC_RUNS_DIR, or train it anew: amc-sweep repeat {run_id}"
    )
