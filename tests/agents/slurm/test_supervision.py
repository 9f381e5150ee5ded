"""The batch script at work: real bash, real signals and processes. The agent and scontrol are small scripts."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from client_scenarios import wait_until

from amc_agents.slurm.script import ArrayOfAgents, script_text

# It writes its arguments, its key and the signals that it gets, and ends after the first of them with CODE. A process
# of its own session ignores SIGTERM.
AGENT = """\
#!/bin/bash
echo "$@" > arguments
echo "$WANDB_BASE_URL $WANDB_API_KEY $AMC_SIGTERM" > environment
setsid bash -c 'trap "" TERM; sleep 300' &
for number in USR1 TERM; do trap "echo $number >> signals; $ON_SIGNAL" $number; done
touch ready
while :; do sleep 0.05; done
"""


class Job:
    """A task of an array, as slurmstepd would start it."""

    def __init__(self, folder: Path, **changes: object) -> None:
        self.folder, self.number = folder, uuid.uuid4().hex
        for name, text in (("amc-sweep", AGENT), ("scontrol", '#!/bin/bash\necho "$@" >> scontrol.calls\n')):
            (folder / name).write_text(text)
            (folder / name).chmod(0o700)
        (folder / "key").write_text("amc-secret\n")
        settings = {
            "sweep": "local/demo/94fqx0gz",
            "agents": 2,
            "time": "00:10:00",
            "folder": folder,
            "working_folder": folder,
            "amc_sweep": folder / "amc-sweep",
            "base_url": "http://login:8418",
            "key_file": folder / "key",
            **changes,
        }
        self._text = script_text(ArrayOfAgents(**settings))  # type: ignore[arg-type]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, on_signal: str = "exit 75", **settings: str) -> psutil.Process:
        """Run the script until its agent is ready; return its process."""
        for name, value in settings.items():
            self._text = self._text.replace(f"\n{name}=", f"\n{name}={value}  # instead of ")
        (self.folder / "array.sh").write_text(self._text)
        slurm = {"SLURM_JOB_ID": self.number, "SLURM_ARRAY_JOB_ID": "4812", "SLURM_ARRAY_TASK_ID": "1"}
        path = f"{self.folder}{os.pathsep}{os.environ['PATH']}"
        self._process = subprocess.Popen(
            ["bash", "array.sh"],
            cwd=self.folder,
            env={**os.environ, **slurm, "PATH": path, "ON_SIGNAL": on_signal},
            start_new_session=True,
        )
        wait_until((self.folder / "ready").exists, "the agent runs", 10)
        return psutil.Process(self._process.pid)

    def exit_code(self) -> int:
        """Wait for the end of the script."""
        assert self._process is not None
        return self._process.wait(timeout=20)

    def processes(self) -> list[psutil.Process]:
        """Return every process that carries the job's id."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("SLURM_JOB_ID") == self.number:
                    found.append(process)
        return found

    def signal_all(self, number: signal.Signals) -> None:
        """Signal every process of the job, as scancel does."""
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.send_signal(number)

    def lines(self, name: str) -> list[str]:
        """Return the lines of a file that the fakes wrote."""
        return (self.folder / name).read_text().splitlines() if (self.folder / name).exists() else []

    def end(self) -> None:
        """Kill what is left."""
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()
        if self._process is not None:
            self._process.wait()


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    """Return a job that may be requeued."""
    made = Job(tmp_path, requeue=True)
    yield made
    made.end()


def test_the_agent_gets_its_sweep_its_time_and_the_key_but_not_on_its_command_line(job: Job) -> None:
    shell = job.start()
    arguments = job.lines("arguments")[0]
    assert arguments.startswith("agent local/demo/94fqx0gz --workers 1 --idle-limit 600s --grace 110s")
    assert f"--logs {job.folder}/4812_1 --time-limit " in arguments
    seconds = int(arguments.split("--time-limit ")[1].removesuffix("s"))
    assert 460 <= seconds <= 480, "ten minutes less the two of the warning and the time since the job's start"
    assert job.lines("environment") == ["http://login:8418 amc-secret preemption"]
    shown = " ".join(" ".join(process.cmdline()) for process in job.processes())
    assert "amc-secret" not in shown
    shell.send_signal(signal.SIGUSR1)
    job.exit_code()


def test_a_warned_job_ends_and_is_queued_again(job: Job) -> None:
    job.start().send_signal(signal.SIGUSR1)  # Slurm signals the shell alone: --signal=B:
    assert job.exit_code() == 75
    assert job.lines("signals") == ["USR1"]
    assert job.lines("scontrol.calls") == [f"requeue {job.number}"]
    assert job.processes() == [], "what had left the session is ended, too"


def test_a_job_that_slurm_ends_is_not_queued_again(job: Job) -> None:
    job.start()
    job.signal_all(signal.SIGTERM)
    assert job.exit_code() == 75
    assert job.lines("signals") == ["TERM"], "one signal: a second one would make the fleet kill its trials"
    assert job.lines("scontrol.calls") == []
    assert job.processes() == []


def test_an_agent_that_does_not_end_is_told_again_before_slurm_kills(job: Job) -> None:
    job.start("[ $(wc -l < signals) = 1 ] || exit 143", term_grace_s="0.5")
    job.signal_all(signal.SIGTERM)
    assert job.exit_code() == 143
    assert job.lines("signals") == ["TERM", "TERM"]
    assert job.processes() == []


@pytest.mark.parametrize("code", [0, 1, 75])
def test_the_exit_code_is_the_agents(tmp_path: Path, code: int) -> None:
    job = Job(tmp_path, requeue=False)
    try:
        job.start(f"exit {code}").send_signal(signal.SIGUSR1)
        assert job.exit_code() == code
        assert job.lines("scontrol.calls") == [], "the job may not be requeued"
    finally:
        job.end()


def test_a_job_whose_key_cannot_be_read_ends_at_once(tmp_path: Path) -> None:
    job = Job(tmp_path, key_file=tmp_path / "none")
    (tmp_path / "array.sh").write_text(job._text)
    ended = subprocess.run(["bash", "array.sh"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "No such file" in ended.stderr
    assert not (tmp_path / "ready").exists()
