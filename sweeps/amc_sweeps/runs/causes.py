"""How a run ended: the vocabulary that the trial, the server and the analysis share, and the only classifier of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from amc_sweeps.runs.run_states import RunState


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


# Endings that say nothing against the configuration: the run was cut short from outside, so what it would have reached
# is not known (censored). They are outside the failure rate's numerator and named in its denominator.
CENSORED = frozenset({Cause.EARLY_STOPPED, Cause.STOPPED, Cause.CANCELLED, Cause.INTERRUPTED, Cause.PREEMPTED})
ENDED_WELL = frozenset({Cause.COMPLETED, Cause.PATIENCE})  # the trial ended as it was meant to
FAILURES = frozenset(
    {
        Cause.DIVERGED,
        Cause.OUT_OF_MEMORY,
        Cause.DATA_ERROR,
        Cause.CONFIG_REFUSED,
        Cause.ERROR,
        Cause.KILLED_BY_SIGNAL,
        Cause.LOST,
        Cause.NODE_FAILURE,
    }
)

Confidence = Literal["certain", "likely", "guess"]

# The state of a run whose end nobody saw: "failed" would claim an exit code that is not 0.
UNKNOWN_STATE = "unknown"
# A heartbeat comes at least every 30 s; W&B itself calls a run crashed after about five silent minutes.
STALE_AFTER_S = 300.0
# A stop takes some epochs to arrive: the client asks every 15 s and posts every 15 s.
FEW_POINTS_PAST_A_BAND = 5


@dataclass(frozen=True)
class BandDecision:
    """What Hyperband says of a run: at ``band`` logged values its ``value`` was worse than ``threshold``."""

    band: int
    value: float
    threshold: float


@dataclass(frozen=True)
class Evidence:
    """What is known of a run from outside. None stands for unknown everywhere: not every server tells all of it."""

    state: str  # W&B's word, see RunState
    exit_code: int | None = None
    end_reason: str | None = None  # from the run's summary
    stop_recorded: bool | None = None  # somebody, or Hyperband, asked this run to stop
    stop_reason: str | None = None  # who asked, where the server keeps it: hyperband, user, cancelled
    sweep_cancelled: bool = False
    alive_at_cancel: bool | None = None  # whether the run was still reporting when its sweep was cancelled
    heartbeat_age_s: float | None = None
    points: int = 0  # logged finite values of the sweep's metric: what Hyperband counts
    epochs: int | None = None  # that it got through
    epochs_planned: int | None = None
    epochs_since_best: int | None = None
    patience: int | None = None  # of the run's configuration
    not_finite: tuple[str, ...] = ()  # metrics whose last logged value is NaN or infinite
    log_tail: str | None = None  # the last lines of its console, where they were read
    hyperband: bool = False  # the sweep has early_terminate
    band: BandDecision | None = None  # the Hyperband decision that would have stopped the run, where there is one
    alive_when_exported: bool = False  # the record is a copy of a run that had not ended; nobody watched it further
    neighbours_lost: str | None = None  # "4 of 4 runs on gpu-3 ended within 40 s", where that is so


@dataclass(frozen=True)
class Diagnosis:
    """How a run ended, how sure that is, and the evidence in a few words."""

    cause: Cause
    confidence: Confidence
    because: str


# The last lines of a console and what they mean, most specific first.
_LOG_PATTERNS: tuple[tuple[Cause, str], ...] = (
    (
        Cause.OUT_OF_MEMORY,
        r"CUDA out of memory|OutOfMemoryError|CUBLAS_STATUS_ALLOC_FAILED|\bMemoryError\b|can't allocate memory"
        r"|Cannot allocate memory|[Oo]ut of memory: Killed|[Oo][Oo][Mm][-_ ][Kk]ill|out-of-memory handler",
    ),
    (
        Cause.DIVERGED,
        r"\bDiverged\b|(?i:loss\b[^\n]{0,30}\bnan\b)|(?i:(?:loss|gradients?|weights?)\b[^\n]{0,30}\b(?:not|non-?)\s?finite)"
        r"|(?i:\b(?:nan|non-?finite|infinite)\b[^\n]{0,30}\b(?:loss|gradients?|weights?)\b)|(?i:input contains nan)",
    ),
    (
        Cause.DATA_ERROR,
        r"\bDataError\b|FileNotFoundError|No such file or directory|[Uu]nable to (?:synchronously )?open file"
        r"|truncated file|file signature not found|Stale file handle",
    ),
    (Cause.CONFIG_REFUSED, r"\bConfigError\b|unrecognized arguments|error: argument |No such option|Invalid value for"),
    (Cause.KILLED_BY_SIGNAL, r"\bKilled\b|(?:^|\d\s+)Terminated\b|Segmentation fault|\bBus error\b|core dumped"),
    (Cause.ERROR, r"^[\w.]*(?:Error|Exception)\b.*|^Traceback \(most recent call last\)"),
)

_OWN_CODES: dict[int, Cause] = {code: Cause(reason.value) for reason, code in EXIT_CODES.items() if code != 0}
_SIGNALS = {1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 4: "SIGILL", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE", 9: "SIGKILL",
            11: "SIGSEGV", 13: "SIGPIPE", 15: "SIGTERM", 24: "SIGXCPU"}  # fmt: skip
_TRACEBACK = "Traceback (most recent call last)"
_CLIENT_STOP_CODE = 255  # what the wandb client sends for a KeyboardInterrupt, its own stop's or Ctrl-C's


def classify(evidence: Evidence) -> Diagnosis:
    """Conclude how a run ended. The order is the order of evidence: the first rule that applies decides.

    0. not ended; 1. a recorded stop; 2. its sweep's cancellation; 3. a copy of a run that was alive, preemption;
    4. what the trial said itself; 5. a clean exit; 6. traces of a failure in exit code, log, metrics or neighbours;
    7. a Hyperband band, inferred; 8. silence; 9. a state that says failed, or unknown.
    """
    for rule in (
        _not_ended,
        _stop_recorded,
        _cancelled,
        _alive_when_exported,
        _preempted,
        _said_so_itself,
        _clean_exit,
        _failed_with_traces,
        _ends_at_a_band,
        _silent,
    ):
        diagnosis = rule(evidence)
        if diagnosis is not None:
            return diagnosis
    return _nothing_else(evidence)


def _not_ended(e: Evidence) -> Diagnosis | None:
    if e.state not in {RunState.PENDING, RunState.RUNNING} or e.alive_when_exported:
        return None
    if e.heartbeat_age_s is not None and e.heartbeat_age_s > STALE_AFTER_S:
        return None
    if e.state == RunState.PENDING:
        return Diagnosis(Cause.RUNNING, "certain", "handed out to an agent, has not reported yet")
    asked = "; it was asked to stop" if e.stop_recorded else ""
    return Diagnosis(Cause.RUNNING, "certain", f"state running{asked}")


def _stop_recorded(e: Evidence) -> Diagnosis | None:
    if not e.stop_recorded and e.state != RunState.KILLED:
        return None
    if e.stop_reason is not None:
        return _stopped_for(e, e.stop_reason)
    if e.band is None and e.sweep_cancelled and e.alive_at_cancel is not False:
        return None  # the cancellation asked for it, see the next rule
    return _who_stopped(e, "a stop was recorded" if e.stop_recorded else "state killed")


def _stopped_for(e: Evidence, reason: str) -> Diagnosis:
    causes = {"hyperband": Cause.EARLY_STOPPED, "cancelled": Cause.CANCELLED}
    told = f"stop recorded: {reason}" + ("" if e.band is None else f"; {_at_band(e.band)}")
    if e.end_reason in {EndReason.COMPLETED, EndReason.PATIENCE}:
        # The stop came when the trial was about done.
        return Diagnosis(causes.get(reason, Cause.STOPPED), "likely", f"{told}; yet the trial says {e.end_reason}")
    return Diagnosis(causes.get(reason, Cause.STOPPED), "certain", told)


def _who_stopped(e: Evidence, what: str) -> Diagnosis:
    if e.band is not None:
        return Diagnosis(Cause.EARLY_STOPPED, "certain" if e.stop_recorded else "likely", f"{what}; {_at_band(e.band)}")
    if not e.hyperband:
        sure: Confidence = "certain" if e.stop_recorded or e.end_reason == EndReason.STOPPED else "likely"
        return Diagnosis(Cause.STOPPED, sure, f"{what}; the sweep has no early_terminate")
    return Diagnosis(Cause.STOPPED, "likely", f"{what}; no Hyperband threshold explains it at {e.points} values")


def _at_band(band: BandDecision) -> str:
    return f"{band.value:.4g} at band {band.band} is worse than Hyperband's threshold {band.threshold:.4g}"


def _cancelled(e: Evidence) -> Diagnosis | None:
    asked = bool(e.stop_recorded) or e.state == RunState.KILLED or e.end_reason == EndReason.STOPPED
    ended_by_itself = e.state in {RunState.FINISHED, RunState.FAILED} and not asked
    if not e.sweep_cancelled or ended_by_itself or e.alive_at_cancel is False:
        return None
    if e.alive_at_cancel:
        return Diagnosis(Cause.CANCELLED, "certain", "its sweep was cancelled while it was alive")
    if asked:
        return Diagnosis(Cause.CANCELLED, "likely", "it was stopped, and its sweep is cancelled")
    return None


def _alive_when_exported(e: Evidence) -> Diagnosis | None:
    if not e.alive_when_exported or e.end_reason in set(EndReason):
        return None
    return Diagnosis(Cause.UNKNOWN, "guess", "was alive when exported; how it ended is not known")


def _preempted(e: Evidence) -> Diagnosis | None:
    if e.state in {RunState.PREEMPTING, RunState.PREEMPTED}:
        return Diagnosis(Cause.PREEMPTED, "certain", f"state {e.state}")
    return None


def _said_so_itself(e: Evidence) -> Diagnosis | None:
    if e.end_reason not in set(EndReason):
        return None
    if e.end_reason == EndReason.STOPPED:
        return _who_stopped(e, "end_reason stopped")
    return Diagnosis(Cause(e.end_reason), "certain", f"end_reason {e.end_reason}")


def _clean_exit(e: Evidence) -> Diagnosis | None:
    if e.state != RunState.FINISHED or e.exit_code not in {0, None}:
        return None
    if e.epochs_planned is None or e.epochs is None:
        unknown = "were planned" if e.epochs_planned is None else "it took"
        return Diagnosis(Cause.COMPLETED, "likely", f"finished; how many epochs {unknown} is not known")
    told = f"finished after {e.epochs} of {e.epochs_planned} epochs"
    if e.epochs >= e.epochs_planned:
        return Diagnosis(Cause.COMPLETED, "certain", told)
    if e.patience is None or e.epochs_since_best is None:
        return Diagnosis(Cause.PATIENCE, "guess", told)
    if e.epochs_since_best >= e.patience:
        return Diagnosis(
            Cause.PATIENCE, "likely", f"{told}, {e.epochs_since_best} after its best (patience {e.patience})"
        )
    return Diagnosis(
        Cause.STOPPED, "guess", f"{told}, only {e.epochs_since_best} after its best (patience {e.patience})"
    )


def _failed_with_traces(e: Evidence) -> Diagnosis | None:
    if e.state not in {RunState.FINISHED, RunState.FAILED, RunState.CRASHED, RunState.RUNNING, UNKNOWN_STATE}:
        return None
    own = _OWN_CODES.get(e.exit_code) if e.exit_code is not None else None
    if own is not None:
        return Diagnosis(own, "likely", f"exit code {e.exit_code}")
    found = _search_log(e.log_tail or "")
    if found is not None and found[0] is not Cause.ERROR:
        return Diagnosis(found[0], "likely", f"log: {found[1]}")
    if e.not_finite:
        return Diagnosis(Cause.DIVERGED, "likely", f"last value not finite: {', '.join(e.not_finite)}")
    signal = _signal_of(e.exit_code)
    if _may_infer(e) and e.band is not None and (e.exit_code == _CLIENT_STOP_CODE or signal == "SIGTERM"):
        return Diagnosis(Cause.EARLY_STOPPED, "likely", f"exit code {e.exit_code}, as after a stop; {_at_band(e.band)}")
    if e.exit_code == _CLIENT_STOP_CODE:
        return Diagnosis(Cause.INTERRUPTED, "guess", "exit code 255: Ctrl-C, or a stop by W&B that is not recorded")
    if signal is not None:
        return Diagnosis(Cause.KILLED_BY_SIGNAL, "certain", f"exit code {e.exit_code}: {signal}")
    if e.neighbours_lost is not None:
        return Diagnosis(Cause.NODE_FAILURE, "guess", e.neighbours_lost)
    if found is not None:
        return Diagnosis(found[0], "likely", f"log: {found[1]}")
    return None


def _search_log(text: str) -> tuple[Cause, str] | None:
    """Return what a log's end speaks for, and the line that does; after a traceback nothing before it counts."""
    text = text[max(text.rfind(_TRACEBACK), 0) :]
    for cause, pattern in _LOG_PATTERNS:
        matches = list(re.finditer(pattern, text, re.MULTILINE))
        if matches:
            line_start = text.rfind("\n", 0, matches[-1].start()) + 1
            return cause, _shortened(text[line_start:].split("\n", 1)[0].strip())
    return None


def _shortened(line: str, limit: int = 120) -> str:
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _signal_of(exit_code: int | None) -> str | None:
    if exit_code is None:
        return None
    number = -exit_code if exit_code < 0 else exit_code - 128
    return _SIGNALS.get(number)


def _ends_at_a_band(e: Evidence) -> Diagnosis | None:
    if not _may_infer(e) or e.band is None or not 0 <= e.points - e.band.band <= FEW_POINTS_PAST_A_BAND:
        return None
    return Diagnosis(Cause.EARLY_STOPPED, "likely", f"ended after {e.points} values; {_at_band(e.band)}")


def _may_infer(e: Evidence) -> bool:
    """Tell whether a stop may be inferred: a server that says that none was recorded is believed."""
    return e.stop_recorded is None


def _silent(e: Evidence) -> Diagnosis | None:
    if e.state == RunState.CRASHED:
        return Diagnosis(Cause.LOST, "likely", "its heartbeat stopped and nothing else is known")
    if e.state in {RunState.RUNNING, RunState.PENDING}:
        silent = "" if e.heartbeat_age_s is None else f" for {e.heartbeat_age_s / 60:.0f} min"
        return Diagnosis(Cause.LOST, "likely", f"state {e.state}, but silent{silent}")
    return None


def _nothing_else(e: Evidence) -> Diagnosis:
    if e.exit_code not in {0, None}:
        return Diagnosis(Cause.ERROR, "guess", f"exit code {e.exit_code}, no log to say why")
    if e.state == RunState.FAILED:  # W&B's word for an exit code that is not 0
        return Diagnosis(Cause.ERROR, "guess", "state failed, neither an exit code nor a log to say why")
    return Diagnosis(Cause.UNKNOWN, "guess", f"state {e.state}, nothing else is known")
