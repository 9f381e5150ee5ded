"""The findings for machines: JSON and CSV. Both have one entry a run with the fields of RUN_FIELDS.

The JSON document's schema is written by ``json_schema`` and printed by ``amc-analyze --json-schema``. A field that is
taken away or changes its meaning raises SCHEMA_VERSION, a new field does not. Rates and accuracies are fractions; null
stands for unknown, absent or not finite.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from amc_analysis.runs.findings import Findings, Place, shown_as_percentage
from amc_sweeps.runs.ranking import RankedRun
from amc_sweeps.values import look_up

if TYPE_CHECKING:
    from amc_analysis.next_sweep.proposal import NextSweep
    from amc_analysis.report.sections import Report

SCHEMA_VERSION = 2

RUN_FIELDS: dict[str, str] = {
    "rank": "1 is the best peak; equal peaks share a rank; null without any finite value",
    "run_id": "W&B's id of the run",
    "name": "its display name",
    "state": "W&B's state: finished, failed, crashed, killed, preempted, running, ...",
    "cause": "how the run ended, see amc_sweeps.runs.causes.Cause",
    "confidence": "of the cause: certain, likely or guess",
    "because": "the evidence for the cause, in words",
    "hidden_gem": "cut short, yet its peak beats every run that ended well, or is among the best 3",
    "peak": "best finite value of the metric in the whole history",
    "peak_epoch": "where: the `epoch` metric of that row, else the count of logged values from 1",
    "smoothed_peak": "best median of three neighbouring values",
    "last": "final logged value of the metric",
    "epochs": "epochs that the run got through",
    "epochs_planned": "epochs that its configuration asked for",
    "noise_sd": "epoch-to-epoch noise of the metric, from second differences",
    "test": "the test value in the summary; never ranked by",
    "not_finite": "metrics whose last logged value is NaN or infinite",
    "exit_code": "of the trial",
    "stop_recorded": "whether the run was asked to stop",
    "stop_reason": "who asked, where the server keeps it: hyperband, user, cancelled",
    "host": "where it ran",
    "agent": "the wandb agent that started it, where the server tells",
    "created_at": "ISO 8601, UTC",
    "heartbeat_at": "last sign of life, ISO 8601, UTC",
}


def run_fields(entry: RankedRun) -> dict[str, Any]:
    """Return one run under the names of RUN_FIELDS, in plain JSON types."""
    run = entry.run
    return {
        "rank": entry.rank,
        "run_id": run.run_id,
        "name": run.name,
        "state": run.state,
        "cause": str(entry.cause),
        "confidence": entry.diagnosis.confidence,
        "because": entry.diagnosis.because,
        "hidden_gem": entry.is_gem,
        "peak": entry.peak,
        "peak_epoch": entry.peak_epoch,
        "smoothed_peak": entry.smoothed_peak,
        "last": _finite(entry.last),
        "epochs": entry.epochs,
        "epochs_planned": entry.epochs_planned,
        "noise_sd": entry.noise_sd,
        "test": _finite(entry.test),
        "not_finite": list(run.not_finite),
        "exit_code": run.exit_code,
        "stop_recorded": run.stop_recorded,
        "stop_reason": run.stop_reason,
        "host": run.host,
        "agent": run.agent,
        "created_at": _iso(run.created_at),
        "heartbeat_at": _iso(run.heartbeat_at),
    }


def to_json(report: Report) -> str:
    """Return the whole analysis as a JSON document, see ``json_schema``."""
    return json.dumps(document_of(report), indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def document_of(report: Report) -> dict[str, Any]:
    """Return the whole analysis in plain JSON types."""
    findings = report.findings
    sweep, rate, best, whole = findings.sweep, findings.failure_rate, findings.best, findings.best_whole
    concluded = report.conclusions
    return {
        "schema": "amc-analyze",
        "version": SCHEMA_VERSION,
        "read_at": sweep.read_at.isoformat(),
        "sweep": {
            "id": sweep.sweep_id,
            "entity": sweep.entity,
            "project": sweep.project,
            "name": sweep.name,
            "state": sweep.state,
            "url": sweep.url,
            "method": sweep.config.get("method"),
        },
        "metric": {
            "name": findings.metric.name,
            "goal": findings.metric.goal,
            "percentage": shown_as_percentage(findings),
        },
        "summary": {
            "runs": len(findings.ranked),
            "best": best.run.run_id if best else None,
            "best_whole": whole.run.run_id if whole else None,
            "hidden_gems": [entry.run.run_id for entry in findings.gems],
            "early_stops": {
                "runs": findings.early_stops.runs,
                "epochs_saved": findings.early_stops.epochs_saved,
            },
        },
        "causes": {str(cause): count for cause, count in findings.causes.items()},
        "failure_rate": {
            "failures": rate.failures,
            "ended": rate.ended,
            "rate": rate.rate,
            "interval": list(rate.interval),
            "censored": {str(cause): count for cause, count in rate.censored.items()},
            "unknown": rate.unknown,
            "naive": {"not_finished": rate.not_finished, "rate": rate.naive_rate},
        },
        "hosts": [_place(place) for place in findings.hosts],
        "agents": [_place(place) for place in findings.agents],
        "runs": [{**run_fields(entry), "config": _plain(entry.run.config)} for entry in findings.ranked],
        "effects": [
            {**_fields(effect), "called": effect.called, "failures_called": effect.failures_called}
            for effect in concluded.effects
        ],
        "importance": _fields(concluded.importance),
        "confounded": [_fields(pair) for pair in concluded.confounded],
        "dynamics": _fields(concluded.dynamics),
        "integrity": [_fields(firing) for firing in concluded.firings],
        "next_sweep": _next(report.following),
    }


def _place(place: Place) -> dict[str, Any]:
    return {
        "name": place.name,
        "failures": place.rate.failures,
        "ended": place.rate.ended,
        "interval": list(place.rate.interval),
        "causes": {str(cause): count for cause, count in place.causes.items()},
    }


def _next(following: NextSweep | None) -> dict[str, Any] | None:
    """Return what the next sweep keeps and drops; None where it was not asked for."""
    if following is None:
        return None
    return {
        "yaml": following.text,
        "configurations": following.configurations,
        "run_cap": following.run_cap,
        "epochs": following.epochs,
        "epochs_at_most": following.epochs_at_most,
        "shrinks": following.narrowing.shrinks,
        "parameters": [
            {
                "parameter": decision.axis.name,
                "section": _plain(decision.section),
                "share": decision.share,
                "kept": [_fields(one) for one in decision.kept],
                "dropped": [_fields(one) for one in decision.dropped],
                "never_ran": _plain(list(decision.never_ran)),
            }
            for decision in following.narrowing.decisions
        ],
    }


def _fields(value: Any) -> Any:
    """Return a dataclass, and all that it holds, in plain JSON types."""
    if dataclasses.is_dataclass(value):
        return {field.name: _fields(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, list | tuple):
        return [_fields(item) for item in value]
    return _plain(value)


def to_csv(findings: Findings) -> str:
    """Return one line a run: the fields of RUN_FIELDS, then ``config.NAME`` for every searched parameter."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*RUN_FIELDS, *(f"config.{name}" for name in findings.parameters)])
    for entry in findings.ranked:
        chosen = [look_up(entry.run.config, name) for name in findings.parameters]
        writer.writerow([_cell(value) for value in [*run_fields(entry).values(), *chosen]])
    return out.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "" if value is None else value


def _plain(value: Any) -> Any:
    """Return a value that JSON can hold: what is not finite becomes null, what is foreign its text."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return _finite(value)
    return str(value) if isinstance(value, StrEnum) or not isinstance(value, str | int | bool | None) else value


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _iso(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()
