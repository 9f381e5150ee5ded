"""Say it in a trial's place: its machine was taken away, and so was the client that should have told W&B.

A signal to a whole process group, container or job step ends ``wandb-core`` together with the trial. The trial still
leaves its checkpoint, its history and ``end.json`` in the run's folder; W&B only sees silence and will call the run
crashed, which is never handed out again. Whoever supervised the trial and still lives calls ``reopen_preempted``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from amc_agents.trial.best_evaluation import BestEvaluation
from amc_agents.trial.run_folder import read_end, read_rows
from amc_sweeps.runs.causes import EXIT_CODES, EndReason
from amc_sweeps.runs.run_states import RunState

# Of one trial's process; another must not take them for its own.
OF_A_TRIAL = ("WANDB_SERVICE", "WANDB_RUN_ID", "WANDB_RESUME", "WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH")
_SKEW_S = 60.0  # a later sign of life than this after the trial's end is another trial's


class Reopened(StrEnum):
    """What came of it."""

    MARKED = "marked"  # W&B has every row and knows of the preemption now: the run will be handed out again, once
    KNOWN = "known"  # W&B had been told; or the run goes on elsewhere already: nothing was done
    ENDED = "ended"  # W&B has the run as finished, or as killed by a stop: nothing was done
    NOT_PREEMPTED = "not_preempted"  # the trial left another end_reason, or no word at all: nothing was done


class ReopenError(RuntimeError):
    """W&B could not be told; the message says why. ``amc-sweep resume RUN`` continues such a run."""


def reopen_preempted(
    run_path: str,
    run_folder: Path,
    *,
    environ: Mapping[str, str] = os.environ,
    timeout_s: float = 120.0,
) -> Reopened:
    """Tell W&B that a run was preempted, where its trial could not; safe to call after every end of a trial.

    Call it once the trial's process is gone. Where its folder does not say ``preempted`` this costs a file's reading.
    Otherwise a process of its own (in a session of its own, so that a signal to the caller's group spares it) reopens
    the run with ``resume="must"``, logs the rows that the folder has and W&B lacks, marks the run preempting, uploads
    the checkpoint unless AMC_CHECKPOINT_ARTIFACT=never, and ends the run with exit code 75: about four seconds.

    Args:
        run_path: ENTITY/PROJECT/RUN_ID.
        run_folder: the trial's ``--runs_dir`` (AMC_RUNS_DIR, ``runs``) with RUN_ID: it holds ``end.json``.
        environ: where the wandb client finds its W&B: WANDB_BASE_URL, WANDB_API_KEY.
        timeout_s: when to give up; a machine that is being taken away does not wait.

    Raises:
        ReopenError: W&B did not answer, or not in time.
    """
    end = read_end(run_folder)
    if end is None or end.reason is not EndReason.PREEMPTED:
        return Reopened.NOT_PREEMPTED
    env = {name: value for name, value in environ.items() if name not in OF_A_TRIAL}
    # The caller's import path, too: a checkout that is not installed reopens like one that is.
    env["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    command = [sys.executable, "-m", "amc_agents.trial.reopen", run_path, str(run_folder)]
    process = subprocess.Popen(
        command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        said, complained = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise ReopenError(f"{run_path} could not be reopened within {timeout_s:g} s") from None
    if process.returncode != 0:
        raise ReopenError(f"{run_path} could not be reopened: {complained.strip() or 'no reason was given'}")
    return Reopened(said.split()[-1])


def _reopen(run_path: str, run_folder: Path) -> Reopened:
    import wandb

    end = read_end(run_folder)
    if end is None or end.reason is not EndReason.PREEMPTED:
        return Reopened.NOT_PREEMPTED
    entity, project, run_id = run_path.split("/")
    found = wandb.Api().run(run_path)
    if found.state in {RunState.FINISHED, RunState.KILLED}:
        return Reopened.ENDED
    is_told = found.state in {RunState.PENDING, RunState.PREEMPTING, RunState.PREEMPTED}
    if is_told or (found.state == RunState.RUNNING and _heard_at(found) > end.at + _SKEW_S):
        return Reopened.KNOWN
    with tempfile.TemporaryDirectory() as scratch:
        run = wandb.init(
            entity=entity,
            project=project,
            id=run_id,
            resume="must",
            dir=scratch,
            # What the trial said of itself stays: its metadata, its console, its machine's metrics.
            settings=wandb.Settings(console="off", x_disable_meta=True, x_disable_stats=True, disable_git=True),
        )
        rows = read_rows(run_folder)
        log_missing_rows(run, rows)
        BestEvaluation(run, run_folder).go_on(rows)
        run.summary["end_reason"] = str(EndReason.PREEMPTED)
        run.mark_preempting()
        _upload_checkpoint(run, run_folder)
        run.finish(exit_code=EXIT_CODES[EndReason.PREEMPTED])
    return Reopened.MARKED


def log_missing_rows(run: Any, rows: list[dict[str, Any]]) -> int:
    """Log those epochs that a resumed run's W&B has not, and return how many; ``_step`` is the epoch less one."""
    missing = [row for row in rows if int(row["epoch"]) > run.starting_step]
    for row in missing:
        run.log(row, step=int(row["epoch"]) - 1, commit=True)
    return len(missing)


def _upload_checkpoint(run: Any, run_folder: Path) -> None:
    from amc_agents.trial.artifacts import ArtifactUse, log_checkpoint

    if ArtifactUse.of(os.environ) is ArtifactUse.NEVER:
        return
    try:
        log_checkpoint(run, run_folder)
    except Exception as error:  # noqa: BLE001 - the checkpoint is in the folder; that the run was preempted must be told
        sys.stderr.write(f"the checkpoint in {run_folder} was not uploaded: {error}\n")


def _heard_at(run: Any) -> float:
    from datetime import UTC, datetime

    heard = datetime.fromisoformat(run.heartbeat_at)
    return (heard if heard.tzinfo else heard.replace(tzinfo=UTC)).timestamp()


def main(arguments: list[str]) -> None:
    """Reopen the run that the arguments name, and print what came of it as the last word on stdout."""
    os.environ.setdefault("WANDB_SILENT", "true")
    try:
        outcome = _reopen(arguments[0], Path(arguments[1]))
    except Exception as error:  # noqa: BLE001 - whatever the client raises is the caller's reason
        sys.exit(f"{type(error).__name__}: {error}")
    sys.stdout.write(f"{outcome}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
