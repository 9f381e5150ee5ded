"""amc-sweep export: a sweep or a project as one YAML file, read through W&B's public API."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click

from amc_agents.commands.new_file import write_new
from amc_analysis.reading.wandb_private import attributes, send_query
from amc_sweeps.backend.errors import BackendError
from amc_sweeps.backend.options import BackendChoice, Refusal, backend_options, connect, refuse
from amc_sweeps.backend.references import TargetNotFoundError, find_sweep, parse_reference
from amc_sweeps.runs import export_file

PARALLEL_READS = 6  # requests in flight; W&B limits the rate, and the client waits when told to
_WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}  # how JSON carries what is not finite

PAGE = 100  # runs in one reply

# What the client's public API reads of no run: first what W&B's own sweep query asks for, then what only an embedded
# server knows. A server that does not know one of the fields refuses all of them: then they are unknown.
_FACTS = (
    "exitcode heartbeatAt shouldStop",
    "host stopReason stopBand stopValue stopThreshold",
    "stateWhenExported unknownFacts",
)
_SWEEP_FACTS_QUERY = """
query SweepFacts($entity: String, $project: String, $sweep: String!) {
  project(name: $project, entityName: $entity) { sweep(sweepName: $sweep) { unknownFacts } }
}
"""
_FACTS_QUERY = """
query RunFacts($entity: String, $project: String, $filters: JSONString, $after: String, $first: Int) {
  project(name: $project, entityName: $entity) { runs(filters: $filters, after: $after, first: $first) {
    edges { node { name %s } } pageInfo { endCursor hasNextPage }
  } }
}
"""


@click.command("export")
@click.argument("what", metavar="SWEEP|PROJECT")
@click.argument("file", type=click.Path(path_type=Path))
@backend_options
def export_command(
    what: str,
    file: Path,
    choice: BackendChoice,
) -> None:
    """Save a sweep, or a project with all its sweeps and runs, to FILE (YAML), with every row of every history.

    It is read through W&B's public API, so it works with the cloud as well. FILE must not exist. Left out are the runs'
    files, artifacts, console logs and system metrics; amc-sweep backup keeps all of an embedded server.

    \b
    amc-sweep export ab12cd34 sweep.yaml
    amc-sweep export --cloud my-team/radioml project.yaml

    Exit codes: 0 saved, 2 refused.
    """
    if file.exists():
        refuse(f"{file} is there already and is not overwritten: choose another name")
    if not file.absolute().parent.is_dir():  # said now, not after everything was read
        refuse(f"{file} cannot be written: there is no folder {file.absolute().parent}")
    connect(choice)
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb

    try:
        api = wandb.Api()
        owner, name, sweep_id = _find(api, what, choice)
        export = read_export(api, owner, name, sweep_id)
    except (wandb.Error, ValueError, BackendError) as error:
        raise Refusal(f"{what} cannot be read: {error}") from error
    write_new(file, export_file.write(export))
    rows = sum(len(run.get("history", ())) for run in export.runs)
    click.echo(
        f"{file}: {len(export.sweeps)} sweeps, {len(export.runs):,} runs, {rows:,} rows of history of {owner}/{name}",
        err=True,
    )


def _find(api: Any, what: str, choice: BackendChoice) -> tuple[str, str, str | None]:
    """Return entity, project and, if a sweep is meant, its id: a sweep first, then a project of that name."""
    try:
        path = find_sweep(parse_reference(what), api, entity=choice.entity, project=choice.project)
        owner, name, sweep_id = path.split("/")
    except TargetNotFoundError as not_found:
        pieces = what.split("/")
        owner = pieces[0] if len(pieces) == 2 else choice.entity or os.environ.get("WANDB_ENTITY") or api.default_entity
        if len(pieces) <= 2 and pieces[-1] in [found.name for found in api.projects(owner)]:
            return owner, pieces[-1], None
        raise BackendError(f"it is neither a sweep nor a project of {owner}: {not_found}") from not_found
    return owner, name, sweep_id


def read_export(api: Any, entity: str, project: str, sweep_id: str | None) -> export_file.Export:
    """Read a sweep, or with None the whole project.

    Args:
        api: a ``wandb.Api``.
        entity: the owner.
        project: where the sweep and its runs are.
        sweep_id: which one; None for all, and the runs of none.
    """
    path = f"{entity}/{project}"
    if sweep_id is not None:
        sweeps = [api.sweep(f"{path}/{sweep_id}")]
    else:
        sweeps = [api.sweep(f"{path}/{listed.id}") for listed in api.project(project, entity).sweeps()]
    filters = {"$and": [{"sweep": sweep_id}]} if sweep_id is not None else {}
    runs = list(api.runs(path, filters=filters, order="+created_at", per_page=100, lazy=False))
    facts = _facts(api, entity, project, filters)
    with ThreadPoolExecutor(PARALLEL_READS) as pool:
        records = list(pool.map(lambda run: _run(run, facts.get(run.id, {})), runs))
    known = {sweep.id for sweep in sweeps}
    # A sweep that was deleted meanwhile is nobody's.
    records = [
        {name: value for name, value in record.items() if name != "sweep" or value in known} for record in records
    ]
    told = [
        export_file.without_unknown(_sweep(each), _unknown_of_sweep(api, entity, project, each.id)) for each in sweeps
    ]
    return export_file.Export(project, tuple(told), tuple(records))


def _sweep(sweep: Any) -> dict[str, Any]:
    record: dict[str, Any] = {"id": sweep.id}
    state = str(getattr(sweep, "state", None) or "").upper()
    if export_file.SWEEP_FIELDS["state"][0](state):
        record["state"] = state
    sent = attributes(sweep)
    for name, key in (("name", "displayName"), ("description", "description"), ("created_at", "createdAt")):
        if key in sent:
            record[name] = sent[key]
    record["config"] = dict(sweep.config)
    return record


def _unknown_of_sweep(api: Any, entity: str, project: str, sweep_id: str) -> list[str]:
    """Return which facts an embedded server that imported the sweep does not know; none where a server cannot say."""
    try:
        answer = send_query(api, _SWEEP_FACTS_QUERY, entity=entity, project=project, sweep=sweep_id)
        return list(answer["project"]["sweep"]["unknownFacts"])
    except Exception:  # noqa: BLE001 - W&B's cloud does not have the field
        return []


def _run(run: Any, facts: Mapping[str, Any]) -> export_file.Record:
    record: dict[str, Any] = {"id": run.id, "state": str(run.state), "name": run.name, "created_at": run.created_at}
    if run.sweep_name is not None:
        record["sweep"] = run.sweep_name
    for name, key in (("exit_code", "exitcode"), ("stop_recorded", "shouldStop"), ("heartbeat_at", "heartbeatAt")):
        if key in facts:
            record[name] = facts[key]
    for name, key in (
        ("host", "host"),
        ("stop_reason", "stopReason"),
        ("stop_band", "stopBand"),
        ("stop_value", "stopValue"),
        ("stop_threshold", "stopThreshold"),
    ):
        if facts.get(key) is not None:
            record[name] = facts[key]
    for name in ("group", "job_type", "commit", "notes"):
        if getattr(run, name, None) is not None:
            record[name] = getattr(run, name)
    record["tags"] = list(run.tags)
    record["config"] = {name: value for name, value in run.config.items() if not name.startswith("_")}
    record["summary"] = _numbers({name: value for name, value in run.summary_metrics.items() if name != "_wandb"})
    record["history"] = [_numbers(row) for row in run.scan_history()]
    if facts.get("stateWhenExported") is not None:
        record["state"] = facts["stateWhenExported"]
    return export_file.without_unknown(record, facts.get("unknownFacts") or ())


def _numbers(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row in which NaN and the infinities are numbers again."""
    return {name: _WORDS.get(value, value) if isinstance(value, str) else value for name, value in row.items()}


def _facts(api: Any, entity: str, project: str, filters: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for fields in _FACTS:
        variables = {"entity": entity, "project": project, "filters": json.dumps(filters), "first": PAGE}
        after, more = None, True
        while more:
            try:
                answer = send_query(api, _FACTS_QUERY % fields, **variables, after=after)
                runs = answer["project"]["runs"]
                page, after, more = runs["edges"], runs["pageInfo"]["endCursor"], runs["pageInfo"]["hasNextPage"]
            except Exception:  # noqa: BLE001 - a private operation: without it these facts are unknown, the rest stands
                break
            for edge in page:
                found.setdefault(edge["node"]["name"], {}).update(edge["node"])
    return found
