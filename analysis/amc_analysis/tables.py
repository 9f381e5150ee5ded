"""The findings for machines: JSON and CSV. Both have one entry a run with the fields of RUN_FIELDS.

The JSON document (schema ``amc-analyze``, version 1; a field that is taken away or changes its meaning raises the
version, a new field does not)::

    schema, version     "amc-analyze", 1
    read_at             when the server was asked, ISO 8601
    sweep               {id, entity, project, name, state, url, method}
    metric              {name, goal, percentage: the values are fractions that people read as percentages}
    summary             {runs, best, best_whole: run ids or null, hidden_gems: [run id],
                         early_stops: {runs, epochs_saved}}
    causes              {cause: number of runs}
    failure_rate        {failures, ended, rate, interval: [low, high] (Wilson, 95 %), censored: {cause: runs}, unknown,
                         naive: {not_finished, rate}}
    hosts, agents       [{name, failures, ended, interval, causes of the failures: {cause: runs}}], most failures first
    runs                [{the fields of RUN_FIELDS, config: {...}}], best peak first

Rates and accuracies are fractions. null stands for unknown, absent or not finite.
"""

from __future__ import annotations

import csv
import io
import json
import math
from datetime import datetime
from typing import Any

from amc_analysis.findings import Findings, Place, shown_as_percentage
from amc_analysis.ranking import RankedRun
from amc_analysis.runs import look_up

SCHEMA_VERSION = 1

RUN_FIELDS: dict[str, str] = {
    "rank": "1 is the best peak; equal peaks share a rank; null without any finite value",
    "run_id": "W&B's id of the run",
    "name": "its display name",
    "state": "W&B's state: finished, failed, crashed, killed, preempted, running, ...",
    "cause": "how the run ended, see amc_sweeps.causes.Cause",
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
        "confidence": entry.verdict.confidence,
        "because": entry.verdict.because,
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


def to_json(findings: Findings) -> str:
    """Return the whole analysis as the JSON document that this module describes."""
    sweep, rate, best, whole = findings.sweep, findings.failure_rate, findings.best, findings.best_whole
    document = {
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
    }
    return json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def _place(place: Place) -> dict[str, Any]:
    return {
        "name": place.name,
        "failures": place.rate.failures,
        "ended": place.rate.ended,
        "interval": list(place.rate.interval),
        "causes": {str(cause): count for cause, count in place.causes.items()},
    }


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
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return _finite(value)
    return value if isinstance(value, str | int | bool | None) else str(value)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _iso(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()
