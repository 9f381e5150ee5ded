"""The analysis for machines: JSON and CSV. Both have one entry a run with the fields of RUN_FIELDS.

``schema.json`` describes the JSON documents of one sweep and of several. Raise SCHEMA_VERSION when a field is removed
or changes its meaning; a new field needs no new version. Rates and accuracies are fractions; null stands for unknown,
absent or not finite.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from importlib.resources import files
from typing import Any

from amc_analysis.results.analysed_sweep import AnalysedSweep
from amc_analysis.results.effects import Importance
from amc_analysis.results.next_sweep import NextSweep
from amc_analysis.runs.failure_rates import RunGroup
from amc_sweeps.runs.crashed_runs import policy_of_record
from amc_sweeps.runs.ranked_run import RankedRun
from amc_sweeps.values import as_finite, look_up

SCHEMA_VERSION = 2

JSON_SCHEMAS = json.loads((files("amc_analysis.report") / "schema.json").read_text(encoding="utf-8"))
_RUN = JSON_SCHEMAS["$defs"]["amc-analyze"]["properties"]["runs"]["items"]["properties"]
RUN_FIELDS: dict[str, str] = {name: field["description"] for name, field in _RUN.items() if name != "config"}


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
        "last": as_finite(entry.last),
        "epochs": entry.epochs,
        "epochs_planned": entry.epochs_planned,
        "noise_sd": entry.noise_sd,
        "test": as_finite(entry.test),
        "not_finite": list(run.not_finite),
        "exit_code": run.exit_code,
        "stop_recorded": run.stop_recorded,
        "treatment": entry.treatment,
        "stop_reason": run.stop_reason,
        "host": run.host,
        "agent": run.agent,
        "created_at": _iso(run.created_at),
        "heartbeat_at": _iso(run.heartbeat_at),
    }


def to_json(analysed: AnalysedSweep) -> str:
    """Return the whole analysis as a JSON document."""
    return json.dumps(document_of(analysed), indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def document_of(analysed: AnalysedSweep) -> dict[str, Any]:
    """Return the whole analysis in plain JSON types."""
    record, rate, best, whole = analysed.record, analysed.failure_rate, analysed.best, analysed.best_ended_well
    return {
        "schema": "amc-analyze",
        "version": SCHEMA_VERSION,
        "read_at": record.read_at.isoformat(),
        "sweep": {
            "id": record.sweep_id,
            **{name: getattr(record, name) for name in ("entity", "project", "name", "state", "url")},
            "method": record.config.get("method"),
            "crashed_runs": policy_of_record(record.config, record.crashed_runs),
        },
        "metric": {"name": analysed.metric.name, "goal": analysed.metric.goal, "percentage": analysed.scale.percentage},
        "summary": {
            "runs": len(analysed.ranked),
            "best": best.run.run_id if best else None,
            "best_whole": whole.run.run_id if whole else None,
            "hidden_gems": [entry.run.run_id for entry in analysed.gems],
            "early_stops": {"runs": analysed.early_stops.runs, "epochs_saved": analysed.early_stops.epochs_saved},
        },
        "causes": {str(cause): count for cause, count in analysed.causes.items()},
        "failure_rate": {
            "failures": rate.failures,
            "ended": rate.ended,
            "rate": rate.rate,
            "interval": list(rate.interval),
            "censored": {str(cause): count for cause, count in rate.censored.items()},
            "unknown": rate.unknown,
            "naive": {"not_finished": rate.not_finished, "rate": rate.naive_rate},
        },
        "hosts": [_group(group) for group in analysed.hosts],
        "agents": [_group(group) for group in analysed.agents],
        "runs": [{**run_fields(entry), "config": _plain(entry.run.config)} for entry in analysed.ranked],
        "finalists": _finalists(analysed),
        "effects": [
            {**_fields(effect), "called": effect.is_clear, "failures_called": effect.is_clear_for_failures}
            for effect in analysed.effects
        ],
        "importance": _fields(analysed.importance or Importance(0, None, (), "It was not computed.")),
        "confounded": [_fields(pair) for pair in analysed.confounded],
        "dynamics": _fields(analysed.dynamics),
        "integrity": [_fields(finding) for finding in analysed.findings],
        "next_sweep": _next(analysed.next_sweep),
    }


def _finalists(analysed: AnalysedSweep) -> dict[str, Any]:
    lead = analysed.finalists.lead
    called = None if lead is None else {**_fields(lead), "called": lead.is_clear}
    return {**_fields(analysed.finalists), "lead": called}


def _group(group: RunGroup) -> dict[str, Any]:
    return {
        "name": group.name,
        "failures": group.rate.failures,
        "ended": group.rate.ended,
        "interval": list(group.rate.interval),
        "causes": {str(cause): count for cause, count in group.causes.items()},
    }


def _next(next_sweep: NextSweep | None) -> dict[str, Any] | None:
    if next_sweep is None:
        return None
    plan = next_sweep.plan
    return {
        "yaml": next_sweep.text,
        "configurations": plan.configurations,
        "run_cap": plan.run_cap,
        "epochs": plan.epochs,
        "epochs_at_most": plan.epochs_at_most,
        "shrinks": plan.narrowing.shrinks,
        "parameters": [
            {
                "parameter": decision.name,
                "section": _plain(decision.section),
                "share": decision.share,
                "kept": _fields(decision.kept),
                "dropped": _fields(decision.dropped),
                "never_ran": _plain(list(decision.never_ran)),
            }
            for decision in plan.narrowing.decisions
        ],
    }


_JSON_NAMES = {"rank_score": "standing"}  # fields whose name in the document differs


def _fields(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {
            _JSON_NAMES.get(field.name, field.name): _fields(getattr(value, field.name))
            for field in dataclasses.fields(value)
        }
    if isinstance(value, list | tuple):
        return [_fields(item) for item in value]
    return _plain(value)


def to_csv(analysed: AnalysedSweep) -> str:
    """Return one line a run: the fields of RUN_FIELDS, then ``config.NAME`` for every searched parameter."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*RUN_FIELDS, *(f"config.{name}" for name in analysed.parameter_names)])
    for entry in analysed.ranked:
        settings = [look_up(entry.run.config, name) for name in analysed.parameter_names]
        writer.writerow([_cell(value) for value in [*run_fields(entry).values(), *settings]])
    return out.getvalue()


def _cell(value: Any) -> Any:
    """Return a value as a cell: lists and mappings as JSON.

    A text that a spreadsheet would take for a formula begins with an apostrophe.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple | Mapping):
        return json.dumps(_plain(value), ensure_ascii=False)
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    return "" if value is None else value


def _plain(value: Any) -> Any:
    """Return a value that JSON can hold: null for a number that is not finite, the text for other types."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return as_finite(value)
    return str(value) if isinstance(value, StrEnum) or not isinstance(value, str | int | bool | None) else value


def _iso(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()
