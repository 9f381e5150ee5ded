"""The Slurm jobs of runs: W&B has a run's job id, and Slurm knows how the job ended.

``sacct`` keeps every job where the cluster has an accounting database. ``scontrol`` has only jobs that live or ended
minutes ago (MinJobAge). On a machine without these programs nothing is looked for.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from amc_analysis.reading.sources import FileSource
from amc_sweeps.runs.causes import EndReason
from amc_sweeps.runs.records import RunRecord, SweepRecord
from amc_sweeps.runs.run_states import RunState
from amc_sweeps.runs.slurm_jobs import SACCT_FIELDS, SlurmJob, job_of_run, parse_sacct, parse_scontrol

METADATA = "wandb-metadata.json"  # of a run: the client writes the SLURM_ variables of its trial into it
PARALLEL_READS = 8
TIMEOUT_S = 30.0  # a busy controller makes its clients wait
OLDEST_JOBS = "now-90days"  # for a search by name


def has_slurm() -> bool:
    """Return whether this machine can ask Slurm about jobs."""
    return any(shutil.which(program) for program in ("sacct", "scontrol"))


def with_jobs(sweep: SweepRecord, files: FileSource) -> SweepRecord:
    """Return a sweep whose runs have the Slurm jobs that ended them, as far as this machine can tell."""
    unclear = [run for run in sweep.runs if _may_need_its_job(run)] if has_slurm() else []
    if not unclear:
        return sweep
    project = f"{sweep.entity}/{sweep.project}"
    with ThreadPoolExecutor(max_workers=PARALLEL_READS) as pool:
        numbers = dict(
            zip(
                (run.run_id for run in unclear),
                pool.map(lambda run: _job_number(files, project, run.run_id), unclear),
                strict=True,
            )
        )
    jobs = read_jobs(numbers={number for number in numbers.values() if number is not None})
    ended = {
        run.run_id: job_of_run(jobs, number, run.heartbeat_at)
        for run in unclear
        if (number := numbers[run.run_id]) is not None
    }
    return replace(sweep, runs=tuple(replace(run, job=ended.get(run.run_id, run.job)) for run in sweep.runs))


def _may_need_its_job(run: RunRecord) -> bool:
    """Return whether the end of a job may explain the run's; each such run costs a request."""
    if run.state in {RunState.FINISHED, RunState.PENDING, RunState.KILLED}:
        return False
    reason = run.summary.get("end_reason")
    if reason is None and run.state == RunState.FAILED:  # its trial ended by itself, unless by a signal
        return run.exit_code is not None and run.exit_code > 128
    return reason in {None, EndReason.PREEMPTED}


def _job_number(files: FileSource, project: str, run_id: str) -> str | None:
    """Return SLURM_JOB_ID of a run's last trial; None outside of Slurm, or where the client wrote no metadata."""
    try:
        metadata = json.loads(files.file(project, run_id, [METADATA]) or b"{}")
        number = metadata["slurm"]["job_id"]
    except Exception:  # noqa: BLE001 - whatever the server or the file is like: the job is then unknown
        return None
    return number if isinstance(number, str) and number.isdigit() else None


def read_jobs(*, numbers: Collection[str] = (), name: str | None = None) -> list[SlurmJob]:
    """Return Slurm's records of the jobs with these ids or with this name; empty where Slurm does not tell."""
    if not numbers and name is None:
        return []
    which = ["--jobs", ",".join(sorted(numbers))] if numbers else ["--name", str(name), "--starttime", OLDEST_JOBS]
    fields = ["--noheader", "--parsable2", "--allocations", "--duplicates", "--format", ",".join(SACCT_FIELDS)]
    jobs = parse_sacct(_output(["sacct", *which, *fields]))
    if not jobs:  # without an accounting database, or before it has the jobs
        jobs = parse_scontrol(_output(["scontrol", "show", "job", "--oneliner"]))
    return [job for job in jobs if job.number in numbers or job.name == name]


def _output(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(
            command,
            env={**os.environ, "SLURM_TIME_FORMAT": "%s"},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout
