"""The four groups of causes that pages and reports colour differently."""

from __future__ import annotations

from amc_sweeps.runs.causes import CENSORED, ENDED_WELL, FAILURES, Cause

GROUPS = ("ended well", "cut short", "failed", "running or unknown")


def group_of(cause: Cause) -> str:
    """Return the group of a cause, one of GROUPS."""
    if cause in ENDED_WELL:
        return "ended well"
    if cause in CENSORED:
        return "cut short"
    return "failed" if cause in FAILURES else "running or unknown"
