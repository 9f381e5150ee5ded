"""How a run ended: the words that the trial, the server and the analysis share, and the rules that find the cause."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from amc_sweeps.grammar.hyperband import BandDecision
from amc_sweeps.number_formats import counted
from amc_sweeps.runs.log_messages import cause_in_log
from amc_sweeps.runs.run_states import RunState
from amc_sweeps.runs.slurm_jobs import SlurmJob


class EndReason(StrEnum):
    """The reason that a trial gives for its end, in its summary under ``end_reason``."""

    COMPLETED = "completed"  # trained all epochs
    PATIENCE = "patience"  # no better value for `patience` epochs
    STOPPED = "stopped"  # W&B asked for it: a person, or Hyperband
    INTERRUPTED = "interrupted"  # Ctrl-C
    PREEMPTED = "preempted"  # the machine was taken away; the run may be handed out again
    DIVERGED = "diverged"  # the loss or a weight became NaN or infinite
    OUT_OF_MEMORY = "out_of_memory"  # on the GPU or the host
    DATA_ERROR = "data_error"  # the data file is missing, truncated or has the wrong content
    CONFIG_REFUSED = "config_refused"  # the configuration cannot be trained
    ERROR = "error"  # anything else: a defect


# Values of sysexits(3) where one fits. The others avoid 1 (an uncaught exception), 2 (usage), 126-128 (the shell) and
# 255 (sent by the wandb client after its own stop). wandb's agent counts every positive code as a failure.
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
    EndReason.INTERRUPTED: 130,  # 128 + SIGINT, as in shells
}


class Cause(StrEnum):
    """Why a run ended: the reasons that a trial gives, and those that only an observer can know."""

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
    ENVIRONMENT_ERROR = "environment_error"  # the machine lacks a library, a driver, disk space, a right, a connection
    RUNNING = "running"  # not ended
    UNKNOWN = "unknown"


# The run was cut short from outside, so its final result is unknown (censored). Such a run is not a failure, but it
# counts in the total of a failure rate.
CENSORED = frozenset({Cause.EARLY_STOPPED, Cause.STOPPED, Cause.CANCELLED, Cause.INTERRUPTED, Cause.PREEMPTED})
ENDED_WELL = frozenset({Cause.COMPLETED, Cause.PATIENCE})
FAILURES = frozenset(
    {
        *(Cause.DIVERGED, Cause.OUT_OF_MEMORY, Cause.DATA_ERROR, Cause.CONFIG_REFUSED, Cause.ERROR),
        *(Cause.KILLED_BY_SIGNAL, Cause.LOST, Cause.NODE_FAILURE, Cause.ENVIRONMENT_ERROR),
    }
)

Confidence = Literal["certain", "likely", "guess"]

# The state of a run whose end was not seen; "failed" would mean that it had an exit code other than 0.
UNKNOWN_STATE = "unknown"
# A heartbeat comes at least every 30 s; W&B calls a run crashed after about five minutes without one.
STALE_AFTER_S = 300.0
# A stop takes effect some epochs later: the client asks every 15 s and posts every 15 s.
MOST_POINTS_PAST_BAND = 5


@dataclass(frozen=True)
class Evidence:
    """What is known about a run's end. None means unknown: not every server records everything."""

    state: str  # W&B's word, see RunState
    exit_code: int | None = None
    end_reason: str | None = None  # from the run's summary
    stop_recorded: bool | None = None  # a person or Hyperband asked this run to stop
    stop_reason: str | None = None  # who asked, if the server records it: hyperband, user, cancelled
    sweep_cancelled: bool = False
    alive_at_cancel: bool | None = None  # whether the run was still reporting when its sweep was cancelled
    heartbeat_age_s: float | None = None
    points: int = 0  # logged finite values of the sweep's metric, which Hyperband counts
    epochs: int | None = None  # completed
    epochs_planned: int | None = None
    epochs_since_best: int | None = None
    patience: int | None = None  # from the run's configuration
    not_finite: tuple[str, ...] = ()  # metrics whose last logged value is NaN or infinite
    log_tail: str | None = None  # the last lines of its console
    hyperband: bool = False  # the sweep has early_terminate
    band: BandDecision | None = None  # the Hyperband decision that would have stopped the run
    alive_when_exported: bool = False  # the record is a copy made before the run ended
    neighbours_lost: str | None = None  # such as "4 of 4 runs on gpu-3 ended within 40 s"
    job: SlurmJob | None = None  # the Slurm job whose end ended the run


@dataclass(frozen=True)
class Diagnosis:
    """The cause of a run's end, how sure it is, and the evidence in a few words."""

    cause: Cause
    confidence: Confidence
    because: str


_CAUSE_OF_CODE: dict[int, Cause] = {code: Cause(reason.value) for reason, code in EXIT_CODES.items() if code != 0}
_SIGNALS = {1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 4: "SIGILL", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE", 9: "SIGKILL",
            11: "SIGSEGV", 13: "SIGPIPE", 15: "SIGTERM", 24: "SIGXCPU"}  # fmt: skip
_LONGEST_LINE = 120  # characters of a log line that are shown
CLIENT_STOP_CODE = 255  # sent by the wandb client for a KeyboardInterrupt: its own stop, or Ctrl-C


def classify(evidence: Evidence) -> Diagnosis:
    """Return how a run ended. The rules are in the order of evidence, and the first one that applies decides.

    0. not ended; 1. a recorded stop; 2. its sweep's cancellation; 3. a copy of a run that was alive, preemption;
    4. the trial's own reason; 5. a clean exit; 6. the end of its Slurm job; 7. traces of a failure in exit code, log,
    metrics or neighbours; 8. a Hyperband band, inferred; 9. a lost heartbeat; 10. a state that says failed, or unknown.
    """
    rules = (
        _not_ended,
        _stop_recorded,
        _cancelled,
        _alive_when_exported,
        _preempted,
        _own_reason,
        _clean_exit,
        _job_ended,
        _failed_with_traces,
        _ended_at_a_band,
        _heartbeat_lost,
    )
    diagnoses = (rule(evidence) for rule in rules)
    return next((diagnosis for diagnosis in diagnoses if diagnosis is not None), _no_evidence(evidence))


def _not_ended(e: Evidence) -> Diagnosis | None:
    if e.state not in {RunState.PENDING, RunState.RUNNING} or e.alive_when_exported:
        return None
    if e.heartbeat_age_s is not None and e.heartbeat_age_s > STALE_AFTER_S:
        return None
    if e.state == RunState.PENDING:
        return Diagnosis(Cause.RUNNING, "certain", "waits for an agent, or for its first report")
    stop_note = "; it was asked to stop" if e.stop_recorded else ""
    return Diagnosis(Cause.RUNNING, "certain", f"state running{stop_note}")


def _stop_recorded(e: Evidence) -> Diagnosis | None:
    if not e.stop_recorded and e.state != RunState.KILLED:
        return None
    if e.stop_reason is not None:
        return _stopped_for(e, e.stop_reason)
    if e.band is None and e.sweep_cancelled and e.alive_at_cancel is not False:
        return None  # stopped by the cancellation, see the next rule
    return _stopped_by(e, "a stop was recorded" if e.stop_recorded else "state killed")


def _stopped_for(e: Evidence, reason: str) -> Diagnosis:
    causes = {"hyperband": Cause.EARLY_STOPPED, "cancelled": Cause.CANCELLED}
    because = f"stop recorded: {reason}" + ("" if e.band is None else f"; {_at_band(e.band)}")
    if e.end_reason in {EndReason.COMPLETED, EndReason.PATIENCE}:
        # The stop came when the trial was about to end.
        return Diagnosis(causes.get(reason, Cause.STOPPED), "likely", f"{because}; but the trial says {e.end_reason}")
    return Diagnosis(causes.get(reason, Cause.STOPPED), "certain", because)


def _stopped_by(e: Evidence, event: str) -> Diagnosis:
    if e.band is not None:
        return Diagnosis(
            Cause.EARLY_STOPPED, "certain" if e.stop_recorded else "likely", f"{event}; {_at_band(e.band)}"
        )
    if not e.hyperband:
        confidence: Confidence = "certain" if e.stop_recorded or e.end_reason == EndReason.STOPPED else "likely"
        return Diagnosis(Cause.STOPPED, confidence, f"{event}; the sweep has no early_terminate")
    return Diagnosis(
        Cause.STOPPED, "likely", f"{event}; no Hyperband threshold explains it at {counted(e.points, 'value')}"
    )


def _at_band(band: BandDecision) -> str:
    return f"{band.value:.4g} at band {band.band} is worse than Hyperband's threshold {band.threshold:.4g}"


def _cancelled(e: Evidence) -> Diagnosis | None:
    has_stop = bool(e.stop_recorded) or e.state == RunState.KILLED or e.end_reason == EndReason.STOPPED
    ended_by_itself = e.state in {RunState.FINISHED, RunState.FAILED} and not has_stop
    if not e.sweep_cancelled or ended_by_itself or e.alive_at_cancel is False:
        return None
    if e.alive_at_cancel:
        return Diagnosis(Cause.CANCELLED, "certain", "its sweep was cancelled while it was alive")
    if has_stop:
        return Diagnosis(Cause.CANCELLED, "likely", "it was stopped, and its sweep is cancelled")
    return None


def _alive_when_exported(e: Evidence) -> Diagnosis | None:
    if not e.alive_when_exported or e.end_reason in set(EndReason):
        return None
    return Diagnosis(Cause.UNKNOWN, "guess", "was alive when exported; its end is unknown")


def _preempted(e: Evidence) -> Diagnosis | None:
    if e.state in {RunState.PREEMPTING, RunState.PREEMPTED}:
        return Diagnosis(Cause.PREEMPTED, "certain", f"state {e.state}{_because_of_job(e)}")
    return None


def _because_of_job(e: Evidence) -> str:
    return "" if e.job is None else f"; {e.job.words}"


def _own_reason(e: Evidence) -> Diagnosis | None:
    if e.end_reason not in set(EndReason):
        return None
    if e.end_reason == EndReason.STOPPED:
        return _stopped_by(e, "end_reason stopped")
    job = _because_of_job(e) if e.end_reason == EndReason.PREEMPTED else ""
    return (_lacking(e) if e.end_reason == EndReason.ERROR else None) or Diagnosis(
        Cause(e.end_reason), "certain", f"end_reason {e.end_reason}{job}"
    )


def _lacking(e: Evidence) -> Diagnosis | None:
    """Return environment_error if the log shows one: a trial reports every exception that it does not know as error."""
    diagnosis = _search_log(e.log_tail or "")
    return diagnosis if diagnosis is not None and diagnosis.cause is Cause.ENVIRONMENT_ERROR else None


def _clean_exit(e: Evidence) -> Diagnosis | None:
    if e.state != RunState.FINISHED or e.exit_code not in {0, None}:
        return None
    if e.epochs_planned is None or e.epochs is None:
        number = "planned epochs" if e.epochs_planned is None else "completed epochs"
        return Diagnosis(Cause.COMPLETED, "likely", f"finished; the number of {number} is unknown")
    because = f"finished after {e.epochs} of {counted(e.epochs_planned, 'epoch')}"
    if e.epochs >= e.epochs_planned:
        return Diagnosis(Cause.COMPLETED, "certain", because)
    if e.patience is None or e.epochs_since_best is None:
        return Diagnosis(Cause.PATIENCE, "guess", because)
    after = f"{e.epochs_since_best} after its best (patience {e.patience})"
    if e.epochs_since_best >= e.patience:
        return Diagnosis(Cause.PATIENCE, "likely", f"{because}, {after}")
    return Diagnosis(Cause.STOPPED, "guess", f"{because}, only {after}")


def _job_ended(e: Evidence) -> Diagnosis | None:
    """Return what the end of a run's Slurm job says, unless the trial ended by itself before."""
    if e.exit_code is None:
        ended_by_itself = e.state == RunState.FAILED  # W&B's word for an exit code other than 0
    else:
        ended_by_itself = _signal(e.exit_code) is None and e.exit_code != CLIENT_STOP_CODE
    if e.job is None or e.job.cause is None or ended_by_itself:
        return None
    return Diagnosis(Cause(e.job.cause), "likely", e.job.words)


def _signal(exit_code: int) -> str | None:
    return _SIGNALS.get(-exit_code if exit_code < 0 else exit_code - 128)


def _failed_with_traces(e: Evidence) -> Diagnosis | None:
    if e.state not in {RunState.FINISHED, RunState.FAILED, RunState.CRASHED, RunState.RUNNING, UNKNOWN_STATE}:
        return None
    if e.exit_code in _CAUSE_OF_CODE:
        diagnosis = _lacking(e) if e.exit_code == EXIT_CODES[EndReason.ERROR] else None
        return diagnosis or Diagnosis(_CAUSE_OF_CODE[e.exit_code], "likely", f"exit code {e.exit_code}")
    log_diagnosis = _search_log(e.log_tail or "")
    if log_diagnosis is not None and log_diagnosis.cause is not Cause.ERROR:
        return log_diagnosis
    if e.not_finite:
        return Diagnosis(Cause.DIVERGED, "likely", f"last value not finite: {', '.join(e.not_finite)}")
    signal = None if e.exit_code is None else _signal(e.exit_code)
    if e.stop_recorded is None and e.band is not None and (e.exit_code == CLIENT_STOP_CODE or signal == "SIGTERM"):
        return Diagnosis(Cause.EARLY_STOPPED, "likely", f"exit code {e.exit_code}, as after a stop; {_at_band(e.band)}")
    if e.exit_code == CLIENT_STOP_CODE:
        return Diagnosis(Cause.INTERRUPTED, "guess", "exit code 255: Ctrl-C, or a stop by W&B that is not recorded")
    if signal == "SIGBUS":
        because = f"exit code {e.exit_code}: SIGBUS, as when a data file is cut while it is read through memory"
        return Diagnosis(Cause.DATA_ERROR, "likely", because)
    if signal is not None:
        return Diagnosis(Cause.KILLED_BY_SIGNAL, "certain", f"exit code {e.exit_code}: {signal}")
    if e.neighbours_lost is not None:
        return Diagnosis(Cause.NODE_FAILURE, "guess", e.neighbours_lost)
    return log_diagnosis


def _search_log(text: str) -> Diagnosis | None:
    """Return the cause that the end of a log shows."""
    match = cause_in_log(text)
    if match is None:
        return None
    cause, line = match
    excerpt = line if len(line) <= _LONGEST_LINE else line[: _LONGEST_LINE - 1] + "…"
    return Diagnosis(Cause(cause), "likely", f"log: {excerpt}")


def _ended_at_a_band(e: Evidence) -> Diagnosis | None:
    # No stop is inferred where the server says that none was recorded.
    if e.stop_recorded is not None or e.band is None or not 0 <= e.points - e.band.band <= MOST_POINTS_PAST_BAND:
        return None
    return Diagnosis(Cause.EARLY_STOPPED, "likely", f"ended after {counted(e.points, 'value')}; {_at_band(e.band)}")


def _heartbeat_lost(e: Evidence) -> Diagnosis | None:
    if e.state == RunState.CRASHED:
        return Diagnosis(Cause.LOST, "likely", "its heartbeat stopped and nothing else is known")
    if e.state in {RunState.RUNNING, RunState.PENDING}:
        silence = "" if e.heartbeat_age_s is None else f" for {e.heartbeat_age_s / 60:.0f} min"
        return Diagnosis(Cause.LOST, "likely", f"state {e.state}, but no heartbeat{silence}")
    return None


def _no_evidence(e: Evidence) -> Diagnosis:
    if e.exit_code not in {0, None}:
        return Diagnosis(Cause.ERROR, "guess", f"exit code {e.exit_code}, and no log")
    if e.state == RunState.FAILED:  # W&B's word for an exit code other than 0
        return Diagnosis(Cause.ERROR, "guess", "state failed, without an exit code or a log")
    return Diagnosis(Cause.UNKNOWN, "guess", f"state {e.state}, nothing else is known")
