"""Decisions about a sweep and its agents: which agent gets a run, waits or leaves, and which runs are stopped.

The functions are pure; the coordinator carries out what they return.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from amc_server.errors import Refused
from amc_server.scheduling.state_inference import Limits
from amc_server.store.records import Run, Sweep
from amc_sweeps.grammar.hyperband import BandDecision, runs_to_stop
from amc_sweeps.grammar.sweep_config import SweepConfig
from amc_sweeps.runs.run_states import SweepState


class SearchEnd(StrEnum):
    """Why a search has ended."""

    EXHAUSTED = "exhausted"  # every point of a grid has been handed out
    RUN_CAP = "run_cap"
    TARGET = "target"  # a run has reached metric.target
    ENDED = "ended"  # by a person or by the target, before more runs were queued: these alone are handed out


@dataclass(frozen=True)
class Wait:
    """There is nothing to do now; the agent should ask again."""


@dataclass(frozen=True)
class Leave:
    """The sweep is over; the agent should end."""


@dataclass(frozen=True)
class HandOut:
    """An existing run: queued by a user, preempted, never started, or given to this agent in a reply that was lost."""

    run: Run


@dataclass(frozen=True)
class Begin:
    """A new run with the configuration that the search proposes."""

    number: int


Decision = Wait | Leave | HandOut | Begin


def config_of(sweep: Sweep) -> SweepConfig:
    """Return a sweep's config.

    Raises:
        Refused: it cannot be read.
    """
    if sweep.readable_config is None:
        raise Refused(
            f"sweep {sweep.id}: {sweep.problem}. The page of the sweep shows the text. Give it a valid one "
            "(wandb sweep --update), or cancel the sweep and create another."
        )
    return sweep.readable_config


def decide(
    state: SweepState,
    config: SweepConfig,
    *,
    search_ended: bool,
    repeated: Run | None,
    waiting: Run | None,
    begun: int,
    is_over: bool,
) -> Decision:
    """Return what an agent that works on no run should do.

    Args:
        repeated: the run that the agent was given, if the reply was probably lost.
        search_ended: the search proposes nothing more.
        waiting: the oldest run that may be handed out.
        begun: how many runs the sweep itself has begun.
        is_over: no run is alive and none may be handed out again.
    """
    if state in (SweepState.FINISHED, SweepState.CANCELED):
        return Leave()
    if not state.hands_out_runs:
        return Wait()
    run = repeated or waiting
    if run is not None:
        return HandOut(run)
    if search_ended or (config.run_cap is not None and begun >= config.run_cap):
        return Leave() if is_over else Wait()
    return Begin(begun)


def reaches_target(config: SweepConfig, values: Iterable[float]) -> bool:
    """Return whether any of these values of the metric is as good as ``metric.target``."""
    metric = config.metric
    if metric is None or metric.target is None:
        return False
    sign, target = (1 if metric.goal == "maximize" else -1), metric.target
    return any(sign * value >= sign * target for value in values)


def update_problem(sweep: Sweep, expected: str | None) -> str | None:
    """Return why the sweep's config cannot be changed now, or None."""
    if sweep.state is SweepState.CANCELED:
        return (
            f"sweep {sweep.id} was cancelled, so nothing was changed. Resume it first (amc-sweep resume {sweep.id}), "
            "or create a new sweep."
        )
    if expected is not None and expected != sweep.config:
        return (
            f"the config of sweep {sweep.id} was changed in the meantime, so nothing was changed now. Look at the "
            "changes again and repeat the command."
        )
    return None


def early_stops(
    config: SweepConfig, runs: Collection[int], curves: Mapping[int, Sequence[float]]
) -> dict[int, BandDecision]:
    """Return which of the running runs, by their keys, Hyperband stops now, and why."""
    if config.early_terminate is None or config.metric is None or not runs:
        return {}
    return runs_to_stop(config.early_terminate, config.metric.goal, curves, runs)


def agent_must_stop(*, stop_s: float, delivered_s: float | None, limits: Limits) -> bool:
    """Return whether a run with a recorded stop has had enough time to end, so that its agent must end it.

    The trial itself gets the stop first, in a reply to its posts: then it sends everything and ends. An agent's SIGTERM
    kills a script without a handler, and what the script had not sent yet is lost.

    Args:
        stop_s: since the stop was recorded.
        delivered_s: since the trial got the stop; None if it has not.
    """
    if delivered_s is not None and delivered_s >= limits.stop_grace_s:
        return True
    return stop_s >= limits.stop_delivery_s
