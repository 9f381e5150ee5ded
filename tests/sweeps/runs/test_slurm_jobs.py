"""What Slurm's records say about runs. The texts have the form of sacct and scontrol 22.05 and newer."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from amc_sweeps.runs.causes import Cause, Evidence, classify
from amc_sweeps.runs.slurm_jobs import SlurmJob, job_of_run, parse_sacct, parse_scontrol, state_counts

BEGAN, ENDED = datetime.fromtimestamp(1795860000, UTC), datetime.fromtimestamp(1795863600, UTC)
# sacct --noheader --parsable2 --allocations --duplicates --format ..., with SLURM_TIME_FORMAT=%s
SACCT = """\
4812_0|4813|amc-94fqx0gz|COMPLETED|0:0|gpu-01|1795860000|1795863600
4812_1|4814|amc-94fqx0gz|TIMEOUT|0:0|gpu-02|1795860000|1795863600
4812_2|4815|amc-94fqx0gz|OUT_OF_MEMORY|0:125|gpu-02|1795860000|1795863600
4812_3|4816|amc-94fqx0gz|PREEMPTED|0:0|gpu-03|1795860000|1795863600
4812_3|4816|amc-94fqx0gz|RUNNING|0:0|gpu-01|1795864000|Unknown
4812_4|4817|amc-94fqx0gz|NODE_FAIL|1:0|gpu-04|1795860000|1795863600
4812_5|4818|amc-94fqx0gz|CANCELLED by 1000|0:15|gpu-03|1795860000|1795863600
4812_6|4819|amc-94fqx0gz|FAILED|75:0|gpu-03|1795860000|1795863600
4812_7|4820|amc-94fqx0gz|FAILED|1:0|gpu-03|1795860000|1795863600
4812_[8-11%4]|4812|amc-94fqx0gz|PENDING|0:0|None assigned|Unknown|Unknown
"""
# What sacct 22.05 of a cluster of one node printed, with slurmdbd and MariaDB. The node was set down at ...923.
RECORDED = """\
40933000|40933000|amc-94fqx0gz|COMPLETED|0:0|vm|1795869794|1795869796
40933001|40933001|amc-94fqx0gz|FAILED|75:0|vm|1795869794|1795869795
40933003|40933003|amc-94fqx0gz|PREEMPTED|0:0|vm|1795869794|1795869832
40933006|40933006|amc-94fqx0gz|REQUEUED|0:0|vm|1795869794|1795869812
40933004_0|40933007|amc-94fqx0gz|CANCELLED by 0|0:0|vm|1795869794|1795869812
40933004_1|40933004|amc-94fqx0gz|NODE_FAIL|0:0|vm|1795869794|1795869923
40933006|40933006|amc-94fqx0gz|NODE_FAIL|0:0|vm|1795869818|1795869923
40933003|40933003|amc-94fqx0gz|TIMEOUT|0:0|vm|1795869838|1795869911
40933006|40933006|amc-94fqx0gz|RUNNING|0:0|vm|1795869930|Unknown
"""
# What sacct 22.05 printed of two tasks of an array whose Python asked for 600 MB of 60, with memory cgroups.
RECORDED_OUT_OF_MEMORY = """\
1_0|2|amc-94fqx0gz|OUT_OF_MEMORY|0:125|vm|1795881679|1795881679
1_1|1|amc-94fqx0gz|OUT_OF_MEMORY|0:125|vm|1795881679|1795881679
"""
SCONTROL = """\
JobId=4814 ArrayJobId=4812 ArrayTaskId=1 JobName=amc-94fqx0gz UserId=me(1000) GroupId=me(1000) Priority=1 \
Nice=0 Account=(null) QOS=(null) JobState=TIMEOUT Reason=TimeLimit Dependency=(null) Requeue=1 Restarts=0 BatchFlag=1 \
Reboot=0 ExitCode=0:15 RunTime=01:00:00 TimeLimit=01:00:00 TimeMin=N/A SubmitTime=1795859990 EligibleTime=1795859990 \
AccrueTime=1795859990 StartTime=1795860000 EndTime=1795863600 Deadline=N/A Partition=gpu NodeList=gpu-02 \
BatchHost=gpu-02 NumNodes=1 Command=/home/me/array.sh WorkDir=/home/me
JobId=4815 ArrayJobId=4812 ArrayTaskId=2 JobName=amc-94fqx0gz JobState=PENDING Reason=BeginTime Requeue=1 Restarts=1 \
ExitCode=0:0 StartTime=1795863800 EndTime=1795867400 NodeList=(null)
JobId=4812 ArrayJobId=4812 ArrayTaskId=3-7%4 JobName=amc-94fqx0gz JobState=PENDING Reason=Resources Restarts=0 \
StartTime=Unknown EndTime=Unknown NodeList=
JobId=4900 JobName=bash JobState=RUNNING Restarts=0 StartTime=2026-11-28T10:00:00 EndTime=2026-11-28T12:00:00 NodeList=a
"""


def of(job_id: str) -> SlurmJob:
    """Return the first record of a job in SACCT."""
    return next(job for job in parse_sacct(SACCT) if job.id == job_id)


def test_every_record_of_sacct_is_read() -> None:
    jobs = parse_sacct(SACCT)
    assert len(jobs) == len(SACCT.splitlines())
    assert jobs[1] == SlurmJob("4812_1", "4814", "amc-94fqx0gz", "TIMEOUT", "gpu-02", 0, BEGAN, ENDED)
    assert (jobs[6].state, jobs[-1].nodes, jobs[-1].began_at) == ("CANCELLED", "", None)
    assert [job.is_alive for job in jobs] == [False] * 4 + [True] + [False] * 4 + [True]


@pytest.mark.parametrize(
    ("number", "heard_at", "state"),
    [
        ("40933001", 1795869795, "FAILED"),  # exit code 75
        ("40933003", 1795869825, "PREEMPTED"),
        ("40933003", 1795869905, "TIMEOUT"),
        ("40933006", 1795869811, "REQUEUED"),
        ("40933006", 1795869900, "NODE_FAIL"),
        ("40933006", 1795869940, None),  # it runs again
        ("40933007", 1795869810, "CANCELLED"),
        ("40933004", 1795869900, "NODE_FAIL"),
    ],
)
def test_what_a_real_sacct_printed_says_how_each_start_of_a_job_ended(
    number: str, heard_at: int, state: str | None
) -> None:
    job = job_of_run(parse_sacct(RECORDED), number, datetime.fromtimestamp(heard_at, UTC))
    assert (None if job is None else job.state) == state


def test_a_run_whose_job_took_too_much_memory_is_named_from_what_a_real_sacct_printed() -> None:
    job = job_of_run(parse_sacct(RECORDED_OUT_OF_MEMORY), "2", datetime.fromtimestamp(1795881679, UTC))
    diagnosis = classify(Evidence("crashed", job=job))
    assert diagnosis.cause is Cause.OUT_OF_MEMORY
    assert diagnosis.because == "Slurm job 1_0 on vm: OUT_OF_MEMORY"


def test_every_record_of_scontrol_is_read() -> None:
    timeout, requeued, waiting, other = parse_scontrol(SCONTROL)
    assert timeout == SlurmJob("4812_1", "4814", "amc-94fqx0gz", "TIMEOUT", "gpu-02", 0, BEGAN, ENDED)
    assert (requeued.id, requeued.restarts, requeued.nodes, requeued.ended_at) == ("4812_2", 1, "", None)
    assert (waiting.id, waiting.state) == ("4812_[3-7%4]", "PENDING")
    assert (other.id, other.nodes) == ("4900", "a")
    assert other.began_at is not None, "Slurm's own local time is read, too"
    assert parse_scontrol("No jobs in the system\n") == parse_sacct("sacct: error: no\n") == []


def test_the_waiting_tasks_of_an_array_are_counted() -> None:
    counts = {"PENDING": 4, "RUNNING": 1, "COMPLETED": 1, "TIMEOUT": 1, "OUT_OF_MEMORY": 1, "PREEMPTED": 1,
              "NODE_FAIL": 1, "CANCELLED": 1, "FAILED": 2}  # fmt: skip
    assert state_counts(parse_sacct(SACCT)) == counts
    assert list(state_counts(parse_sacct(SACCT)))[:3] == ["PENDING", "RUNNING", "COMPLETED"]
    assert state_counts([SlurmJob("1_[0-8:4,10]", "1", "a", "PENDING")]) == {"PENDING": 4}


@pytest.mark.parametrize(
    ("job_id", "cause", "because"),
    [
        ("4812_1", Cause.PREEMPTED, "Slurm job 4812_1 on gpu-02: TIMEOUT"),
        ("4812_2", Cause.OUT_OF_MEMORY, "Slurm job 4812_2 on gpu-02: OUT_OF_MEMORY"),
        ("4812_3", Cause.PREEMPTED, "Slurm job 4812_3 on gpu-03: PREEMPTED"),
        ("4812_4", Cause.NODE_FAILURE, "Slurm job 4812_4 on gpu-04: NODE_FAIL"),
        ("4812_5", Cause.INTERRUPTED, "Slurm job 4812_5 on gpu-03: CANCELLED"),
        ("4812_6", Cause.PREEMPTED, "Slurm job 4812_6 on gpu-03: ended before its time limit (exit code 75)"),
        ("4812_0", Cause.LOST, "its heartbeat stopped and nothing else is known"),
        ("4812_7", Cause.LOST, "its heartbeat stopped and nothing else is known"),
    ],
)
def test_the_end_of_a_job_is_the_cause_of_a_lost_run(job_id: str, cause: Cause, because: str) -> None:
    job = job_of_run(parse_sacct(SACCT), of(job_id).number, ENDED - timedelta(seconds=20))
    diagnosis = classify(Evidence("crashed", job=job))
    assert (diagnosis.cause, diagnosis.because) == (cause, because)


def test_a_run_that_ended_by_itself_keeps_its_own_cause() -> None:
    timeout = of("4812_1")
    assert classify(Evidence("failed", exit_code=80, job=timeout)).cause is Cause.DIVERGED
    assert classify(Evidence("failed", end_reason="data_error", job=timeout)).cause is Cause.DATA_ERROR
    assert classify(Evidence("failed", log_tail="ValueError: no", job=timeout)).cause is Cause.ERROR
    assert classify(Evidence("finished", exit_code=0, job=timeout)).cause is Cause.COMPLETED
    killed = classify(Evidence("failed", exit_code=137, job=of("4812_2")))
    assert killed.cause is Cause.OUT_OF_MEMORY, "a signal is no end of its own"


def test_a_preempted_run_names_its_job() -> None:
    job = of("4812_3")
    assert classify(Evidence("preempted", job=job)).because == f"state preempted; {job.words}"
    assert classify(Evidence("failed", end_reason="preempted", job=job)).because.endswith(job.words)


def test_only_the_start_of_a_job_that_had_the_run_counts() -> None:
    jobs = parse_sacct(SACCT)
    first = job_of_run(jobs, "4816", ENDED - timedelta(seconds=20))
    assert first is not None
    assert first.state == "PREEMPTED"
    assert job_of_run(jobs, "4816", datetime.fromtimestamp(1795864500, UTC)) is None, "this start still runs"
    assert job_of_run(jobs, "4999", ENDED) is None
    later = parse_scontrol(SCONTROL)
    requeued = job_of_run(later, "4815", ENDED - timedelta(seconds=20))
    assert requeued is not None
    assert (requeued.words, requeued.cause) == ("Slurm job 4812_2: REQUEUED", "preempted")


def test_a_run_that_was_silent_long_before_its_job_ended_was_ended_by_something_else() -> None:
    jobs = parse_sacct(SACCT)
    early = ENDED - timedelta(minutes=20)
    assert job_of_run(jobs, of("4812_1").number, early) is None
    assert job_of_run(jobs, of("4812_2").number, early) is not None, "out of memory: the job may go on"
    assert job_of_run(jobs, of("4812_4").number, early) is not None, "Slurm notices a dead node late"
