"""Wall time for records, monotonic time for ages.

An age is never the difference of two wall times: when NTP or a suspended laptop sets the host's clock forward, every
run would look silent.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol

from amc_sweeps.runs.records import LATEST_TIME


class Clock(Protocol):
    """The source of the time; tests have their own."""

    def wall(self) -> float:
        """Return Unix time in seconds."""

    def monotonic(self) -> float:
        """Return seconds since a fixed moment; it never goes back."""


class SystemClock:
    """The machine's own clocks."""

    def wall(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


def iso_time(seconds: float | None) -> str | None:
    """Return Unix time as W&B writes it; a stored time outside of 1970 to 9999 is given as the nearest in it."""
    if seconds is None:
        return None
    in_range = min(max(seconds, 0.0), LATEST_TIME)
    return datetime.fromtimestamp(in_range, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
