"""One slot for an agent: its device, its log, its ``wandb agent`` process and the trial of that agent.

The agent is the unmodified client, so its trial is watched from outside.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from amc_agents.fleet.devices import Device, Reading
from amc_agents.fleet.processes import (
    PROCESS_TAG,
    children,
    environment_of,
    exit_code_of_zombie,
    is_trial,
    reap,
    tagged,
)
from amc_agents.fleet.trial_evidence import read_log
from amc_core.files import own_file

LEFTOVERS_S = 10.0  # how long the children of a dead trial may still run


@dataclass
class TrialProcess:
    pid: int
    began_s: float
    log_offset: int  # where its part of the agent's log begins
    run: str | None = None
    configuration: str | None = None
    reading: Reading | None = None  # the device when the trial began
    crowded: str | None = None
    pidfd: int | None = None  # becomes readable when the trial ends, pidfd_open(2)
    memory_kills: int | None = None  # by the kernel, before the trial began


class AgentSlot:
    """Starts, finds and ends the processes of one agent. The fleet decides when."""

    def __init__(
        self, name: str, device: Device, log: Path, command: list[str], environment: Mapping[str, str]
    ) -> None:
        self.name = name
        self.device = device
        self.log, self._log_lock = own_file(log)  # another fleet in this folder has logs of its own
        self.trial: TrialProcess | None = None
        self.start_at_s: float | None = 0.0  # when to start an agent; None: never
        self.deaths = 0  # of agents in a row, without a trial between them
        self.note = "starts"  # what to show while no trial runs
        self._command = command
        self._environment = dict(environment)
        self._agent: subprocess.Popen[bytes] | None = None
        self._dead_agent: int | None = None  # its last trial is now a child of the fleet
        self._last_trial: int | None = None  # may still be a zombie of the agent
        self._log_offset = 0
        self._agent_log_offset = 0
        self._dead_groups: dict[int, float] = {}  # process group of a dead trial -> when the trial died

    @property
    def is_idle(self) -> bool:
        """Whether an agent runs and waits for a trial."""
        return self._agent is not None and self.trial is None

    @property
    def is_empty(self) -> bool:
        """Whether neither an agent nor a trial runs."""
        return self._agent is None and self.trial is None

    def start_agent(self) -> None:
        """Start an agent in its own session, so that Ctrl-C at the terminal reaches only the fleet."""
        with self._open_log() as log:
            with contextlib.suppress(OSError):  # the disk may be full: the agent can work without its log
                log.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} {' '.join(self._command)}\n".encode())
            self._log_offset = self._agent_log_offset = log.tell()
            self._agent = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.start_at_s = None
        self._last_trial = self._dead_agent = None

    def _open_log(self) -> FileIO:
        """Open the log at its end, or a file that drops everything where somebody has removed the log's folder."""
        try:
            return FileIO(self.log, "a")
        except OSError:
            return FileIO(os.devnull, "a")

    def find_trial(self, now_s: float) -> TrialProcess | None:
        """Return the agent's trial if it is new."""
        agent = self._agent.pid if self._agent is not None else self._dead_agent
        if agent is None or self.trial is not None:
            self._read_run_id()
            return None
        for pid in children(agent if self._agent is not None else os.getpid()):
            if pid != self._last_trial and is_trial(pid, agent):
                self.trial = TrialProcess(pid, now_s, self._log_offset)
                with contextlib.suppress(OSError):
                    self.trial.pidfd = os.pidfd_open(pid)
                self.deaths = 0
                self._read_run_id()
                return self.trial
        return None

    def _read_run_id(self) -> None:
        """Read run id and configuration from the trial's environment; just after the fork it is still the agent's."""
        if self.trial is None or self.trial.run is not None:
            return
        environment = environment_of(self.trial.pid)
        self.trial.run = environment.get("WANDB_RUN_ID")
        with contextlib.suppress(KeyError, OSError):
            self.trial.configuration = Path(environment["WANDB_SWEEP_PARAM_PATH"]).read_text()

    def take_ended_trial(self) -> tuple[TrialProcess, int | None, str] | None:
        """Return a trial that has ended, its exit code (None: unknown) and its part of the log, and free the slot."""
        trial = self.trial
        if trial is None:
            return None
        exit_code = exit_code_of_zombie(trial.pid)
        if exit_code is None and _exists(trial.pid):
            return None
        reap(trial.pid)  # only a trial whose agent is gone is a child of the fleet
        if trial.pidfd is not None:
            os.close(trial.pidfd)
        log = read_log(self.log, trial.log_offset)
        if trial.run is None and (names := re.findall(r"(?:Running runs: \['|finished run: )(\w+)", log)):
            trial.run = names[-1]
        self.trial, self._last_trial = None, trial.pid
        with contextlib.suppress(OSError):  # removed meanwhile
            self._log_offset = self.log.stat().st_size
        self._dead_groups[trial.pid] = time.monotonic()
        return trial, exit_code, log

    def agent_log(self) -> str:
        return read_log(self.log, self._agent_log_offset)

    def take_agent_exit(self) -> int | None:
        """Return the exit code of an agent that has ended, and forget the agent."""
        if self._agent is None or (exit_code := self._agent.poll()) is None:
            return None
        self._dead_agent, self._agent = self._agent.pid, None
        return exit_code

    def end_agent(self) -> None:
        """End the agent and leave its trial, which the fleet inherits.

        SIGTERM ends a plain agent at once: it has no handler, and the client's side process ends with it.
        """
        if self._agent is None:
            return
        self._agent.terminate()
        try:
            self._agent.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self._agent.kill()
            self._agent.wait()
        self._dead_agent, self._agent = self._agent.pid, None

    def signal_trial(self, number: signal.Signals) -> None:
        """Signal the trial; SIGKILL goes to its whole group."""
        if self.trial is None:
            return
        with contextlib.suppress(ProcessLookupError):
            if number == signal.SIGKILL:
                os.killpg(self.trial.pid, number)
            else:
                os.kill(self.trial.pid, number)

    def kill_leftovers(self, now_s: float) -> None:
        """Kill the children of dead trials: a data loader that lives on keeps the device's memory."""
        for group, died_s in list(self._dead_groups.items()):
            if now_s - died_s < LEFTOVERS_S:
                continue
            del self._dead_groups[group]
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, 0)  # most groups are empty, and this is cheaper than a search of all processes
                for process in tagged(self._environment[PROCESS_TAG]):
                    if os.getpgid(process.pid) == group:
                        process.kill()


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def agent_environment(name: str, device: Device, base: Mapping[str, str], *, tag: str, threads: int) -> dict[str, str]:
    """Return the environment of an agent and its trials.

    Args:
        name: the slot's; trials read it from AMC_WORKER.
        device: the only one that they see.
        base: the fleet's environment.
        tag: marks the fleet's processes.
        threads: default of OMP_NUM_THREADS; 0: all cores.
    """
    environment = {variable: value for variable, value in base.items() if variable != "WANDB_SERVICE"}
    if device.visible.isdigit():
        environment["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # indices are NVML's; CUDA would put the fastest first
    if threads:
        environment.setdefault("OMP_NUM_THREADS", str(threads))
    return {
        **environment,
        "CUDA_VISIBLE_DEVICES": device.visible,
        "AMC_WORKER": name,
        PROCESS_TAG: tag,
        # The fleet has its own restart policy, and an agent that gives up ends with exit code 0.
        "WANDB_AGENT_DISABLE_FLAPPING": "true",
        "WANDB_AGENT_MAX_INITIAL_FAILURES": "1000000",
        "PYTHONUNBUFFERED": "1",
    }
