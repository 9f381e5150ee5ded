"""How a run ended: the vocabulary that the trial, the server and the analysis share, and the only classifier of it."""

from __future__ import annotations

from enum import StrEnum


class EndReason(StrEnum):
    """What a trial says of its own end, in its summary under ``end_reason``."""

    COMPLETED = "completed"  # every epoch that was asked for
    PATIENCE = "patience"  # no better value for `patience` epochs
    STOPPED = "stopped"  # W&B asked: a person, or Hyperband
    INTERRUPTED = "interrupted"  # Ctrl-C
    PREEMPTED = "preempted"  # the machine was taken away; the run may be handed out again
    DIVERGED = "diverged"  # the loss or a weight became NaN or infinite
    OUT_OF_MEMORY = "out_of_memory"  # of the GPU or the host
    DATA_ERROR = "data_error"  # the data file is missing, truncated or not what it claims
    CONFIG_REFUSED = "config_refused"  # the configuration cannot be trained
    ERROR = "error"  # anything else: a defect


# Values of sysexits(3) where one fits; others keep clear of 1 (an uncaught exception), 2 (usage), 126-128 (the shell)
# and 255 (what the wandb client sends after its own stop). wandb's agent counts every positive code as a failure.
EXIT_CODES: dict[EndReason, int] = {
    EndReason.COMPLETED: 0,
    EndReason.PATIENCE: 0,
    EndReason.STOPPED: 0,
    EndReason.DATA_ERROR: 65,  # EX_DATAERR
    EndReason.ERROR: 70,  # EX_SOFTWARE
    EndReason.PREEMPTED: 75,  # EX_TEMPFAIL
    EndReason.CONFIG_REFUSED: 78,  # EX_CONFIG
    EndReason.DIVERGED: 80,
    EndReason.OUT_OF_MEMORY: 81,
    EndReason.INTERRUPTED: 130,  # 128 + SIGINT, as shells have it
}


class Cause(StrEnum):
    """What is concluded about a run's end: a trial's own words, and those that only an observer can say."""

    COMPLETED = "completed"
    PATIENCE = "patience"
    STOPPED = "stopped"
    INTERRUPTED = "interrupted"
    PREEMPTED = "preempted"
    DIVERGED = "diverged"
    OUT_OF_MEMORY = "out_of_memory"
    DATA_ERROR = "data_error"
    CONFIG_REFUSED = "config_refused"
    ERROR = "error"
    EARLY_STOPPED = "early_stopped"  # the sweep's Hyperband asked for it
    CANCELLED = "cancelled"  # the sweep was cancelled while the run was alive
    KILLED_BY_SIGNAL = "killed_by_signal"
    LOST = "lost"  # the heartbeat stopped and nothing else is known: kill -9, power, an unhandled SIGTERM
    NODE_FAILURE = "node_failure"  # many runs of one host ended together
    RUNNING = "running"  # not ended
    UNKNOWN = "unknown"
