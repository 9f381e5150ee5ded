"""What time it is: wall time for records, monotonic time for ages.

A host clock that is stepped (NTP, a suspended laptop) must not make a run look silent for an hour, so no age is ever
the difference of two wall times.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Where the server reads the time; tests bring their own."""

    def wall(self) -> float:
        """Return Unix time in seconds."""

    def monotonic(self) -> float:
        """Return seconds since some fixed moment, never going back."""


class SystemClock:
    """The machine's own clocks."""

    def wall(self) -> float:
        """Return Unix time in seconds."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds since some fixed moment, never going back."""
        return time.monotonic()


def iso_time(seconds: float | None) -> str | None:
    """Return Unix time as W&B writes it."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
