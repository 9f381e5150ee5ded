"""The root of mutations: everything that the client, or a user through the API, may change.

One request is one transaction; a refused mutation changes nothing.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any

from amc_server.errors import Refused
from amc_server.graphql.artifact_mutations import ArtifactMutations
from amc_server.graphql.context import Context, check_entity
from amc_server.graphql.filters import find_runs, read_filters
from amc_server.graphql.query_nodes import AgentNode, ProjectNode, SweepNode
from amc_server.graphql.run_nodes import RunNode
from amc_server.ids import global_id, is_plain_name, new_id, read_global_id
from amc_server.json_texts import json_or_none, read_json_object
from amc_server.scheduling.coordinator import Coordinator
from amc_server.scheduling.prior_runs import named_runs
from amc_server.store.blobs import Blobs, check_name
from amc_server.store.logged_values import swept_values
from amc_server.store.records import ENTITY, Project, Run, Sweep, unwrap_config
from amc_server.store.writer import Writer
from amc_sweeps.grammar.sweep_config import SEEDS, is_seed
from amc_sweeps.runs.run_states import RunState
from amc_sweeps.values import look_up, printable

LONGEST_AUTHOR = 200  # characters
LONGEST_LEASE_S = 30 * 86400.0


class MutationRoot(ArtifactMutations):
    """The fields of ``Mutation``. A missing or null input leaves a value as it is."""

    def __init__(
        self, context: Context, store: Writer, coordinator: Coordinator, blobs: Blobs, discarded: list[str]
    ) -> None:
        """Prepare for one transaction; the arguments are those of ``ArtifactMutations``."""
        super().__init__(context, store, coordinator.clock, blobs, discarded)
        self._coordinator = coordinator

    def upsert_model(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002 - the schema's name
        check_entity(input)
        store, name = self._store, input.get("name")
        inserted = store.project(ENTITY, name or "uncategorized") is None
        project = store.project_or_new(name, self._clock.wall())
        if input.get("description") is not None:
            store.update("projects", project.pk, description=input["description"])
        node = ProjectNode(self._context, store.project_by_key(project.pk))
        return {"project": node, "model": node, "inserted": inserted}

    def upsert_sweep(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002
        check_entity(input)
        store = self._store
        columns = {
            "display_name": input.get("displayName"),
            "description": input.get("description"),
            **{name: json_or_none(input, name) for name in ("controller", "scheduler")},
        }
        config, state = input.get("config"), input.get("state")
        if input.get("id") is not None:
            if any(input.get(name) is not None for name in ("seed", "shuffle", "crashedRuns")):
                raise Refused(
                    "seed, shuffle and crashedRuns are set when a sweep is created, and this one exists already"
                )
            sweep = self._sweep(input["id"])
            author = printable((input.get("author") or "")[:LONGEST_AUTHOR]) or None
            note = {"expected": input.get("expectedConfig"), "author": author}
            sweep = self._coordinator.update_sweep(store, sweep, config=config, state=state, **note, **columns)
        else:
            if config is None:
                raise Refused("a new sweep needs its config")
            repeated = store.sweep_by_key(self._coordinator.created_sweeps.sweep_of(input) or 0)
            if repeated is not None and repeated.config == config:
                return {"sweep": SweepNode(self._context, repeated), "config_validation_warnings": []}
            project = store.project_or_new(input.get("projectName"), self._clock.wall())
            search = {"seed": _seed(input.get("seed")), "shuffle": input.get("shuffle")}
            search["crashed_runs"] = input.get("crashedRuns")
            sweep = self._coordinator.create_sweep(store, project, config, **columns, **search)
            self._coordinator.created_sweeps.created(input, sweep.pk)
        warnings = self._adopt(sweep, read_filters(input.get("priorRunsFilters")))
        warnings += [self._coordinator.adopt_sweep(store, sweep, prior) for prior in self._priors(input, sweep)]
        return {"sweep": SweepNode(self._context, sweep), "config_validation_warnings": warnings}

    def _priors(self, input: Mapping[str, Any], sweep: Sweep) -> list[Sweep]:  # noqa: A002
        priors: dict[int, Sweep] = {}
        for sweep_id in input.get("priorSweeps") or ():
            prior = self._store.sweep_by_id(sweep_id)
            if prior is None:
                raise Refused(f"prior sweep {sweep_id:.60}: there is no such sweep on this server", status=400)
            if prior.pk == sweep.pk:
                raise Refused(f"prior sweep {prior.id}: a sweep cannot start from itself", status=400)
            priors[prior.pk] = prior  # once, however often it is named
        return list(priors.values())

    def _adopt(self, sweep: Sweep, filters: Mapping[str, Any]) -> list[str]:
        """Adopt prior runs, and return what the client shows its user: the runs that do not exist or do not fit."""
        if not filters:
            return []
        store, project = self._store, self._store.project_by_key(sweep.project)
        paths = named_runs(filters)
        if paths is None:
            return self._coordinator.adopt(store, sweep, [fields.run for fields in find_runs(store, project, filters)])
        runs = {path: store.run_at(ENTITY, path.project or project.name, path.run_id) for path in paths}
        warnings = [
            f"prior run {path.text}: project {path.project or project.name} has no such run. "
            "Give the id that ends the address of the run's page."
            for path, run in runs.items()
            if run is None
        ]
        return warnings + self._coordinator.adopt(store, sweep, [run for run in runs.values() if run is not None])

    def create_agent(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002
        check_entity(input)
        store = self._store
        project = store.project(ENTITY, input.get("projectName") or "uncategorized")
        sweep = store.sweep(project.pk, input["sweep"]) if project else None
        if sweep is None:
            raise Refused(f"there is no sweep {input['sweep']} in project {input.get('projectName')}")
        agent = self._coordinator.create_agent(store, sweep, input["host"])
        return {"agent": AgentNode(self._context, agent)}

    def agent_heartbeat(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002
        store = self._store
        agent = store.agent_by_key(read_global_id("Agent", input["id"]))
        if agent is None:
            # After 404 the client ends the agent: it knows then that the sweep was deleted.
            raise Refused("there is no such agent: its sweep was deleted", status=404)
        states = read_json_object(input.get("runState") or "{}", "runState")
        commands = self._coordinator.heartbeat(store, agent, [run for run, is_alive in states.items() if is_alive])
        return {"agent": AgentNode(self._context, agent), "commands": json.dumps(commands)}

    def enqueue_sweep_run(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002
        store = self._store
        config = read_json_object(input["config"] or "{}", "config")
        run = self._coordinator.enqueue(store, self._sweep(input["id"]), config, input.get("displayName"))
        return {"id": run.id, "run_queue_item_id": global_id("RunQueueItem", run.pk)}

    def upsert_bucket(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002
        """Create or change a run: a trial names it by its id, a user through the API by its global id.

        A trial that resumes its run gives the global id, too. Like every trial that begins, it then names its host.
        """
        check_entity(input)
        changes = _run_changes(input)
        if input.get("id") is not None:
            run = self._run(input["id"])
            if _is_trial_begin(input):
                self._begin(run, input, changes)
            else:
                self._store.update("runs", run.pk, **changes)
            run, inserted = self._run(input["id"]), False
        else:
            run, inserted = self._upsert_by_trial(input, changes)
        self._summary_changed(run.pk, changes)
        settings: dict[str, Any] = {"server_messages": []}
        return {"bucket": RunNode(self._context, run), "inserted": inserted, "server_settings": settings}

    def _summary_changed(self, pk: int, changes: Mapping[str, Any]) -> None:
        run = self._store.run_by_key(pk)
        if run is not None and "summary" in changes:
            self._coordinator.summary_changed(self._store, run)

    def _upsert_by_trial(self, input: Mapping[str, Any], changes: dict[str, Any]) -> tuple[Run, bool]:  # noqa: A002
        store, now = self._store, self._clock.wall()
        project = store.project_or_new(input.get("modelName"), now)
        run_id = input.get("name") or new_id()
        if not is_plain_name(run_id):
            raise Refused(f"{run_id[:140]!r} cannot be a run's id: 1 to 128 printable characters without a slash")
        run = store.run(project.pk, run_id)
        has_started = input.get("state") != "pending"  # the API can make runs that wait for their trial
        if run is None:
            sweep = store.sweep(project.pk, input["sweep"]) if input.get("sweep") else None
            pk = store.insert(
                "runs",
                project=project.pk,
                id=run_id,
                sweep=sweep.pk if sweep else None,
                parameters=_parameters(sweep, changes) if sweep else None,
                origin="trial",
                state=(RunState.RUNNING if has_started else RunState.PENDING).value,
                display_name=input.get("displayName") or run_id,
                created_at=now,
            )
            self._fork(project, pk, changes)
            run = store.run_by_key(pk)
            assert run is not None
            inserted = True
        else:
            inserted = not run.started
            if "config" in changes and store.is_shared(run.pk):
                changes["config"] = json.dumps({**run.wrapped_config, **json.loads(changes["config"])})
        return self._begin(run, input, changes, has_started=has_started), inserted

    def _fork(self, project: Project, pk: int, changes: Mapping[str, Any]) -> None:
        """Give a new run that was made by ``fork_from`` the rows of its parent up to the step of the fork."""
        own = json.loads(changes.get("config", "{}")).get("_wandb")
        point = look_up(own, "value.branch_point")
        if not isinstance(point, Mapping):
            return
        parent = self._store.run(project.pk, str(point.get("run_id")))
        if parent is None or not isinstance(point.get("step"), int | float):
            raise Refused(
                f"fork_from: there is no run {str(point.get('run_id'))[:100]!r} in project {project.name!r}, so its "
                "rows cannot be copied. Name a run of this project.",
                status=400,
            )
        lines = self._store.copy_history(parent.pk, pk, last_step=int(point["step"]))
        self._store.update("runs", pk, history_lines=lines)

    def _begin(
        self,
        run: Run,
        input: Mapping[str, Any],  # noqa: A002
        changes: dict[str, Any],
        *,
        has_started: bool = True,
    ) -> Run:
        # A late change, or one that is sent again after the last post, starts no run again.
        if _is_trial_begin(input) and (run.state.is_terminal or run.exit_code is not None or run.given_up):
            changes |= {"exit_code": None, "preempting": 0, "given_up": 0, "ended_at": None}
            changes |= dict.fromkeys(("stop_reason", "stop_at", "stop_band", "stop_value", "stop_threshold"))
        if has_started:
            changes["started"] = 1
        return self._coordinator.runs.trial_reported(self._store, run, **changes)

    def rewind_run(self, input: Mapping[str, Any]) -> None:  # noqa: A002
        raise Refused(
            "this server rewinds no run, because rows would be deleted. Begin a new run from that step: "
            f'wandb.init(fork_from="{input["runName"]}?_step={input["metricValue"]:g}")'
        )

    def notify_scriptable_run_alert(self, input: Mapping[str, Any]) -> None:  # noqa: A002
        raise Refused(
            f"run.alert: nobody is notified of {input['title'][:100]!r}, because this server sends no mail and no "
            "messages. Print it, or log a metric."
        )

    def stop_run(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002
        self._coordinator.runs.stop(self._store, self._run(input["id"]), "user")
        return {"success": True}

    def lease_run(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002
        check_entity(input)
        if not 0 < input["seconds"] <= LONGEST_LEASE_S:
            raise Refused(f"a lease of {input['seconds']:g} s is not allowed; allowed: up to 30 days", status=400)
        self._coordinator.runs.lease(self._store, self._named_run(input), input["seconds"])
        return {"success": True}

    def give_back_run(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002
        check_entity(input)
        self._coordinator.runs.give_back(self._store, self._named_run(input))
        return {"success": True}

    def delete_run(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002
        """Delete a run. One that is deleted already is no error: the first reply may have been lost."""
        store = self._store
        run = store.run_by_key(read_global_id("Run", input["id"]))
        if run is None:
            return {"client_mutation_id": None}
        self._discarded.extend(file.blob for file in store.files(run.pk))
        if input.get("deleteArtifacts"):
            for artifact in store.artifacts_of_run(run.pk):
                self._discarded.extend(store.delete_artifact(artifact))
        store.delete("runs", run.pk)
        self._coordinator.last_heard.forget(run.pk)
        return {"client_mutation_id": None}

    def update_run_state(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002
        store = self._store
        run, state = self._run(input["id"]), input["state"]
        allowed = {
            "pending": (RunState.RUNNING, RunState.FAILED, RunState.CRASHED, RunState.PREEMPTED),
            "failed": (RunState.PENDING, RunState.RUNNING),
        }
        if run.sweep is not None:
            raise Refused("the state of a sweep's run is inferred by the server and cannot be set")
        if run.state not in allowed.get(state, ()):
            raise Refused(f"a run that is {run.state} cannot be made {state!r}")
        changes = {"started": 0, "exit_code": None, "preempting": 0, "given_up": int(state == "failed")}
        store.update("runs", run.pk, **changes)
        self._coordinator.runs.update_state(store, self._run(input["id"]))
        return {"success": True}

    def create_run_files(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002
        check_entity(input)
        run = self._named_run(input)
        # Signed when the answer is put together, which ends at its bound.
        files = [
            {"name": name, "upload_url": functools.partial(self._context.signed_url, "run-file", run.pk, name)}
            for name in map(check_name, input["files"])
        ]
        return {"run_id": global_id("Run", run.pk), "upload_headers": [], "files": files}

    def mark_run_files_uploaded(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002
        """Confirm; the upload itself has recorded the file."""
        check_entity(input)
        self._named_run(input)
        return {"success": True}

    def delete_files(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002
        store = self._store
        for text in input["files"]:
            pk = read_global_id("File", text)
            blob = store.blob_of_file(pk)
            if blob is not None:
                self._discarded.append(blob)
                store.delete("files", pk)
        return {"success": True}

    def _sweep(self, text: str) -> Sweep:
        sweep = self._store.sweep_by_key(read_global_id("Sweep", text))
        if sweep is None:
            raise Refused("the sweep does not exist any more", status=404)
        return sweep

    def _run(self, text: str) -> Run:
        run = self._store.run_by_key(read_global_id("Run", text))
        if run is None:
            raise Refused("the run does not exist any more", status=404)
        return run


def _seed(value: Any) -> int | None:
    if value is not None and not is_seed(value):
        raise Refused(f"seed: {str(value)[:60]} is not allowed; allowed: {SEEDS}", status=400)
    return value


def _is_trial_begin(input: Mapping[str, Any]) -> bool:  # noqa: A002
    """Return whether it comes from ``wandb.init``: only that names the host, a later change does not."""
    return input.get("host") is not None


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
        changes["config"] = json.dumps(read_json_object(input["config"] or "{}", "config"))
    if input.get("summaryMetrics") is not None:
        changes["summary"] = json.dumps(read_json_object(input["summaryMetrics"] or "{}", "summaryMetrics"))
    if input.get("tags") is not None:
        changes["tags"] = json.dumps(input["tags"])
    return changes


def _parameters(sweep: Sweep, changes: Mapping[str, Any]) -> str:
    """Return, as JSON, the sweep's parameters in the config of a run that joined without being handed out."""
    values, config = unwrap_config(json.loads(changes.get("config", "{}"))), sweep.readable_config
    return json.dumps(swept_values(values, config) if config else {})
