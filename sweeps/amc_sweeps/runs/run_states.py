"""W&B's states of a run and of a sweep, and what they imply."""

from __future__ import annotations

from enum import StrEnum


class RunState(StrEnum):
    """W&B's words for the state of a run."""

    PENDING = "pending"  # handed out to an agent; the trial has not reported yet
    RUNNING = "running"
    FINISHED = "finished"  # the trial reported its end with exit code 0
    FAILED = "failed"  # the trial reported its end with another exit code
    CRASHED = "crashed"  # its heartbeat stopped
    KILLED = "killed"  # it ended after a request to stop
    PREEMPTING = "preempting"  # it reported that its machine is being taken away
    PREEMPTED = "preempted"  # it ended after that; it may be handed out again

    @property
    def is_terminal(self) -> bool:
        """Whether the run has ended; its trial may still resume it."""
        return self not in _ALIVE

    @property
    def is_alive(self) -> bool:
        """Whether a process is expected to work on the run."""
        return self in _ALIVE


_ALIVE = frozenset({RunState.PENDING, RunState.RUNNING, RunState.PREEMPTING})


class SweepState(StrEnum):
    """W&B's words for the state of a sweep; upper case in its protocol."""

    PENDING = "PENDING"  # created, no agent yet
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"  # agents wait
    FINISHED = "FINISHED"  # no new runs; running ones may end by themselves
    CANCELED = "CANCELED"  # running ones are killed

    @property
    def hands_out_runs(self) -> bool:
        """Whether an agent that asks may get a run."""
        return self in {SweepState.PENDING, SweepState.RUNNING}


def state_word(state: str) -> str:
    """Write a sweep's state for people, spelt as the states and causes of runs are.

    >>> state_word("CANCELED"), state_word("RUNNING")
    ('cancelled', 'running')
    """
    return "cancelled" if state.upper() == SweepState.CANCELED else state.lower()
