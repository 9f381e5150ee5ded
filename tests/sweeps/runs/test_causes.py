"""How a run ended, rule by rule: the first rule that applies decides."""

from __future__ import annotations

from typing import Any

import pytest

from amc_sweeps.grammar.hyperband import BandDecision
from amc_sweeps.runs.causes import (
    CENSORED,
    ENDED_WELL,
    EXIT_CODES,
    FAILURES,
    STALE_AFTER_S,
    Cause,
    EndReason,
    Evidence,
    classify,
)

BAND = BandDecision(band=3, value=0.1, threshold=0.4)
CUDA_OOM = (
    'Traceback (most recent call last):\n  File "train.py", line 9, in <module>\n'
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."
)
CLEAN: dict[str, Any] = {"state": "finished", "exit_code": 0, "epochs_planned": 10}


@pytest.mark.parametrize(
    ("evidence", "cause"),
    [
        # 0. not ended
        (Evidence("running", heartbeat_age_s=10), Cause.RUNNING),
        (Evidence("running", heartbeat_age_s=10, stop_recorded=True), Cause.RUNNING),
        (Evidence("pending"), Cause.RUNNING),
        # 1. a recorded stop
        (Evidence("killed", stop_recorded=True, hyperband=True, band=BAND), Cause.EARLY_STOPPED),
        (Evidence("failed", exit_code=255, stop_recorded=True, hyperband=True, band=BAND), Cause.EARLY_STOPPED),
        (Evidence("finished", exit_code=0, stop_recorded=True, hyperband=True), Cause.STOPPED),
        (Evidence("killed", stop_recorded=True), Cause.STOPPED),
        (Evidence("killed"), Cause.STOPPED),
        (Evidence("crashed", stop_recorded=True, end_reason="completed", hyperband=True, band=BAND), "early_stopped"),
        (Evidence("killed", stop_recorded=True, stop_reason="user", hyperband=True, band=BAND), Cause.STOPPED),
        (Evidence("killed", stop_recorded=True, stop_reason="hyperband"), Cause.EARLY_STOPPED),
        (Evidence("killed", stop_recorded=True, stop_reason="cancelled"), Cause.CANCELLED),
        # 2. the sweep was cancelled
        (Evidence("crashed", sweep_cancelled=True, alive_at_cancel=True), Cause.CANCELLED),
        (Evidence("killed", stop_recorded=True, sweep_cancelled=True), Cause.CANCELLED),
        (Evidence("killed", stop_recorded=True, sweep_cancelled=True, alive_at_cancel=False), Cause.STOPPED),
        (Evidence("killed", stop_recorded=True, sweep_cancelled=True, band=BAND), Cause.EARLY_STOPPED),
        (Evidence("finished", 0, end_reason="stopped", sweep_cancelled=True, alive_at_cancel=True), Cause.CANCELLED),
        (Evidence("crashed", sweep_cancelled=True, alive_at_cancel=False), Cause.LOST),
        (Evidence("failed", exit_code=80, sweep_cancelled=True, alive_at_cancel=True), Cause.DIVERGED),
        # 3. preemption
        (Evidence("preempted", exit_code=75), Cause.PREEMPTED),
        (Evidence("preempting", end_reason="diverged"), Cause.PREEMPTED),
        # 4. the reason that the trial gives
        (Evidence("finished", exit_code=0, end_reason="patience", epochs=4, epochs_planned=10), Cause.PATIENCE),
        (Evidence("crashed", end_reason="diverged"), Cause.DIVERGED),
        (Evidence("finished", exit_code=0, end_reason="stopped", hyperband=True, band=BAND), Cause.EARLY_STOPPED),
        (Evidence("finished", exit_code=0, end_reason="stopped", hyperband=True), Cause.STOPPED),
        (Evidence("finished", exit_code=0, end_reason="somebody else's word"), Cause.COMPLETED),
        # 5. a clean exit
        (Evidence(**CLEAN, epochs=10), Cause.COMPLETED),
        (Evidence(**CLEAN, epochs=10, band=BAND), Cause.COMPLETED),
        (Evidence(**CLEAN, epochs=7), Cause.PATIENCE),
        (Evidence(**CLEAN, epochs=7, patience=3, epochs_since_best=3), Cause.PATIENCE),
        (Evidence(**CLEAN, epochs=7, patience=5, epochs_since_best=1), Cause.STOPPED),
        # 6. traces of a failure
        (Evidence("failed", exit_code=1, log_tail=CUDA_OOM), Cause.OUT_OF_MEMORY),
        (
            Evidence("crashed", log_tail="train.sh: line 3:  4711 Killed                  python train.py"),
            "killed_by_signal",
        ),
        (Evidence("crashed", log_tail="slurmstepd: error: Detected 1 oom-kill event(s)"), Cause.OUT_OF_MEMORY),
        (Evidence("failed", exit_code=1, log_tail="MemoryError: Unable to allocate 9. GiB"), Cause.OUT_OF_MEMORY),
        (Evidence("failed", exit_code=1, log_tail="epoch 3 train_loss: nan"), Cause.DIVERGED),
        (Evidence("failed", exit_code=1, log_tail="ValueError: Input contains NaN."), Cause.DIVERGED),
        (Evidence("failed", exit_code=1, log_tail="RuntimeError: non-finite loss at step 12"), Cause.DIVERGED),
        (Evidence("failed", exit_code=1, not_finite=("val/loss",)), Cause.DIVERGED),
        (Evidence("failed", exit_code=1, log_tail="FileNotFoundError: [Errno 2] 'x.h5'"), Cause.DATA_ERROR),
        (Evidence("failed", exit_code=2, log_tail="train.py: error: unrecognized arguments: --lr"), "config_refused"),
        (Evidence("failed", exit_code=135), Cause.DATA_ERROR),  # SIGBUS
        (Evidence("failed", exit_code=137), Cause.KILLED_BY_SIGNAL),
        (Evidence("failed", exit_code=-9), Cause.KILLED_BY_SIGNAL),
        (Evidence("failed", exit_code=143), Cause.KILLED_BY_SIGNAL),
        (Evidence("failed", exit_code=143, band=BAND, points=3), Cause.EARLY_STOPPED),
        (Evidence("failed", exit_code=255, band=BAND, points=3), Cause.EARLY_STOPPED),
        (Evidence("failed", exit_code=255), Cause.INTERRUPTED),
        (Evidence("crashed", neighbours_lost="4 of 4 runs on gpu-3 ended within 40 s"), Cause.NODE_FAILURE),
        (Evidence("failed", exit_code=1, log_tail="Traceback (most recent call last):\nKeyError: 'lr'"), Cause.ERROR),
        # 7. a band, inferred
        (Evidence("crashed", hyperband=True, band=BAND, points=3), Cause.EARLY_STOPPED),
        (Evidence("crashed", hyperband=True, band=BAND, points=5), Cause.EARLY_STOPPED),
        (Evidence("failed", exit_code=1, hyperband=True, band=BAND, points=4), Cause.EARLY_STOPPED),
        (Evidence("crashed", stop_recorded=False, hyperband=True, band=BAND, points=3), Cause.LOST),
        (Evidence("failed", exit_code=255, stop_recorded=False, band=BAND, points=3), Cause.INTERRUPTED),
        # a copy of a run that was alive when it was exported
        (Evidence("crashed", alive_when_exported=True), Cause.UNKNOWN),
        (Evidence("running", alive_when_exported=True), Cause.UNKNOWN),
        (Evidence("running", alive_when_exported=True, heartbeat_age_s=STALE_AFTER_S + 1), Cause.UNKNOWN),
        (Evidence("crashed", alive_when_exported=True, not_finite=("loss",), band=BAND, points=3), Cause.UNKNOWN),
        (Evidence("crashed", alive_when_exported=True, end_reason="diverged"), Cause.DIVERGED),
        (Evidence("crashed", alive_when_exported=True, stop_recorded=True), Cause.STOPPED),
        # 8. a lost heartbeat
        (Evidence("crashed"), Cause.LOST),
        (Evidence("crashed", hyperband=True, band=BAND, points=40), Cause.LOST),
        (Evidence("running", heartbeat_age_s=STALE_AFTER_S + 1), Cause.LOST),
        (Evidence("pending", heartbeat_age_s=STALE_AFTER_S + 1), Cause.LOST),
        # 9. nothing else
        (Evidence("failed", exit_code=7), Cause.ERROR),
        (Evidence("failed"), Cause.ERROR),
        (Evidence("a new word"), Cause.UNKNOWN),
    ],
)
def test_the_first_rule_that_applies_decides(evidence: Evidence, cause: str) -> None:
    diagnosis = classify(evidence)
    assert diagnosis.cause == cause, diagnosis
    assert diagnosis.because


@pytest.mark.parametrize("reason", list(EndReason))
def test_the_end_reason_of_a_trial_is_certain(reason: EndReason) -> None:
    diagnosis = classify(Evidence("crashed", end_reason=reason))
    assert (diagnosis.cause, diagnosis.confidence) == (Cause(reason.value), "certain")


@pytest.mark.parametrize("reason", [reason for reason, code in EXIT_CODES.items() if code])
def test_the_exit_code_alone_gives_the_end_reason(reason: EndReason) -> None:
    assert classify(Evidence("failed", exit_code=EXIT_CODES[reason])).cause == Cause(reason.value)


def test_log_lines_before_a_traceback_do_not_count() -> None:
    log = "warning: No such file or directory: cache\nTraceback (most recent call last):\n  ...\nKeyError: 'lr'\n"
    diagnosis = classify(Evidence("failed", exit_code=1, log_tail=log))
    assert diagnosis.cause is Cause.ERROR
    assert "KeyError: 'lr'" in diagnosis.because


def test_the_decisive_log_line_is_quoted() -> None:
    diagnosis = classify(Evidence("failed", exit_code=1, log_tail="epoch 1\n" + CUDA_OOM + "\nbye\n"))
    assert "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB." in diagnosis.because


def test_an_inferred_early_stop_is_less_sure_than_a_recorded_one() -> None:
    recorded = classify(Evidence("crashed", stop_recorded=True, hyperband=True, band=BAND, points=3))
    inferred = classify(Evidence("crashed", hyperband=True, band=BAND, points=3))
    assert (recorded.confidence, inferred.confidence) == ("certain", "likely")


def test_a_stop_of_a_trial_that_says_completed_is_not_certain() -> None:
    diagnosis = classify(Evidence("killed", stop_recorded=True, stop_reason="hyperband", end_reason="completed"))
    assert (diagnosis.cause, diagnosis.confidence) == (Cause.EARLY_STOPPED, "likely")
    assert "the trial says completed" in diagnosis.because


def test_every_cause_is_in_one_group_or_open() -> None:
    groups = [ENDED_WELL, CENSORED, FAILURES, frozenset({Cause.RUNNING, Cause.UNKNOWN})]
    assert sorted(cause for group in groups for cause in group) == sorted(Cause)


def test_every_end_reason_is_a_cause() -> None:
    assert {reason.value for reason in EndReason} <= {cause.value for cause in Cause}
