"""amc-sweep launch slurm: what it writes, what it submits, what it refuses. sbatch and sinfo are small scripts."""

from __future__ import annotations

import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from client_scenarios import Researcher
from embedded_server import EmbeddedServer

from amc_agents.slurm.submit import unreachable
from amc_sweeps.backend.choose import Backend

pytestmark = pytest.mark.client

SBATCH = (
    '#!/bin/sh\necho "$*" > sbatch.call\nenv > sbatch.env\necho "${FAILURE}" >&2\ntest -z "$FAILURE" && echo 4812\n'
)
OPTIONS = ("--agents", "8", "--gres", "gpu:1", "--time", "08:00:00")


class User(Researcher):
    """A researcher on a login node."""

    def __init__(self, folder: Path, server: EmbeddedServer) -> None:
        folder.mkdir()
        super().__init__(folder, server)
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.install("sbatch", SBATCH)
        self.path = self.create_sweep("program: a.py\nmethod: grid\nparameters: {a: {values: [1]}}\n")
        self.logs = folder / "slurm-logs" / self.path.rpartition("/")[2]

    def install(self, name: str, text: str) -> None:
        """Make a program."""
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o700)

    def launch(self, *options: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run the command."""
        environment = {**EmbeddedServer.process_environment(), **self._env()}
        environment |= {"PATH": f"{self.bin}:/usr/bin:/bin", **env}
        code = "from amc_agents.commands import main; main()"
        return subprocess.run(
            [sys.executable, "-c", code, "launch", "slurm", self.path, *options],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    folder = tmp_path_factory.mktemp("launch")
    with EmbeddedServer(folder / "data") as server:
        yield User(folder / "work", server)


def test_a_dry_run_prints_the_script_without_the_key_and_changes_nothing(user: User) -> None:
    (user.folder / "env.sh").write_text("module load cuda\n")
    done = user.launch(*OPTIONS, "--setup", "env.sh", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("#!/bin/bash\n")
    assert "module load cuda" in done.stdout
    assert user.server.key not in done.stdout
    assert not user.logs.exists()


def test_the_script_is_submitted_and_the_key_is_in_a_file_that_only_the_user_can_read(user: User) -> None:
    done = user.launch(*OPTIONS)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"Slurm job 4812: an array of 8 agents for {user.path}\n"
    assert (user.folder / "sbatch.call").read_text() == f"--parsable {user.logs}/array.sh\n"
    key = user.logs / "key"
    assert key.read_text() == f"{user.server.key}\n"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert str(key) in (user.logs / "array.sh").read_text()
    assert user.server.key not in (user.folder / "sbatch.env").read_text(), "Slurm keeps the environment of a job"
    assert user.server.key not in (user.logs / "array.sh").read_text()


def test_what_slurm_refuses_is_said(user: User) -> None:
    done = user.launch(*OPTIONS, FAILURE="sbatch: error: invalid partition specified: gpu")
    assert done.returncode == 1
    assert "invalid partition specified: gpu" in done.stderr
    done = user.launch(*OPTIONS, PATH=str(user.folder))
    assert done.returncode == 1
    assert "this machine has no sbatch" in done.stderr


def test_what_is_no_time_limit_is_refused(user: User) -> None:
    done = user.launch(*OPTIONS[:-1], "8h")
    assert done.returncode == 2
    assert "write it like 08:00:00" in done.stderr


def test_an_address_that_the_nodes_cannot_reach_is_refused(user: User) -> None:
    user.install("sinfo", "#!/bin/sh\nprintf 'gpu-01\\ngpu-02\\n'\n")
    try:
        refused = user.launch(*OPTIONS)
        other = user.launch(*OPTIONS, "--node-url", "https://login:8418", "--dry-run")
    finally:
        (user.bin / "sinfo").unlink()
    assert refused.returncode == 2
    assert "gpu-01" in refused.stderr
    assert "--node-url" in refused.stderr
    assert "WANDB_BASE_URL=https://login:8418\n" in other.stdout
    hosted = Backend("server", "https://wandb.example.org", "by --base-url")
    assert unreachable(hosted, ["gpu-01"]) is None


def test_a_sweep_that_is_over_is_refused(user: User) -> None:
    over = user.create_sweep("program: a.py\nmethod: grid\nparameters: {a: {values: [1]}}\n")
    user.wandb("sweep", "--cancel", over)
    path, user.path = user.path, over
    try:
        done = user.launch(*OPTIONS)
    finally:
        user.path = path
    assert done.returncode == 2
    assert "is cancelled: it hands out no runs" in done.stderr
