"""The state of a run as W&B counts it, and what may be asked of a state."""

from __future__ import annotations

from enum import StrEnum


class RunState(StrEnum):
    """W&B's words for where a run is in its life."""

    PENDING = "pending"  # handed out to an agent, the trial has not reported yet
    RUNNING = "running"
    FINISHED = "finished"  # the trial said goodbye with exit code 0
    FAILED = "failed"  # the trial said goodbye with another exit code
    CRASHED = "crashed"  # its heartbeat was lost
    KILLED = "killed"  # it ended after somebody had asked it to
    PREEMPTING = "preempting"  # it said that its machine is being taken away
    PREEMPTED = "preempted"  # and then it ended; it may be handed out again

    @property
    def is_terminal(self) -> bool:
        """Whether nothing more is expected of the run, short of its trial coming back."""
        return self not in _ALIVE

    @property
    def is_alive(self) -> bool:
        """Whether a process is believed to work on the run."""
        return self in _ALIVE


_ALIVE = frozenset({RunState.PENDING, RunState.RUNNING, RunState.PREEMPTING})


class SweepState(StrEnum):
    """W&B's words for where a sweep is; upper case on the wire."""

    PENDING = "PENDING"  # created, no agent yet
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"  # agents wait
    FINISHED = "FINISHED"  # no new runs, running ones may end by themselves
    CANCELED = "CANCELED"  # running ones are killed

    @property
    def hands_out_runs(self) -> bool:
        """Whether an agent that asks may get a run."""
        return self in {SweepState.PENDING, SweepState.RUNNING}
