"""The verdict of one check, in the words that ``amc-data audit`` and ``amc-sweep doctor`` print."""

from __future__ import annotations

from enum import StrEnum


class Verdict(StrEnum):
    """How one check ended."""

    PASS = "pass"
    WARN = "warn"  # works, but read it
    FAIL = "fail"
    SKIP = "skip"  # this check could not decide
