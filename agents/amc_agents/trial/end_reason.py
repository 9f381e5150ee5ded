"""Train, and turn every end of a trial into its reason; the reason is on disk before W&B gets it."""

from __future__ import annotations

import contextlib
import shlex
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from amc_agents.trial.end_and_history import remove_end, write_end
from amc_agents.trial.wandb_recorder import ClientLostError
from amc_core.config import ConfigError, TrialConfig
from amc_core.machine.memory import is_out_of_memory
from amc_sweeps.runs.causes import EndReason

if TYPE_CHECKING:
    from amc_core.training.loop import Recorder

_SIGNAL_GRACE_S = 1.0


def train_to_end(
    resolve_config: Callable[[], TrialConfig],
    run_dir: Path,
    recorder: Recorder,
    stop: Callable[[], str | None],
    *,
    run_path: str | None = None,
) -> EndReason:
    """Train, and return why the trial ended, after writing it to ``end.json``; nothing is raised."""
    end_file = _EndFile(run_dir, run_path)

    def should_stop() -> str | None:
        reason = stop()
        if reason is not None:
            end_file.write(EndReason(reason))  # before the checkpoint: there may be no time for both
        return reason

    try:
        end_file.remove()
        config = resolve_config()
        from amc_core.training.loop import train  # imports torch: after wandb.init and the checks of the config

        if (request := should_stop()) is not None:  # the machine may be taken away while frames are loaded
            return EndReason(request)
        # Not stderr: W&B marks its lines as errors.
        result = train(
            config,
            run_dir=run_dir,
            record=recorder,
            should_stop=should_stop,
            tell=click.echo,
            progress=sys.stderr.isatty(),
        )
        reason = EndReason(result.end)
    except KeyboardInterrupt:
        reason = EndReason.INTERRUPTED
    except ClientLostError as lost:
        time.sleep(_SIGNAL_GRACE_S)  # the signal that killed the client may reach this process a moment later
        reason = EndReason(stop() or EndReason.ERROR)
        click.echo(
            f"amc-train: {reason}: {lost}; continue with: amc-sweep resume {shlex.quote(run_path or 'RUN')}", err=True
        )
    except Exception as error:  # noqa: BLE001 - every failure becomes a reason, an exit code and a line in the log
        reason = reason_of(error)
        if reason is EndReason.ERROR:
            traceback.print_exc()
        click.echo(f"amc-train: {reason}: {error}", err=True)
    end_file.write(reason)
    return reason


class _EndFile:
    """``end.json`` in the run's folder; a folder that cannot be written does not stop the trial."""

    def __init__(self, run_dir: Path, run_path: str | None) -> None:
        self._run_dir = run_dir
        self._run_path = run_path
        self._written: EndReason | None = None

    def remove(self) -> None:
        with contextlib.suppress(OSError):
            remove_end(self._run_dir)

    def write(self, reason: EndReason) -> None:
        """Write a reason, unless it is the one that was written last."""
        if reason is self._written:
            return
        self._written = reason
        try:
            write_end(self._run_dir, reason, run=self._run_path)
        except OSError as error:  # W&B must still get the reason if the disk is full
            click.echo(f"amc-train: end.json could not be written into {self._run_dir}: {error}", err=True)


def reason_of(error: BaseException) -> EndReason:
    """Return the end reason for an exception of a trial."""
    if isinstance(error, ConfigError):
        return EndReason.CONFIG_REFUSED
    if isinstance(error, ModuleNotFoundError):  # the imports below may lack the same package
        return EndReason.ERROR
    from amc_core.data.radioml import DataError, UnknownClassError

    if isinstance(error, UnknownClassError):
        return EndReason.CONFIG_REFUSED
    if isinstance(error, DataError):
        return EndReason.DATA_ERROR
    if is_out_of_memory(error):
        return EndReason.OUT_OF_MEMORY
    from amc_core.training.checkpoint import CheckpointError
    from amc_core.training.state import Diverged

    if isinstance(error, CheckpointError):  # init_from or resume_from names an unusable file
        return EndReason.CONFIG_REFUSED
    return EndReason.DIVERGED if isinstance(error, Diverged) else EndReason.ERROR
