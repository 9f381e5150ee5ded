"""From a dead trial to its cause: what can be learned on this machine, put before the one classifier."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from amc_core.machine.cgroups import memory_groups
from amc_sweeps.runs.causes import UNSEEN, EndReason, Evidence, Verdict, classify
from amc_sweeps.runs.run_states import RunState

TAIL_BYTES = 16_384
CLOCKS_APART_S = 5.0  # the kernel's log and the monotonic clock drift a little
_SIGKILL_CODES = {-9, 137}


@dataclass(frozen=True)
class Record:
    """What W&B holds of a run; None where it does not tell."""

    state: str | None = None
    end_reason: str | None = None
    stop_recorded: bool | None = None
    stop_reason: str | None = None
    epoch: int | None = None
    peak: float | None = None

    @property
    def is_final(self) -> bool:
        """Whether W&B says that the run has ended."""
        return self.state is not None and self.state not in {RunState.PENDING, RunState.RUNNING, RunState.PREEMPTING}


NOTHING = Record()


def conclude(
    exit_code: int | None,
    log: str,
    *,
    run: str | None,
    oom: str | None,
    asked: bool = False,
    record: Record = NOTHING,
) -> Verdict:
    """Say how a trial ended.

    Args:
        exit_code: negative for a signal, None where nobody saw it.
        log: the agent's log since the trial before.
        run: its id.
        oom: what the kernel said of a lack of memory while it ran.
        asked: whether the fleet itself had asked it to end.
        record: what W&B holds, where that has been asked.
    """
    stopped = record.stop_recorded or _agent_was_told_to_stop(run, log)
    tail = log[-TAIL_BYTES:]
    if oom is not None and exit_code in _SIGKILL_CODES:
        tail += f"\n{oom}\n"  # the kernel's words, and the classifier reads them as it does in anybody's log
    return classify(
        Evidence(
            state=RunState.KILLED if stopped else _state(exit_code, record),
            exit_code=exit_code,
            end_reason=record.end_reason or (EndReason.STOPPED if asked and exit_code == 0 else None),
            stop_recorded=True if stopped else record.stop_recorded,
            stop_reason=record.stop_reason,
            log_tail=tail,
        )
    )


def _agent_was_told_to_stop(run: str | None, log: str) -> bool:
    """Return whether the agent's own lines say that W&B asked for the trial's end."""
    if "Received exit command. Killing runs" in log:
        return True
    return run is not None and re.search(rf" - Stop: {re.escape(run)}$", log, re.MULTILINE) is not None


def _state(exit_code: int | None, record: Record) -> str:
    if exit_code is None:  # nobody saw it: what W&B concluded, if it has
        return str(record.state) if record.is_final else UNSEEN
    if exit_code == 0:
        return RunState.FINISHED
    return RunState.FAILED if exit_code > 0 else RunState.CRASHED


def read_from(path: Path, offset: int) -> str:
    """Return a log from an offset on, at most its last megabyte."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(offset, size - 2**20))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def last_words(log: str, lines: int = 1) -> str:
    """Return the last lines that say something."""
    found = [line.strip() for line in log.splitlines() if line.strip()]
    return "\n".join(found[-lines:]) or "it said nothing"


# --- the kernel's out-of-memory killer -----------------------------------------------------------------------------


class MemoryKills:
    """How often the kernel has killed for lack of memory in this process's cgroup, version 1 or 2."""

    def __init__(self, proc: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> None:
        self._file = _counter_file(memory_groups(proc, root))

    def count(self) -> int | None:
        """Return the count, None where it cannot be read."""
        if self._file is None:
            return None
        try:
            found = re.search(r"^oom_kill (\d+)$", self._file.read_text(), re.M)
        except OSError:
            return None
        return int(found[1]) if found else None

    def since(self, before: int | None, pid: int, began_s: float) -> str | None:
        """Return what the kernel did to a process that was killed, in the kernel's words, or None.

        Args:
            before: the count when the process began.
            pid: the process.
            began_s: when that was, on the monotonic clock: ids come round again.
        """
        if line := _kernel_line(pid, began_s):
            return f"kernel: {line}"
        after = self.count()
        if before is None or after is None or after <= before:
            return None
        return f"kernel: out of memory: Killed {after - before} in this cgroup while the trial ran ({self._file})"


def _counter_file(groups: Sequence[Path]) -> Path | None:
    files = (folder / name for folder in groups for name in ("memory.oom_control", "memory.events"))
    return next((file for file in files if file.is_file()), None)


def _kernel_line(pid: int, began_s: float) -> str | None:
    """Return the kernel's log line about killing a process, where this user may read it."""
    try:
        descriptor = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    found = None
    try:
        while True:
            try:
                text = os.read(descriptor, 8192).decode(errors="replace")
            except BrokenPipeError:  # the ring buffer went round while we read
                continue
            head, _, message = text.partition(";")  # level, sequence, microseconds since boot, flags
            recent = int(head.split(",")[2]) / 1e6 > began_s - CLOCKS_APART_S
            if recent and re.search(rf"[Oo]ut of memory: Killed process {pid}\b", message):
                found = message.partition("\n")[0].strip()
    except OSError:  # EAGAIN: read to the end
        return found
    finally:
        os.close(descriptor)
