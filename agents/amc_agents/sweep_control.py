"""Pause, resume, stop and cancel a sweep, as ``wandb sweep --pause`` and the like do.

Pausing and stopping end no run; cancelling ends every living run. W&B and the embedded server agree on that. The wandb
client refuses some changes; ``refusal`` gives the same answers, with what to do instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from amc_sweeps.number_formats import counted
from amc_sweeps.runs.run_states import RunState, SweepState


class SweepControlError(RuntimeError):
    """The sweep cannot be changed like this; the message gives its state and what is possible. Nothing was changed."""


class NoSuchSweepError(SweepControlError):
    """There is no sweep with that path."""

    def __init__(self, path: str) -> None:
        super().__init__(f"there is no sweep {path}: amc-sweep list shows all sweeps")


class Action(StrEnum):
    """A change of a sweep's state."""

    PAUSE = "pause"
    RESUME = "resume"
    STOP = "stop"
    CANCEL = "cancel"


STATE_AFTER: dict[Action, SweepState] = {
    Action.PAUSE: SweepState.PAUSED,
    Action.RESUME: SweepState.RUNNING,
    Action.STOP: SweepState.FINISHED,
    Action.CANCEL: SweepState.CANCELED,
}
_PARTICIPLE = {Action.PAUSE: "paused", Action.RESUME: "resumed", Action.STOP: "stopped", Action.CANCEL: "cancelled"}

_SWEEP_QUERY = """
query Sweep($entity: String, $project: String, $sweep: String!) {
  project(name: $project, entityName: $entity) { sweep(sweepName: $sweep) { %s } } }
"""
# The wandb client's own mutation.
_SET_STATE = """
mutation UpsertSweep($id: ID, $state: String, $entityName: String, $projectName: String) {
  upsertSweep(input: {id: $id, state: $state, entityName: $entityName, projectName: $projectName}) { sweep { name } } }
"""


@dataclass(frozen=True)
class Change:
    """A change that was made to a sweep."""

    path: str  # ENTITY/PROJECT/ID
    action: Action
    before: str  # SweepState
    after: str  # as the server reports it; a resumed sweep that has had no agent yet is PENDING
    alive: int  # runs that were pending, running or preempting before the change

    @property
    def is_new(self) -> bool:
        return self.before != self.after

    def summary(self) -> str:
        """Return what happens next, to the sweep and to its living runs."""
        state = _PARTICIPLE[self.action] if self.is_new else f"{_PARTICIPLE[self.action]} already"
        runs = counted(self.alive, "living run")
        if self.action is Action.RESUME:
            effect = "agents get configurations again; agents that have ended must be started again"
        elif not self.alive:
            effect = "no run is alive"
        elif self.action is Action.CANCEL:
            effect = (
                f"the server stops {runs}. A trial ends within about a minute, with a checkpoint. "
                "Its run counts as cancelled"
            )
        elif self.action is Action.STOP:
            effect = f"no new run begins, {runs} may finish, then the agents end"
        else:
            effect = f"no new run begins, {runs} may finish, and agents wait until the sweep is resumed"
        return f"sweep {self.path} is {state}: {effect}"


def refusal(state: str, action: Action) -> str | None:
    """Return why a sweep in this state cannot be changed like this, or None. The rules are the wandb client's."""
    if state == STATE_AFTER[action]:
        return None
    if action is Action.PAUSE and state != SweepState.RUNNING:
        is_pending = state == SweepState.PENDING
        reason = "no agent has started it, so there is nothing to pause" if is_pending else "it hands out no runs"
        return f"it is {state.lower()}: {reason}"
    if action in {Action.STOP, Action.CANCEL} and state in {SweepState.FINISHED, SweepState.CANCELED}:
        remedy = "; to end runs that are still alive, resume it first" if action is Action.CANCEL else ""
        return f"it is {state.lower()} already{remedy}"
    return None


def living_runs(api: Any, path: str) -> int:
    """Return how many runs of a sweep are pending, running or preempting, in one request."""
    entity, project, sweep_id = path.split("/")
    states = [state.value for state in RunState if state.is_alive]
    filters = {"$and": [{"sweep": sweep_id}, {"state": {"$in": states}}]}
    api.flush()  # the client caches what it has read
    return len(api.runs(f"{entity}/{project}", filters=filters, per_page=1))


def change_state(api: Any, path: str, action: Action) -> Change:
    """Change the state of a sweep; an action that leads to its present state changes nothing.

    Args:
        api: a ``wandb.Api``.
        path: ENTITY/PROJECT/ID.
        action: the change.

    Raises:
        SweepControlError: there is no such sweep, or it cannot be changed like this.
        wandb.Error: the server does not answer as it should.
    """
    from amc_analysis.reading.wandb_private import send_query

    entity, project, _ = path.split("/")
    before, node_id = _read_state(api, path)
    if reason := refusal(before, action):
        raise SweepControlError(f"sweep {path} cannot be {_PARTICIPLE[action]}: {reason}")
    alive = living_runs(api, path)
    if before == STATE_AFTER[action]:
        return Change(path, action, before, before, alive)
    send_query(api, _SET_STATE, id=node_id, state=STATE_AFTER[action].value, entityName=entity, projectName=project)
    return Change(path, action, before, _read_state(api, path)[0], alive)


def _read_state(api: Any, path: str) -> tuple[str, str]:
    """Return a sweep's state, in W&B's upper case, and the id that a mutation needs."""
    sweep = query_sweep(api, path, "id state")
    state = str(sweep["state"]).upper()
    return SweepState.CANCELED if state == "CANCELLED" else state, sweep["id"]


def query_sweep(api: Any, path: str, fields: str) -> dict[str, Any]:
    """Return fields of a sweep as the server has them at this moment.

    Raises:
        NoSuchSweepError: there is no such sweep.
        wandb.Error: the server does not answer as it should.
    """
    from amc_analysis.reading.wandb_private import send_query

    entity, project, sweep_id = path.split("/")
    answer = send_query(api, _SWEEP_QUERY % fields, entity=entity, project=project, sweep=sweep_id)
    sweep: dict[str, Any] | None = (answer["project"] or {}).get("sweep")
    if sweep is None:
        raise NoSuchSweepError(path)
    return sweep
