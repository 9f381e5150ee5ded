"""One place for an agent: its device, its log, the plain ``wandb agent`` of the moment and that one's trial.

The trial is watched from outside: the agent is the unmodified client, and nothing of the sweep's own command is
touched.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from amc_agents.fleet.devices import Device, Reading
from amc_agents.fleet.evidence import read_from
from amc_agents.fleet.processes import PROCESS_TAG, children, exit_code_of_zombie, is_trial, reap, tagged, variables

LEFTOVERS_S = 10.0  # how long what a dead trial has started may still run


@dataclass
class Trial:
    """A trial under way."""

    pid: int
    began_s: float
    log_offset: int  # where its part of the agent's log begins
    run: str | None = None
    configuration: str | None = None
    reading: Reading | None = None  # the device as it was when the trial began
    crowded: str | None = None
    alarm: int | None = None  # a descriptor that becomes readable when the trial ends, pidfd_open(2)
    kills: int | None = None  # by the kernel, for lack of memory, before it began
    xids: list[int] = field(default_factory=list)


class Place:
    """Where one agent runs. It starts, finds and ends processes; what should be done is decided elsewhere."""

    def __init__(
        self, name: str, device: Device, log: Path, command: list[str], environment: Mapping[str, str]
    ) -> None:
        self.name = name
        self.device = device
        self.log = log
        self.trial: Trial | None = None
        self.start_at_s: float | None = 0.0  # when an agent is due; None: none is
        self.deaths = 0  # of agents in a row, with no trial begun between them
        self.note = "starts"  # what it is doing, in words, while it has no trial
        self._command = command
        self._environment = dict(environment)
        self._agent: subprocess.Popen[bytes] | None = None
        self._former: int | None = None  # the agent that has ended; a trial of its last moment is ours now
        self._last_pid: int | None = None  # the trial before, which the agent may not have waited for yet
        self._offset = 0
        self._agent_offset = 0
        self._groups: dict[int, float] = {}  # process groups of dead trials, and when each died

    @property
    def agent_pid(self) -> int | None:
        """The agent's process id, None where none runs."""
        return self._agent.pid if self._agent is not None else None

    @property
    def is_idle(self) -> bool:
        """Whether an agent runs here that may be handed a trial any moment."""
        return self._agent is not None and self.trial is None

    @property
    def is_empty(self) -> bool:
        """Whether nothing runs here."""
        return self._agent is None and self.trial is None

    def start(self) -> None:
        """Start an agent in a session of its own: a Ctrl-C at the terminal reaches the fleet alone."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            log.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} {' '.join(self._command)}\n".encode())
            log.flush()
            self._offset = self._agent_offset = log.tell()
            self._agent = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.start_at_s = None
        self._last_pid = self._former = None

    def find_trial(self, now_s: float) -> Trial | None:
        """Look for a trial that the agent has begun since; return it if there is a new one."""
        agent = self.agent_pid or self._former
        if agent is None or self.trial is not None:
            self._learn_run()
            return None
        for pid in children(agent if self._agent is not None else os.getpid()):
            if pid != self._last_pid and is_trial(pid, agent):
                self.trial = Trial(pid, now_s, self._offset)
                with contextlib.suppress(OSError):
                    self.trial.alarm = os.pidfd_open(pid)
                self.deaths = 0
                self._learn_run()
                return self.trial
        return None

    def _learn_run(self) -> None:
        """Take the run's id from the trial's environment; a moment after its birth it still has its agent's."""
        if self.trial is None or self.trial.run is not None:
            return
        found = variables(self.trial.pid)
        self.trial.run = found.get("WANDB_RUN_ID")
        with contextlib.suppress(KeyError, OSError):
            self.trial.configuration = Path(found["WANDB_SWEEP_PARAM_PATH"]).read_text()

    def ended_trial(self) -> tuple[Trial, int | None, str] | None:
        """Return a trial that has ended since, with its exit code and its part of the log, and forget it."""
        trial = self.trial
        if trial is None:
            return None
        code = exit_code_of_zombie(trial.pid)
        if code is None and _exists(trial.pid):
            return None
        # No code and no process: its agent was quicker than we, and the exit code is lost.
        reap(trial.pid)  # ours only where its agent is gone
        if trial.alarm is not None:
            os.close(trial.alarm)
        log = read_from(self.log, trial.log_offset)
        if trial.run is None and (named := re.findall(r"(?:Running runs: \['|finished run: )(\w+)", log)):
            trial.run = named[-1]
        self.trial, self._last_pid = None, trial.pid
        self._offset = self.log.stat().st_size
        self._groups[trial.pid] = time.monotonic()
        return trial, code, log

    def agent_log(self) -> str:
        """Return what this agent and its trials have written."""
        return read_from(self.log, self._agent_offset)

    def agent_ended(self) -> int | None:
        """Return the exit code of an agent that has ended since, and forget it."""
        if self._agent is None or (code := self._agent.poll()) is None:
            return None
        self._former, self._agent = self._agent.pid, None
        return code

    def end_agent(self) -> None:
        """End the agent and leave its trial, which the fleet inherits.

        SIGTERM ends a plain agent at once: it has no handler, and its client's side process ends with it.
        """
        if self._agent is None:
            return
        self._agent.terminate()
        try:
            self._agent.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self._agent.kill()
            self._agent.wait()
        self._former, self._agent = self._agent.pid, None

    def signal_trial(self, number: signal.Signals) -> None:
        """Send the trial a signal; killing it kills its whole group."""
        if self.trial is None:
            return
        with contextlib.suppress(ProcessLookupError):
            if number == signal.SIGKILL:
                os.killpg(self.trial.pid, number)
            else:
                os.kill(self.trial.pid, number)

    def sweep_leftovers(self, now_s: float) -> None:
        """End what dead trials have left in their groups: a data loader that lives on keeps the device's memory."""
        for group, died_s in list(self._groups.items()):
            if now_s - died_s < LEFTOVERS_S:
                continue
            del self._groups[group]
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, 0)  # most groups are empty by now, and looking through all processes costs more
                for process in tagged(self._environment[PROCESS_TAG]):
                    if os.getpgid(process.pid) == group:
                        process.kill()


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def environment_for(name: str, device: Device, base: Mapping[str, str], *, tag: str, threads: int) -> dict[str, str]:
    """Return the environment of an agent and its trials.

    Args:
        name: of the place; trials find it in AMC_WORKER.
        device: what they may see.
        base: the fleet's own environment.
        tag: of the fleet's processes.
        threads: for numerical libraries, where the user does not say; 0: all cores.
    """
    found = {variable: value for variable, value in base.items() if variable != "WANDB_SERVICE"}
    if device.visible.isdigit():
        found["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # indices are NVML's; CUDA would put the fastest first
    if threads:
        found.setdefault("OMP_NUM_THREADS", str(threads))
    return {
        **found,
        "CUDA_VISIBLE_DEVICES": device.visible,
        "AMC_WORKER": name,
        PROCESS_TAG: tag,
        # The fleet has a policy of its own, and an agent that gives up says so with exit code 0.
        "WANDB_AGENT_DISABLE_FLAPPING": "true",
        "WANDB_AGENT_MAX_INITIAL_FAILURES": "1000000",
        "PYTHONUNBUFFERED": "1",
    }
