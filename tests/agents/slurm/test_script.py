"""What stands in the batch script of an array of agents."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from amc_agents.slurm.script import ArrayOfAgents, ScriptError, script_text, stagger_ms, time_limit_s, warning_s

JOB = ArrayOfAgents(
    sweep="local/demo/94fqx0gz",
    agents=8,
    time="08:00:00",
    folder=Path("/home/me/slurm-logs/94fqx0gz"),
    working_folder=Path("/home/me"),
    amc_sweep=Path("/venv/bin/amc-sweep"),
    base_url="https://login:8418",
    key_file=Path("/home/me/slurm-logs/94fqx0gz/key"),
    gres="gpu:1",
)


def options(job: ArrayOfAgents) -> list[str]:
    """Return what sbatch reads from the script."""
    return re.findall(r"^#SBATCH (.*)$", script_text(job), re.MULTILINE)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 5400), ("90:30", 5430), ("08:00:00", 28800), ("1-12", 129600), ("2-1:30", 178200), ("0-0:10:30", 630)],
)
def test_a_time_limit_is_read_as_sbatch_reads_it(text: str, seconds: int) -> None:
    assert time_limit_s(text) == seconds


@pytest.mark.parametrize("text", ["8h", "", "1:2:3:4", "-5", "0:30", "UNLIMITED", "1-"])
def test_what_is_no_time_limit_is_refused(text: str) -> None:
    with pytest.raises(ScriptError, match="08:00:00"):
        time_limit_s(text)


def test_slurm_gets_every_option() -> None:
    job = replace(
        JOB, partition="gpu", account="amc", exclude="gpu-03", requeue=True, array_limit=4, more=("--mem=9G",)
    )
    assert options(job) == [
        "--job-name=amc-94fqx0gz",
        "--array=0-7%4",
        "--nodes=1",
        "--ntasks=1",
        "--time=08:00:00",
        "--gres=gpu:1",
        "--partition=gpu",
        "--account=amc",
        "--exclude=gpu-03",
        "--signal=B:USR1@120",
        "--requeue",
        "--open-mode=append",
        "--output=/home/me/slurm-logs/94fqx0gz/%A_%a.out",
        "--chdir=/home/me",
        "--mem=9G",
    ]
    assert {"--array=0-7", "--no-requeue"} <= set(options(JOB))
    assert '"--chdir=/home/me/my sweeps"' in options(replace(JOB, working_folder=Path("/home/me/my sweeps")))


@pytest.mark.parametrize("more", ["mem=9G", "--mem=9G\nrm -r x", '--comment="a"', "--x=a\\b", ""])
def test_what_is_no_option_of_sbatch_is_refused(more: str) -> None:
    with pytest.raises(ScriptError, match="--mem=32G"):
        script_text(replace(JOB, more=(more,)))


def test_the_agent_ends_before_the_job_does() -> None:
    text = script_text(JOB)
    assert "\ntime_s=28680  #" in text, "eight hours less two minutes"
    assert "--grace 110s" in text
    short = script_text(replace(JOB, time="00:02:00"))
    assert "--signal=B:USR1@30\n" in short
    assert "\ntime_s=90  #" in short
    assert "--grace 20s" in short
    assert (warning_s(60), warning_s(86400)) == (15, 120)


def test_the_starts_of_a_large_array_lie_within_a_minute() -> None:
    assert stagger_ms(8) == 500
    assert stagger_ms(360) * 360 <= 60_000


def test_the_agent_works_on_the_jobs_gpus_or_on_its_cpu() -> None:
    assert '--gpus "${CUDA_VISIBLE_DEVICES:-all}"' in script_text(JOB)
    assert '--gpus "${CUDA_VISIBLE_DEVICES:-all}"' in script_text(replace(JOB, gres="gpu:a100:2"))
    assert "--workers 1" in script_text(replace(JOB, gres=None))
    assert "--workers 1" in script_text(replace(JOB, gres="licence:1"))


def test_the_key_is_read_from_its_file() -> None:
    assert f"WANDB_API_KEY=$(cat {JOB.key_file}) || exit 1" in script_text(JOB)
    assert "export WANDB_BASE_URL=https://login:8418\n" in script_text(JOB)
    assert "export WANDB_API_KEY" not in script_text(replace(JOB, key_file=None)), "the login is in the home folder"


def test_only_a_job_that_may_be_requeued_is() -> None:
    assert "\nrequeue=yes\n" in script_text(replace(JOB, requeue=True))
    assert "--late-exit-code 75" in script_text(replace(JOB, requeue=True))
    assert "\nrequeue=\n" in script_text(JOB)
    assert "--late-exit-code" not in script_text(JOB)


def test_the_users_lines_come_before_the_agent() -> None:
    text = script_text(replace(JOB, setup="module load cuda\nactivate amc\n"))
    assert text.index("module load cuda\nactivate amc\n") < text.index("agent=(")


@pytest.mark.parametrize("job", [JOB, replace(JOB, gres=None, requeue=True, count=3, key_file=None, setup="true")])
def test_bash_can_read_it(job: ArrayOfAgents) -> None:
    read = subprocess.run(["bash", "-n"], input=script_text(job), text=True, capture_output=True, check=False)
    assert (read.returncode, read.stderr) == (0, "")
