"""The program that this toolkit's sweeps start."""

from __future__ import annotations

from pathlib import PurePath

TRIAL_PROGRAM = "amc-train"


def is_trial_program(program: object) -> bool:
    """Return whether a sweep's ``program`` is amc-train, by name or by path."""
    return program is not None and PurePath(str(program)).name == TRIAL_PROGRAM
