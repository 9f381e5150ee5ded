"""The trials that have ended. W&B may correct a cause later: it knows who stopped a run, and the trial's end_reason."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, replace

import yaml

from amc_agents.fleet.agent_slot import AgentSlot, TrialProcess
from amc_agents.fleet.display import Display, Event
from amc_agents.fleet.policy import Blame, EndedTrial, blame
from amc_agents.fleet.trial_evidence import NO_RECORD, WandbRecord, classify_end, last_lines
from amc_agents.fleet.watch import Watcher
from amc_sweeps.bounded_texts import TextError, read_yaml
from amc_sweeps.number_formats import duration
from amc_sweeps.runs.causes import Diagnosis

ANNOUNCE_WITHIN_S = 20.0  # a good end is announced with W&B's cause, or after this time without it
CORRECT_WITHIN_S = 600.0
LAST_WAIT_S = 10.0  # for W&B's records when the fleet ends
POLL_S = 0.25
# What the agent writes before the start of a trial, and later.
_AGENT_LINES = re.compile(r"(?s)\A.* - About to run command: [^\n]*|[^\n]* - wandb\.wandb_agent - [^\n]*")


@dataclass
class _OpenEnding:
    """An end whose cause W&B may still correct."""

    index: int  # in Endings.trials
    slot: AgentSlot
    log: str
    memory_kill: str | None
    fleet_is_ending: bool
    announced: bool

    def classify(self, exit_code: int | None, run: str | None, record: WandbRecord = NO_RECORD) -> Diagnosis:
        return classify_end(
            exit_code,
            self.log,
            run=run,
            memory_kill=self.memory_kill,
            fleet_is_ending=self.fleet_is_ending,
            record=record,
        )


class Endings:
    """Classifies, announces and corrects the ends of trials."""

    def __init__(self, watcher: Watcher, display: Display) -> None:
        self.trials: list[EndedTrial] = []  # in order of their ends
        self._watcher, self._display = watcher, display
        self._open: list[_OpenEnding] = []

    @property
    def open_runs(self) -> list[str | None]:
        return [self.trials[ending.index].run for ending in self._open]

    def add(
        self,
        slot: AgentSlot,
        trial: TrialProcess,
        exit_code: int | None,
        log: str,
        *,
        memory_kill: str | None,
        device_fault: str | None,
        fleet_is_ending: bool,
    ) -> EndedTrial:
        """Classify the end of a trial and return it; a failure is announced at once."""
        ending = _OpenEnding(len(self.trials), slot, log, memory_kill, fleet_is_ending, announced=exit_code != 0)
        diagnosis = ending.classify(exit_code, trial.run, self._watcher.record(trial.run))
        ended = EndedTrial(
            device=slot.device.name,
            cause=diagnosis.cause,
            because=diagnosis.because,
            began_s=trial.began_s,
            ended_s=time.monotonic(),
            run=trial.run,
            exit_code=exit_code,
            configuration=trial.configuration,
            device_fault=device_fault,
            crowded=trial.crowded,
        )
        self.trials.append(ended)
        self._open.append(ending)
        if ending.announced:
            self._announce(ending)
        return ended

    def correct(self, now_s: float) -> None:
        """Correct causes from W&B's latest records, and announce the good ends that waited for one."""
        for ending in list(self._open):
            ended = self.trials[ending.index]
            age_s = now_s - ended.ended_s
            record = self._watcher.record(ended.run)
            if record.is_final:
                diagnosis = ending.classify(ended.exit_code, ended.run, record)
                self.trials[ending.index] = replace(ended, cause=diagnosis.cause, because=diagnosis.because)
                if ending.announced and diagnosis.cause is not ended.cause:
                    text = f"{ended.run}: {diagnosis.cause} ({diagnosis.because})"
                    self._display.report(Event("corrected", ending.slot.name, text))
            if not ending.announced and (record.is_final or age_s > ANNOUNCE_WITHIN_S):
                ending.announced = True
                self._announce(ending)
            if record.is_final or age_s > CORRECT_WITHIN_S:
                self._open.remove(ending)

    def finish(self) -> None:
        """Wait some seconds for W&B's records of the last ends, then announce them all."""
        deadline_s = time.monotonic() + LAST_WAIT_S
        while any(not ending.announced for ending in self._open) and time.monotonic() < deadline_s:
            self._watcher.poll_soon()
            time.sleep(POLL_S)
            self.correct(time.monotonic())
        self.correct(time.monotonic() + ANNOUNCE_WITHIN_S)

    def _announce(self, ending: _OpenEnding) -> None:
        ended = self.trials[ending.index]
        text = f"{ended.run or 'a run'} ended after {duration(ended.lasted_s)}: {ended.cause} ({ended.because})"
        if blame(ended, self.trials) is Blame.CONFIGURATION:
            text += f"; the configuration fails and is not tried again here: {configuration_text(ended.configuration)}"
        if ended.is_failure:
            output = _AGENT_LINES.sub("", ending.log)
            text += f"; last line: {last_lines(output)}; see {ending.slot.log}"
        facts = {
            "run": ended.run,
            "cause": str(ended.cause),
            "because": ended.because,
            "exit_code": ended.exit_code,
            "lasted_s": round(ended.lasted_s, 1),
        }
        self._display.report(Event("ended", ending.slot.name, text, facts))


def configuration_text(configuration: str | None) -> str:
    """Return the sweep's parameters of a run, from the agent's parameter file, as ``name=value`` in one line."""
    try:
        parameters, _ = read_yaml(configuration or "")
    except (yaml.YAMLError, TextError):
        parameters = None
    if not isinstance(parameters, dict):
        return "unknown"
    values = {name: entry.get("value") for name, entry in parameters.items() if isinstance(entry, dict)}
    return ", ".join(f"{name}={value}" for name, value in sorted(values.items())) or "unknown"
