"""Training a run again: what W&B has recorded of it, as flags and an environment for ``amc-train``."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amc_agents.trial.reopen import OF_A_TRIAL
from amc_core.config import FIELDS
from amc_sweeps.backend.choose import Backend
from amc_sweeps.runs.run_states import RunState


class RelaunchError(RuntimeError):
    """The run cannot be trained again here; the message says why, and what would help. Nothing was changed."""


@dataclass(frozen=True)
class TrialCommand:
    """A command, and what it needs besides this process's environment."""

    flags: tuple[str, ...]
    environment: Mapping[str, str]

    def command(self) -> list[str]:
        """Return what to execute; the interpreter's own way, so that a checkout that is not installed works too."""
        return [sys.executable, "-m", "amc_agents.trial.main", *self.flags]

    def process_environment(self, backend: Backend) -> dict[str, str]:
        """Return this process's environment, pointed at a W&B and at a run."""
        inherited = {name: value for name, value in os.environ.items() if name not in OF_A_TRIAL}
        path = os.pathsep.join(filter(None, sys.path))
        return {**inherited, "PYTHONPATH": path, **backend.environment(), **self.environment}

    def shell_line(self, backend: Backend) -> str:
        """Return a line to paste into a shell, with no key shown."""
        variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in self.environment.items())
        return f"{backend.shell_prefix()}{variables} {shlex.join(['amc-train', *self.flags])}"


def settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the trial's settings among all that its run's config records.

    Raises:
        RelaunchError: the run is not one of amc-train.
    """
    settings = {name: value for name, value in config.items() if name in FIELDS}
    if not {"model_type", "representation", "batch_size", "seed"} <= settings.keys():
        raise RelaunchError("the run's config lacks settings that amc-train records: it is not a run of amc-train")
    return settings


def continued_values(
    recorded: Mapping[str, Any], machine: Mapping[str, Any], flags: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the settings of a run that goes on: as recorded with it, but for the place of its frames and for flags.

    A flag that an exact continuation cannot have otherwise is refused by ``require_same_trial``, when it differs.

    Args:
        recorded: the run's config with W&B, which holds facts besides settings.
        machine: where this machine has its frames: the recorded path may be another machine's.
        flags: as given, by an agent or by hand.
    """
    settings = {name: value for name, value in recorded.items() if name in FIELDS}
    return {**settings, **machine, **flags}


def as_flags(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Return flags for the settings that are not the default's."""
    return tuple(
        f"--{name}={'null' if value is None else value}"
        for name, value in settings.items()
        if value != FIELDS[name].default and not (name == "split" and tuple(value) == FIELDS[name].default)
    )


def data_here(recorded: str, given: str | None, environ: Mapping[str, str] = os.environ) -> str:
    """Return where this machine has the frames: as given, AMC_DATA, or the path that the run recorded."""
    return given or environ.get("AMC_DATA") or recorded


def require_same_frames(path: str, config: Mapping[str, Any]) -> None:
    """Refuse another data file than the run's.

    Raises:
        RelaunchError: it is not there, unusable, or another one.
    """
    from amc_core.data.radioml import DataError, RadioMLFile

    remedy = "name the run's file with --data or AMC_DATA"
    if not Path(path).exists():
        raise RelaunchError(f"{path}: no such data file on this machine; {remedy}")
    try:
        with RadioMLFile(path) as data:
            own = data.fingerprint
    except DataError as error:
        raise RelaunchError(f"{error}; {remedy}") from error
    recorded = config.get("data_fingerprint")
    if recorded is not None and own != recorded:
        raise RelaunchError(
            f"{path}: another data file (fingerprint {own}) than the run was trained on ({recorded}, there "
            f"{config.get('data')}); {remedy}"
        )


def require_ended(path: str, state: str, heard: str | None) -> None:
    """Refuse a run that may still have a trial.

    Raises:
        RelaunchError: it is alive, as far as W&B knows.
    """
    if state == RunState.PENDING:
        raise RelaunchError(f"run {path} is pending: an agent has it, or will; it need not be resumed")
    if state in {RunState.RUNNING, RunState.PREEMPTING}:
        last = f", last heard at {heard}" if heard else ""
        raise RelaunchError(
            f"run {path} is {state}{last}: two trials would write into one history. Stop it first; where its trial is "
            "dead already, W&B notices after about five minutes of silence"
        )


def require_something_left(summary: Mapping[str, Any], settings: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Refuse to continue a trial that ended by itself, unless its end is moved.

    Raises:
        RelaunchError: naming what would move it.
    """
    reason, epoch = summary.get("end_reason"), int(summary.get("epoch") or 0)
    if reason == "completed" and int(given.get("epochs", settings["epochs"])) <= epoch:
        raise RelaunchError(f"the run completed its {epoch} epochs, nothing is left of it: give more with --epochs")
    if reason == "patience" and "patience" not in given:
        raise RelaunchError(
            f"the run ended by patience {settings.get('patience')} after epoch {epoch}, nothing is left of it: "
            "move its end with --patience (null: never)"
        )
