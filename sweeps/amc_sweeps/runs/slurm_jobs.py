"""Slurm's records of jobs, and what the end of a job says about a run in it.

``sacct`` and ``scontrol`` print the records; SLURM_TIME_FORMAT=%s makes their times Unix times. Words of states are
Slurm's: TIMEOUT, OUT_OF_MEMORY, PREEMPTED, NODE_FAIL (slurm.schedmd.com/job_state_codes.html).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

SACCT_FIELDS = ("JobID", "JobIDRaw", "JobName", "State", "ExitCode", "NodeList", "Start", "End")

REQUEUED = "REQUEUED"
NO_TIME_LEFT = (
    75  # exit code of a job of amc-sweep launch slurm that ended before its time limit, see causes.EXIT_CODES
)
# A state that ends a run from outside -> the word of its cause in ``causes.Cause``.
_CAUSES = {
    "TIMEOUT": "preempted",
    "DEADLINE": "preempted",
    "PREEMPTED": "preempted",
    REQUEUED: "preempted",
    "OUT_OF_MEMORY": "out_of_memory",
    "NODE_FAIL": "node_failure",
    "BOOT_FAIL": "node_failure",
    "CANCELLED": "interrupted",
}
# In the order in which a job goes through them.
_ALIVE = (
    *("PENDING", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "CONFIGURING", "RUNNING", "SUSPENDED", "STOPPED"),
    *("SIGNALING", "RESIZING", "COMPLETING"),
)
# How long before the end of its job a run may have reported last: a trial reports every 30 s, and a job that is warned
# or cancelled has minutes to end. Slurm notices a dead node only after SlurmdTimeout, often 300 s.
_SILENT_S = 300.0
_SILENT_ON_DEAD_NODE_S = 1800.0
_NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True)
class SlurmJob:
    """A job, or one task of an array; a job that was requeued has one record for each start."""

    id: str  # as people write it: 4812, or 4812_3 for a task of an array
    number: str  # SLURM_JOB_ID of its processes
    name: str
    state: str
    nodes: str = ""  # Slurm's list, as gpu-07 or gpu-[01-04]; empty: none yet
    exit_code: int | None = None
    began_at: datetime | None = None
    ended_at: datetime | None = None
    restarts: int = 0  # where scontrol tells it

    @property
    def is_alive(self) -> bool:
        """Whether it waits or runs."""
        return self.state in _ALIVE

    @property
    def cause(self) -> str | None:
        """The word of ``causes.Cause`` for runs that the job's end ended; None: it ended none from outside."""
        if self.state == "FAILED" and self.exit_code == NO_TIME_LEFT:
            return "preempted"
        return _CAUSES.get(self.state)

    @property
    def words(self) -> str:
        """The job, its nodes and its state, in a few words."""
        place = f" on {self.nodes}" if self.nodes else ""
        if self.state == "FAILED" and self.exit_code == NO_TIME_LEFT:
            return f"Slurm job {self.id}{place}: ended before its time limit (exit code {NO_TIME_LEFT})"
        return f"Slurm job {self.id}{place}: {self.state}"


def job_name(sweep_id: str) -> str:
    """Return the name of the jobs that work on a sweep."""
    return f"amc-{sweep_id}"


def parse_sacct(text: str) -> list[SlurmJob]:
    """Read the output of ``sacct --noheader --parsable2 --allocations --format`` with SACCT_FIELDS."""
    jobs = []
    for line in text.splitlines():
        values = line.split("|")
        if len(values) != len(SACCT_FIELDS):
            continue
        job_id, number, name, state, exit_code, nodes, began, ended = values
        jobs.append(
            SlurmJob(
                id=job_id,
                number=number,
                name=name,
                state=_word(state),
                nodes="" if nodes == "None assigned" else nodes,
                exit_code=_exit_code(exit_code),
                began_at=_time(began),
                ended_at=_time(ended),
            )
        )
    return jobs


def parse_scontrol(text: str) -> list[SlurmJob]:
    """Read the output of ``scontrol show job --oneliner``: the jobs that live, and those that ended minutes ago."""
    jobs = []
    for line in text.splitlines():
        values = dict(re.findall(r"(?:^|\s)([A-Za-z]+)=(\S*)", line))
        if "JobId" not in values or "JobState" not in values:
            continue
        number, array, task = values["JobId"], values.get("ArrayJobId"), values.get("ArrayTaskId")
        nodes, state = values.get("NodeList", ""), _word(values["JobState"])
        jobs.append(
            SlurmJob(
                id=number if array is None else f"{array}_{task if _is_number(task) else f'[{task}]'}",
                number=number,
                name=values.get("JobName", ""),
                state=state,
                nodes="" if nodes == "(null)" else nodes,
                exit_code=_exit_code(values.get("ExitCode", "")),
                began_at=_time(values.get("StartTime", "")),
                ended_at=None if state in _ALIVE else _time(values.get("EndTime", "")),
                restarts=int(values.get("Restarts") or 0),
            )
        )
    return jobs


def job_of_run(jobs: Iterable[SlurmJob], number: str, heard_at: datetime | None) -> SlurmJob | None:
    """Return the job that ended a run from outside; None where its job did not, or is not on record.

    Args:
        jobs: of Slurm's records.
        number: SLURM_JOB_ID of the run's last trial.
        heard_at: when that trial reported last.
    """
    starts = sorted((job for job in jobs if job.number == number), key=lambda job: job.began_at or _NEVER)
    # A trial is first heard several seconds after its job's start, which is more than clocks differ.
    before = [job for job in starts if job.began_at is not None and (heard_at is None or job.began_at <= heard_at)]
    if not before:
        # Slurm's record is about a later start of the job than the run's.
        later = next((job for job in starts if job.restarts), None)
        return None if later is None else replace(later, state=REQUEUED, nodes="", exit_code=None, ended_at=None)
    job = before[-1]
    if job.cause is None:
        return None
    if heard_at is None or job.ended_at is None or job.cause == "out_of_memory":
        return job  # a process that took too much memory may die long before its job ends
    limit_s = _SILENT_ON_DEAD_NODE_S if job.cause == "node_failure" else _SILENT_S
    return job if (job.ended_at - heard_at).total_seconds() <= limit_s else None


def state_counts(jobs: Sequence[SlurmJob]) -> dict[str, int]:
    """Return how many jobs are in each state, in the order in which jobs go through them.

    The tasks of an array that wait are one record, such as 4812_[5-7%4].
    """
    counts: dict[str, int] = {}
    for job in jobs:
        counts[job.state] = counts.get(job.state, 0) + _tasks(job.id)
    order = [*_ALIVE, "COMPLETED"]
    return dict(sorted(counts.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order)))


def _tasks(job_id: str) -> int:
    waiting = re.search(r"\[([\d,:-]+)(?:%\d+)?\]", job_id)
    if waiting is None:
        return 1
    count = 0
    for part in waiting[1].split(","):
        first, _, rest = part.partition("-")
        last, _, step = rest.partition(":")
        count += 1 if not rest else (int(last) - int(first)) // int(step or 1) + 1
    return count


def _word(state: str) -> str:
    return state.partition(" ")[0].rstrip("+")  # "CANCELLED by 1000"


def _exit_code(text: str) -> int | None:
    code = text.partition(":")[0]
    return int(code) if code.isdigit() else None


def _is_number(text: str | None) -> bool:
    return text is not None and text.isdigit()


def _time(text: str) -> datetime | None:
    """Read a Unix time, or Slurm's own local time; None for Unknown and the like."""
    if text.isdigit():
        return datetime.fromtimestamp(int(text), UTC) if int(text) else None
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError:
        return None
