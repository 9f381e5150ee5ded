"""The root of mutations: what the client, or a person through the API, may change.

All that one request changes is one transaction; a mutation that is refused leaves nothing of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from amc_server.errors import Refused
from amc_server.graphql import filters
from amc_server.graphql.artifact_mutations import ArtifactMutations
from amc_server.graphql.context import Context, check_entity
from amc_server.graphql.query_nodes import AgentNode, ProjectNode, SweepNode, find_runs
from amc_server.graphql.run_nodes import RunNode, upload_url
from amc_server.ids import global_id, read_global_id
from amc_server.scheduling.coordinator import ENTITY, chosen_from, new_id, read_config
from amc_server.store.blobs import check_name
from amc_server.store.records import Run, Sweep, unwrap_config
from amc_sweeps.runs.run_states import RunState


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
        """Take a run's own account of itself: from its trial by name, from a person through the API by global id.

        A trial that resumes its run gives the id, too, and as every trial at its beginning, the host that it runs on.
        """
        check_entity(input)
        changes = _run_changes(input)
        if input.get("id") is not None:
            run = self._run(input["id"])
            if _is_a_beginning(input):
                run = self._goes_on(run, input, changes)
            else:
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
        return self._goes_on(run, input, changes, is_begun=is_begun), inserted

    def _goes_on(
        self,
        run: Run,
        input: Mapping[str, Any],  # noqa: A002
        changes: dict[str, Any],
        *,
        is_begun: bool = True,
    ) -> Run:
        has_ended = run.exit_code is not None or run.given_up
        # What was only concluded from silence may be wrong: then it takes a trial's beginning to be a new life.
        if has_ended or (run.where.is_terminal and _is_a_beginning(input)):
            changes |= {"exit_code": None, "preempting": 0, "given_up": 0, "ended_at": None}
            changes |= dict.fromkeys(("stop_reason", "stop_at", "stop_band", "stop_value", "stop_threshold"))
        if is_begun:
            changes["started"] = 1
        coordinator = self._coordinator
        return coordinator.conclude(self._context.writer, coordinator.heard(self._context.writer, run, **changes))

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


def _is_a_beginning(input: Mapping[str, Any]) -> bool:  # noqa: A002
    """Tell a trial's ``wandb.init`` from later changes of its config, and from a person's: only it names the host."""
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
