"""Agents on a real Slurm of one node: a job cancelled, a job requeued, and what status says about both."""

from __future__ import annotations

import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import slurm_cluster
from client_scenarios import wait_until
from embedded_server import EmbeddedServer
from slurm_cluster import SlurmCluster, processes_of
from slurm_scenarios import SlurmUser

REASON = slurm_cluster.missing()
pytestmark = [pytest.mark.client, pytest.mark.skipif(REASON is not None, reason=REASON or "")]

EPOCHS = 20


@pytest.fixture
def user(tmp_path: Path) -> Iterator[SlurmUser]:
    """Return a researcher with a server and a cluster; every job is gone at the end."""
    with EmbeddedServer(tmp_path / "data") as server, SlurmCluster(tmp_path / "slurm") as cluster:
        user = SlurmUser(tmp_path / "work", server, cluster)
        yield user
        print(user.logs())  # pytest shows it if the test fails


def test_a_cancelled_and_a_requeued_job_lose_nothing_leave_no_process_and_are_named(user: SlurmUser) -> None:
    sweep, cluster = user.grid(2), user.cluster
    options = ("--agents", "2", "--gres", "gpu:1", "--time", "00:10:00", "--requeue")
    array = user.launch(sweep, *options, EPOCHS=str(EPOCHS), WAIT="yes")
    folder = user.folder / "slurm-logs" / sweep.rpartition("/")[2]
    assert stat.S_IMODE((folder / "key").stat().st_mode) == 0o600
    assert user.server.key not in (folder / "array.sh").read_text()
    cancelled, requeued = f"{array}_0", f"{array}_1"
    numbers = {job: wait_until(lambda job=job: cluster.number(job), f"{job} exists") for job in (cancelled, requeued)}

    wait_until(lambda: user.with_metadata(sweep) == 2, "both GPUs train", 200)
    commands = processes_of(numbers[cancelled])
    assert any("sleep 600" in command for command in commands), commands
    assert not any(user.server.key in command for command in commands)
    cluster.ask("scancel", cancelled)
    cluster.ask("scontrol", "requeuehold", requeued)  # held, so that what follows finds both jobs ended
    ended_s = time.monotonic()
    wait_until(lambda: not processes_of(numbers[cancelled]), "no process carries the id of the cancelled job", 30)
    assert time.monotonic() - ended_s <= 10
    wait_until(lambda: "running" not in user.states(sweep).values(), "W&B knows of both", 30)

    said = user.status(sweep)
    ends = {end["job"]: (end["state"], end["cause"]) for end in said["jobs"]["ended_runs"]}
    assert ends == {cancelled: ("CANCELLED", "preempted"), requeued: ("REQUEUED", "preempted")}

    cluster.ask("scontrol", "release", requeued)
    wait_until(lambda: user.sweep(sweep)["state"] == "FINISHED", "the requeued job does the rest", 120)
    assert user.states(sweep) == {0: "finished", 1: "finished"}, user.logs()
    assert user.epochs(sweep) == {a: list(range(1, EPOCHS + 1)) for a in (0, 1)}
    wait_until(lambda: not cluster.jobs(), "the job leaves when the sweep is over", 30)
    assert cluster.state(requeued) == "COMPLETED"
