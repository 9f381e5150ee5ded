"""The root of queries, and the nodes of projects, sweeps and agents.

Names are the schema's in snake case. A node is made for one request and uses that request's snapshot or transaction.
"""

from __future__ import annotations

import shlex
from typing import Any

from amc_server.clients import NEWEST_TESTED, OLDEST_TESTED
from amc_server.clock import iso_time
from amc_server.errors import Refused
from amc_server.graphql.artifact_nodes import (
    ArtifactNode,
    ArtifactTypeNode,
    CollectionNode,
    find_artifact,
    page_of_collections,
)
from amc_server.graphql.context import Context, EntityNode, Nodes, UserNode, page
from amc_server.graphql.filters import Fields, find_runs, predicate, read_filters, sort
from amc_server.graphql.run_nodes import RunNode
from amc_server.ids import global_id, read_collection_id, read_global_id
from amc_server.scheduling.sweep_updates import ProposedUpdate, propose
from amc_server.store.records import ENTITY, LATEST, Agent, Project, Run, Sweep
from amc_sweeps.bounded_texts import strict_object
from amc_sweeps.grammar.configurations import expected_runs
from amc_sweeps.grammar.parse import NO_SCHEDULER
from amc_sweeps.values import is_32_bit

FEATURES = ("SWEEPS_QUERY_FILTERING", "SWEEPS_LOCAL_SCHEDULER", "MARK_RUN_FILES_UPLOADED")
FIRST_HEARTBEAT_S = 60.0  # from an agent's registration to its first heartbeat; it sends one every 5 s


class QueryRoot:
    """The fields of ``Query``."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def viewer(self) -> UserNode:
        self._context.client_began()
        return UserNode()

    def server_info(self) -> dict[str, Any]:
        return {
            "features": [{"name": name, "is_enabled": True} for name in FEATURES],
            "cli_version_info": {"min_cli_version": OLDEST_TESTED, "max_cli_version": NEWEST_TESTED},
            "latest_local_version_info": None,
        }

    def entity(self, name: str | None = None) -> EntityNode | None:
        return EntityNode() if name in (None, "", ENTITY) else None

    def project(self, name: str | None = None, entity_name: str | None = None) -> ProjectNode | None:
        if entity_name not in (None, "", ENTITY):
            return None
        project = self._context.store.project(ENTITY, name or "uncategorized")
        return ProjectNode(self._context, project) if project else None

    def model(self, name: str | None = None, entity_name: str | None = None) -> ProjectNode | None:
        return self.project(name, entity_name)

    def artifact(self, id: str) -> ArtifactNode | None:  # noqa: A002 - the schema's name
        artifact = self._context.store.artifact(read_global_id("Artifact", id))
        return ArtifactNode(self._context, artifact) if artifact else None

    def artifact_collection(self, id: str) -> CollectionNode | None:  # noqa: A002
        project, name = read_collection_id(id)
        kinds = [kind for kind, collection in self._context.store.collections(project) if collection == name]
        if not kinds:
            return None
        return CollectionNode(self._context, self._context.store.project_by_key(project), kinds[0], name)

    def client_id_mapping(self, client_id: str) -> dict[str, str] | None:
        """Return the id of the version that a client knows by its own id; a reference to its file needs it."""
        artifact = self._context.store.artifact_of_client(client_id)
        return {"server_id": global_id("Artifact", artifact.pk)} if artifact else None

    def models(
        self, entity_name: str | None = None, after: str | None = None, first: int | None = None
    ) -> dict[str, Any]:
        projects = self._context.store.projects(ENTITY) if entity_name in (None, "", ENTITY) else []
        return page(projects, after=after, first=first, wrap=lambda project: ProjectNode(self._context, project))


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
        return EntityNode()

    def user(self) -> UserNode:
        return UserNode()

    def run(self, name: str, desc: str | None = None) -> RunNode | None:
        run = self._context.store.run(self._project.pk, name)
        return RunNode(self._context, run) if run else None

    def bucket(self, name: str, missing_ok: bool | None = None, desc: str | None = None) -> RunNode | None:
        """Return the run for a resume; None for a run that was only handed out."""
        run = self._context.store.run(self._project.pk, name)
        # A run that was preempted in its first epoch has no history, but its trial has written its config.
        has_begun = run and (run.started or run.history_lines or "_wandb" in run.wrapped_config)
        return RunNode(self._context, run) if run and has_begun else None

    def runs(
        self, filters: str | None = None, after: str | None = None, first: int | None = None, order: str | None = None
    ) -> dict[str, Any]:
        return self.page_of_runs(None, filters, order, after, first)

    def page_of_runs(
        self, sweep: int | None, filters: str | None, order: str | None, after: str | None, first: int | None
    ) -> dict[str, Any]:
        """Return a page of the runs that match, or of those that are also of a sweep."""
        runs_by_key: dict[int, Run] = {}

        def search() -> list[int]:
            runs = [fields for fields in self.matching_runs(filters) if sweep in (None, fields.run.sweep)]
            runs_by_key.update({fields.run.pk: fields.run for fields in runs})
            return [fields.run.pk for fields in sort(runs, order)]

        query = (self._project.pk, sweep, filters, order)
        lists = self._context.matches  # a document may ask for one list many times
        if query not in lists:
            lists[query] = self._context.run_lists.find(query, search, is_next_page=after is not None)

        def node(pk: int) -> RunNode | None:
            run = runs_by_key.get(pk) or self._context.store.run_by_key(pk)
            return RunNode(self._context, run) if run else None  # deleted since the first page

        result = page(lists[query], after=after, first=first, wrap=node)
        return {**result, "edges": [edge for edge in result["edges"] if edge["node"] is not None]}

    def run_count(self, filters: str | None = None) -> int:
        query = (self._project.pk, "count", filters)
        lists, is_next_page = self._context.run_lists, self._context.is_next_page
        return lists.find(query, lambda: [len(self.matching_runs(filters))], is_next_page=is_next_page)[0]

    def matching_runs(self, text: str | None) -> list[Fields]:
        """Return the runs that match the filters, oldest first."""
        matches, key = self._context.matches, (self._project.pk, text)
        if key not in matches:  # the client asks for a page and for the number of all runs in one document
            matches[key] = find_runs(self._context.store, self._project, read_filters(text))
        runs: list[Fields] = matches[key]
        return runs

    def sweep(self, sweep_name: str) -> SweepNode | None:
        sweep = self._context.store.sweep(self._project.pk, sweep_name)
        return SweepNode(self._context, sweep) if sweep else None

    def sweeps(self, after: str | None = None, first: int | None = None, filters: str | None = None) -> dict[str, Any]:
        return page(self._sweeps(filters), after=after, first=first, wrap=lambda sweep: SweepNode(self._context, sweep))

    def artifact_type(self, name: str) -> ArtifactTypeNode | None:
        return ArtifactTypeNode(self._context, self._project, name) if name in self._artifact_types() else None

    def artifact_types(self, after: str | None = None, first: int | None = None) -> dict[str, Any]:
        types = sorted(self._artifact_types())
        return page(
            types, after=after, first=first, wrap=lambda kind: ArtifactTypeNode(self._context, self._project, kind)
        )

    def _artifact_types(self) -> set[str]:
        return {kind for kind, _ in self._context.store.collections(self._project.pk)}

    def artifact_collection(self, name: str) -> CollectionNode | None:
        collections = self._context.store.collections(self._project.pk)
        kinds = [kind for kind, collection in collections if collection == name]
        return CollectionNode(self._context, self._project, kinds[0], name) if kinds else None

    def artifact_collections(
        self,
        after: str | None = None,
        first: int | None = None,
        filters: str | None = None,
        order: str | None = None,
    ) -> dict[str, Any]:
        names = self._context.store.collections(self._project.pk)
        collections = [CollectionNode(self._context, self._project, kind, name) for kind, name in names]
        return page_of_collections(collections, after, first, filters, order)

    def artifact_collection_membership(self, name: str) -> dict[str, Any] | None:
        collection_name, _, alias = name.partition(":")
        collection = self.artifact_collection(collection_name)
        return collection.artifact_membership(alias or LATEST) if collection else None

    def artifact(self, name: str, enable_tracking: bool | None = None) -> ArtifactNode | None:
        artifact = find_artifact(self._context.store, self._project.pk, name)
        return ArtifactNode(self._context, artifact) if artifact else None

    def total_sweeps(self) -> int:
        return len(self._sweeps(None))

    def _sweeps(self, text: str | None) -> list[Sweep]:
        filters = read_filters(text)
        unknown = set(filters) - {"state", "name", "displayName"}
        if unknown:
            raise Refused(f"sweeps can be filtered by state, name and displayName, not by {', '.join(sorted(unknown))}")
        return [
            sweep
            for sweep in self._context.store.sweeps(self._project.pk)
            if str(filters.get("state", sweep.state)).upper() == sweep.state
            and filters.get("name", sweep.id) == sweep.id
            and filters.get("displayName", sweep.display_name) == sweep.display_name
        ]


class SweepNode:
    """A sweep."""

    early_stop_job_running = False

    def __init__(self, context: Context, sweep: Sweep) -> None:
        self._context = context
        self._sweep = sweep
        self.id = global_id("Sweep", sweep.pk)
        self.name = sweep.id
        self.state = sweep.state
        self.config = sweep.shown_config
        self.display_name = sweep.display_name
        self.description = sweep.shown_description
        self.controller = strict_object(sweep.controller)
        self.scheduler = strict_object(sweep.scheduler)
        self.created_at = iso_time(sweep.created_at)
        self.updated_at = iso_time(sweep.updated_at)
        self.heartbeat_at = iso_time(sweep.heartbeat_at)
        self.unknown_facts = [*sweep.unknown_facts, *(["config"] if sweep.problem else [])]
        self.seed = sweep.known_seed
        self.shuffle = bool(sweep.shuffle)
        self.crashed_runs = sweep.known_policy

    def method(self) -> str:
        config = self._sweep.readable_config
        return config.method if config else "unreadable"

    def controller_run_name(self) -> str:
        """Refuse: of all clients only ``wandb sweep-scheduler`` asks for it, before it begins."""
        path = shlex.quote(f"{ENTITY}/{self.project().name}/{self.name}")
        raise Refused(
            f"the server itself searches sweep {self.name} ({self.method()}). {NO_SCHEDULER}. "
            f"Start agents only: wandb agent {path}"
        )

    def best_loss(self) -> float | None:
        config = self._sweep.readable_config
        metric = config.metric if config else None
        store = self._context.store
        values = [value for curve in store.curves(self._sweep.pk).values() for value in curve]
        values += [value for prior in store.priors_elsewhere(self._sweep.pk) for value in prior.values]
        if metric is None or not values:
            return None
        return max(values) if metric.goal == "maximize" else min(values)

    def run_count(self) -> int:
        return self._context.store.count_runs_of_sweep(self._sweep.pk)

    def run_count_expected(self) -> int | None:
        config = self._sweep.readable_config
        expected = None if config is None else expected_runs(config)
        return expected if is_32_bit(expected) else None

    def updates(self) -> list[dict[str, Any]]:
        """Return the changes of the config, oldest first, each with the config before it."""
        updates = self._context.store.sweep_updates(self._sweep.pk)
        return [{"at": iso_time(item.at), "author": item.author, "config": item.shown_config} for item in updates]

    def proposed_update(self, config: str) -> ProposedUpdate:
        return propose(self._context.store, self._sweep, config)

    def project(self) -> ProjectNode:
        return ProjectNode(self._context, self._context.store.project_by_key(self._sweep.project))

    def runs(
        self, filters: str | None = None, after: str | None = None, first: int | None = None, order: str | None = None
    ) -> dict[str, Any]:
        return self.project().page_of_runs(self._sweep.pk, filters, order, after, first)

    def prior_runs(
        self, filters: str | None = None, after: str | None = None, first: int | None = None, order: str | None = None
    ) -> dict[str, Any]:
        """Return the runs that were made outside of the sweep and that its search learns from."""
        matches = predicate(read_filters(filters))
        priors = (Fields(run, None) for run in self._context.store.prior_runs(self._sweep.pk))
        matching = [fields for fields in priors if matches(fields)]
        return page(
            sort(matching, order), after=after, first=first, wrap=lambda fields: RunNode(self._context, fields.run)
        )

    def agents(self) -> dict[str, Any]:
        """Return the agents. A registration that was sent again made a record without an agent: it is left out."""
        agents = self._context.store.agents(self._sweep.pk)
        last_heard: dict[str, float] = {}
        for agent in agents:
            last_heard[agent.host] = max(last_heard.get(agent.host, 0.0), agent.heartbeat_at or 0.0)
        agents = [
            agent
            for agent in agents
            if agent.heartbeat_at is not None or last_heard[agent.host] < agent.created_at + FIRST_HEARTBEAT_S
        ]
        return {"edges": [{"node": AgentNode(self._context, agent)} for agent in agents]}

    def agent(self, agent_name: str) -> AgentNode | None:
        agents = self._context.store.agents(self._sweep.pk)
        candidates = (agent for agent in agents if agent_name in (agent.name, global_id("Agent", agent.pk)))
        return next((AgentNode(self._context, agent) for agent in candidates), None)


class AgentNode:
    """An agent of a sweep."""

    def __init__(self, context: Context, agent: Agent) -> None:
        self._context = context
        self._agent = agent
        self.id = global_id("Agent", agent.pk)
        self.name = agent.name
        self.host = agent.host
        self.created_at = iso_time(agent.created_at)
        self.heartbeat_at = iso_time(agent.heartbeat_at or agent.created_at)  # registering is a sign of life

    def state(self) -> str:
        return "RUNNING" if self._context.agent_is_alive(self._agent.pk) else "FINISHED"

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
        runs = self._context.store.runs_of_sweep(self._agent.sweep)
        own_runs = sort([Fields(run, None) for run in runs if run.agent == self._agent.pk], order)
        if before is not None and before.isdecimal():
            own_runs = own_runs[: int(before)]
        if last is not None and first is None:
            after = str(len(own_runs) - last - 1) if last < len(own_runs) else None
        return page(own_runs, after=after, first=first, wrap=lambda fields: RunNode(self._context, fields.run))


NODES = Nodes(project=ProjectNode, run=RunNode, artifact=ArtifactNode)
