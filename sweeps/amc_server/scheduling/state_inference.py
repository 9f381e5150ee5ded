"""The state of a run, inferred from the recorded facts and from how long the run has been silent.

The wandb client reports only three things about a run: that it began (UpsertBucket), that its machine is being taken
away (``preempting``), and that it ended with an exit code (``complete``). This module infers everything else. It is a
pure function of facts and ages, so a test needs no waiting.
"""

from __future__ import annotations

from dataclasses import dataclass

from amc_sweeps.runs.causes import STALE_AFTER_S
from amc_sweeps.runs.run_states import RunState


@dataclass(frozen=True)
class Limits:
    """Times in seconds after which the server stops waiting, and how often a run is handed out."""

    silence_s: float = STALE_AFTER_S  # a run that is silent for so long has crashed; a healthy one posts every 30 s
    unlisted_s: float = 60.0  # the same for a run that its agent's heartbeats no longer list
    unstarted_s: float = 60.0  # from a hand-out to its repetition, if neither a trial nor the agent reports the run
    hand_outs: int = 3  # of one run that reached an agent before it counts as failed: the first, and two reissues
    lost_replies_s: float = 600.0  # for which an agent may be cut off; later its hand-outs count
    stop_grace_s: float = 30.0  # for a trial to end after it got the stop; then its agent ends it
    stop_delivery_s: float = 60.0  # for a stop to reach its trial, which asks every 15 s; then the agent ends the trial


@dataclass(frozen=True)
class Facts:
    """The facts about a run. An age is None if the event has not happened since the server started."""

    started: bool  # its trial has reported since the last hand-out
    exit_code: int | None
    preempting: bool
    stop_recorded: bool
    given_up: bool
    handed_out: bool  # an agent was told to start it
    silent_s: float  # since the trial's last sign of life; without one, since the hand-out
    listed_s: float | None  # since its agent last listed it as alive
    unlisted_s: float | None  # since the first heartbeat of its agent without it
    leased: bool = False  # whoever asked for it may still begin it, without an agent


def infer(facts: Facts, limits: Limits) -> RunState:
    """Return the state that follows from the facts."""
    if facts.exit_code is not None:
        if facts.stop_recorded:
            return RunState.KILLED
        if facts.preempting and facts.exit_code != 0:
            return RunState.PREEMPTED
        return RunState.FINISHED if facts.exit_code == 0 else RunState.FAILED
    if not facts.started:
        if facts.given_up:
            return RunState.FAILED
        has_no_agent = not facts.handed_out or is_abandoned(facts, limits)
        return RunState.KILLED if facts.stop_recorded and has_no_agent else RunState.PENDING
    if facts.stop_recorded:
        # A stop was recorded and the run is gone: it has ended, even if its last post was lost.
        is_gone = facts.unlisted_s is not None or facts.silent_s >= limits.silence_s
        return RunState.KILLED if is_gone else RunState.RUNNING
    if is_lost(facts, limits):
        return RunState.PREEMPTED if facts.preempting else RunState.CRASHED
    return RunState.PREEMPTING if facts.preempting else RunState.RUNNING


def is_lost(facts: Facts, limits: Limits) -> bool:
    """Return whether a started run has been silent for too long.

    A run that still posts is alive even if its agent no longer lists it: wandb-core may outlive the trial to upload.
    """
    if facts.silent_s >= limits.silence_s:
        return True
    return facts.unlisted_s is not None and min(facts.unlisted_s, facts.silent_s) >= limits.unlisted_s


def is_abandoned(facts: Facts, limits: Limits) -> bool:
    """Return whether a run was handed out and neither a trial nor the agent has reported it."""
    if facts.started or facts.leased or not facts.handed_out or facts.silent_s < limits.unstarted_s:
        return False
    return facts.listed_s is None or facts.listed_s >= limits.unstarted_s
