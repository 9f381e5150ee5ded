"""Sweeps on a real Slurm of one node with two pretend GPUs and 40 declared CPUs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import slurm_cluster
from client_scenarios import wait_until
from embedded_server import EmbeddedServer
from preempted_trials import SMALL, frames
from results_file import keep
from slurm_cluster import SlurmCluster, processes_of
from slurm_scenarios import FIVE_LINES, SlurmUser

REASON = slurm_cluster.missing()
pytestmark = [
    *(pytest.mark.client, pytest.mark.timeout(1800)),
    pytest.mark.skipif(REASON is not None, reason=REASON or ""),
]
PLAIN = """\
#!/bin/bash
#SBATCH --job-name=my-own
#SBATCH --time=1
#SBATCH --output=my-own-%j.out
wandb agent --count 1 {sweep}
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(tmp_path / "data", options=("--limit", "unlisted_s=20", "--limit", "silence_s=40")) as server:
        yield server


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[SlurmCluster]:
    with SlurmCluster(tmp_path / "slurm") as cluster:
        yield cluster


def test_eight_agents_on_two_gpus_finish_a_grid_of_sixteen(
    tmp_path: Path, server: EmbeddedServer, cluster: SlurmCluster
) -> None:
    user = SlurmUser(tmp_path / "work", server, cluster)
    sweep = user.grid(16)
    began_s = time.monotonic()
    array = user.launch(sweep, "--agents", "8", "--gres", "gpu:1", "--time", "00:20:00", "--count", "3")
    most = 0
    while cluster.jobs():
        most = max(most, len(cluster.jobs("RUNNING")))
        time.sleep(1)
    ended = user.sweep(sweep)
    assert sorted(run["a"] for run in ended["runs"].values()) == list(range(16)), user.logs()
    assert set(user.states(sweep).values()) == {"finished"}
    assert set(map(tuple, user.epochs(sweep).values())) == {(1, 2, 3)}
    states = Counter(cluster.state(f"{array}_{task}") for task in range(8))
    assert states == {"COMPLETED": 8}
    assert most == 2
    keep(
        "slurm_array",
        full=True,
        figures={
            "tasks of the array": 8,
            "pretend GPUs": 2,
            "most jobs at a time": most,
            "configurations, each run exactly once": 16,
            "jobs COMPLETED": states["COMPLETED"],
            "seconds": time.monotonic() - began_s,
        },
    )


def test_a_job_that_reaches_its_time_limit_loses_nothing_and_is_named(
    tmp_path: Path, server: EmbeddedServer, cluster: SlurmCluster
) -> None:
    user = SlurmUser(tmp_path / "work", server, cluster)
    sweep = user.grid(1)
    epochs = 6000  # ten minutes
    warned = user.launch(sweep, "--agents", "1", "--time", "00:04:00", EPOCHS=str(epochs))
    wait_until(lambda: user.states(sweep).get(0) == "preempted", "the warned trial saves", 300)
    wait_until(lambda: not cluster.jobs(), "its job ends", 30)
    assert cluster.state(f"{warned}_0") == "FAILED", "exit code 75"
    said = user.status(sweep)["jobs"]["ended_runs"]
    assert [(end["job"], end["cause"]) for end in said] == [(f"{warned}_0", "preempted")]
    before = len(user.epochs(sweep)[0])
    # A script of the user's own, without a signal: Slurm ends it at its limit.
    (user.folder / "own.sh").write_text(PLAIN.format(sweep=sweep))
    own = user.sbatch("own.sh", EPOCHS=str(epochs), AMC_SIGTERM="preemption")
    wait_until(lambda: cluster.state(own) == "TIMEOUT", "Slurm ends the job", 240)
    wait_until(lambda: user.states(sweep)[0] not in {"running", "preempting"}, "W&B notices", 120)
    said = user.status(sweep)["jobs"]["ended_runs"]
    assert [(end["job"], end["state"], end["cause"]) for end in said] == [(own, "TIMEOUT", "preempted")]
    after = user.epochs(sweep)[0]
    assert after == list(range(1, len(after) + 1))
    assert len(after) > before
    keep(
        "slurm_time_limit",
        full=True,
        figures={
            "job with a limit of 4 minutes, warned": said[0]["cause"],
            "epochs when it was warned": before,
            "job with a limit of 1 minute, ended by Slurm": "TIMEOUT",
            "epochs then, each exactly once": len(after),
        },
    )


def test_amc_train_goes_on_after_its_job_was_cancelled(
    tmp_path: Path, server: EmbeddedServer, cluster: SlurmCluster
) -> None:
    user = SlurmUser(tmp_path / "work", server, cluster)
    parameters = "".join(f"  {name}: {{value: {value}}}\n" for name, value in {**SMALL, "epochs": 12}.items())
    sweep = user.create_sweep(
        'program: amc-train\ncommand: ["${env}", "${program}", "${args}"]\nmethod: grid\n'
        f"metric: {{name: val/combined_acc, goal: maximize}}\nparameters:\n{parameters}"
    )
    options = ("--agents", "1", "--gres", "gpu:1", "--time", "00:20:00")
    env = {"AMC_DATA": str(frames(user.folder)), "OMP_NUM_THREADS": "1"}
    first = user.launch(sweep, *options, **env)
    number = cluster.number(f"{first}_0")
    wait_until(lambda: len(user.epochs(sweep).get(None, [])) >= 2, "it trains", 240)
    wait_until(lambda: user.with_metadata(sweep) == 1, "W&B knows its job", 60)
    cancelled_s = time.monotonic()
    cluster.ask("scancel", f"{first}_0")
    wait_until(lambda: not processes_of(number), "no process carries the job's id", 40)
    gone_s = time.monotonic() - cancelled_s
    wait_until(lambda: user.states(sweep)[None] == "preempted", "W&B knows", 60)
    said = user.status(sweep)["jobs"]["ended_runs"]
    assert [(end["state"], end["cause"]) for end in said] == [("CANCELLED", "preempted")]
    before = user.epochs(sweep)[None]
    user.launch(sweep, *options, **env)
    wait_until(lambda: user.states(sweep)[None] == "finished", "the next job goes on", 240)
    after = user.epochs(sweep)[None]
    assert after == list(range(1, 13)), user.logs()
    keep(
        "slurm_amc_train",
        full=True,
        figures={
            "epochs when the job was cancelled": len(before),
            "seconds until no process carried its id": gone_s,
            "epochs in the end, each exactly once": len(after),
        },
    )


def test_forty_tasks_that_start_at_once_all_get_their_run(
    tmp_path: Path, server: EmbeddedServer, cluster: SlurmCluster
) -> None:
    user = SlurmUser(tmp_path / "work", server, cluster, trial=FIVE_LINES)
    sweep = user.grid(40)
    began_s = time.monotonic()
    array = user.launch(sweep, "--agents", "40", "--time", "00:20:00", "--count", "1")
    numbers = [cluster.number(f"{array}_{task}") for task in range(40)]
    most = 0
    while cluster.jobs():
        most = max(most, len(cluster.jobs("RUNNING")))
        time.sleep(2)
    seconds = time.monotonic() - began_s
    ended = user.sweep(sweep)
    assert sorted(run["a"] for run in ended["runs"].values()) == list(range(40)), user.logs()
    assert set(user.states(sweep).values()) == {"finished"}
    assert most == 40
    assert not any(processes_of(number) for number in numbers)
    keep(
        "slurm_forty",
        full=True,
        figures={"tasks that ran at a time": most, "runs finished, one for each task": 40, "seconds": seconds},
    )
