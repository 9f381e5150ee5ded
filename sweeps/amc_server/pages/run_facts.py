"""What a run's page says about it in words: how it ended, its settings, the commands that repeat it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from amc_server.clock import iso_time
from amc_server.pages.run_records import metric_of, run_record
from amc_server.store.reader import Reader
from amc_server.store.records import Project, Run, Sweep
from amc_sweeps.grammar.searched_parameters import searched_parameters
from amc_sweeps.number_formats import duration
from amc_sweeps.runs.causes import classify
from amc_sweeps.runs.commands import repeat_commands
from amc_sweeps.runs.crashed_runs import MEANINGS
from amc_sweeps.runs.evidence import evidence_of
from amc_sweeps.runs.metric_scale import metric_scale
from amc_sweeps.runs.ranked_run import RankedRun, with_treatment
from amc_sweeps.runs.ranking import measure
from amc_sweeps.runs.records import Metric, SweepRecord, run_time_s
from amc_sweeps.values import MISSING, look_up, printable

Setting = tuple[str, str, bool]  # name, value, whether the sweep searched it


@dataclass(frozen=True)
class RunFacts:
    """A run in words."""

    sentence: str
    rows: list[tuple[str, str]]
    commands: tuple[str, ...]
    settings: list[Setting]
    summary: list[tuple[str, str]]


def run_facts(store: Reader, project: Project, sweep: Sweep | None, run: Run, now: float) -> RunFacts:
    """Return a run in words."""
    agent = store.agent_by_key(run.agent) if run.agent is not None else None
    metric = metric_of(sweep) if sweep else None
    config = sweep.readable_config if sweep else None
    raw: Mapping[str, Any] = config.raw if config else {}
    logged = run_record(store, run, store.points_of_run(run.pk), metric, agent)
    record = SweepRecord(
        sweep_id=sweep.id if sweep else "",
        entity=project.entity,
        project=project.name,
        config=raw,
        state=sweep.state.value if sweep else "",
        metric=metric or Metric("", "minimize"),
        runs=(logged,),
        read_at=datetime.fromtimestamp(now, UTC),
    )
    entry = measure(logged, classify(evidence_of(record)[run.id]), record.metric)
    entry = with_treatment(entry, sweep.policy if sweep and raw.get("method") == "bayes" else None)
    scale = metric_scale(record.metric.name, [entry])
    rows = [
        ("run id", run.id),
        ("cause", f"{entry.cause}, {entry.diagnosis.confidence}: {entry.diagnosis.because}"),
        *([(f"last {metric.name}", scale.text(entry.last))] if metric and entry.last is not None else []),
        ("told the search", f"{entry.treatment}: {MEANINGS[entry.treatment]}" if entry.treatment else ""),
        ("exit code", "" if run.exit_code is None else str(run.exit_code)),
        ("host", logged.host or ""),
        ("agent", logged.agent or ""),
        ("began", (iso_time(run.began_at) or "")[:19].replace("T", " ")),
        ("duration", "" if (seconds := run_time_s(logged)) is None else duration(seconds)),
        ("commit", run.git_commit or ""),
        ("tags", ", ".join(run.tag_names)),
        ("notes", run.notes or ""),
    ]
    return RunFacts(
        sentence=_sentence(entry, metric, scale.text(entry.peak)),
        rows=[(name, value) for name, value in rows if value],
        commands=repeat_commands(record, entry),
        settings=_settings(run.config_values(), searched_parameters(raw)),
        summary=[(printable(name), _text(value)) for name, value in sorted(run.summary_values.items())],
    )


def _sentence(entry: RankedRun, metric: Metric | None, peak: str) -> str:
    cause = str(entry.cause).replace("_", " ")
    progress = "" if entry.epochs is None else f" after {entry.epochs}"
    if progress:
        progress += f" of {entry.epochs_planned} epochs" if entry.epochs_planned else " epochs"
    text = f"{cause.capitalize()}{progress}."
    if metric is None or entry.peak is None:
        return text
    at = "" if entry.peak_epoch is None else f" at epoch {entry.peak_epoch:g}"
    return f"{text} {'Peak' if metric.goal == 'maximize' else 'Lowest'} {metric.name}: {peak}{at}."


def _settings(config: Mapping[str, Any], searched: tuple[str, ...]) -> list[Setting]:
    """Return the searched parameters in the order of the sweep's file, then every other entry by name."""
    found = [(name, look_up(config, name, MISSING)) for name in searched]
    first = [(printable(name), _text(value), True) for name, value in found if value is not MISSING]
    rest = sorted(config.keys() - set(searched))
    return first + [(printable(name), _text(config[name]), False) for name in rest]


def _text(value: Any) -> str:
    text: str = printable(value if isinstance(value, str) else json.dumps(value, default=str))
    return text
