"""What follows for a sweep and its agents: who gets a run, who waits, who leaves, which runs are stopped.

Decisions only, over records; the coordinator carries them out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from amc_server.records import Member
from amc_server.states import Limits
from amc_sweeps.hyperband import Stop, runs_to_stop
from amc_sweeps.run_states import RunState, SweepState
from amc_sweeps.sweep_config import SweepConfig


class SearchEnd(StrEnum):
    """Why a search has nothing more to propose."""

    EXHAUSTED = "exhausted"  # every point of a grid has been handed out
    RUN_CAP = "run_cap"
    TARGET = "target"  # a run has reached metric.target


@dataclass(frozen=True)
class Wait:
    """The agent has nothing to do now and should ask again."""


@dataclass(frozen=True)
class Leave:
    """The sweep is over; the agent should end."""


@dataclass(frozen=True)
class HandOut:
    """A run that is there already: queued by a person, preempted, or never taken up."""

    run: Member


@dataclass(frozen=True)
class Begin:
    """A new run with what the search proposes."""

    number: int


Decision = Wait | Leave | HandOut | Begin


def decide(state: SweepState, config: SweepConfig, search_end: str | None, runs: Sequence[Member]) -> Decision:
    """Return what an agent that works on no run should do.

    Args:
        search_end: why the search has ended, if it has.
        runs: every run of the sweep.
    """
    if state in (SweepState.FINISHED, SweepState.CANCELED):
        return Leave()
    if not state.hands_out_runs:
        return Wait()
    for run in runs:
        if run.is_waiting:
            return HandOut(run)
    begun = runs_begun(runs)
    if search_end is not None or (config.run_cap is not None and begun >= config.run_cap):
        return Leave() if is_over(runs) else Wait()
    return Begin(begun)


def runs_begun(runs: Sequence[Member]) -> int:
    """Return how many runs the sweep itself has begun; adopted ones do not count against ``run_cap``."""
    return sum(run.origin in ("search", "queue") for run in runs)


def is_over(runs: Sequence[Member]) -> bool:
    """Return whether nothing is left to wait for: no run is alive and none may be handed out again."""
    return not any(run.where.is_alive or run.is_waiting for run in runs)


def reaches_target(config: SweepConfig, curves: Mapping[int, Sequence[float]]) -> bool:
    """Return whether any run has logged a value as good as ``metric.target``."""
    metric = config.metric
    if metric is None or metric.target is None:
        return False
    sign = 1 if metric.goal == "maximize" else -1
    target = metric.target
    return any(sign * value >= sign * target for curve in curves.values() for value in curve)


def early_stops(config: SweepConfig, runs: Sequence[Member], curves: Mapping[int, Sequence[float]]) -> list[Stop]:
    """Return which running runs Hyperband ends now; ``Stop.run`` is the run's key as text."""
    if config.early_terminate is None or config.metric is None:
        return []
    running = {str(run.pk) for run in runs if run.where is RunState.RUNNING and not run.stop_recorded}
    if not running:
        return []
    by_name = {str(pk): curve for pk, curve in curves.items()}
    return runs_to_stop(config.early_terminate, config.metric.goal, by_name, running)


def agent_must_stop(*, stop_s: float, told_s: float | None, limits: Limits) -> bool:
    """Return whether a run that was asked to stop has had its time, so that its agent must end it.

    The first way is the softer one: told through its own stream, a trial flushes everything and says goodbye, while
    the agent's SIGTERM kills a script without a handler together with what it had not sent yet.
    """
    if told_s is not None and told_s >= limits.stop_told_s:
        return True
    return stop_s >= limits.stop_untold_s
