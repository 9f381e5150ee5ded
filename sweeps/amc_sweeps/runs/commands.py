"""The command lines that repeat a run or take it up where it ended."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from amc_sweeps.runs.causes import CENSORED, Cause
from amc_sweeps.runs.ranking import RankedRun
from amc_sweeps.runs.records import RunRecord, SweepRecord

OWN_PROGRAM = "amc-train"
OWN_CONFIG = frozenset({"model_type", "snr_layer", "representation", "split_seed"})  # that no other script has together
# What ended these runs was no fault of theirs, and their last checkpoint may be taken up.
RESUMABLE = CENSORED | {Cause.LOST, Cause.KILLED_BY_SIGNAL, Cause.NODE_FAILURE}


def commands_of(sweep: SweepRecord, entry: RankedRun) -> tuple[str, ...]:
    """Return the command lines that repeat a run and, where it was cut short, take it up where it ended.

    None where neither the program is known nor what of the configuration it was given and what it only wrote down.
    """
    run = entry.run
    if not is_own(sweep, run):
        command = command_of(sweep, run.config)
        return () if command is None else (command,)
    path = f"{sweep.entity}/{run.project or sweep.project}/{run.run_id}"
    repeat = f"amc-sweep repeat {path}"
    return (repeat, f"amc-sweep resume {path}") if entry.cause in RESUMABLE else (repeat,)


def is_own(sweep: SweepRecord, run: RunRecord) -> bool:
    """Tell whether this toolkit's trial made a run: its program is named, or its whole configuration is there."""
    program = str(sweep.config.get("program") or "")
    return program == OWN_PROGRAM or (not program and run.config.keys() >= OWN_CONFIG)


def command_of(sweep: SweepRecord, config: Mapping[str, Any]) -> str | None:
    """Return the command line that repeats a run outside the sweep, as its agent started it; None for unknown."""
    program, parameters = sweep.config.get("program"), sweep.config.get("parameters")
    if not program or not isinstance(parameters, Mapping):
        return None
    words = ["python", str(program)] if str(program).endswith(".py") else [str(program)]
    words += [f"--{name}={config[name]}" for name in parameters if name in config]
    return shlex.join(words)
