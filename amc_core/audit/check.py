"""The verdict of one check of a data file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from amc_core.verdicts import Verdict


@dataclass(frozen=True)
class Check:
    """The verdict of one check, and its measurements in plain JSON types."""

    name: str
    verdict: Verdict
    text: str
    measured: Mapping[str, Any] = field(default_factory=dict)

    def to_mapping(self) -> dict[str, Any]:
        """Return the JSON object that ``amc-data audit --json`` prints."""
        return {"name": self.name, "verdict": self.verdict, "message": self.text, "measured": self.measured}


def judged(name: str, passed: bool, text: str, measured: Mapping[str, Any]) -> Check:
    """Return a check that passed or failed."""
    return Check(name, Verdict.PASS if passed else Verdict.FAIL, text, measured)


def skipped(reason: str, *names: str) -> list[Check]:
    """Return checks that could not be made."""
    return [Check(name, Verdict.SKIP, reason) for name in names]
