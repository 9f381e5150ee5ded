"""amc-train: one trial, from the flags of an agent to an exit code that tells the truth.

The order matters. ``wandb.init`` comes before anything of ours may refuse, so that a refused trial leaves a run that
says why; torch is imported after it, so that W&B sees the run at once. At the end the checkpoint and the reason are
on disk before W&B is told, because the client's side process may have died of the same signal.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from amc_agents.trial.artifacts import SETTING, ArtifactUse, find_uploaded, log_checkpoint, log_evaluation
from amc_agents.trial.ending import guarded
from amc_agents.trial.recorder import ClientLostError, RunRecorder, telling_wandb
from amc_agents.trial.relaunch import continued_values
from amc_agents.trial.run_folder import leave_end
from amc_agents.trial.signals import StopRequests
from amc_core.config import FIELDS, ConfigError, FieldSpec, TrialConfig, current_value, parse_flag
from amc_sweeps.backend.choose import choose_backend
from amc_sweeps.backend.errors import BackendError
from amc_sweeps.runs.causes import EXIT_CODES, EndReason

if TYPE_CHECKING:
    import wandb

    from amc_agents.trial.artifacts import Uploaded


def _option(spec: FieldSpec) -> click.Option:
    # Values stay text here: what they must be is checked after wandb.init, so that a refusal leaves a run behind.
    default = "null" if spec.default is None else str(spec.default)
    return click.Option(
        [f"--{spec.name}"],
        metavar=spec.kind.upper(),
        help=f"{spec.help}; {spec.allowed()}  [default: {default}]",
    )


class _TrialCommand(click.Command):
    """A command with one flag for every TrialConfig field; an unknown flag is refused by name, after wandb.init."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params = [*self.params, *map(_option, FIELDS.values())]


@click.command(
    cls=_TrialCommand,
    context_settings={
        "ignore_unknown_options": True,
        "allow_extra_args": True,
        "token_normalize_func": lambda token: token.replace("-", "_"),
        "help_option_names": ["-h", "--help"],
        "max_content_width": 120,
    },
)
@click.option(
    "--no_wandb",
    default="False",
    metavar="BOOL",
    help="Train without any W&B; the run's folder gets config, history and summary as files.  [default: False]",
)
@click.option(
    "--runs_dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("runs"),
    envvar="AMC_RUNS_DIR",
    show_default=True,
    show_envvar=True,
    help="Where each run's checkpoints go, in a folder of the run's id.",
)
@click.option(
    "--checkpoint_artifact",
    type=click.Choice([str(use) for use in ArtifactUse]),
    default=str(ArtifactUse.PREEMPTION),
    envvar=SETTING,
    show_default=True,
    show_envvar=True,
    help="When the checkpoint goes to W&B, for another machine to go on from; never: --runs_dir is shared by all.",
)
@click.option("--repeat_of", metavar="RUN", help="Note with the run that it repeats another one.")
@click.option(
    "--summary",
    is_flag=True,
    help="Print the network's layers, parameters, multiply-accumulates and frames/s, and train nothing.",
)
@click.pass_context
def main(
    context: click.Context,
    /,
    no_wandb: str,
    runs_dir: Path,
    checkpoint_artifact: str,
    repeat_of: str | None,
    summary: bool,
    **flags: str | None,
) -> None:
    """Train one modulation-and-SNR classifier.

    Started by `wandb agent` as one trial of a sweep, or by hand. What W&B hands over wins over a flag, which wins
    over the default; the resolved configuration is written back to the run. AMC_DATA names the data file of this
    machine where neither says it. A run that is handed out again goes on from its checkpoint: the one in --runs_dir,
    or the one that W&B keeps.

    \b
    Exit codes: 0 completed, patience or stopped by W&B; 65 data unusable; 70 internal error; 75 preempted;
    78 configuration refused; 80 diverged (NaN); 81 out of memory; 130 interrupted.

    \b
    amc-train --no_wandb=True --data=radioml.hdf5 --model_type=resnet18 --epochs=5 --epochs_per_cycle=5
    """
    given = {name: parse_flag(name, text) for name, text in flags.items() if text is not None}
    given.update(_unknown_flags(context.args))
    if summary:
        sys.exit(_summarise(given))
    stop = StopRequests(os.environ)
    stop.listen()
    if no_wandb.lower() in {"true", "1"}:
        sys.exit(_train_alone(given, runs_dir, stop))
    noted = {} if repeat_of is None else {"repeat_of": repeat_of}
    sys.exit(_train_with_wandb(given, runs_dir, stop, ArtifactUse(checkpoint_artifact), noted))


def _summarise(given: Mapping[str, Any]) -> int:
    """Print what the configuration would build; needs neither data nor W&B."""
    try:
        config = TrialConfig.from_mapping(given)
        from amc_core.training.model_summary import summarise  # torch: after TrialConfig has had its say

        click.echo(summarise(config).as_text())
    except ConfigError as error:
        click.echo(f"amc-train: {EndReason.CONFIG_REFUSED}: {error}", err=True)
        return EXIT_CODES[EndReason.CONFIG_REFUSED]
    return 0


def _unknown_flags(arguments: list[str]) -> dict[str, str]:
    """Return flags that are no field by their name, for TrialConfig to refuse."""
    return {argument.lstrip("-").partition("=")[0]: argument.partition("=")[2] for argument in arguments}


def _train_with_wandb(
    given: Mapping[str, Any],
    runs_dir: Path,
    stop: StopRequests,
    artifact: ArtifactUse,
    noted: Mapping[str, Any],
) -> int:
    try:
        _point_at_wandb()
    except BackendError as error:
        click.echo(f"amc-train: {error}\n  --no_wandb=True                   train without any", err=True)
        return EXIT_CODES[EndReason.ERROR]
    import wandb

    try:
        run = wandb.init(resume=_resume_mode(os.environ), settings=wandb.Settings(stop_fn=stop.by_wandb))
    except wandb.Error as error:
        click.echo(f"amc-train: W&B cannot be reached, nothing was trained: {error}", err=True)
        return EXIT_CODES[EndReason.ERROR]
    folder = runs_dir / str(run.id)
    recorder = RunRecorder(run, folder)
    path = f"{run.entity}/{run.project}/{run.id}"

    def resolve() -> TrialConfig:
        config = _settle(run, given, folder, recorder, artifact)
        run.config.update(dict(noted))
        return config

    def too_late() -> None:
        """Leave in the middle of whatever outlasts the machine: with the checkpoint of an earlier moment, or none."""
        click.echo("amc-train: preempted: no safe moment came in time; what came after last.pt is lost", err=True)
        with contextlib.suppress(OSError):
            leave_end(folder, EndReason.PREEMPTED, run=path)
        try:
            _take_leave(run, folder, recorder, EndReason.PREEMPTED, artifact)
        finally:
            os._exit(EXIT_CODES[EndReason.PREEMPTED])

    stop.when_overdue(too_late)
    reason = guarded(resolve, folder, recorder, stop, run_path=path)
    stop.when_overdue(None)
    try:
        _take_leave(run, folder, recorder, reason, artifact)
    except Exception as error:  # noqa: BLE001 - the reason stands, whatever became of the client
        click.echo(f"amc-train: {reason}, but W&B could not be told: {type(error).__name__} {error}", err=True)
        sys.stderr.flush()
        os._exit(EXIT_CODES[reason])  # the client's exit handler would wait for, or trip over, what is not there
    return EXIT_CODES[reason]


def _resume_mode(environ: Mapping[str, str]) -> Literal["allow"] | None:
    """Return how to begin: an id from outside may be that of a run which goes on."""
    is_named = "WANDB_RUN_ID" in environ and "WANDB_RESUME" not in environ
    return "allow" if is_named and environ.get("WANDB_MODE", "online") == "online" else None


def _settle(
    run: wandb.Run, given: Mapping[str, Any], folder: Path, recorder: RunRecorder, artifact: ArtifactUse
) -> TrialConfig:
    """Decide what to train: a new trial, or the rest of one whose run has this id already."""
    handed_over = dict(run.config)  # what the sweep chose; the same names come as flags by ${args}
    machine = {"data": own} if (own := os.environ.get("AMC_DATA")) else {}
    values = continued_values(handed_over, machine, given) if run.resumed else {**machine, **given, **handed_over}
    config = TrialConfig.from_mapping(values)
    with telling_wandb():
        changed = {
            name: value
            for name, value in config.to_mapping().items()
            if current_value(name, handed_over.get(name)) != value
        }
        run.config.update(changed, allow_val_change=run.resumed)
    from amc_agents.trial.continuation import find_checkpoint  # torch: after TrialConfig has had its say

    def uploaded() -> Uploaded | None:
        kept_there = run.resumed and artifact is not ArtifactUse.NEVER
        return find_uploaded(run.entity, run.project, str(run.id)) if kept_there else None

    found = find_checkpoint(str(run.id), folder, uploaded)
    if found is None:
        recorder.begin()
        if run.resumed:
            click.echo(f"amc-train: run {run.id} starts over: no checkpoint in {folder}, none with W&B", err=True)
        return config
    click.echo(
        f"amc-train: run {run.id} goes on after epoch {found.epoch} and {found.steps_done} steps, from {found.source}",
        err=True,
    )
    recorder.go_on(epochs=found.epoch, last=found.metrics)
    return replace(config, init_from=None, resume_from=str(found.path))


def _take_leave(run: wandb.Run, folder: Path, recorder: RunRecorder, reason: EndReason, artifact: ArtifactUse) -> None:
    """Tell W&B how the trial ended, the most urgent first: there may be seconds left."""
    preempted = reason is EndReason.PREEMPTED
    run.summary["end_reason"] = str(reason)
    if preempted:
        run.mark_preempting()
    # Before the goodbye, for that is when the run is handed out again.
    if (folder / "last.pt").is_file() and (
        artifact is ArtifactUse.END or (preempted and artifact is not ArtifactUse.NEVER)
    ):
        _try_to("upload the checkpoint", lambda: log_checkpoint(run, folder))
    epochs = (recorder.facts.get("best_epoch"), recorder.epoch)
    # Of a preempted one no pictures: whoever goes on will draw others.
    _try_to("upload the evaluation", lambda: log_evaluation(run, folder, epochs, pictures=not preempted))
    run.finish(exit_code=EXIT_CODES[reason])


def _try_to(what: str, do: Callable[[], None]) -> None:
    """Do what may fail without changing how the trial ended."""
    try:
        with telling_wandb():
            do()
    except ClientLostError:
        raise
    except Exception as error:  # noqa: BLE001
        click.echo(f"amc-train: could not {what}: {type(error).__name__} {error}", err=True)


def _point_at_wandb() -> None:
    """Choose the W&B as every command does; under an agent, and offline, the client's own choice stands.

    An agent that found its W&B by the user's login leaves no address in the environment, and its trial must not prefer
    a server that happens to run on the same machine.
    """
    if "WANDB_SWEEP_ID" in os.environ or os.environ.get("WANDB_MODE", "online") != "online":
        return
    backend = choose_backend()
    click.echo(backend.announce(), err=True)
    os.environ.update(backend.environment())


def _train_alone(given: Mapping[str, Any], runs_dir: Path, stop: StopRequests) -> int:
    from amc_core.training.recorders import FileRecorder

    run_dir = _new_run_dir(runs_dir)
    try:
        recorder = FileRecorder(run_dir)
    except OSError as error:
        click.echo(f"amc-train: {run_dir} cannot be written ({error.strerror}): choose another --runs_dir", err=True)
        return EXIT_CODES[EndReason.ERROR]

    def resolve() -> TrialConfig:
        config = TrialConfig.from_mapping(_with_machine_data(given))
        recorder.config(config.to_mapping())
        return config

    reason = guarded(resolve, run_dir, recorder, stop)
    recorder.summary({"end_reason": str(reason)})
    click.echo(f"amc-train: {reason}; results in {run_dir}", err=True)
    return EXIT_CODES[reason]


def _with_machine_data(values: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in this machine's data file where nobody named one."""
    own = os.environ.get("AMC_DATA")
    return {"data": own, **values} if own else dict(values)


def _new_run_dir(runs_dir: Path) -> Path:
    taken = {path.name for path in runs_dir.glob("local-*")}
    number = next(number for number in range(1, len(taken) + 2) if f"local-{number}" not in taken)
    return runs_dir / f"local-{number}"


if __name__ == "__main__":
    main()
