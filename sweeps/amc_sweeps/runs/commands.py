"""The commands that repeat a run or resume it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from amc_sweeps.grammar.trial_program import is_trial_program
from amc_sweeps.runs.causes import CENSORED, Cause
from amc_sweeps.runs.ranked_run import RankedRun
from amc_sweeps.runs.records import RunRecord, SweepRecord

TRIAL_SETTINGS = frozenset({"model_type", "snr_layer", "representation", "split_seed"})  # only amc-train has all four
# The configuration is not to blame for these ends, and the last checkpoint can be used.
RESUMABLE = CENSORED | {Cause.LOST, Cause.KILLED_BY_SIGNAL, Cause.NODE_FAILURE, Cause.ENVIRONMENT_ERROR}


def repeat_commands(sweep: SweepRecord, entry: RankedRun) -> tuple[str, ...]:
    """Return the commands that repeat a run and, where it was cut short, resume it.

    Empty for another program's run if its sweep does not record the command line.
    """
    run = entry.run
    if not is_trial_run(sweep, run):
        command = agent_command(sweep, run.config)
        return () if command is None else (command,)
    path = shlex.quote(f"{sweep.entity}/{run.project or sweep.project}/{run.run_id}")
    repeat = f"amc-sweep repeat {path}"
    return (repeat, f"amc-sweep resume {path}") if entry.cause in RESUMABLE else (repeat,)


def is_trial_run(sweep: SweepRecord, run: RunRecord) -> bool:
    """Return whether amc-train made a run: the sweep names it, or names no program and the run has its settings."""
    program = sweep.config.get("program")
    return is_trial_program(program) if program else run.config.keys() >= TRIAL_SETTINGS


def agent_command(sweep: SweepRecord, config: Mapping[str, Any]) -> str | None:
    """Return the command with which the sweep's agent started a run; None where the sweep does not record it."""
    program, parameters = sweep.config.get("program"), sweep.config.get("parameters")
    if not program or not isinstance(parameters, Mapping):
        return None
    words = ["python", str(program)] if str(program).endswith(".py") else [str(program)]
    words += [f"--{name}={config[name]}" for name in parameters if name in config]
    return shlex.join(words)
