"""amc-train: one trial, from the flags of an agent to an exit code that tells the truth.

The order matters. ``wandb.init`` comes before anything of ours may refuse, so that a refused trial leaves a run that
says why; torch is imported after it, so that W&B sees the run at once. At the end the checkpoint and the reason are
on disk before W&B is told, because the client's side process may have died of the same signal.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from amc_agents.signals import StopRequests
from amc_core.config import FIELDS, ConfigError, FieldSpec, TrialConfig, parse_flag
from amc_sweeps.backend import BackendError, choose_backend
from amc_sweeps.causes import EXIT_CODES, EndReason

if TYPE_CHECKING:
    import wandb

    from amc_core.training import Recorder

END_FILE = "end.json"  # the local record of how the trial ended


class _WandbRecorder:
    """What the training loop says, passed on to a W&B run."""

    def __init__(self, run: wandb.Run) -> None:
        self._run = run

    def config(self, facts: Mapping[str, Any]) -> None:
        self._run.config.update(dict(facts), allow_val_change=True)

    def log(self, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics))

    def summary(self, facts: Mapping[str, Any]) -> None:
        self._run.summary.update(dict(facts))


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
    "--summary",
    is_flag=True,
    help="Print the network's layers, parameters, multiply-accumulates and frames/s, and train nothing.",
)
@click.pass_context
def main(context: click.Context, /, no_wandb: str, runs_dir: Path, summary: bool, **flags: str | None) -> None:
    """Train one modulation-and-SNR classifier.

    Started by `wandb agent` as one trial of a sweep, or by hand. What W&B hands over wins over a flag, which wins
    over the default; the resolved configuration is written back to the run. AMC_DATA names the data file of this
    machine where neither says it.

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
    sys.exit(_train_with_wandb(given, runs_dir, stop))


def _summarise(given: Mapping[str, Any]) -> int:
    """Print what the configuration would build; needs neither data nor W&B."""
    try:
        config = TrialConfig.from_mapping(given)
        from amc_core.summary import summarise  # torch: after TrialConfig has had its say

        click.echo(summarise(config).as_text())
    except ConfigError as error:
        click.echo(f"amc-train: {EndReason.CONFIG_REFUSED}: {error}", err=True)
        return EXIT_CODES[EndReason.CONFIG_REFUSED]
    return 0


def _unknown_flags(arguments: list[str]) -> dict[str, str]:
    """Return flags that are no field by their name, for TrialConfig to refuse."""
    return {argument.lstrip("-").partition("=")[0]: argument.partition("=")[2] for argument in arguments}


def _train_with_wandb(given: Mapping[str, Any], runs_dir: Path, stop: StopRequests) -> int:
    try:
        _point_at_wandb()
    except BackendError as error:
        click.echo(f"amc-train: {error}\n  --no_wandb=True                   train without any", err=True)
        return EXIT_CODES[EndReason.ERROR]
    import wandb

    try:
        run = wandb.init(settings=wandb.Settings(stop_fn=stop.by_wandb))
    except wandb.Error as error:
        click.echo(f"amc-train: W&B cannot be reached, nothing was trained: {error}", err=True)
        return EXIT_CODES[EndReason.ERROR]
    handed_over = dict(run.config)  # what the sweep chose; the same names come as flags by ${args}

    def resolve() -> TrialConfig:
        config = TrialConfig.from_mapping(_with_machine_data({**given, **handed_over}))
        resolved = config.to_mapping()
        run.config.update({name: value for name, value in resolved.items() if handed_over.get(name) != value})
        return config

    run_dir = runs_dir / str(run.id)
    reason = _guarded(resolve, run_dir, _WandbRecorder(run), stop)
    run.summary["end_reason"] = str(reason)
    if reason is EndReason.PREEMPTED:
        _mark_preempting(run)
    run.finish(exit_code=EXIT_CODES[reason])
    return EXIT_CODES[reason]


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
    from amc_core.recorders import FileRecorder

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

    reason = _guarded(resolve, run_dir, recorder, stop)
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


def _guarded(resolve: Any, run_dir: Path, recorder: Recorder, stop: StopRequests) -> EndReason:
    """Train, turn every end into its reason, and leave that reason on disk."""
    try:
        config = resolve()
        from amc_core.training import train  # torch: after W&B and TrialConfig have had their say

        run_dir.mkdir(parents=True, exist_ok=True)
        result = train(config, run_dir=run_dir, record=recorder, should_stop=stop, progress=sys.stderr.isatty())
        reason = EndReason(result.end)
    except KeyboardInterrupt:
        reason = EndReason.INTERRUPTED
    except Exception as error:  # noqa: BLE001 - whatever went wrong becomes a reason, an exit code and a log line
        reason = reason_of(error)
        if reason is EndReason.ERROR:
            traceback.print_exc()
        click.echo(f"amc-train: {reason}: {error}", err=True)
    _leave_end(run_dir, reason)
    return reason


def reason_of(error: BaseException) -> EndReason:
    """Name the reason behind an exception of a trial."""
    from amc_core.radioml import DataError

    if isinstance(error, ConfigError):
        return EndReason.CONFIG_REFUSED
    if isinstance(error, DataError):
        return EndReason.DATA_ERROR
    if isinstance(error, MemoryError):
        return EndReason.OUT_OF_MEMORY
    from amc_core.checkpoint import CheckpointError
    from amc_core.training import Diverged

    if isinstance(error, CheckpointError):  # init_from or resume_from names a file that cannot be started from
        return EndReason.CONFIG_REFUSED
    if isinstance(error, Diverged):
        return EndReason.DIVERGED
    # torch.OutOfMemoryError is CUDA's; the CPU allocator raises a plain RuntimeError.
    if type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error):
        return EndReason.OUT_OF_MEMORY
    return EndReason.ERROR


def _leave_end(run_dir: Path, reason: EndReason) -> None:
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        temporary = run_dir / f"{END_FILE}.tmp"
        temporary.write_text(json.dumps({"end_reason": str(reason), "exit_code": EXIT_CODES[reason]}))
        temporary.replace(run_dir / END_FILE)
    except OSError as error:  # a full disk must not hide the reason from W&B
        click.echo(f"amc-train: {run_dir / END_FILE} could not be written: {error}", err=True)


def _mark_preempting(run: wandb.Run) -> None:
    try:
        run.mark_preempting()
    except (ConnectionError, RuntimeError) as error:  # wandb's side process died of the same signal
        click.echo(f"amc-train: W&B could not be told of the preemption: {error}", err=True)
