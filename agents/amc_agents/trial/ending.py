"""Every end of a trial becomes a reason, and the reason is on disk before W&B is told."""

from __future__ import annotations

import contextlib
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from amc_agents.trial.recorder import ClientLostError
from amc_agents.trial.run_folder import forget_end, leave_end
from amc_core.config import ConfigError, TrialConfig
from amc_core.machine.memory import is_out_of_memory
from amc_sweeps.runs.causes import EndReason

if TYPE_CHECKING:
    from amc_core.training.loop import Recorder

SIGNAL_GRACE_S = 1.0


def guarded(
    resolve: Callable[[], TrialConfig],
    run_dir: Path,
    recorder: Recorder,
    stop: Callable[[], str | None],
    *,
    run_path: str | None = None,
) -> EndReason:
    """Train, turn every end into its reason, and leave that reason on disk."""
    word = _LastWord(run_dir, run_path)

    def should_stop() -> str | None:
        asked = stop()
        if asked is not None:
            word.leave(EndReason(asked))  # before the checkpoint: whoever asked may not wait for both
        return asked

    try:
        word.take_back()
        config = resolve()
        from amc_core.training.loop import train  # torch: after W&B and TrialConfig have had their say

        asked = should_stop()  # before frames are loaded, which may take longer than the machine lasts
        if asked is not None:
            return EndReason(asked)
        result = train(config, run_dir=run_dir, record=recorder, should_stop=should_stop, progress=sys.stderr.isatty())
        reason = EndReason(result.end)
    except KeyboardInterrupt:
        reason = EndReason.INTERRUPTED
    except ClientLostError as lost:
        time.sleep(SIGNAL_GRACE_S)  # who ends all processes of a job ends one after the other: our signal may follow
        reason = EndReason(stop() or EndReason.ERROR)
        click.echo(f"amc-train: {reason}: {lost}; continue with: amc-sweep resume {run_path}", err=True)
    except Exception as error:  # noqa: BLE001 - whatever went wrong becomes a reason, an exit code and a log line
        reason = reason_of(error)
        if reason is EndReason.ERROR:
            traceback.print_exc()
        click.echo(f"amc-train: {reason}: {error}", err=True)
    word.leave(reason)
    return reason


class _LastWord:
    """``end.json``: a trial's own word for how it ended, for those who find its folder."""

    def __init__(self, run_dir: Path, run_path: str | None) -> None:
        self._run_dir = run_dir
        self._run_path = run_path
        self._left: EndReason | None = None

    def take_back(self) -> None:
        """Remove an earlier trial's word."""
        with contextlib.suppress(OSError):
            forget_end(self._run_dir)

    def leave(self, reason: EndReason) -> None:
        """Write it, once for every reason."""
        if reason is self._left:
            return
        self._left = reason
        try:
            leave_end(self._run_dir, reason, run=self._run_path)
        except OSError as error:  # a full disk must not hide the reason from W&B
            click.echo(f"amc-train: the end could not be written into {self._run_dir}: {error}", err=True)


def reason_of(error: BaseException) -> EndReason:
    """Name the reason behind an exception of a trial."""
    from amc_core.data.radioml import DataError

    if isinstance(error, ConfigError):
        return EndReason.CONFIG_REFUSED
    if isinstance(error, DataError):
        return EndReason.DATA_ERROR
    if is_out_of_memory(error):
        return EndReason.OUT_OF_MEMORY
    from amc_core.training.checkpoint import CheckpointError
    from amc_core.training.state import Diverged

    if isinstance(error, CheckpointError):  # init_from or resume_from names a file that cannot be started from
        return EndReason.CONFIG_REFUSED
    if isinstance(error, Diverged):
        return EndReason.DIVERGED
    return EndReason.ERROR
