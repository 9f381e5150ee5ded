"""What the kernel tells of processes that are not our children, and how none of them is left behind. Linux only.

The fleet's agents are plain ``wandb agent`` processes, and trials are theirs: only an agent can wait for its trial, and
it tells nobody the exit code. But it looks only every five seconds, and until then the dead trial is a zombie whose
exit code stands in /proc. Where the agent itself is gone, the fleet inherits the trial: it is a subreaper (prctl(2)).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Collection
from pathlib import Path

import psutil

PROCESS_TAG = "AMC_FLEET_ID"  # in the environment of every process that a fleet starts, however deep
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_DONE = b"done"


def become_subreaper() -> None:
    """Make this process inherit every descendant whose parent dies.

    Raises:
        OSError: where the kernel has no such thing.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "prctl") or libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "this system cannot hand orphaned trials to the fleet: it needs Linux")


def children(pid: int) -> list[int]:
    """Return the children of a process, those that are dead and not waited for included."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for thread in threads for child in (thread / "children").read_text().split()]
    except FileNotFoundError:  # the process is gone, or the kernel was built without these files
        with contextlib.suppress(psutil.NoSuchProcess):
            return [child.pid for child in psutil.Process(pid).children()]
    return []


def is_trial(pid: int, agent: int) -> bool:
    """Return whether a child of an agent is its trial: in the agent's session, and the leader of its own group.

    The agent's other child, the wandb client's side process, begins a session of its own.
    """
    try:
        return os.getpgid(pid) == pid and os.getsid(pid) == agent
    except ProcessLookupError:
        return False


def variables(pid: int) -> dict[str, str]:
    """Return the environment that a process was started with; empty for a dead one."""
    try:
        text = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
    except OSError:
        return {}
    return dict(entry.partition("=")[::2] for entry in text.split("\0") if "=" in entry)


def exit_code_of_zombie(pid: int) -> int | None:
    """Return the exit code of a dead process that nobody has waited for, negative for a signal; None: it is gone.

    Source: proc_pid_stat(5), fields 3 (state) and 52 (exit_code, as waitpid(2) tells it).
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return None
    return os.waitstatus_to_exitcode(int(fields[49])) if fields[0] == "Z" else None


def reap(pid: int) -> int | None:
    """Wait for a dead process that is our own child by now; None: it is not, or it lives."""
    try:
        found, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return None
    return os.waitstatus_to_exitcode(status) if found == pid else None


def reap_inherited(kept: Collection[int]) -> None:
    """Wait for every dead process that was inherited from an agent or a trial.

    What this process has started itself is left to whoever waits for it: such a child is in our session or leads its
    own, an agent and a side job alike. The wandb client's side process leads one too, and nobody waits for it.

    Args:
        kept: trials whose exit code somebody will ask for.
    """
    for pid in children(os.getpid()):
        if pid in kept or exit_code_of_zombie(pid) is None:
            continue
        if os.getsid(pid) not in {pid, os.getsid(0)} or _command(pid) == "wandb-core":
            reap(pid)


def tagged(tag: str) -> list[psutil.Process]:
    """Return every living process of the fleet of that tag but this one, orphans included."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.environ().get(PROCESS_TAG) == tag:
                found.append(process)
    return found


def end_all(tag: str, *, grace_s: float) -> int:
    """Ask agents and trials to end, kill what has not after a while, and return how many processes there were.

    The wandb client's side processes and a trial's data loaders are not asked: a trial that loses them cannot say
    goodbye. They end with their trial, or are killed in the end.
    """
    left = tagged(tag)
    asked = len(left)
    for process in left:
        if _is_agent_or_trial(process.pid):
            _send(process, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while left and time.monotonic() < deadline:
        time.sleep(0.1)
        left = tagged(tag)
    while left := tagged(tag):  # again: a dying one may have started another
        for process in left:
            _send(process, signal.SIGKILL)
        time.sleep(0.1)
    return asked


def _is_agent_or_trial(pid: int) -> bool:
    """An agent leads its session; a trial leads a group in its agent's session, even after the agent's end."""
    try:
        return _command(pid) != "wandb-core" if os.getsid(pid) == pid else os.getpgid(pid) == pid
    except OSError:
        return False


def _command(pid: int) -> str:
    """Return the name of what a process runs; a dead one still has it."""
    return Path(f"/proc/{pid}/comm").read_text().strip()


def _send(process: psutil.Process, number: signal.Signals) -> None:
    with contextlib.suppress(psutil.Error):
        process.send_signal(number)


class Guardian:
    """A small process that ends the fleet's agents and trials if the fleet itself is killed outright.

    Nothing else can: the kernel signals children of a dying parent only if they asked for it, and the agents and
    trials are other people's programs. Begin it before any thread, and before anything large is imported.
    """

    def __init__(self, tag: str, grace_s: float) -> None:
        read, self._write = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._write)
            _stand_guard(read, tag, grace_s)
        os.close(read)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._pid

    def dismiss(self) -> None:
        """Say that all is done, and wait for the guardian's end."""
        with contextlib.suppress(OSError):
            os.write(self._write, _DONE)
        os.close(self._write)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)


def _stand_guard(read: int, tag: str, grace_s: float) -> None:
    """Wait for the other end of the pipe to close; never returns."""
    try:
        os.setsid()  # a Ctrl-C at the terminal is the fleet's affair
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)
        if os.read(read, len(_DONE)) != _DONE:
            ended = end_all(tag, grace_s=grace_s)
            sys.stderr.write(f"the fleet was killed: its guardian has ended the {ended} processes that it left\n")
            sys.stderr.flush()
    finally:
        os._exit(0)
