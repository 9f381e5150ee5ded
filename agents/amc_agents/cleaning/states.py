"""What W&B says of the runs whose folders are on this machine."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from amc_agents.cleaning.run_folders import RunAtWandb
from amc_analysis.reading.wandb_private import send_query
from amc_sweeps.bounded_texts import json_object

_RUNS_A_QUERY = 200
_RUNS = """
query RunsOfFolders($entity: String!, $project: String!, $filters: JSONString, $first: Int) {
  project(name: $project, entityName: $entity) { runs(filters: $filters, first: $first) { edges { node {
    name state sweepName summaryMetrics } } } } }
"""


def read_runs(api: Any, project: str, run_ids: Collection[str]) -> dict[str, RunAtWandb]:
    """Return W&B's records of runs by id; those that it does not know are left out.

    Args:
        api: a ``wandb.Api``.
        project: ENTITY/PROJECT.
        run_ids: ids of runs.

    Raises:
        wandb.Error: W&B does not answer as it should.
    """
    entity, _, name = project.partition("/")
    ids = sorted(run_ids)
    found: dict[str, RunAtWandb] = {}
    for start in range(0, len(ids), _RUNS_A_QUERY):
        part = ids[start : start + _RUNS_A_QUERY]
        filters = json.dumps({"name": {"$in": part}})
        answer = send_query(api, _RUNS, entity=entity, project=name, filters=filters, first=len(part))
        for edge in (answer["project"] or {"runs": {"edges": []}})["runs"]["edges"]:
            node = edge["node"]
            reason = json_object(node["summaryMetrics"] or "{}")[0].get("end_reason")
            end_reason = reason if isinstance(reason, str) else None
            found[str(node["name"])] = RunAtWandb(str(node["state"]), node["sweepName"] or None, end_reason)
    return found
