"""Runs and sweeps without their histories as plain JSON, for what is kept on disk: the cache, and Parquet files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from amc_analysis.reading.sources import SweepHead
from amc_sweeps.runs.causes import BandDecision
from amc_sweeps.runs.records import RunRecord, parse_time

_LATER = {"points", "history", "not_finite"}  # follow from the history
_TIMES = {"created_at", "heartbeat_at", "updated_at"}


def run_to_json(run: RunRecord) -> dict[str, Any]:
    """Return a run's head; what it has by default is left out."""
    found = {}
    for field in fields(RunRecord):
        value = getattr(run, field.name)
        if field.name in _LATER or value is None or value in ("", {}, ()):
            continue
        if field.name in _TIMES:
            value = value.isoformat()
        found[field.name] = asdict(value) if isinstance(value, BandDecision) else value
    return found


def run_from_json(content: Mapping[str, Any]) -> RunRecord:
    """Return the run of a head."""
    values = dict(content)
    for name in _TIMES & values.keys():
        values[name] = parse_time(values[name])
    if "stop_decision" in values:
        values["stop_decision"] = BandDecision(**values["stop_decision"])
    return RunRecord(**values)


def sweep_to_json(head: SweepHead) -> dict[str, Any]:
    """Return what is said of a sweep."""
    found = asdict(head)
    found["updated_at"] = head.updated_at.isoformat() if head.updated_at else None
    return found


def sweep_from_json(content: Mapping[str, Any]) -> SweepHead:
    """Return the head of a sweep."""
    return SweepHead(**{**content, "updated_at": parse_time(content["updated_at"])})
