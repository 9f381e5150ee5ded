"""Runs get the Slurm jobs that ended them. sacct and scontrol are small scripts that print recorded texts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sweep_records import completed, run, sweep

from amc_analysis.analyse import rank_runs
from amc_analysis.reading.serialisation import run_from_json, run_to_json
from amc_analysis.reading.slurm_accounting import read_jobs, with_jobs
from amc_analysis.runs.history import History
from amc_sweeps.runs.causes import Cause
from amc_sweeps.runs.records import SweepRecord

ENDED = datetime.fromtimestamp(1795863600, UTC)
SACCT = """\
4812_1|4814|amc-94fqx0gz|TIMEOUT|0:0|gpu-02|1795860000|1795863600
4812_2|4815|amc-94fqx0gz|OUT_OF_MEMORY|0:125|gpu-02|1795860000|1795863600
4812_4|4817|amc-94fqx0gz|NODE_FAIL|1:0|gpu-04|1795860000|1795863600
4700|4700|other|TIMEOUT|0:0|gpu-02|1795860000|1795863600
"""
SCONTROL = """\
JobId=4814 ArrayJobId=4812 ArrayTaskId=1 JobName=amc-94fqx0gz JobState=CANCELLED ExitCode=0:15 Restarts=0 \
StartTime=1795860000 EndTime=1795863600 NodeList=gpu-02
"""


class Metadata:
    """The metadata files of runs; asked for others, it fails as a server may."""

    def __init__(self, numbers: Mapping[str, str | None]) -> None:
        self._numbers = numbers
        self.asked: list[str] = []

    def file(self, project: str, run_id: str, names: Sequence[str]) -> bytes | None:
        """Return a run's file."""
        assert (project, names) == ("local/amc-sweeps", ["wandb-metadata.json"])
        self.asked.append(run_id)
        number = self._numbers[run_id]
        return None if number is None else json.dumps({"slurm": {"job_id": number}}).encode()


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, **programs: str) -> Path:
    """Make programs that write down how they are called and print a text; an empty text is a failure."""
    folder.mkdir()
    for name, text in programs.items():
        (folder / f"{name}.txt").write_text(text)
        lines = [f'echo "{name} $SLURM_TIME_FORMAT $*" >> {folder}/calls', f"cat {folder}/{name}.txt"]
        (folder / name).write_text("\n".join(["#!/bin/sh", *lines, f"test -s {folder}/{name}.txt"]))
        (folder / name).chmod(0o700)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder / "calls"


def lost(run_id: str, **more: str) -> SweepRecord:
    """Return a sweep with one run that fell silent at the end of its job, and one that completed."""
    crashed = run(run_id, [0.4], state="crashed", heartbeat_at=ENDED, **more)
    failed = run("failed", [0.3], state="failed", exit_code=1)
    return sweep(crashed, completed("good", [0.5]), failed, read_at=ENDED)


@pytest.mark.parametrize(
    ("number", "cause"), [("4814", Cause.PREEMPTED), ("4815", Cause.OUT_OF_MEMORY), ("4817", Cause.NODE_FAILURE)]
)
def test_the_analysis_takes_the_end_of_a_job_as_the_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: str, cause: Cause
) -> None:
    calls = install(tmp_path / "bin", monkeypatch, sacct=SACCT)
    files = Metadata({"cut": number})
    ranked = rank_runs(with_jobs(lost("cut"), files)).ranked
    causes = {entry.run.run_id: entry.cause for entry in ranked}
    assert causes == {"cut": cause, "good": Cause.COMPLETED, "failed": Cause.ERROR}
    assert files.asked == ["cut"], "only runs whose end is unclear cost a request"
    assert f"sacct %s --jobs {number} " in calls.read_text()


def test_scontrol_tells_where_there_is_no_accounting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "bin", monkeypatch, sacct="", scontrol=SCONTROL)
    ranked = rank_runs(with_jobs(lost("cut"), Metadata({"cut": "4814"}))).ranked
    (diagnosis,) = [entry.diagnosis for entry in ranked if entry.run.run_id == "cut"]
    assert (diagnosis.cause, diagnosis.because) == (Cause.INTERRUPTED, "Slurm job 4812_1 on gpu-02: CANCELLED")


def test_what_cannot_be_read_leaves_the_run_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    record = lost("cut")
    files = Metadata({"cut": "4814"})
    assert with_jobs(record, files) is record
    assert files.asked == [], "without Slurm nothing is looked for"
    install(tmp_path / "bin", monkeypatch, sacct="", scontrol="")
    for numbers in ({"cut": "4814"}, {"cut": None}, {"cut": "4814; rm"}, {}):
        assert with_jobs(record, Metadata(numbers)).runs[0].job is None


def test_the_jobs_of_a_sweep_are_found_by_their_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = install(tmp_path / "bin", monkeypatch, sacct=SACCT)
    assert [job.id for job in read_jobs(name="amc-94fqx0gz")] == ["4812_1", "4812_2", "4812_4"]
    assert "--name amc-94fqx0gz --starttime " in calls.read_text()


def test_a_saved_run_keeps_its_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "bin", monkeypatch, sacct=SACCT)
    joined = with_jobs(lost("cut"), Metadata({"cut": "4814"})).runs[0]
    assert joined.job is not None
    assert run_from_json(json.loads(json.dumps(run_to_json(joined))), History()).job == joined.job
