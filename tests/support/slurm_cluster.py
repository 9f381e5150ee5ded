"""A real Slurm of one node on 127.0.0.1, with two pretend GPUs and as many CPUs as a test wants.

The daemons are Debian's (slurm-wlm, munge). They run in the foreground as children of the test, with everything in one
folder, and are ended by their process ids. There is no accounting database, so only scontrol knows about jobs.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
from client_scenarios import wait_until

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "scontrol")
CPUS = 40  # declared; the machine may have fewer

CONFIG = """\
ClusterName=amc
SlurmctldHost={host}(127.0.0.1)
FirstJobId={first_job}
SlurmctldPort={controller_port}
SlurmdPort={node_port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={spool}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
GresTypes=gpu
ReturnToService=2
KillWait=30
MessageTimeout=60
SchedulerParameters=sched_interval=2,bf_interval=5
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=8000 Gres=gpu:2 State=UNKNOWN
PartitionName=test Nodes={host} Default=YES MaxTime=UNLIMITED State=UP
"""
GPUS = "NodeName={host} Name=gpu File=/dev/null,/dev/zero\n"


def missing() -> str | None:
    """Return why no Slurm can run here, or None."""
    absent = [program for program in PROGRAMS if shutil.which(program, path=_path()) is None]
    if absent:
        return f"needs Slurm (apt-get install slurm-wlm munge): no {', '.join(absent)}"
    return None if os.geteuid() == 0 else "Slurm's daemons need root"


def _path() -> str:
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


class SlurmCluster:
    """The daemons, and what a person asks of them."""

    def __init__(self, folder: Path, *, cpus: int = CPUS) -> None:
        self.folder, self.host = folder, socket.gethostname().partition(".")[0]
        self._daemons: list[subprocess.Popen[bytes]] = []
        (folder / "state").mkdir(parents=True)
        # Each job has a socket in it, and the path of a socket has 107 characters at most: with a longer one the job is
        # cancelled ("Resource temporarily unavailable").
        self._spool = tempfile.TemporaryDirectory(prefix="slurm-", dir="/tmp")
        ports = _free_ports(2)
        # A job kills what carries its id, so two clusters on one machine need different ids.
        settings = {
            "host": self.host,
            "folder": folder,
            "spool": self._spool.name,
            "cpus": cpus,
            "first_job": 1000 * (1 + secrets.randbelow(60_000)),
        }
        (folder / "slurm.conf").write_text(CONFIG.format(controller_port=ports[0], node_port=ports[1], **settings))
        (folder / "gres.conf").write_text(GPUS.format(**settings))
        key = folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which Slurm's programs find this cluster."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def __enter__(self) -> Self:
        files = {name: self.folder / f"munge.{name}" for name in ("socket", "key", "pid", "log", "seed")}
        munge = [f"--{name}{'' if name in {'socket'} else '-file'}={path}" for name, path in files.items()]
        try:
            self._start("munged", "--foreground", "--force", "--num-threads=2", *munge)
            wait_until(files["socket"].exists, "munged answers", 20)
            self._start("slurmctld", "-D", "-c")
            self._start("slurmd", "-D", "-N", self.host)
            wait_until(lambda: self.ask("sinfo", "-h", "-o", "%T") == "idle", "the node is idle", 40)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number in self.jobs():
            self.ask("scancel", "--signal=KILL", "--full", number)
            self.ask("scancel", number)
        if len(self._daemons) == 3:
            with contextlib.suppress(AssertionError):
                wait_until(lambda: not self.jobs(), "every job has ended", 30)
        for daemon in reversed(self._daemons):
            daemon.terminate()
            try:
                daemon.wait(timeout=15)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self._spool.cleanup()

    def _start(self, program: str, *arguments: str) -> None:
        with (self.folder / f"{program}.out").open("wb") as log:
            path = shutil.which(program, path=_path())
            self._daemons.append(
                subprocess.Popen(
                    [str(path), *arguments],
                    env={**os.environ, **self.environment},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )

    def ask(self, *command: str) -> str:
        """Run one of Slurm's programs and return what it prints; empty where it fails."""
        done = subprocess.run(
            command, env={**os.environ, **self.environment}, capture_output=True, text=True, check=False, timeout=90
        )
        return done.stdout.strip()

    def jobs(self, *states: str) -> list[str]:
        """Return the ids of the jobs that wait, run or end, or are in one of these states: 4812_3."""
        chosen = [f"--states={','.join(states)}"] if states else []
        return self.ask("squeue", "--noheader", "--array", "--format=%i", *chosen).split()

    def state(self, job: str) -> str:
        """Return the state of a job, ended ones included."""
        return self._field(job, "JobState")

    def number(self, job: str) -> str:
        """Return SLURM_JOB_ID of a task of an array."""
        return self._field(job, "JobId")

    def _field(self, job: str, name: str) -> str:
        words = self.ask("scontrol", "show", "job", "--oneliner", job).split()
        return next((word.partition("=")[2] for word in words if word.startswith(f"{name}=")), "")


def processes_of(number: str) -> list[str]:
    """Return the command lines of all processes that carry a job's id, those outside of its session included."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("SLURM_JOB_ID") == number:
                found.append(f"{process.pid} {' '.join(process.cmdline())}")
    return found


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as open_sockets:
        made = [open_sockets.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in made]
