"""The state of a run, concluded from what was recorded of it and for how long it has been silent.

The wandb client says only three things of a run: that it began (UpsertBucket), that its machine is being taken away
(``preempting``), and goodbye with an exit code (``complete``). Everything else is this module's conclusion. It is a
pure function of facts and ages, so a test needs no waiting.
"""

from __future__ import annotations

from dataclasses import dataclass

from amc_sweeps.runs.run_states import RunState


@dataclass(frozen=True)
class Limits:
    """How long silence may last, in seconds."""

    silence_s: float = 300.0  # without a post a run has crashed; a healthy idle one posts every 30 s
    unlisted_s: float = 60.0  # after its living agent stopped listing it
    unstarted_s: float = 60.0  # a run that was handed out, and neither its trial nor its agent says a word of it
    hand_outs: int = 3  # of one configuration before it counts as failed: once, and reissued twice
    stop_told_s: float = 30.0  # after the trial was told to stop, its agent is; the client looks every 15 s
    stop_untold_s: float = 60.0  # the same where the trial never asked


@dataclass(frozen=True)
class Facts:
    """What is known of a run. Ages are None where the thing has not happened since the server started."""

    started: bool  # its trial has reported since it was last handed out
    exit_code: int | None
    preempting: bool
    stop_recorded: bool
    given_up: bool
    handed_out: bool  # an agent was told to start it
    silent_s: float  # since its trial was last heard; for a run never heard, since it was handed out
    listed_s: float | None  # since its agent last listed it among the living
    unlisted_s: float | None  # since its living agent first left it out


def infer(facts: Facts, limits: Limits) -> RunState:
    """Return the state that the facts amount to."""
    if facts.exit_code is not None:
        if facts.stop_recorded:
            return RunState.KILLED
        if facts.preempting and facts.exit_code != 0:
            return RunState.PREEMPTED
        return RunState.FINISHED if facts.exit_code == 0 else RunState.FAILED
    if not facts.started:
        if facts.given_up:
            return RunState.FAILED
        nobody_has_it = not facts.handed_out or is_abandoned(facts, limits)
        return RunState.KILLED if facts.stop_recorded and nobody_has_it else RunState.PENDING
    if facts.stop_recorded:
        # Somebody asked it to end and it is no longer there: the goodbye may be lost, the ending is not in doubt.
        gone = facts.unlisted_s is not None or facts.silent_s >= limits.silence_s
        return RunState.KILLED if gone else RunState.RUNNING
    if is_lost(facts, limits):
        return RunState.PREEMPTED if facts.preempting else RunState.CRASHED
    return RunState.PREEMPTING if facts.preempting else RunState.RUNNING


def is_lost(facts: Facts, limits: Limits) -> bool:
    """Return whether a started run has been silent for too long.

    A trial that still posts is alive even if its agent no longer lists it: wandb-core may outlive it to upload.
    """
    if facts.silent_s >= limits.silence_s:
        return True
    return facts.unlisted_s is not None and min(facts.unlisted_s, facts.silent_s) >= limits.unlisted_s


def is_abandoned(facts: Facts, limits: Limits) -> bool:
    """Return whether a run was handed out and nobody took it up: no word from a trial, none from the agent."""
    if facts.started or not facts.handed_out or facts.silent_s < limits.unstarted_s:
        return False
    return facts.listed_s is None or facts.listed_s >= limits.unstarted_s
