"""Pause, resume, stop and cancel a sweep, by what ``wandb sweep --pause`` and its sisters use.

What follows for runs is W&B's own rule and the embedded server's: pausing and stopping end no run, cancelling ends
every one. Which change is possible from which state is the client's rule; ``refusal`` says it before anything is asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, cast

from amc_sweeps.runs.run_states import RunState, SweepState


class SweepControlError(RuntimeError):
    """The sweep cannot be changed so; the message says its state and what is possible. Nothing was changed."""


class NoSuchSweepError(SweepControlError):
    """There is no sweep of that path."""


class Action(StrEnum):
    """What may be done to a sweep."""

    PAUSE = "pause"
    RESUME = "resume"
    STOP = "stop"
    CANCEL = "cancel"


WANTED: dict[Action, SweepState] = {
    Action.PAUSE: SweepState.PAUSED,
    Action.RESUME: SweepState.RUNNING,
    Action.STOP: SweepState.FINISHED,
    Action.CANCEL: SweepState.CANCELED,
}
_DONE = {Action.PAUSE: "paused", Action.RESUME: "resumed", Action.STOP: "stopped", Action.CANCEL: "cancelled"}


@dataclass(frozen=True)
class Change:
    """What was done to a sweep."""

    path: str  # ENTITY/PROJECT/ID
    action: Action
    before: str  # SweepState
    after: str  # as the server then said; a sweep without any agent yet is PENDING when it is resumed
    alive: int  # runs that were pending, running or preempting when it was asked

    @property
    def is_new(self) -> bool:
        """Whether the sweep was not in that state already."""
        return self.before != self.after

    def said(self) -> str:
        """Say what happens now, to the sweep and to its living runs."""
        state = _DONE[self.action] if self.is_new else f"{_DONE[self.action]} already"
        runs = f"{self.alive} living run{'' if self.alive == 1 else 's'}"
        if self.action is Action.RESUME:
            told = "agents get configurations again; agents that have ended must be started again"
        elif not self.alive:
            told = "no run is alive"
        elif self.action is Action.CANCEL:
            told = (
                f"{runs} told to stop: a trial ends within about a minute, with a checkpoint, and counts as cancelled"
            )
        elif self.action is Action.STOP:
            told = f"{runs} may come to the end; no new one begins, agents end after theirs"
        else:
            told = f"{runs} may come to the end; no new one begins, agents wait until the sweep is resumed"
        return f"sweep {self.path} is {state}: {told}"


def refusal(state: str, action: Action) -> str | None:
    """Return why a sweep in this state cannot be changed so, or None. The client's own rules, with their remedy."""
    if state == WANTED[action]:
        return None
    if action is Action.PAUSE and state != SweepState.RUNNING:
        pending = state == SweepState.PENDING
        why = "no agent has begun it, there is nothing to pause" if pending else "it hands out no runs"
        return f"it is {state.lower()}: {why}"
    if action in {Action.STOP, Action.CANCEL} and state in {SweepState.FINISHED, SweepState.CANCELED}:
        remedy = "; to end runs that still live, resume it first" if action is Action.CANCEL else ""
        return f"it is {state.lower()} already{remedy}"
    return None


def living_runs(api: Any, path: str) -> int:
    """Return how many runs of a sweep are pending, running or preempting, in one request."""
    entity, project, sweep_id = path.split("/")
    states = [state.value for state in RunState if state.is_alive]
    wanted = {"$and": [{"sweep": sweep_id}, {"state": {"$in": states}}]}
    api.flush()  # the client keeps what it has read
    return len(api.runs(f"{entity}/{project}", filters=wanted, per_page=1))


def control(api: Any, path: str, action: Action | str) -> Change:
    """Change the state of a sweep, and say what the server made of it.

    Args:
        api: a ``wandb.Api``.
        path: ENTITY/PROJECT/ID.
        action: pause, resume, stop or cancel. One that leads to the state which the sweep has changes nothing.

    Raises:
        SweepControlError: when there is no such sweep, or it cannot be changed so.
        wandb.Error: when the server does not answer as it should.
    """
    # The client has no public name for it: its own command line takes this function, too. Within the accepted range of
    # wandb (setup.cfg) a test drives it against a real server.
    import wandb
    from wandb.apis.public.sweeps import _set_sweep_state

    action = Action(action)
    entity, project, sweep_id = path.split("/")
    before = state_of(api, path)
    if why := refusal(before, action):
        raise SweepControlError(f"sweep {path} cannot be {_DONE[action]}: {why}")
    alive = living_runs(api, path)
    if before == WANTED[action]:
        return Change(path, action, before, before, alive)
    try:
        _set_sweep_state(api, sweep_id, cast(Any, WANTED[action].value), entity=entity, project=project)
    except wandb.Error:
        raise
    except Exception as error:
        # The client's rules come as a bare Exception: somebody else has changed the sweep between two requests.
        raise SweepControlError(f"sweep {path} cannot be {_DONE[action]}: {error}") from error
    return Change(path, action, before, state_of(api, path), alive)


def state_of(api: Any, path: str) -> str:
    """Return a sweep's state, in W&B's upper case.

    Raises:
        NoSuchSweepError: when there is no such sweep.
    """
    state = str(fresh_sweep(api, path).state).upper()
    return SweepState.CANCELED if state == "CANCELLED" else state


def fresh_sweep(api: Any, path: str) -> Any:
    """Return a sweep as the server has it now; the client keeps what it has read, and is told not to.

    Raises:
        NoSuchSweepError: when there is no such sweep.
        wandb.Error: when the server does not answer as it should.
    """
    import wandb

    try:
        sweep = api.sweep(path)
        sweep.load(force=True)
    except (ValueError, wandb.Error) as error:
        if "Could not find sweep" in str(error):  # the client says it so, as an error of any kind
            raise NoSuchSweepError(f"there is no sweep {path}: amc-sweep list shows those that there are") from error
        raise
    api.flush()
    return sweep
