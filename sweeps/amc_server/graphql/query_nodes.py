"""The nodes of queries: the root, projects, sweeps and agents.

Names are the schema's in snake case. A node is made for one request and lives as long as its snapshot or transaction.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from amc_server.clock import iso_time
from amc_server.errors import Refused
from amc_server.graphql import filters
from amc_server.graphql.artifact_nodes import ArtifactNode, ArtifactTypeNode, CollectionNode, by_name
from amc_server.graphql.context import Context, Nodes, page
from amc_server.graphql.owner_nodes import EntityNode, UserNode
from amc_server.graphql.run_nodes import RunNode
from amc_server.ids import global_id, read_global_id
from amc_server.scheduling.coordinator import ENTITY, read_config
from amc_server.store.reader import Reader
from amc_server.store.records import Agent, Project, Sweep
from amc_sweeps.grammar.configurations import count_configurations

FEATURES = ("SWEEPS_QUERY_FILTERING", "SWEEPS_LOCAL_SCHEDULER", "MARK_RUN_FILES_UPLOADED")


class QueryRoot:
    """The fields of ``Query``."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def viewer(self) -> UserNode:
        return UserNode()

    def server_info(self) -> dict[str, Any]:
        return {"features": [{"name": name, "is_enabled": True} for name in FEATURES]}

    def entity(self, name: str | None = None) -> EntityNode | None:
        return EntityNode(ENTITY) if name in (None, "", ENTITY) else None

    def project(self, name: str | None = None, entity_name: str | None = None) -> ProjectNode | None:
        if entity_name not in (None, "", ENTITY):
            return None
        found = self._context.store.project(ENTITY, name or "uncategorized")
        return ProjectNode(self._context, found) if found else None

    def model(self, name: str | None = None, entity_name: str | None = None) -> ProjectNode | None:
        return self.project(name, entity_name)

    def artifact(self, id: str) -> ArtifactNode | None:  # noqa: A002 - the schema's name
        found = self._context.store.artifact(read_global_id("Artifact", id))
        return ArtifactNode(self._context, found) if found else None

    def models(
        self, entity_name: str | None = None, after: str | None = None, first: int | None = None
    ) -> dict[str, Any]:
        found = self._context.store.projects(ENTITY) if entity_name in (None, "", ENTITY) else []
        return page(found, after=after, first=first, wrap=lambda project: ProjectNode(self._context, project))


class ProjectNode:
    """A project."""

    access = views = None
    is_benchmark = read_only = False

    def __init__(self, context: Context, project: Project) -> None:
        self._context = context
        self._project = project
        self.id = global_id("Project", project.pk)
        self.internal_id = str(project.pk)
        self.name = project.name
        self.entity_name = project.entity
        self.description = project.description
        self.created_at = iso_time(project.created_at)

    def entity(self) -> EntityNode:
        return EntityNode(self._project.entity)

    def user(self) -> UserNode:
        return UserNode()

    def run(self, name: str) -> RunNode | None:
        found = self._context.store.run(self._project.pk, name)
        return RunNode(self._context, found) if found else None

    def bucket(self, name: str, missing_ok: bool | None = None) -> RunNode | None:
        """Return the run for a resume. One that was only handed out has nothing to resume."""
        found = self._context.store.run(self._project.pk, name)
        # Preempted in its first epoch, it has no history; that its trial wrote its own config tells it from a new one.
        has_begun = found and (found.started or found.history_lines or "_wandb" in json.loads(found.config))
        return RunNode(self._context, found) if found and has_begun else None

    def runs(
        self, filters: str | None = None, after: str | None = None, first: int | None = None, order: str | None = None
    ) -> dict[str, Any]:
        return page(
            self._sorted(filters, order), after=after, first=first, wrap=lambda found: RunNode(self._context, found.run)
        )

    def run_count(self, filters: str | None = None) -> int:
        return len(self._found(filters))

    def _sorted(self, text: str | None, order: str | None) -> list[filters.Fields]:
        return filters.sort(self._found(text), order)

    def _found(self, text: str | None) -> list[filters.Fields]:
        if text not in self._found_runs:
            self._found_runs[text] = find_runs(self._context.store, self._project, filters.read_filters(text))
        return self._found_runs[text]

    @cached_property
    def _found_runs(self) -> dict[str | None, list[filters.Fields]]:
        return {}  # the client asks for a page and for the number of all in one document

    def sweep(self, sweep_name: str) -> SweepNode | None:
        found = self._context.store.sweep(self._project.pk, sweep_name)
        return SweepNode(self._context, found) if found else None

    def sweeps(self, after: str | None = None, first: int | None = None, filters: str | None = None) -> dict[str, Any]:
        return page(self._sweeps(filters), after=after, first=first, wrap=lambda sweep: SweepNode(self._context, sweep))

    def artifact_type(self, name: str) -> ArtifactTypeNode | None:
        known = {kind for kind, _ in self._context.store.collections(self._project.pk)}
        return ArtifactTypeNode(self._context, self._project, name) if name in known else None

    def artifact_types(self, after: str | None = None, first: int | None = None) -> dict[str, Any]:
        known = sorted({kind for kind, _ in self._context.store.collections(self._project.pk)})
        return page(
            known, after=after, first=first, wrap=lambda kind: ArtifactTypeNode(self._context, self._project, kind)
        )

    def artifact_collection(self, name: str) -> CollectionNode | None:
        kinds = [kind for kind, found in self._context.store.collections(self._project.pk) if found == name]
        return CollectionNode(self._context, self._project, kinds[0], name) if kinds else None

    def artifact_collection_membership(self, name: str) -> dict[str, Any] | None:
        collection, _, alias = name.partition(":")
        found = self.artifact_collection(collection)
        return found.artifact_membership(alias or "latest") if found else None

    def artifact(self, name: str) -> ArtifactNode | None:
        found = by_name(self._context.store, self._project.pk, name)
        return ArtifactNode(self._context, found) if found else None

    def total_sweeps(self) -> int:
        return len(self._sweeps(None))

    def _sweeps(self, text: str | None) -> list[Sweep]:
        wanted = filters.read_filters(text)
        unknown = set(wanted) - {"state", "name", "displayName"}
        if unknown:
            raise Refused(f"sweeps can be filtered by state, name and displayName, not by {', '.join(sorted(unknown))}")
        return [
            sweep
            for sweep in self._context.store.sweeps(self._project.pk)
            if str(wanted.get("state", sweep.state)).upper() == sweep.state
            and wanted.get("name", sweep.id) == sweep.id
            and wanted.get("displayName", sweep.display_name) == sweep.display_name
        ]


def find_runs(store: Reader, project: Project, wanted: Mapping[str, Any]) -> list[filters.Fields]:
    """Return the project's runs that filters let through, oldest first."""
    test = filters.predicate(wanted)
    sweeps = {sweep.pk: sweep.id for sweep in store.sweeps(project.pk)}
    sweep_id = filters.sweep_of(wanted)
    if sweep_id is None:
        runs = store.runs(project.pk)
    else:
        sweep = store.sweep(project.pk, sweep_id)
        runs = store.runs_of_sweep(sweep.pk) if sweep else []
    every = (filters.Fields(run, sweeps.get(run.sweep or 0)) for run in runs)
    return [fields for fields in every if test(fields)]


class SweepNode:
    """A sweep."""

    early_stop_job_running = False
    controller_run_name = None

    def __init__(self, context: Context, sweep: Sweep) -> None:
        self._context = context
        self._sweep = sweep
        self.id = global_id("Sweep", sweep.pk)
        self.name = sweep.id
        self.state = sweep.state
        self.config = sweep.config
        self.display_name = sweep.display_name
        self.description = sweep.description
        self.controller = sweep.controller
        self.scheduler = sweep.scheduler
        self.created_at = iso_time(sweep.created_at)
        self.updated_at = iso_time(sweep.updated_at)
        self.heartbeat_at = iso_time(sweep.heartbeat_at)
        self.unknown_facts = sweep.unknown_facts

    def method(self) -> str:
        return read_config(self._sweep.config).method

    def best_loss(self) -> float | None:
        metric = read_config(self._sweep.config).metric
        values = [value for curve in self._context.store.curves(self._sweep.pk).values() for value in curve]
        if metric is None or not values:
            return None
        return max(values) if metric.goal == "maximize" else min(values)

    def run_count(self) -> int:
        return self._context.store.count_runs_of_sweep(self._sweep.pk)

    def run_count_expected(self) -> int | None:
        config = read_config(self._sweep.config)
        bounds = [config.run_cap, count_configurations(config) if config.method == "grid" else None]
        return min((bound for bound in bounds if bound is not None), default=None)

    def project(self) -> ProjectNode:
        return ProjectNode(self._context, self._context.store.project_by_key(self._sweep.project))

    def runs(
        self, filters: str | None = None, after: str | None = None, first: int | None = None, order: str | None = None
    ) -> dict[str, Any]:
        found = [f for f in self.project()._found(filters) if f.run.sweep == self._sweep.pk]
        return page(
            _in_order(found, order), after=after, first=first, wrap=lambda each: RunNode(self._context, each.run)
        )

    def agents(self) -> dict[str, Any]:
        found = self._context.store.agents(self._sweep.pk)
        return {"edges": [{"node": AgentNode(self._context, agent)} for agent in found]}

    def agent(self, agent_name: str) -> AgentNode | None:
        found = self._context.store.agents(self._sweep.pk)
        named = (agent for agent in found if agent_name in (agent.name, global_id("Agent", agent.pk)))
        return next((AgentNode(self._context, agent) for agent in named), None)


def _in_order(found: list[filters.Fields], order: str | None) -> list[filters.Fields]:
    return filters.sort(found, order)


class AgentNode:
    """An agent of a sweep."""

    def __init__(self, context: Context, agent: Agent) -> None:
        self._context = context
        self._agent = agent
        self.id = global_id("Agent", agent.pk)
        self.name = agent.name
        self.host = agent.host
        self.created_at = iso_time(agent.created_at)
        self.heartbeat_at = iso_time(agent.heartbeat_at)

    def state(self) -> str:
        age = self._context.coordinator.presence.agent_silent_s(self._agent.pk)
        return "RUNNING" if age is not None and age < self._context.coordinator.limits.unlisted_s else "FINISHED"

    def total_runs(self) -> int:
        return self._context.store.count_runs_of_agent(self._agent.pk)

    def runs(
        self,
        after: str | None = None,
        before: str | None = None,
        first: int | None = None,
        last: int | None = None,
        order: str | None = None,
    ) -> dict[str, Any]:
        every = self._context.store.runs_of_sweep(self._agent.sweep)
        mine = _in_order([filters.Fields(run, None) for run in every if run.agent == self._agent.pk], order)
        if before is not None and before.isdecimal():
            mine = mine[: int(before)]
        if last is not None and first is None:
            after = str(len(mine) - last - 1) if last < len(mine) else None
        return page(mine, after=after, first=first, wrap=lambda each: RunNode(self._context, each.run))


NODES = Nodes(project=ProjectNode, run=RunNode)
