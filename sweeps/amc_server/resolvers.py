"""What the fields of the GraphQL schema mean. Names are the schema's in snake case.

A node is made for one request and lives as long as its snapshot or transaction.
"""

from __future__ import annotations

import fnmatch
import json
import math
import mimetypes
import re
import urllib.parse
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from amc_server import filters
from amc_server.artifacts import ArtifactMutations, ArtifactNode, ArtifactTypeNode, CollectionNode, by_name
from amc_server.context import Context, check_entity, global_id, iso_time, page, read_global_id
from amc_server.coordinator import ENTITY, chosen_from, new_id, read_config
from amc_server.errors import Refused
from amc_server.files import check_name
from amc_server.records import Agent, Line, Project, Run, StoredFile, Sweep, unwrap_config
from amc_server.storage import Reader
from amc_sweeps.run_states import RunState
from amc_sweeps.sweep_config import count_configurations

SAMPLES = 500  # rows of history when the client does not say how many
LINES = 10_000  # of console log in one reply, at most
KEY_ROWS = 1000  # rows of history that historyKeys looks at
FEATURES = ("SWEEPS_QUERY_FILTERING", "SWEEPS_LOCAL_SCHEDULER", "MARK_RUN_FILES_UPLOADED")

_CONSOLE_LINE = re.compile(r"(?P<level>ERROR )?(?P<timestamp>\d{4}-\d\d-\d\dT[\d:.]+) (?P<line>.*)", re.DOTALL)


def sampled(rows: Sequence[Any], samples: int | None) -> list[Any]:
    """Return at most so many rows, evenly spread, with the first and the last."""
    wanted = SAMPLES if samples is None else max(samples, 1)
    if len(rows) <= wanted:
        return list(rows)
    if wanted == 1:
        return [rows[-1]]
    return [rows[round(index * (len(rows) - 1) / (wanted - 1))] for index in range(wanted)]


def without_bare_nan(value: Any) -> Any:
    """Return a value that strict JSON can hold: NaN and the infinities as the texts that W&B gives for them."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {key: without_bare_nan(item) for key, item in value.items()}
    return [without_bare_nan(item) for item in value] if isinstance(value, list) else value


def at_path(row: Mapping[str, Any], path: str) -> Any:
    """Return a row's value; a dot in the path may also stand for nesting. None where there is none."""
    if path in row:
        return row[path]
    value: Any = row
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


# --- queries --------------------------------------------------------------------------------------------------------


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


class UserNode:
    """The one user there is."""

    id = global_id("User", 1)
    name = username = entity = ENTITY
    email = deleted_at = None
    admin = True
    flags = "{}"

    def api_keys(self) -> dict[str, Any]:
        return {"edges": []}

    def teams(self) -> dict[str, Any]:
        return {"edges": [{"node": EntityNode(ENTITY)}]}


class EntityNode:
    """The one entity there is."""

    id = global_id("Entity", 1)
    organization = None
    xxhash_digests_enabled = False

    def __init__(self, name: str) -> None:
        self.name = name


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
        return RunNode(self._context, found) if found and (found.started or found.history_lines) else None

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


class RunNode:
    """A run."""

    __typename = "Run"  # where the schema allows several
    read_only = False

    def __init__(self, context: Context, run: Run) -> None:
        self._context = context
        self._run = run
        self.id = global_id("Run", run.pk)
        self.name = run.id
        self.display_name = run.display_name
        self.project_id = str(run.project)
        self.state = run.state
        self.config = run.config
        self.summary_metrics = run.summary
        self.group = run.group_name
        self.job_type = run.job_type
        self.commit = run.git_commit
        self.description = run.description
        self.notes = run.notes
        self.host = run.host
        self.created_at = iso_time(run.created_at)
        self.heartbeat_at = iso_time(run.heartbeat_at)
        self.exitcode = run.exit_code
        self.should_stop = run.stop_recorded
        self.stopped = run.where is RunState.KILLED
        self.failed = run.where in (RunState.FAILED, RunState.CRASHED)
        self.running = run.where in (RunState.RUNNING, RunState.PREEMPTING)
        self.stop_reason = run.stop_reason
        self.stop_band = run.stop_band
        self.stop_value = run.stop_value
        self.stop_threshold = run.stop_threshold
        self.history_line_count = run.history_lines
        self.events_line_count = run.event_lines
        self.log_line_count = run.console_lines

    def tags(self) -> list[str]:
        return list(json.loads(self._run.tags))

    def user(self) -> UserNode:
        return UserNode()

    def project(self) -> ProjectNode:
        return ProjectNode(self._context, self._context.store.project_by_key(self._run.project))

    def sweep_name(self) -> str | None:
        sweep = self._context.store.sweep_by_key(self._run.sweep) if self._run.sweep is not None else None
        return sweep.id if sweep else None

    def system_metrics(self) -> str:
        return self._context.store.events_tail(self._run.pk) or "{}"

    def history_tail(self) -> str:
        tail = self._context.store.history_tail(self._run.pk)
        return json.dumps([tail] if tail else [])

    def events_tail(self) -> str:
        tail = self._context.store.events_tail(self._run.pk)
        return json.dumps([tail] if tail else [])

    def wandb_config(self, keys: list[str] | None = None) -> str | None:
        """Return the client's own part of the config; its ``t`` tells the client that the run has been begun."""
        own = json.loads(self._run.config).get("_wandb")
        value = own.get("value", own) if isinstance(own, Mapping) else {}
        return json.dumps({key: value[key] for key in keys or value if key in value})

    def history_keys(self) -> dict[str, Any]:
        last_step = self._context.store.last_step(self._run.pk)
        counts: dict[str, dict[str, int]] = {}
        for text in self._context.store.history(self._run.pk, limit=KEY_ROWS):
            for key, value in json.loads(text).items():
                kinds = counts.setdefault(key, {})
                kind = "number" if isinstance(value, int | float) and not isinstance(value, bool) else "other"
                kinds[kind] = kinds.get(kind, 0) + 1
        keys = {
            key: {"typeCounts": [{"type": kind, "count": count} for kind, count in kinds.items()]}
            for key, kinds in counts.items()
        }
        return {"lastStep": -1 if last_step is None else last_step, "keys": keys}

    def history(
        self, samples: int | None = None, min_step: int | None = None, max_step: int | None = None
    ) -> list[str]:
        """Return rows as JSON texts: a sample of all, or every one of ``min_step <= _step < max_step``."""
        if min_step is None and max_step is None:
            return sampled(self._context.store.history(self._run.pk), samples)
        limit = -1 if samples is None else samples
        return self._context.store.history(self._run.pk, min_step=min_step, max_step=max_step, limit=limit)

    def events(self, samples: int | None = None) -> list[str]:
        return sampled(self._context.store.events(self._run.pk), samples)

    def sampled_history(self, specs: list[str]) -> list[list[dict[str, Any]]]:
        """Return, for every spec, rows that hold all of its keys."""
        return [self._sample(_spec(text)) for text in specs]

    def _sample(self, spec: Mapping[str, Any]) -> list[dict[str, Any]]:
        keys = list(dict.fromkeys(spec.get("keys") or []))
        max_step = spec.get("maxStep")
        texts = self._context.store.history(
            self._run.pk, min_step=spec.get("minStep"), max_step=None if max_step is None else max_step + 1
        )
        found = []
        for text in texts:
            row = json.loads(text)
            values = {key: at_path(row, key) for key in keys} if keys else row
            if all(value is not None for value in values.values()):
                found.append(without_bare_nan(values))
        return sampled(found, spec.get("samples"))

    def parquet_history(self, live_keys: list[str]) -> dict[str, Any]:
        """Return that nothing has been exported to Parquet: the client then reads the history itself."""
        return {"parquet_urls": [], "live_data": []}

    def log_lines(
        self,
        first: int | None = None,
        after: str | None = None,
        last: int | None = None,
        use_improved_pagination: bool | None = None,
    ) -> dict[str, Any]:
        store = self._context.store
        if last is not None:
            lines = store.console_tail(self._run.pk, min(max(last, 0), LINES))
            has_more = False
        else:
            start = int(after) if after is not None and after.isdecimal() else -1
            count = LINES if first is None else min(max(first, 0), LINES)
            lines = store.console(self._run.pk, after=start, limit=count + 1)
            lines, has_more = lines[:count], len(lines) > count
        edges = [{"node": log_line(line), "cursor": str(line.number)} for line in lines]
        return {
            "edges": edges,
            "page_info": {"end_cursor": edges[-1]["cursor"] if edges else None, "has_next_page": has_more},
        }

    def output_artifacts(self, after: str | None = None, first: int | None = None) -> dict[str, Any]:
        found = [each for each in self._context.store.artifacts_of_run(self._run.pk) if each.is_committed]
        return page(found, after=after, first=first, wrap=lambda each: ArtifactNode(self._context, each))

    def input_artifacts(self, after: str | None = None, first: int | None = None) -> dict[str, Any]:
        found = self._context.store.artifacts_used_by(self._run.pk)
        return page(found, after=after, first=first, wrap=lambda each: ArtifactNode(self._context, each))

    def file_count(self) -> int:
        return len(self._context.store.files(self._run.pk))

    def files(
        self,
        names: list[str] | None = None,
        after: str | None = None,
        first: int | None = None,
        pattern: str | None = None,
    ) -> dict[str, Any]:
        found = self._context.store.files(self._run.pk)
        if names:
            found = [file for file in found if file.name in names]
        if pattern:  # SQL's LIKE
            globbed = re.sub(r"([\[\]?*])", r"[\1]", pattern).replace("%", "*").replace("_", "?")
            found = [file for file in found if fnmatch.fnmatchcase(file.name, globbed)]
        return page(found, after=after, first=first, wrap=lambda file: FileNode(self._context, self, file))


def _spec(text: str) -> Mapping[str, Any]:
    try:
        spec = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refused(f"a history spec is not JSON: {error}") from error
    if not isinstance(spec, dict):
        raise Refused("a history spec is a JSON object with keys and samples")
    for name in ("minStep", "maxStep", "samples"):
        if not isinstance(spec.get(name, 0), int | None):
            raise Refused(f"{name} of a history spec is a whole number")
    keys = spec.get("keys") or []
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise Refused("keys of a history spec is a list of names")
    return spec


def log_line(line: Line) -> dict[str, Any]:
    """Split off what the client put in front of a console line: ``ERROR`` for stderr, and when it was written."""
    match = _CONSOLE_LINE.fullmatch(line.body)
    if match is None:
        return {"number": line.number, "timestamp": None, "level": "info", "label": "", "line": line.body}
    return {
        "number": line.number,
        "timestamp": match["timestamp"],
        "level": "error" if match["level"] else "info",
        "label": "",
        "line": match["line"].rstrip("\n"),
    }


class FileNode:
    """A file of a run."""

    storage_path = upload_url = upload_multipart_urls = artifact = None
    upload_headers: Sequence[str] = ()

    def __init__(self, context: Context, run: RunNode, file: StoredFile) -> None:
        self._context = context
        self._run = run
        self._file = file
        self.id = global_id("File", file.pk)
        self.name = file.name
        self.size_bytes = file.size
        self.display_name = file.name
        self.md5 = self.digest = file.md5
        self.updated_at = iso_time(file.updated_at)
        self.mimetype = mimetypes.guess_type(file.name)[0] or "application/octet-stream"

    def url(self, upload: bool | None = None) -> str:
        if upload:
            return upload_url(self._context, self._file.run, self._file.name)
        project = self._run.project()
        path = "/".join(
            urllib.parse.quote(part, safe="") for part in (project.entity_name, project.name, self._run.name)
        )
        return f"{self._context.base_url}/files/{path}/{urllib.parse.quote(self._file.name)}"

    def direct_url(self) -> str:
        return self.url()


def upload_url(context: Context, run: int, name: str) -> str:
    """Return where the client may put one file; it sends no key there."""
    return f"{context.base_url}/storage/{context.gate.sign_upload(run=run, name=name)}"


# --- mutations ------------------------------------------------------------------------------------------------------


class MutationRoot(ArtifactMutations):
    """The fields of ``Mutation``. An input that is missing or null leaves things as they are."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._coordinator = context.coordinator

    def upsert_model(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002 - the schema's name
        check_entity(input)
        store = self._context.writer
        name = input.get("name")
        inserted = store.project(ENTITY, name or "uncategorized") is None
        project = self._coordinator.project(store, name)
        if input.get("description") is not None:
            store.update("projects", project.pk, description=input["description"])
        node = ProjectNode(self._context, store.project_by_key(project.pk))
        return {"project": node, "model": node, "inserted": inserted}

    def upsert_sweep(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002
        check_entity(input)
        store = self._context.writer
        columns = {
            "display_name": input.get("displayName"),
            "description": input.get("description"),
            "controller": input.get("controller"),
            "scheduler": input.get("scheduler"),
        }
        config, state = input.get("config"), input.get("state")
        if input.get("id") is not None:
            sweep = self._sweep(input["id"])
            sweep = self._coordinator.update_sweep(store, sweep, config=config, state=state, **columns)
        else:
            if config is None:
                raise Refused("a new sweep needs its config")
            project = self._coordinator.project(store, input.get("projectName"))
            sweep = self._coordinator.create_sweep(store, project, config, **columns)
        if input.get("priorRunsFilters"):
            wanted = filters.read_filters(input["priorRunsFilters"])
            found = find_runs(store, store.project_by_key(sweep.project), wanted)
            self._coordinator.adopt(store, sweep, [fields.run for fields in found])
        return {"sweep": SweepNode(self._context, sweep), "config_validation_warnings": []}

    def create_agent(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002
        check_entity(input)
        store = self._context.writer
        project = store.project(ENTITY, input.get("projectName") or "uncategorized")
        sweep = store.sweep(project.pk, input["sweep"]) if project else None
        if sweep is None:
            raise Refused(f"there is no sweep {input['sweep']} in project {input.get('projectName')}")
        agent = self._coordinator.create_agent(store, sweep, input["host"])
        return {"agent": AgentNode(self._context, agent)}

    def agent_heartbeat(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002
        store = self._context.writer
        agent = store.agent_by_key(read_global_id("Agent", input["id"]))
        if agent is None:
            # The client takes 404 as "the sweep was deleted" and ends the agent.
            raise Refused("there is no such agent: its sweep was deleted", status=404)
        states = _object(input.get("runState"), "runState")
        commands = self._coordinator.heartbeat(store, agent, [run for run, lives in states.items() if lives])
        return {"agent": AgentNode(self._context, agent), "commands": json.dumps(commands)}

    def enqueue_sweep_run(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002
        store = self._context.writer
        config = _object(input["config"], "config")
        run = self._coordinator.enqueue(store, self._sweep(input["id"]), config, input.get("displayName"))
        return {"id": run.id, "run_queue_item_id": global_id("RunQueueItem", run.pk)}

    def upsert_bucket(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002
        """Take a run's own account of itself: from its trial by name, from a person through the API by global id."""
        check_entity(input)
        changes = _run_changes(input)
        if input.get("id") is not None:
            run = self._run(input["id"])
            self._context.writer.update("runs", run.pk, **changes)
            return {"bucket": RunNode(self._context, self._run(input["id"])), "inserted": False}
        run, inserted = self._upsert_by_trial(input, changes)
        return {"bucket": RunNode(self._context, run), "inserted": inserted}

    def _upsert_by_trial(self, input: Mapping[str, Any], changes: dict[str, Any]) -> tuple[Run, bool]:  # noqa: A002
        store, coordinator = self._context.writer, self._coordinator
        project = coordinator.project(store, input.get("modelName"))
        run_id = input.get("name") or new_id()
        if "/" in run_id or not run_id.strip() or len(run_id) > 128 or not run_id.isprintable():
            raise Refused(f"{run_id[:140]!r} cannot be a run's id: 1 to 128 printable characters without a slash")
        run = store.run(project.pk, run_id)
        is_begun = input.get("state") != "pending"  # the API can make runs that wait for their trial
        if run is None:
            sweep = store.sweep(project.pk, input["sweep"]) if input.get("sweep") else None
            pk = store.insert(
                "runs",
                project=project.pk,
                id=run_id,
                sweep=sweep.pk if sweep else None,
                parameters=_chosen_by_itself(sweep, changes) if sweep else None,
                origin="trial",
                state=(RunState.RUNNING if is_begun else RunState.PENDING).value,
                display_name=input.get("displayName") or run_id,
                created_at=coordinator.clock.wall(),
            )
            run = store.run_by_key(pk)
            assert run is not None
            inserted = True
        else:
            inserted = not run.started
            if run.exit_code is not None or run.given_up:  # it has ended and begins again
                changes |= {"exit_code": None, "preempting": 0, "given_up": 0, "ended_at": None}
                changes |= dict.fromkeys(("stop_reason", "stop_at", "stop_band", "stop_value", "stop_threshold"))
        if is_begun:
            changes["started"] = 1
        return coordinator.conclude(store, coordinator.heard(store, run, **changes)), inserted

    def stop_run(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002
        self._coordinator.stop(self._context.writer, self._run(input["id"]), "user")
        return {"success": True}

    def delete_run(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002
        store = self._context.writer
        run = self._run(input["id"])
        self._context.discarded.extend(file.blob for file in store.files(run.pk))
        if input.get("deleteArtifacts"):
            for artifact in store.artifacts_of_run(run.pk):
                self._delete_artifact(artifact)
        store.delete("runs", run.pk)
        self._coordinator.presence.forget(run.pk)
        return {"client_mutation_id": None}

    def update_run_state(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002
        store = self._context.writer
        run, wanted = self._run(input["id"]), input["state"]
        allowed = {
            "pending": (RunState.RUNNING, RunState.FAILED, RunState.CRASHED, RunState.PREEMPTED),
            "failed": (RunState.PENDING, RunState.RUNNING),
        }
        if run.sweep is not None:
            raise Refused("the state of a sweep's run follows from what happens to it and cannot be set")
        if run.where not in allowed.get(wanted, ()):
            raise Refused(f"a run that is {run.state} cannot be made {wanted!r}")
        changes = {"started": 0, "exit_code": None, "preempting": 0, "given_up": int(wanted == "failed")}
        store.update("runs", run.pk, **changes)
        self._coordinator.conclude(store, self._run(input["id"]))
        return {"success": True}

    def create_run_files(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002
        run = self._run_of_files(input)
        files = [
            {"name": name, "upload_url": upload_url(self._context, run.pk, check_name(name))} for name in input["files"]
        ]
        return {"run_id": global_id("Run", run.pk), "upload_headers": [], "files": files}

    def mark_run_files_uploaded(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002
        """Agree: a file is a run's from the moment that its bytes are here."""
        self._run_of_files(input)
        return {"success": True}

    def delete_files(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002
        store = self._context.writer
        for text in input["files"]:
            pk = read_global_id("File", text)
            blob = store.blob_of_file(pk)
            if blob is not None:
                self._context.discarded.append(blob)
                store.delete("files", pk)
        return {"success": True}

    def _run_of_files(self, input: Mapping[str, Any]) -> Run:  # noqa: A002
        check_entity(input)
        store = self._context.writer
        project = store.project(ENTITY, input["projectName"])
        run = store.run(project.pk, input["runName"]) if project else None
        if run is None:
            raise Refused(f"there is no run {input['projectName']}/{input['runName']}")
        return run

    def _sweep(self, text: str) -> Sweep:
        sweep = self._context.store.sweep_by_key(read_global_id("Sweep", text))
        if sweep is None:
            raise Refused("the sweep is not there any more", status=404)
        return sweep

    def _run(self, text: str) -> Run:
        run = self._context.store.run_by_key(read_global_id("Run", text))
        if run is None:
            raise Refused("the run is not there any more", status=404)
        return run


def _run_changes(input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002
    columns = {
        "displayName": "display_name",
        "groupName": "group_name",
        "jobType": "job_type",
        "description": "description",
        "notes": "notes",
        "host": "host",
        "jobProgram": "program",
        "jobRepo": "repo",
        "commit": "git_commit",
    }
    changes: dict[str, Any] = {column: input[name] for name, column in columns.items() if input.get(name) is not None}
    if input.get("config") is not None:
        changes["config"] = json.dumps(_object(input["config"], "config"))
    if input.get("summaryMetrics") is not None:
        changes["summary"] = json.dumps(_object(input["summaryMetrics"], "summaryMetrics"))
    if input.get("tags") is not None:
        changes["tags"] = json.dumps(input["tags"])
    return changes


def _chosen_by_itself(sweep: Sweep, changes: Mapping[str, Any]) -> str:
    """Return, as JSON, the sweep's parameters in the config of a run that joined the sweep without being handed out."""
    values = unwrap_config(json.loads(changes.get("config", "{}")))
    return json.dumps(chosen_from(values, read_config(sweep.config)))


def _object(text: str | None, what: str) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except (ValueError, TypeError, RecursionError) as error:
        raise Refused(f"{what} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise Refused(f"{what} is a JSON object")
    return value
