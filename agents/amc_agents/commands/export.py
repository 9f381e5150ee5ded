"""amc-sweep export: a sweep or a project as one YAML file, read through W&B's public API."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click

from amc_analysis.reading.wandb_api import failure, open_api
from amc_analysis.reading.wandb_private import attributes, has_no_answer, send_query
from amc_core.command_line import OutputFile, Refusal, refuse, tidy_up_when_ended
from amc_core.files import write_whole
from amc_sweeps.backend.errors import BackendError
from amc_sweeps.backend.options import BackendChoice, backend_options, connect
from amc_sweeps.backend.references import Reference, TargetNotFoundError, find_sweep, parse_reference
from amc_sweeps.bounded_texts import read_yaml
from amc_sweeps.grammar.sweep_config import UNREADABLE
from amc_sweeps.number_formats import counted
from amc_sweeps.runs import export_file
from amc_sweeps.values import as_number, printable

PARALLEL_READS = 6  # requests in flight; W&B limits the rate, and the client waits when W&B says so
PAGE = 100  # runs in one reply

# Facts of a run that the client's public API lacks: those of W&B's own schema, then those of an embedded server.
# A server rejects a query with an unknown field. The facts of that query are then unknown.
_FACTS = (
    "exitcode heartbeatAt shouldStop",
    "host stopReason stopBand stopValue stopThreshold",
    "stateWhenExported unknownFacts",
)
_SWEEP_FACTS_QUERY = """
query SweepFacts($entity: String, $project: String, $sweep: String!) {
  project(name: $project, entityName: $entity) { sweep(sweepName: $sweep) {
    unknownFacts seed shuffle crashedRuns updates { at author config } } }
}
"""
_FACTS_QUERY = """
query RunFacts($entity: String, $project: String, $filters: JSONString, $after: String, $first: Int) {
  project(name: $project, entityName: $entity) { runs(filters: $filters, after: $after, first: $first) {
    edges { node { name %s } } pageInfo { endCursor hasNextPage }
  } }
}
"""
# Names in the file -> names in W&B. A null exit code means that the trial gave none; other facts are left out if null.
_WITH_NULL = {"exit_code": "exitcode", "stop_recorded": "shouldStop", "heartbeat_at": "heartbeatAt"}
_WITHOUT_NULL = {
    "host": "host",
    "stop_reason": "stopReason",
    "stop_band": "stopBand",
    "stop_value": "stopValue",
    "stop_threshold": "stopThreshold",
    "state": "stateWhenExported",
}


@click.command("export")
@click.argument("target", metavar="SWEEP|PROJECT")
@click.argument("file", type=OutputFile())
@backend_options
def export_command(target: str, file: Path, choice: BackendChoice) -> None:
    """Save a sweep, or a project with all its sweeps and runs, to FILE (YAML), with every row of every history.

    The command reads W&B's public API, so it works with W&B's cloud too. FILE must not exist. FILE has no artifacts,
    console logs, system metrics or files of runs; amc-sweep backup saves everything on an embedded server.

    \b
    amc-sweep export ab12cd34 sweep.yaml
    amc-sweep export --cloud my-team/radioml project.yaml

    Exit codes: 0 saved, 1 the server does not answer, 2 refused.
    """
    tidy_up_when_ended()
    refusal = f"{file} exists and is not overwritten: choose another name"
    if file.exists():
        refuse(refusal)
    try:
        reference = parse_reference(target)
    except BackendError as error:
        raise Refusal(f"{target} cannot be read: {error}") from error
    backend = connect(choice.or_at(reference.base_url))
    import wandb

    try:
        api = open_api(backend)
        entity, project, sweep_id = _find(api, target, reference, choice)
        export = read_export(api, entity, project, sweep_id)
    except (wandb.Error, ValueError, BackendError) as error:
        if has_no_answer(error):
            raise click.ClickException(failure(backend, error)) from error
        raise Refusal(f"{target} cannot be read: {error}") from error
    try:
        write_whole(file, export_file.write(export), replace=False, durable=True)
    except FileExistsError:
        refuse(refusal)
    except OSError as error:
        raise Refusal(f"{file} cannot be written: {error.strerror}") from error
    rows = counted(sum(len(run.get("history", ())) for run in export.runs), "history row")
    click.echo(
        f"{file}: {counted(len(export.sweeps), 'sweep')}, {counted(len(export.runs), 'run')}, {rows} "
        f"of {entity}/{project}",
        err=True,
    )


def _find(api: Any, target: str, reference: Reference, choice: BackendChoice) -> tuple[str, str, str | None]:
    """Return entity, project and sweep id of a sweep; if there is no such sweep, those of a project without an id."""
    try:
        path = find_sweep(reference, api, entity=choice.entity, project=choice.project)
    except TargetNotFoundError as error:
        parts = target.split("/")
        entity = parts[0] if len(parts) == 2 else choice.entity or os.environ.get("WANDB_ENTITY") or api.default_entity
        if len(parts) <= 2 and parts[-1] in [project.name for project in api.projects(entity)]:
            return entity, parts[-1], None
        raise BackendError(f"{entity} has no sweep and no project of this name: {error}") from error
    entity, project, sweep_id = path.split("/")
    return entity, project, sweep_id


def read_export(api: Any, entity: str, project: str, sweep_id: str | None) -> export_file.Export:
    """Return one sweep, or a whole project, with its runs.

    Args:
        api: a ``wandb.Api``.
        entity: the owner.
        project: the sweep's.
        sweep_id: which sweep; None: every sweep of the project, and the runs without a sweep.
    """
    path = f"{entity}/{project}"
    ids = [sweep_id] if sweep_id is not None else [sweep.id for sweep in api.project(project, entity).sweeps()]
    sweeps = [api.sweep(f"{path}/{name}") for name in ids]
    filters = {"$and": [{"sweep": sweep_id}]} if sweep_id is not None else {}
    runs = list(api.runs(path, filters=filters, order="+created_at", per_page=100, lazy=False))
    facts = _facts(api, entity, project, filters)
    with ThreadPoolExecutor(PARALLEL_READS) as pool:
        records = list(pool.map(lambda run: _run(run, facts.get(run.id, {})), runs))
    for sweep in [sweep for sweep in sweeps if (attributes(sweep).get("description") or "").startswith(UNREADABLE)]:
        problem = attributes(sweep)["description"].partition("\n")[0]
        click.echo(f"sweep {sweep.id} is left out, its runs are kept without it: {printable(problem)}", err=True)
        sweeps.remove(sweep)
    sweep_ids = {sweep.id for sweep in sweeps}
    for record in records:
        if record.get("sweep") not in sweep_ids:  # its sweep was deleted while we read
            record.pop("sweep", None)
    sweep_records = [_sweep(sweep, _facts_of_sweep(api, entity, project, sweep.id)) for sweep in sweeps]
    return export_file.Export(project, tuple(sweep_records), tuple(records))


def _sweep(sweep: Any, facts: Mapping[str, Any]) -> dict[str, Any]:
    record: dict[str, Any] = {"id": sweep.id}
    state = str(getattr(sweep, "state", None) or "").upper()
    if export_file.SWEEP_FIELDS["state"][0](state):
        record["state"] = state
    fields = attributes(sweep)
    for name, key in (("name", "displayName"), ("description", "description"), ("created_at", "createdAt")):
        if key in fields:
            record[name] = fields[key]
    own = {"seed": "seed", "shuffle": "shuffle", "crashed_runs": "crashedRuns"}
    record |= {name: facts[key] for name, key in own.items() if facts.get(key) is not None}
    record["config"] = dict(sweep.config)
    updates = [{**update, "config": read_yaml(update["config"])[0]} for update in facts.get("updates", ())]
    if updates:
        record["updates"] = updates
    return dict(export_file.without_unknown(record, facts.get("unknownFacts") or ()))


def _facts_of_sweep(api: Any, entity: str, project: str, sweep_id: str) -> dict[str, Any]:
    """Return what an embedded server tells beyond W&B's schema: seed, changes of the config, what an import lacked."""
    try:
        answer = send_query(api, _SWEEP_FACTS_QUERY, entity=entity, project=project, sweep=sweep_id)
        return dict(answer["project"]["sweep"])
    except Exception as error:
        if has_no_answer(error):
            raise
        return {}  # W&B's cloud rejects the fields


def _run(run: Any, facts: Mapping[str, Any]) -> dict[str, Any]:
    record: dict[str, Any] = {"id": run.id, "state": str(run.state), "name": run.name, "created_at": run.created_at}
    if run.sweep_name is not None:
        record["sweep"] = run.sweep_name
    record |= {name: facts[key] for name, key in _WITH_NULL.items() if key in facts}
    record |= {name: facts[key] for name, key in _WITHOUT_NULL.items() if facts.get(key) is not None}
    for name in ("group", "job_type", "commit", "notes"):
        if getattr(run, name, None) is not None:
            record[name] = getattr(run, name)
    record["tags"] = list(run.tags)
    record["config"] = _numbers({name: value for name, value in run.config.items() if not name.startswith("_")})
    record["summary"] = _numbers({name: value for name, value in run.summary_metrics.items() if name != "_wandb"})
    record["history"] = [_numbers(row) for row in run.scan_history()]
    return dict(export_file.without_unknown(record, facts.get("unknownFacts") or ()))


def _numbers(value: Any) -> Any:
    """Return a row, or what is in it, with JSON's words for NaN and the infinities as numbers."""
    if isinstance(value, Mapping):
        return {name: _numbers(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    number = as_number(value) if isinstance(value, str) else None
    return value if number is None else number


def _facts(api: Any, entity: str, project: str, filters: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    facts: dict[str, dict[str, Any]] = {}
    variables = {"entity": entity, "project": project, "filters": json.dumps(filters), "first": PAGE}
    for fields in _FACTS:
        after, has_more = None, True
        while has_more:
            try:
                answer = send_query(api, _FACTS_QUERY % fields, **variables, after=after)
                runs = answer["project"]["runs"]
                after, has_more = runs["pageInfo"]["endCursor"], runs["pageInfo"]["hasNextPage"]
            except Exception as error:
                if has_no_answer(error):
                    raise
                break  # these facts stay unknown, and the export goes on
            for edge in runs["edges"]:
                facts.setdefault(edge["node"]["name"], {}).update(edge["node"])
    return facts
