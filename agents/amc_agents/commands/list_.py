"""amc-sweep list: the sweeps of a project, or of all projects."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import click

from amc_agents.open_target import open_client
from amc_analysis.reading.wandb_api import translate_errors
from amc_core.command_line import refuse
from amc_sweeps.backend.options import BackendChoice, backend_options
from amc_sweeps.grammar.sweep_config import UNREADABLE
from amc_sweeps.number_formats import quoted
from amc_sweeps.runs.run_states import state_word
from amc_sweeps.values import as_number, printable

RUNS_A_PAGE = 500  # runs are read without configuration and summary, so they are small

_SWEEPS_QUERY = """
query ListedSweeps($entity: String!, $project: String!, $after: String) {
  project(name: $project, entityName: $entity) { sweeps(first: 100, after: $after) {
    pageInfo { endCursor hasNextPage }
    edges { node { name displayName description method state runCount runCountExpected bestLoss createdAt } }
  } } }
"""


@click.command("list", short_help="The sweeps of a project, or of all projects.")
@click.argument("project_name", metavar="[PROJECT]", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list on stdout.")
@backend_options
def list_command(project_name: str | None, as_json: bool, choice: BackendChoice) -> None:
    """List the sweeps of PROJECT, or of every project, newest first.

    PROJECT is a name or ENTITY/PROJECT (default: WANDB_PROJECT). The best value is the server's own: the embedded
    server gives the peak of all histories, W&B the best last value; `amc-sweep status` always ranks by peak.

    \b
    amc-sweep list
    amc-sweep list radioml
    amc-sweep list --json | jq -r '.[] | select(.state == "RUNNING") | .path'

    Exit codes: 0 listed (also where there are none), 1 the server does not answer, 2 refused.
    """
    if project_name is not None and choice.project is not None:
        refuse("give the project once: as PROJECT or with --project")
    owner, _, name = (project_name or choice.project or os.environ.get("WANDB_PROJECT") or "").rpartition("/")
    if "/" in owner:
        refuse(f"{quoted(project_name)} names no project: write PROJECT or ENTITY/PROJECT")
    backend, api = open_client(choice)
    with translate_errors(backend):
        owner = owner or choice.entity or os.environ.get("WANDB_ENTITY") or api.default_entity
        if not owner:
            refuse("no entity is known here: give --entity, or write ENTITY/PROJECT")
        names = sorted(project.name for project in api.projects(owner))
        if name and name not in names:
            refuse(f"{owner} has no project {name}; it has: {', '.join(names) or 'none'}")
        rows = [row for project in ([name] if name else names) for row in _read_sweeps(api, owner, project)]
    rows.sort(key=lambda row: str(row["created_at"]), reverse=True)
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    elif rows:
        _print(printable(rows))
    else:
        where = f"{owner}/{name}" if name else f"the projects of {owner}"
        click.echo(f"there is no sweep in {where}; amc-sweep create FILE registers one", err=True)


def _read_sweeps(api: Any, owner: str, project: str) -> Iterator[dict[str, Any]]:
    sweeps = query_sweeps(api, owner, project)
    states: dict[str, Counter[str]] = {}
    for run in api.runs(f"{owner}/{project}", per_page=RUNS_A_PAGE) if sweeps else ():
        states.setdefault(run.sweep_name or "", Counter())[str(run.state)] += 1
    for sweep in sweeps:
        yield {
            "path": f"{owner}/{project}/{sweep['name']}",
            "sweep_id": sweep["name"],
            "name": sweep["displayName"] or sweep["name"],
            "state": sweep["state"].upper(),
            "method": sweep["method"],
            "runs": sweep["runCount"],
            "runs_expected": sweep["runCountExpected"],
            "by_state": dict(states.get(sweep["name"], Counter()).most_common()),
            "best": as_number(sweep["bestLoss"]),
            "created_at": sweep["createdAt"],
            "problem": _problem(sweep["description"] or ""),
        }


def query_sweeps(api: Any, owner: str, project: str) -> list[dict[str, Any]]:
    """Return a project's sweeps, with W&B's names of the fields.

    One request reads a page of 100 sweeps. The client's own list needs one more request for every sweep.
    """
    from amc_analysis.reading.wandb_private import send_query

    sweeps: list[dict[str, Any]] = []
    after, has_more = None, True
    while has_more:
        answer = send_query(api, _SWEEPS_QUERY, entity=owner, project=project, after=after)
        page = (answer["project"] or {}).get("sweeps")
        if page is None:
            break
        sweeps += [edge["node"] for edge in page["edges"]]
        after, has_more = page["pageInfo"]["endCursor"], page["pageInfo"]["hasNextPage"]
    return sweeps


def _problem(description: str) -> str | None:
    """Return why an embedded server cannot read the sweep's configuration."""
    return description.partition("\n")[0] if description.startswith(UNREADABLE) else None


def _print(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("Sweep", "Name", "State", "Runs", "Best", "Created"):
        table.add_column(title, justify="right" if title == "Best" else "left", overflow="fold")
    for row in rows:
        expected = "" if row["runs_expected"] is None else f" of {row['runs_expected']}"
        states = ", ".join(f"{number} {state}" for state, number in row["by_state"].items())
        best = "" if row["best"] is None else f"{row['best']:.5g}"
        created = str(row["created_at"])[:16].replace("T", " ")
        runs = f"{row['runs']}{expected}" + (f": {states}" if states else "")
        state = state_word(row["state"]) + (f"; {row['problem']}" if row["problem"] else "")
        table.add_row(row["path"], row["name"], state, runs, best, created)
    Console(width=None if sys.stdout.isatty() else 160, highlight=False, markup=False).print(table)
