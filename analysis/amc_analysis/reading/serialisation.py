"""Runs and sweeps as plain JSON without their histories: the format in the cache and in Parquet files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any

from amc_analysis.reading.sources import SweepMetadata
from amc_analysis.runs.history import History
from amc_analysis.runs.records import RunWithHistory
from amc_sweeps.grammar.hyperband import BandDecision
from amc_sweeps.runs.records import RunRecord, SweepUpdate, parse_time
from amc_sweeps.runs.slurm_jobs import SlurmJob

_FROM_HISTORY = {"points", "history", "not_finite"}  # computed again from the history
_NAMES = tuple(item.name for item in fields(RunRecord) if item.name not in _FROM_HISTORY)
_TIMES = {"created_at", "heartbeat_at", "updated_at"}
_TIMES_OF_JOB = ("began_at", "ended_at")


def run_to_json(run: RunRecord) -> dict[str, Any]:
    """Return a run's fields; unknown and empty ones are left out."""
    content = {}
    for name in _NAMES:
        value = getattr(run, name)
        if value is None or value in ("", {}, ()):
            continue
        if name in _TIMES:
            value = value.isoformat()
        if isinstance(value, SlurmJob):
            value = {**asdict(value), **{part: _iso(getattr(value, part)) for part in _TIMES_OF_JOB}}
        content[name] = asdict(value) if isinstance(value, BandDecision) else value
    return content


def run_from_json(content: Mapping[str, Any], history: History) -> RunRecord:
    """Return the run that ``run_to_json`` wrote, with its history."""
    values = dict(content)
    for name in _TIMES & values.keys():
        values[name] = parse_time(values[name])
    if "stop_decision" in values:
        values["stop_decision"] = BandDecision(**values["stop_decision"])
    if "job" in values:
        job = values["job"]
        values["job"] = SlurmJob(**{**job, **{name: parse_time(job[name]) for name in _TIMES_OF_JOB}})
    return RunWithHistory(**values, history=history)


def sweep_to_json(sweep: SweepMetadata) -> dict[str, Any]:
    """Return a sweep's fields."""
    updates = [{**asdict(update), "at": _iso(update.at)} for update in sweep.updates]
    return {**asdict(sweep), "updated_at": _iso(sweep.updated_at), "updates": updates}


def sweep_from_json(content: Mapping[str, Any]) -> SweepMetadata:
    """Return the sweep that ``sweep_to_json`` wrote."""
    updates = tuple(read_update(update) for update in content.get("updates", ()))
    return SweepMetadata(**{**content, "updated_at": parse_time(content["updated_at"]), "updates": updates})


def read_update(content: Mapping[str, Any]) -> SweepUpdate:
    """Return a change of a sweep's config from JSON or from an export file."""
    return SweepUpdate(parse_time(content.get("at")), content.get("author"), content["config"])


def _iso(time: datetime | None) -> str | None:
    return time.isoformat() if time else None
