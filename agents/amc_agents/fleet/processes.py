"""Exit codes of processes that are not our children, and the end of every process that a fleet started. Linux only.

A trial is a child of its ``wandb agent``. Only the agent can wait for it, and the agent does not publish the exit code.
But the agent checks only every five seconds. Until then the dead trial is a zombie, and /proc has its exit code. When
an agent has died, the fleet inherits its trial, because the fleet is a subreaper (prctl(2)).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path

import psutil

from amc_sweeps.number_formats import counted

PROCESS_TAG = "AMC_FLEET_ID"  # in the environment of every descendant of a fleet
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_DONE = b"done"
_LOOK_EVERY_S = 2.0  # a look takes milliseconds


def become_subreaper() -> None:
    """Make this process inherit every descendant whose parent dies.

    Raises:
        OSError: the kernel has no subreapers.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "prctl") or libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "amc-sweep agent needs Linux: this system has no subreapers (prctl)")


def children(pid: int) -> list[int]:
    """Return the children of a process, zombies included."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for thread in threads for child in (thread / "children").read_text().split()]
    except FileNotFoundError:  # the process is gone, or the kernel was built without these files
        with contextlib.suppress(psutil.NoSuchProcess):
            return [child.pid for child in psutil.Process(pid).children()]
    return []


def is_trial(pid: int, agent: int) -> bool:
    """Return whether a child of an agent is its trial: it leads a process group in the agent's session.

    The wandb client's side process, also a child of the agent, leads its own session.
    """
    try:
        return os.getpgid(pid) == pid and os.getsid(pid) == agent
    except ProcessLookupError:
        return False


def environment_of(pid: int) -> dict[str, str]:
    """Return the environment that a process was started with; empty when the process is dead."""
    try:
        text = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
    except OSError:
        return {}
    return dict(entry.partition("=")[::2] for entry in text.split("\0") if "=" in entry)


def exit_code_of_zombie(pid: int) -> int | None:
    """Return the exit code of a zombie, negative for a signal; None for any other process.

    Source: proc_pid_stat(5), fields 3 (state) and 52 (exit_code, in the format of waitpid(2)).
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return None
    return os.waitstatus_to_exitcode(int(fields[49])) if fields[0] == "Z" else None


def reap(pid: int) -> int | None:
    """Wait for a dead child and return its exit code; None when it lives or is not our child."""
    try:
        reaped, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return None
    return os.waitstatus_to_exitcode(status) if reaped == pid else None


def reap_inherited(trials: Collection[int]) -> None:
    """Wait for every zombie that was inherited from an agent or a trial.

    Children that this process started itself are left alone, since their Popen waits for them. They are in our session
    or lead their own. The wandb client's side process leads its own too, but nothing waits for it.

    Args:
        trials: ids of trials whose exit code is still needed.
    """
    for pid in children(os.getpid()):
        if pid in trials or exit_code_of_zombie(pid) is None:
            continue
        if os.getsid(pid) not in {pid, os.getsid(0)} or _command(pid) == "wandb-core":
            reap(pid)


def tagged(tag: str) -> list[psutil.Process]:
    """Return every living process with this tag except this one, orphans included."""
    processes = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.environ().get(PROCESS_TAG) == tag:
                processes.append(process)
    return processes


class Descendants:
    """The processes that a process starts from now on, and those that these start, whatever they do to hide.

    A process that clears its environment has no tag, and one that calls setsid is in no group of ours. It is still a
    descendant. Where the parent between dies, the fleet inherits it, because the fleet is a subreaper.
    """

    def __init__(self, pid: int) -> None:
        """Take the process; its present children do not count, such as those of a shell that it has replaced (exec)."""
        self._process = psutil.Process(pid)
        self._bystanders = {psutil.Process(), *self._process.children()}
        # Equal by id and time of start: an id that is used again is another process.
        self._seen: set[psutil.Process] = set()

    def look(self) -> list[psutil.Process]:
        """Return every descendant that was ever seen and lives now."""
        children: dict[int, list[psutil.Process]] = defaultdict(list)
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                children[process.ppid()].append(process)
        self._seen = {process for process in self._seen if _lives(process)}
        parents = [process.pid for process in (self._process, *self._seen) if process.is_running()]
        while parents:
            new = {*children[parents.pop()]} - self._seen - self._bystanders
            self._seen |= new
            parents += [process.pid for process in new]
        return [process for process in self._seen if _lives(process)]


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def end_all(tag: str, descendants: Descendants | None = None, *, grace_s: float) -> int:
    """Send SIGTERM to agents and trials, kill all processes that outlive the grace, and return their initial number.

    The wandb client's side processes and data loaders get no SIGTERM, because a trial needs them to end well.

    Args:
        tag: of the fleet's processes.
        descendants: finds those that have dropped the tag.
        grace_s: time between the two signals.
    """

    def living() -> set[psutil.Process]:
        return {*tagged(tag), *(descendants.look() if descendants else ())}

    processes = living()
    count = len(processes)
    for process in processes:
        if _is_agent_or_trial(process.pid):
            _send(process, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while processes and time.monotonic() < deadline:
        time.sleep(0.1)
        processes = living()
    while processes := living():  # in a loop: a dying process may have started another
        for process in processes:
            _send(process, signal.SIGKILL)
        time.sleep(0.1)
    return count


def _is_agent_or_trial(pid: int) -> bool:
    """An agent leads its session; a trial leads a group in the agent's session, even when the agent is dead."""
    try:
        return _command(pid) != "wandb-core" if os.getsid(pid) == pid else os.getpgid(pid) == pid
    except OSError:
        return False


def _command(pid: int) -> str:
    """Return the name of a process's program; zombies have it too."""
    return Path(f"/proc/{pid}/comm").read_text().strip()


def _send(process: psutil.Process, number: signal.Signals) -> None:
    with contextlib.suppress(psutil.Error):
        process.send_signal(number)


class Guardian:
    """A small process that ends the fleet's agents and trials after a ``kill -9`` of the fleet.

    The kernel signals the children of a dying parent only if they ask for it, and wandb's agent does not. Fork the
    guardian before any thread starts and before anything large is imported.
    """

    def __init__(self, tag: str, grace_s: float) -> None:
        reading_end, self._write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._write)
            _stand_guard(reading_end, tag, grace_s)
        os.close(reading_end)

    def dismiss(self) -> None:
        """Tell the guardian that the fleet ended by itself, and wait for the guardian's end."""
        with contextlib.suppress(OSError):
            os.write(self._write, _DONE)
        os.close(self._write)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


def _stand_guard(reading_end: int, tag: str, grace_s: float) -> None:
    """Wait for the other end of the pipe to close; never returns."""
    descendants = Descendants(os.getppid())
    try:
        os.setsid()  # Ctrl-C at the terminal is for the fleet
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)
        # Whoever the fleet leaves behind has another parent, so they must be known before.
        while not select.select([reading_end], [], [], _LOOK_EVERY_S)[0]:
            descendants.look()
        if os.read(reading_end, len(_DONE)) != _DONE:
            count = counted(end_all(tag, descendants, grace_s=grace_s), "process", "processes")
            sys.stderr.write(f"the fleet was killed: its guardian has ended {count} that it left\n")
            sys.stderr.flush()
    finally:
        os._exit(0)
