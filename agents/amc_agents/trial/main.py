"""amc-train: one trial, from the flags of an agent to an exit code.

The order matters. ``wandb.init`` comes before every check, so that a refused trial leaves a run that says why. torch is
imported after it, so that W&B sees the run at once. At the end the checkpoint and the reason are on disk before W&B
gets them, because the client's own process may have died of the same signal.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from amc_agents.trial.end_reason import reason_of, train_to_end
from amc_agents.trial.relaunch import RelaunchError
from amc_agents.trial.resume_checkpoint import UPLOAD_VARIABLE, UploadWhen
from amc_agents.trial.signals import StopRequests
from amc_agents.trial.wandb_trial import WandbTrial, data_of_machine
from amc_core.command_line import ExplainingCommand
from amc_core.config import FIELDS, VARIANT, ConfigError, FieldSpec, TrialConfig, expand_variant, parse_flag
from amc_core.files import exists, use_folder
from amc_core.missing_packages import DISTRIBUTION, require
from amc_sweeps.backend.choose import choose_backend
from amc_sweeps.backend.errors import BackendError
from amc_sweeps.backend.patience import be_patient
from amc_sweeps.runs.causes import EXIT_CODES, EndReason
from amc_sweeps.runs.run_states import RunState

if TYPE_CHECKING:
    import wandb

NO_WANDB = 69  # exit code: no W&B answers, so nothing was trained


@click.command(
    cls=ExplainingCommand,
    context_settings={
        "ignore_unknown_options": True,  # they are refused by name, after wandb.init
        "allow_extra_args": True,
        "token_normalize_func": lambda token: token.replace("-", "_"),
        "help_option_names": ["-h", "--help"],
        "max_content_width": 120,
    },
)
@click.option(
    "--no_wandb",
    is_flag=False,
    flag_value="True",  # bare
    default="False",
    callback=lambda _context, _option, text: _read_bool(text),
    metavar="[BOOL]",
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
    type=click.Choice([str(when) for when in UploadWhen]),
    default=str(UploadWhen.PREEMPTION),
    envvar=UPLOAD_VARIABLE,
    show_default=True,
    show_envvar=True,
    help="When to upload the checkpoint, from which another machine can continue; never suits a shared --runs_dir.",
)
@click.option(
    f"--{VARIANT}",
    metavar="TEXT",
    help="Several settings in one text, such as 'model_type=lstm2 representation=amplitude_phase'.",
)
@click.option("--repeat_of", metavar="RUN", help="Record in the run's config that it repeats another run.")
@click.option(
    "--summary",
    is_flag=True,
    help="Print the network's layers, parameters, multiply-accumulates and frames/s, and train nothing.",
)
@click.version_option(package_name=DISTRIBUTION)
@click.pass_context
def main(
    context: click.Context,
    /,
    no_wandb: bool,
    runs_dir: Path,
    checkpoint_artifact: str,
    variant: str | None,
    repeat_of: str | None,
    summary: bool,
    **flags: str | None,
) -> None:
    """Train one modulation-and-SNR classifier.

    Started by `wandb agent` as one trial of a sweep, or by hand. A value from W&B comes before a flag, and a flag
    before the default; the resolved configuration is written back to the run. AMC_DATA names the data file of this
    machine where neither W&B nor a flag does. A run that is handed out again continues from its checkpoint: the one in
    --runs_dir, or the one that W&B keeps.

    \b
    Exit codes: 0 completed, patience or stopped by W&B; 1 a package is missing; 2 a flag cannot be read;
    65 data unusable; 69 no W&B answers; 70 internal error; 75 preempted; 78 configuration refused;
    80 diverged (NaN); 81 out of memory; 130 interrupted.

    `amc-data evaluate runs/RUN_ID --data FILE` scores its checkpoint on any file.

    \b
    amc-train --no_wandb --data=radioml.hdf5 --model_type=resnet18 --epochs=5 --epochs_per_cycle=5
    """
    if context.args[:1] == ["evaluate"]:
        raise click.UsageError("amc-train only trains; to score a checkpoint: amc-data evaluate CHECKPOINT --data FILE")
    if "WANDB_SWEEP_ID" not in os.environ:  # under an agent, the run tells what is missing
        require("torch")
    settings = {name: parse_flag(name, text) for name, text in flags.items() if text is not None}
    settings.update(_unknown_flags(context.args), **({} if variant is None else {VARIANT: variant}))
    if summary:
        sys.exit(_summarise(settings))
    stop = StopRequests(os.environ)
    stop.listen()
    if no_wandb:
        sys.exit(_train_alone(settings, runs_dir, stop))
    notes = {} if repeat_of is None else {"repeat_of": repeat_of}
    sys.exit(_train_with_wandb(settings, runs_dir, stop, UploadWhen(checkpoint_artifact), notes))


def _read_bool(text: str) -> bool:
    """Read a flag about privacy; what is neither yes nor no is refused.

    Raises:
        click.BadParameter: the text is another one.
    """
    return bool(click.BOOL.convert(text, None, None))


def _option(spec: FieldSpec) -> click.Option:
    # Values stay text here: they are checked after wandb.init, so that a refusal leaves a run behind.
    default = "null" if spec.default is None else str(spec.default)
    other = [f"--{spec.other_flag}"] if spec.other_flag else []
    return click.Option(
        [spec.name, f"--{spec.name}", *other],
        metavar=spec.kind.upper(),
        help=f"{spec.help}; {spec.allowed()}  [default: {default}]",
    )


main.params += map(_option, FIELDS.values())


def _summarise(settings: Mapping[str, Any]) -> int:
    """Print what the configuration would build; needs no W&B, and data only where the file decides the classes."""
    try:
        config = TrialConfig.from_mapping(settings)
        from amc_core.training.model_summary import summarise  # imports torch: after the checks of the config

        click.echo(summarise(config).as_text())
    except ValueError as error:
        if (reason := reason_of(error)) not in {EndReason.CONFIG_REFUSED, EndReason.DATA_ERROR}:
            raise
        click.echo(f"amc-train: {reason}: {error}", err=True)
        return EXIT_CODES[reason]
    return 0


def _unknown_flags(arguments: list[str]) -> dict[str, str]:
    return {argument.lstrip("-").partition("=")[0]: argument.partition("=")[2] for argument in arguments}


def _train_with_wandb(
    settings: Mapping[str, Any], runs_dir: Path, stop: StopRequests, upload: UploadWhen, notes: Mapping[str, Any]
) -> int:
    if (problem := _problem_by_hand(settings, os.environ)) is not None:
        return _refused(str(problem), reason_of(problem))
    try:
        run = _start_run(stop)
    except RelaunchError as error:
        return _refused(str(error))
    if run is None:
        return NO_WANDB
    trial = WandbTrial(run, runs_dir / str(run.id), upload)
    stop.when_overdue(trial.abandon)
    reason = train_to_end(
        lambda: trial.resolve_config(settings, notes), trial.folder, trial.recorder, stop, run_path=trial.path
    )
    stop.when_overdue(None)
    click.echo(f"amc-train: {reason}; results in {trial.folder}", err=True)
    trial.finish(reason)
    return EXIT_CODES[reason]


def _refused(message: str, reason: EndReason = EndReason.CONFIG_REFUSED) -> int:
    click.echo(f"amc-train: {reason}: {message}", err=True)
    return EXIT_CODES[reason]


def _problem_by_hand(settings: Mapping[str, Any], environ: Mapping[str, str]) -> ValueError | None:
    """Return what is wrong with the flags of a new run that no agent started; such a typo leaves no run at W&B.

    What needs torch, or the labels of the whole file, is checked after W&B has the run.
    """
    if not {"WANDB_SWEEP_ID", "WANDB_RUN_ID"}.isdisjoint(environ):
        return None
    from amc_core.data.radioml import DataError, require_classes

    try:
        config = TrialConfig.from_mapping({**data_of_machine(), **expand_variant(settings)})
        require_classes(Path(config.data), config.label_set)
    except (ConfigError, DataError) as error:
        return error
    start = config.init_from or config.resume_from
    if start is not None and not exists(Path(start)):
        return ConfigError([f"{start}: no such checkpoint, nor a run's folder"])
    return None


def _start_run(stop: StopRequests) -> wandb.Run | None:
    """Begin or resume the run. Where W&B is not reached, print a message and return None.

    Raises:
        RelaunchError: WANDB_RUN_ID names a run that has ended.
    """
    try:
        _choose_wandb()
    except BackendError as error:
        click.echo(f"amc-train: {error}\n  --no_wandb                        train without any", err=True)
        return None
    be_patient(os.environ)
    import wandb

    try:
        resume = _resume_mode(os.environ)
        if resume is not None and "WANDB_SWEEP_ID" not in os.environ:
            _require_continuable(wandb.Api(), os.environ)
        return wandb.init(resume=resume, settings=stop.wandb_settings())
    except wandb.Error as error:
        click.echo(f"amc-train: W&B cannot be reached, nothing was trained: {error}", err=True)
        return None


def _require_continuable(api: Any, environ: Mapping[str, str]) -> None:
    """Refuse a WANDB_RUN_ID that is left over from a run that has ended.

    Raises:
        RelaunchError: the run has ended, and nobody asked for its continuation.
    """
    import wandb

    path = "/".join(
        [
            environ.get("WANDB_ENTITY") or str(api.default_entity),
            environ.get("WANDB_PROJECT") or "uncategorized",
            environ["WANDB_RUN_ID"],
        ]
    )
    try:
        state = api.run(path).state
    except (wandb.Error, ValueError):
        return  # there is no such run yet
    if state in {RunState.FINISHED, RunState.FAILED, RunState.KILLED}:
        raise RelaunchError(
            f"WANDB_RUN_ID is {environ['WANDB_RUN_ID']}, and run {path} has ended ({state}): its record would hold two "
            f"trainings. For a new run: unset WANDB_RUN_ID. To continue this one: amc-sweep resume {path}"
        )


def _choose_wandb() -> None:
    """Choose the W&B as every command does; under an agent, and offline, keep the client's own choice.

    An agent that found its W&B by the user's login leaves no address in the environment, and its trial must not prefer
    a server that happens to run on the same machine.
    """
    if "WANDB_SWEEP_ID" in os.environ or os.environ.get("WANDB_MODE", "online") != "online":
        return
    backend = choose_backend()
    click.echo(backend.announce(), err=True)
    os.environ.update(backend.environment())


def _resume_mode(environ: Mapping[str, str]) -> Literal["allow"] | None:
    """Return ``resume`` for wandb.init: a run id in the environment may be that of a run to continue."""
    is_named = "WANDB_RUN_ID" in environ and "WANDB_RESUME" not in environ
    return "allow" if is_named and environ.get("WANDB_MODE", "online") == "online" else None


def _train_alone(settings: Mapping[str, Any], runs_dir: Path, stop: StopRequests) -> int:
    from amc_core.training.file_recorder import FileRecorder

    run_dir = _new_run_dir(runs_dir)
    try:
        recorder = FileRecorder(run_dir)
    except OSError as error:
        click.echo(f"amc-train: {run_dir} cannot be written ({error.strerror}): choose another --runs_dir", err=True)
        return EXIT_CODES[EndReason.ERROR]
    use_folder(run_dir)  # until this process ends

    def resolve_config() -> TrialConfig:
        config = TrialConfig.from_mapping({**data_of_machine(), **expand_variant(settings)})
        recorder.config(config.to_mapping())
        return config

    reason = train_to_end(resolve_config, run_dir, recorder, stop)
    try:
        recorder.summary({"end_reason": str(reason)})
    except OSError as error:  # the disk is full: end.json has the reason, or stderr
        click.echo(f"amc-train: summary.json could not be written into {run_dir}: {error.strerror}", err=True)
    click.echo(f"amc-train: {reason}; results in {run_dir}", err=True)
    return EXIT_CODES[reason]


def _new_run_dir(runs_dir: Path) -> Path:
    names = {path.name for path in runs_dir.glob("local-*")}
    number = next(number for number in range(1, len(names) + 2) if f"local-{number}" not in names)
    return runs_dir / f"local-{number}"


if __name__ == "__main__":
    main()
