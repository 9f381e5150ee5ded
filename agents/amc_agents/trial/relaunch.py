"""Train a run again: its recorded settings as flags and environment of ``amc-train``, and the checks before that."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amc_core.config import FIELDS, former_settings
from amc_core.files import exists
from amc_sweeps.backend.choose import Backend
from amc_sweeps.number_formats import counted
from amc_sweeps.runs.run_states import RunState
from amc_sweeps.values import as_finite

# Settings that every trial records, with all others of its version.
_RECORDED = {"model_type", "representation", "batch_size", "seed"}

# Variables of one trial's process, which must not reach another trial.
TRIAL_VARIABLES = ("WANDB_SERVICE", "WANDB_RUN_ID", "WANDB_RESUME", "WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH")


class RelaunchError(RuntimeError):
    """The run cannot be trained again here; the message says why and what would help. Nothing was changed."""


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment for another trial's process.

    It has this process's import path, so that a checkout need not be installed.
    """
    inherited = {name: value for name, value in environ.items() if name not in TRIAL_VARIABLES}
    return {**inherited, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


@dataclass(frozen=True)
class TrialCommand:
    """Flags of ``amc-train``, and the variables that it needs besides this process's environment."""

    flags: tuple[str, ...]
    environment: Mapping[str, str]

    def command(self) -> list[str]:
        return [sys.executable, "-m", "amc_agents.trial.main", *self.flags]

    def process_environment(self, backend: Backend) -> dict[str, str]:
        return {**child_environment(os.environ), **backend.environment(), **self.environment}

    def shell_line(self, backend: Backend) -> str:
        """Return a line to paste into a shell, with no key shown."""
        variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in self.environment.items())
        return f"{backend.shell_prefix()}{variables} {shlex.join(['amc-train', *self.flags])}"


def recorded_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the trial's settings among everything in its run's config, with those from before a field existed.

    Raises:
        RelaunchError: the run is not one of amc-train.
    """
    settings = {name: value for name, value in config.items() if name in FIELDS}
    if not settings.keys() >= _RECORDED:
        raise RelaunchError("the run's config lacks settings that amc-train records: it is not a run of amc-train")
    return {**former_settings(settings), **settings}


def continued_values(
    recorded: Mapping[str, Any], machine: Mapping[str, Any], flags: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the settings of a continued run: flags first, then this machine's data file, then the recorded values.

    ``require_same_trial`` later refuses a changed setting that an exact continuation does not allow.

    Args:
        recorded: the run's config at W&B; it has other facts besides the settings.
        machine: where this machine has the frames; the recorded path may be another machine's.
        flags: those of the command line, from an agent or from a person.
    """
    settings = {name: value for name, value in recorded.items() if name in FIELDS}
    former = former_settings(settings) if settings.keys() >= _RECORDED else {}  # else no trial has recorded them yet
    return {**former, **settings, **machine, **flags}


def as_flags(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a flag for every setting that differs from the default."""
    return tuple(
        as_flag(name, value)
        for name, value in settings.items()
        if value != FIELDS[name].default and not (name == "split" and tuple(value) == FIELDS[name].default)
    )


def as_flag(name: str, value: Any) -> str:
    """Return ``--NAME=VALUE``."""
    return f"--{name}={'null' if value is None else value}"


def choose_data_file(recorded: str, choice: str | None, environ: Mapping[str, str] = os.environ) -> str:
    """Return where this machine has the frames: the chosen file, else AMC_DATA, else the recorded path."""
    return choice or environ.get("AMC_DATA") or recorded


def require_same_frames(path: str, config: Mapping[str, Any]) -> None:
    """Refuse another data file than the run's.

    Raises:
        RelaunchError: the file is missing, unusable, or another one.
    """
    from amc_core.data.radioml import DataError, RadioMLFile

    remedy = "name the run's file with --data or AMC_DATA"
    if not exists(Path(path)):
        raise RelaunchError(f"{path}: no such data file on this machine; {remedy}")
    try:
        with RadioMLFile(path) as data:
            fingerprint = data.fingerprint
    except DataError as error:
        raise RelaunchError(f"{error}; {remedy}") from error
    recorded = config.get("data_fingerprint")
    if recorded is not None and fingerprint != recorded:
        raise RelaunchError(
            f"{path} is not the data file of the run: its fingerprint is {fingerprint}, the run's is {recorded} "
            f"(recorded path: {config.get('data')}); {remedy}"
        )


def require_ended(path: str, state: str, heard_at: str | None) -> None:
    """Refuse a run that may still have a trial.

    Raises:
        RelaunchError: the run is alive at W&B.
    """
    if state == RunState.PENDING:
        raise RelaunchError(f"run {path} is pending: an agent trains it soon, so there is nothing to resume")
    if state in {RunState.RUNNING, RunState.PREEMPTING}:
        last = f", last heard at {heard_at}" if heard_at else ""
        raise RelaunchError(
            f"run {path} is {state}{last}: two trials would write into one history. Stop it first. If its trial "
            "is dead already, wait: W&B calls it crashed after about five minutes"
        )


def require_epochs_left(summary: Mapping[str, Any], settings: Mapping[str, Any], changes: Mapping[str, Any]) -> None:
    """Refuse a trial that ended by itself, unless ``changes`` of its settings move the end.

    Raises:
        RelaunchError: with the flag that would move the end.
    """
    reason, epoch = summary.get("end_reason"), int(as_finite(summary.get("epoch")) or 0)
    if reason == "completed" and int(changes.get("epochs", settings["epochs"])) <= epoch:
        raise RelaunchError(f"the run completed its {counted(epoch, 'epoch')}: give more with --epochs to continue it")
    if reason == "patience" and "patience" not in changes:
        raise RelaunchError(
            f"the run ended by patience {settings.get('patience')} after epoch {epoch}: "
            "give a larger --patience (null: none) to continue it"
        )
