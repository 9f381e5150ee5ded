"""The batch script of an array of agents: text in, text out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from shlex import quote

from amc_sweeps.number_formats import counted, quoted
from amc_sweeps.runs.slurm_jobs import job_name

WARNING_S = 120  # before its time limit a job is asked to end, so that its trials can save
LONGEST_STAGGER_S = 60.0  # between the first and the last start of an array's agents
STAGGER_S = 0.5  # between two starts, unless the array is so large that the last would wait too long
REPORT_S = 10  # the fleet needs them to report to W&B what its trials could not
TERM_GRACE_S = 30 - REPORT_S  # Slurm kills 30 s (KillWait) after SIGTERM

_OPTION = re.compile(r"--?[A-Za-z][^\n\r\"'\\]*")
_TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<rest>\d+(?::\d+){0,2})")


class ScriptError(ValueError):
    """An option cannot stand in a batch script; the message says which and what to write."""


@dataclass(frozen=True)
class ArrayOfAgents:
    """What ``amc-sweep launch slurm`` was asked for, and where things are."""

    sweep: str  # ENTITY/PROJECT/ID
    agents: int
    time: str  # as --time of sbatch
    folder: Path  # of the script, the key and the logs; every node sees it
    working_folder: Path
    amc_sweep: Path  # the command
    base_url: str
    key_file: Path | None = None  # None: the nodes find the login by themselves
    gres: str | None = None
    partition: str | None = None
    account: str | None = None
    exclude: str | None = None
    requeue: bool = False
    array_limit: int | None = None
    count: int | None = None  # trials of one job
    idle_limit_s: float = 600.0
    setup: str = ""  # lines of the user's own
    more: tuple[str, ...] = ()  # further options of sbatch


def time_limit_s(text: str) -> int:
    """Return the seconds of a time limit of sbatch: M, M:S, H:M:S, D-H, D-H:M or D-H:M:S.

    >>> time_limit_s("08:00:00"), time_limit_s("90"), time_limit_s("1-12")
    (28800, 5400, 129600)

    Raises:
        ScriptError: the text is none of these, or less than a minute.
    """
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise ScriptError(f"--time {quoted(text)} is no time limit of sbatch: write it like 08:00:00 or 1-12:00:00")
    numbers = [int(number) for number in match["rest"].split(":")]
    if match["days"] is not None:
        hours, minutes, seconds = [*numbers, 0, 0][:3]
        hours += 24 * int(match["days"])
    elif len(numbers) == 3:
        hours, minutes, seconds = numbers
    else:
        hours, (minutes, seconds) = 0, [*numbers, 0][:2]
    total = (hours * 60 + minutes) * 60 + seconds
    if total < 60:
        raise ScriptError(
            f"--time {quoted(text)}: Slurm's limits are minutes, and the least is 1: write it like 08:00:00"
        )
    return total


def warning_s(limit_s: int) -> int:
    """Return how long before its time limit a job is asked to end: two minutes, or a quarter of a short limit."""
    return min(WARNING_S, limit_s // 4)


def stagger_ms(agents: int) -> int:
    """Return the pause between the starts of two agents, in milliseconds."""
    return int(1000 * min(STAGGER_S, LONGEST_STAGGER_S / agents))


def script_text(job: ArrayOfAgents) -> str:
    """Return the batch script.

    Raises:
        ScriptError: an option is no option of sbatch.
    """
    limit_s = time_limit_s(job.time)
    warn_s = warning_s(limit_s)
    setup = ["# From --setup", job.setup.strip("\n"), ""] if job.setup.strip() else []
    return "\n".join(
        [
            "#!/bin/bash",
            f"# {counted(job.agents, 'agent')} of the sweep {job.sweep}: each task of this array is one of them.",
            "# Written by amc-sweep launch slurm. To change it, edit it and submit it with sbatch.",
            *(f"#SBATCH {option}" for option in _options(job, warn_s)),
            "",
            *_environment(job),
            "",
            *setup,
            *_settings(job, limit_s, warn_s),
            "",
            files("amc_agents.slurm").joinpath("supervision.sh").read_text(),
        ]
    )


def _options(job: ArrayOfAgents, warn_s: int) -> list[str]:
    at_a_time = f"%{job.array_limit}" if job.array_limit is not None else ""
    named = {"gres": job.gres, "partition": job.partition, "account": job.account, "exclude": job.exclude}
    options = [
        f"--job-name={job_name(job.sweep.rpartition('/')[2])}",
        f"--array=0-{job.agents - 1}{at_a_time}",
        "--nodes=1",
        "--ntasks=1",
        f"--time={job.time}",
        *(f"--{name}={value}" for name, value in named.items() if value is not None),
        f"--signal=B:USR1@{warn_s}",
        "--requeue" if job.requeue else "--no-requeue",
        "--open-mode=append",  # a job that starts again goes on in its log
        f"--output={job.folder}/%A_%a.out",
        f"--chdir={job.working_folder}",
        *job.more,
    ]
    for option in options:
        if not _OPTION.fullmatch(option):
            raise ScriptError(
                f"{quoted(option)} cannot be an option in a batch script: write it in one line like --mem=32G, without "
                "quotes and backslashes"
            )
    return [f'"{option}"' if " " in option else option for option in options]


def _environment(job: ArrayOfAgents) -> list[str]:
    key = []
    if job.key_file is not None:
        key = [
            f"WANDB_API_KEY=$(cat {quote(str(job.key_file))}) || exit 1  # on no command line: other users see those",
            "export WANDB_API_KEY",
        ]
    return [
        "unset WANDB_SERVICE WANDB_RUN_ID WANDB_SWEEP_ID  # they belong to the shell that submitted this",
        f"export WANDB_BASE_URL={quote(job.base_url)}",
        *key,
        "export AMC_SIGTERM=preemption  # a job that is ended from outside loses its machine: its trials save",
    ]


def _settings(job: ArrayOfAgents, limit_s: int, warn_s: int) -> list[str]:
    is_gpu = job.gres is not None and re.match(r"(?:gres/)?gpu\b", job.gres)
    arguments = [
        f"{quote(str(job.amc_sweep))} agent {quote(job.sweep)}",
        '--gpus "${CUDA_VISIBLE_DEVICES:-all}"' if is_gpu else "--workers 1",
        *([] if job.count is None else [f"--count {job.count}"]),
        f"--idle-limit {job.idle_limit_s:g}s --grace {max(warn_s - REPORT_S, 1)}s",
        *(["--late-exit-code 75"] if job.requeue else []),
        f"--logs {quote(str(job.folder))}/${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID",
    ]
    return [
        "agent=(",
        *(f"    {argument}" for argument in arguments),
        ")",
        f"time_s={limit_s - warn_s}  # no trial begins that would not end by then",
        f"term_grace_s={TERM_GRACE_S}  # of the 30 s that Slurm waits before it kills (KillWait)",
        f"stagger_ms={stagger_ms(job.agents)}",
        f"requeue={'yes' if job.requeue else ''}",
    ]
