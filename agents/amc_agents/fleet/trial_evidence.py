"""The cause of a trial's end: the evidence of this machine, given to the common classifier."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from amc_core.machine.memory import memory_groups
from amc_sweeps.runs.causes import UNKNOWN_STATE, Diagnosis, EndReason, Evidence, classify
from amc_sweeps.runs.run_states import RunState
from amc_sweeps.values import printable

TAIL_BYTES = 16_384
CLOCK_DRIFT_S = 5.0  # between the kernel's log and the monotonic clock
_SIGKILL_CODES = {-9, 137}


@dataclass(frozen=True)
class WandbRecord:
    """A run as W&B has it; None stands for unknown."""

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


NO_RECORD = WandbRecord()


def classify_end(
    exit_code: int | None,
    log: str,
    *,
    run: str | None,
    memory_kill: str | None,
    fleet_is_ending: bool = False,
    record: WandbRecord = NO_RECORD,
) -> Diagnosis:
    """Return the cause of a trial's end, with the evidence.

    Args:
        exit_code: negative for a signal, None for unknown.
        log: the part of the agent's log that belongs to the trial.
        run: id of its run.
        memory_kill: the kernel's line about a kill for lack of memory while the trial ran.
        fleet_is_ending: whether the fleet had asked the trial to end.
        record: the run in W&B.
    """
    is_stopped = record.stop_recorded or _wandb_asked_to_stop(run, log)
    tail = log[-TAIL_BYTES:]
    if memory_kill is not None and exit_code in _SIGKILL_CODES:
        tail += f"\n{memory_kill}\n"  # the classifier knows this line from other logs
    return classify(
        Evidence(
            state=RunState.KILLED if is_stopped else _state(exit_code, record),
            exit_code=exit_code,
            end_reason=record.end_reason or (EndReason.STOPPED if fleet_is_ending and exit_code == 0 else None),
            stop_recorded=True if is_stopped else record.stop_recorded,
            stop_reason=record.stop_reason,
            log_tail=tail,
        )
    )


def _wandb_asked_to_stop(run: str | None, log: str) -> bool:
    if "Received exit command. Killing runs" in log:
        return True
    return run is not None and re.search(rf" - Stop: {re.escape(run)}$", log, re.MULTILINE) is not None


def _state(exit_code: int | None, record: WandbRecord) -> str:
    if exit_code is None:
        return str(record.state) if record.is_final else UNKNOWN_STATE
    if exit_code == 0:
        return RunState.FINISHED
    return RunState.FAILED if exit_code > 0 else RunState.CRASHED


def read_log(path: Path, offset: int) -> str:
    """Return a log from an offset to its end, at most the last 1 MiB."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(offset, size - 2**20))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def last_lines(log: str, number: int = 1) -> str:
    """Return the last lines that are not blank, for a person to read."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return printable("\n".join(lines[-number:])) or "no output"


# --- the kernel's out-of-memory killer -----------------------------------------------------------------------------


class MemoryKills:
    """Counts the kernel's kills for lack of memory in this process's cgroup, version 1 or 2."""

    def __init__(self, proc: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> None:
        self._file = _counter_file(memory_groups(proc, root))

    def count(self) -> int | None:
        if self._file is None:
            return None
        try:
            line = re.search(r"^oom_kill (\d+)$", self._file.read_text(), re.M)
        except OSError:
            return None
        return int(line[1]) if line else None

    def since(self, before: int | None, pid: int, began_s: float) -> str | None:
        """Return the kernel's line about killing this process for lack of memory, or None.

        Args:
            before: the count when the process began.
            pid: the process.
            began_s: its start on the monotonic clock; older lines are about another process with the same id.
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
    """Return the line of the kernel's log, if this user may read the log."""
    try:
        descriptor = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    line = None
    try:
        while True:
            try:
                text = os.read(descriptor, 8192).decode(errors="replace")
            except BrokenPipeError:  # the kernel overwrote this line while we read
                continue
            head, _, message = text.partition(";")  # level, sequence, microseconds since boot, flags
            is_recent = int(head.split(",")[2]) / 1e6 > began_s - CLOCK_DRIFT_S
            if is_recent and re.search(rf"[Oo]ut of memory: Killed process {pid}\b", message):
                line = message.partition("\n")[0].strip()
    except OSError:  # EAGAIN: the end of the log
        return line
    finally:
        os.close(descriptor)
