"""Report a preemption to W&B when the trial could not: its machine was taken away, and the client died with it.

A signal to a whole process group, container or job step ends ``wandb-core`` together with the trial. The trial still
leaves its checkpoint, its history and ``end.json`` in the run's folder. W&B hears nothing more and calls the run
crashed, and a crashed run is never handed out again. So whoever supervised the trial calls ``reopen_preempted``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from amc_agents.trial.end_and_history import End, read_end, read_rows
from amc_agents.trial.evaluations import BestEvaluation
from amc_agents.trial.relaunch import child_environment
from amc_agents.trial.resume_checkpoint import UploadWhen, upload_checkpoint
from amc_agents.trial.wandb_recorder import log_missing_rows
from amc_sweeps.runs.causes import EXIT_CODES, EndReason
from amc_sweeps.runs.run_states import RunState

_SKEW_S = 60.0  # a heartbeat that is later than the trial's end by more than this is another trial's


class Reopened(StrEnum):
    """What ``reopen_preempted`` did."""

    MARKED = "marked"  # W&B has every row and the preemption: the run will be handed out again, once
    REPORTED = "reported"  # nothing: W&B has the preemption already, or the run continues elsewhere
    ENDED = "ended"  # nothing: W&B has the run as finished, or as killed by a stop
    NOT_PREEMPTED = "not_preempted"  # nothing: the trial left another end_reason, or none


class ReopenError(RuntimeError):
    """The preemption could not be reported; the message says why. ``amc-sweep resume RUN`` continues such a run."""


def reopen_preempted(
    run_path: str,
    run_folder: Path,
    *,
    environ: Mapping[str, str] = os.environ,
    timeout_s: float = 120.0,
) -> Reopened:
    """Report to W&B that a run was preempted, where its trial could not; safe to call after every end of a trial.

    Call it once the trial's process is gone. Where its folder does not say ``preempted``, this only reads one file.
    Otherwise another process (in its own session, so that a signal to the caller's group does not reach it) reopens
    the run with ``resume="must"``, logs the rows that W&B lacks, marks the run preempting, uploads the checkpoint
    unless AMC_CHECKPOINT_ARTIFACT=never, and ends the run with exit code 75. That takes about four seconds.

    Args:
        run_path: ENTITY/PROJECT/RUN_ID.
        run_folder: RUN_ID in the trial's ``--runs_dir`` (AMC_RUNS_DIR, ``runs``): it has ``end.json``.
        environ: where the wandb client finds its W&B: WANDB_BASE_URL, WANDB_API_KEY.
        timeout_s: when to give up; a machine that is being taken away does not wait.

    Raises:
        ReopenError: W&B did not answer, or not in time.
    """
    if _read_preemption(run_folder) is None:
        return Reopened.NOT_PREEMPTED
    process = subprocess.Popen(
        [sys.executable, "-m", "amc_agents.trial.reopen", run_path, str(run_folder)],
        env=child_environment(environ),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise ReopenError(f"{run_path} could not be reopened within {timeout_s:g} s") from None
    if process.returncode != 0:
        raise ReopenError(f"{run_path} could not be reopened: {errors.strip() or 'no reason was given'}")
    return Reopened(output.split()[-1])


def _read_preemption(run_folder: Path) -> End | None:
    end = read_end(run_folder)
    return end if end is not None and end.reason is EndReason.PREEMPTED else None


def _reopen(run_path: str, run_folder: Path) -> Reopened:
    import wandb

    end = _read_preemption(run_folder)
    if end is None:
        return Reopened.NOT_PREEMPTED
    record = wandb.Api().run(run_path)
    if record.state in {RunState.FINISHED, RunState.KILLED}:
        return Reopened.ENDED
    is_reported = record.state in {RunState.PENDING, RunState.PREEMPTING, RunState.PREEMPTED}
    if is_reported or (record.state == RunState.RUNNING and _heard_at(record) > end.at + _SKEW_S):
        return Reopened.REPORTED
    entity, project, run_id = run_path.split("/")
    with tempfile.TemporaryDirectory() as scratch:
        run = wandb.init(
            entity=entity,
            project=project,
            id=run_id,
            resume="must",
            dir=scratch,
            # Keep the trial's own metadata, console log and system metrics.
            settings=wandb.Settings(console="off", x_disable_meta=True, x_disable_stats=True, disable_git=True),
        )
        rows = read_rows(run_folder)
        log_missing_rows(run, rows)
        BestEvaluation(run, run_folder).resume(rows)
        run.summary["end_reason"] = str(EndReason.PREEMPTED)
        run.mark_preempting()
        _try_upload(run, run_folder)
        run.finish(exit_code=EXIT_CODES[EndReason.PREEMPTED])
    return Reopened.MARKED


def _try_upload(run: Any, run_folder: Path) -> None:
    if UploadWhen.of(os.environ) is UploadWhen.NEVER:
        return
    try:
        upload_checkpoint(run, run_folder)
    except Exception as error:  # noqa: BLE001 - the folder has the checkpoint; the preemption must still be reported
        sys.stderr.write(f"the checkpoint in {run_folder} was not uploaded: {error}\n")


def _heard_at(run: Any) -> float:
    heard_at = datetime.fromisoformat(run.heartbeat_at)
    return (heard_at if heard_at.tzinfo else heard_at.replace(tzinfo=UTC)).timestamp()


def main(arguments: list[str]) -> None:
    """Reopen the run of the arguments RUN_PATH FOLDER; the last word on stdout is the result."""
    os.environ.setdefault("WANDB_SILENT", "true")
    try:
        outcome = _reopen(arguments[0], Path(arguments[1]))
    except Exception as error:  # noqa: BLE001 - the caller gets every error of the client as the reason
        sys.exit(f"{type(error).__name__}: {error}")
    sys.stdout.write(f"{outcome}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
