"""A fleet: the loop that starts, watches and ends one ``wandb agent`` per slot, until nothing is left to do.

The decisions are in ``policy``, the processes in ``agent_slot``, the causes of ends in ``endings``.
"""

from __future__ import annotations

import contextlib
import select
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from amc_agents.fleet import policy
from amc_agents.fleet.agent_slot import AgentSlot, TrialProcess
from amc_agents.fleet.devices import Driver, Reading, device_fault, other_users
from amc_agents.fleet.display import Display, Event, rows
from amc_agents.fleet.endings import Endings
from amc_agents.fleet.policy import AgentEnd, EndedTrial, Outcome, Rules, RunningTrial
from amc_agents.fleet.processes import reap_inherited, tagged
from amc_agents.fleet.trial_evidence import MemoryKills, last_lines
from amc_agents.fleet.watch import Watcher
from amc_sweeps.number_formats import counted, duration
from amc_sweeps.runs.causes import EXIT_CODES, EndReason

TICK_S = 0.25  # how often to look for a new trial; a pidfd reports the end of one
READ_DEVICES_EVERY_S = 2.0

PREEMPTED = EXIT_CODES[EndReason.PREEMPTED]
# The signals that the fleet passes on to its trials, and its own exit code after each.
FORWARDED = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGUSR1: PREEMPTED}


class Fleet:
    """The slots, and the loop over them."""

    def __init__(
        self,
        slots: Sequence[AgentSlot],
        rules: Rules,
        *,
        tag: str,
        watcher: Watcher,
        driver: Driver,
        display: Display,
        sigterm_preempts: bool = False,
        after_trial: Callable[[EndedTrial], str | None] = lambda _: None,
    ) -> None:
        """Take the slots over.

        Args:
            slots: where agents may run.
            rules: the user's limits.
            tag: of all processes of this fleet, see ``processes.PROCESS_TAG``.
            watcher: reads runs from W&B; already started.
            driver: reads GPUs.
            display: gets events and rows.
            sigterm_preempts: whether SIGTERM means that the machine is taken away.
            after_trial: called in a thread with every ended trial. Its text is reported, and the fleet waits for it.
        """
        self.slots = list(slots)
        self.rules = rules
        self.endings = Endings(watcher, display)
        self._tag, self._watcher, self._driver, self._display = tag, watcher, driver, display
        self._after_trial = after_trial
        self._pool = ThreadPoolExecutor(thread_name_prefix="after-trial")
        self._after_trials: dict[Future[str | None], AgentSlot] = {}
        self._exit_codes = {**FORWARDED, **({signal.SIGTERM: PREEMPTED} if sigterm_preempts else {})}
        self._memory_kills = MemoryKills()
        self._begun = 0  # trials
        self._readings: dict[str, Reading | None] = {}  # by device identity
        self._xids: list[tuple[float, str, int]] = []  # time, device identity, XID
        self._read_devices_at_s = 0.0
        self._next_start_s = 0.0
        self._quarantined: dict[str, str] = {}  # device -> reason
        self._done: dict[str, str] = {}  # slot that gets no more agents -> reason
        self._halted: str | None = None
        self._signals: list[signal.Signals] = []
        self._signals_handled = 0
        self._kill_at_s: float | None = None  # set when the fleet is ending
        self._wandb_error: str | None = None
        self._is_paused = False
        self._busy_at_s = time.monotonic()  # when a trial ran last, or no agent could ask for one
        self._idle_reason: str | None = None

    def run(self) -> Outcome:
        with self._signal_handlers():
            while (outcome := self._outcome()) is None:
                self._tick(time.monotonic())
                self._wait()
            self.endings.finish()
            self._show(time.monotonic())
            return outcome

    @contextlib.contextmanager
    def _signal_handlers(self) -> Iterator[None]:
        def remember(number: int, _frame: object) -> None:
            self._signals.append(signal.Signals(number))

        previous = {number: signal.signal(number, remember) for number in FORWARDED}
        try:
            yield
        finally:
            self._pool.shutdown(wait=False, cancel_futures=True)
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _tick(self, now_s: float) -> None:
        for slot in self.slots:
            self._look_for_trial(slot, now_s)
            if ended := slot.take_ended_trial():
                self._trial_ended(slot, *ended)
            if (exit_code := slot.take_agent_exit()) is not None:
                self._agent_ended(slot, exit_code, now_s)
            slot.kill_leftovers(now_s)
        self._look_for_idleness(now_s)
        reap_inherited({slot.trial.pid for slot in self.slots if slot.trial is not None})
        self._report_after_trials()
        self._report_wandb_errors()
        self._report_pause()
        if self._signals:
            self._end_trials(now_s)
        else:
            self._start_and_end_agents(now_s)
        self.endings.correct(now_s)
        if now_s >= self._read_devices_at_s:
            self._read_devices_at_s = now_s + READ_DEVICES_EVERY_S
            self._readings = {slot.device.identity: self._driver.read(slot.device) for slot in self.slots}
            self._read_xids(now_s)
            self._show(now_s)

    def _wait(self) -> None:
        ends = select.poll()
        for slot in self.slots:
            if slot.trial is not None and slot.trial.pidfd is not None:
                ends.register(slot.trial.pidfd, select.POLLIN)
        ends.poll(TICK_S * 1000)

    # --- trials -----------------------------------------------------------------------------------------------------

    def _look_for_trial(self, slot: AgentSlot, now_s: float) -> None:
        trial = slot.find_trial(now_s)
        if trial is None:
            return
        self._begun += 1
        trial.memory_kills = self._memory_kills.count()
        trial.reading = self._driver.read(slot.device)
        if trial.reading is not None and trial.reading.holders:
            shared = sum(other.device == slot.device for other in self.slots) > 1
            trial.crowded = other_users(trial.reading, {process.pid for process in tagged(self._tag)}, shared=shared)
        crowded = f"; {trial.crowded}" if trial.crowded else ""
        self._report("began", slot, f"{trial.run or 'a run'} begins{crowded}", run=trial.run)
        self._follow_runs()

    def _trial_ended(self, slot: AgentSlot, trial: TrialProcess, exit_code: int | None, log: str) -> None:
        now_s = time.monotonic()
        self._read_xids(now_s)
        xids = [xid for at_s, device, xid in self._xids if device == slot.device.identity and at_s >= trial.began_s]
        ended = self.endings.add(
            slot,
            trial,
            exit_code,
            log,
            memory_kill=self._memory_kills.since(trial.memory_kills, trial.pid, trial.began_s),
            device_fault=device_fault(trial.reading, self._driver.read(slot.device), xids),
            fleet_is_ending=self._kill_at_s is not None,
        )
        self._follow_runs()
        self._watcher.poll_soon()
        self._after_trials[self._pool.submit(self._after_trial, ended)] = slot
        if slot.device.name not in self._quarantined:
            self._quarantine_if_bad(slot, now_s)

    def _quarantine_if_bad(self, slot: AgentSlot, now_s: float) -> None:
        device = slot.device.name
        running = [RunningTrial(s.device.name, s.trial.began_s) for s in self.slots if s.trial is not None]
        reason = policy.quarantine_reason(device, self.endings.trials, running, now_s)
        if reason is not None:
            self._quarantined[device] = reason
            self._report("quarantined", slot, f"{device} gets no more trials: {reason}; see {slot.log}")

    def _follow_runs(self) -> None:
        runs = [slot.trial.run for slot in self.slots if slot.trial is not None]
        self._watcher.follow([run for run in runs + self.endings.open_runs if run is not None])

    def _read_xids(self, now_s: float) -> None:
        self._xids += [(now_s, device, xid) for device, xid in self._driver.new_xids()]

    # --- agents -----------------------------------------------------------------------------------------------------

    def _agent_ended(self, slot: AgentSlot, exit_code: int, now_s: float) -> None:
        self._look_for_trial(slot, now_s)
        log = slot.agent_log()
        end = policy.agent_end(exit_code, log)
        if end is AgentEnd.SWEEP_IS_OVER:
            self._done[slot.name] = policy.SWEEP_IS_OVER
        elif end is AgentEnd.SWEEP_IS_UNKNOWN:
            self._halted = self._halted or f"W&B does not know the sweep: {last_lines(log)}"
        else:
            self._restart_agent(slot, exit_code, log, now_s)

    def _restart_agent(self, slot: AgentSlot, exit_code: int, log: str, now_s: float) -> None:
        slot.deaths += 1
        delay_s = policy.restart_delay_s(slot.deaths)
        if delay_s is None:
            reason = f"its agent ended {counted(slot.deaths, 'time')} without a trial: {last_lines(log)}"
            self._done[slot.name] = reason
            self._report("gave_up", slot, f"{reason}; see {slot.log}")
            return
        slot.start_at_s = now_s + delay_s
        end_text = f"by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"with exit code {exit_code}"
        if slot.trial is not None:
            next_step = "its trial goes on, then a new agent starts"
        else:
            next_step = f"a new one starts in {duration(delay_s)} ({last_lines(log)})"
        self._report("agent_ended", slot, f"its agent ended {end_text}; {next_step}", exit_code=exit_code)

    def _start_and_end_agents(self, now_s: float) -> None:
        if self._halted is None:
            devices = {slot.device.name for slot in self.slots}
            trials = self.endings.trials
            self._halted = policy.halt_reason(trials, devices, self._quarantined, self.rules.max_failures)
            if self._halted is not None:
                self._report("halted", None, f"no more trials begin: {self._halted}")
        for slot in self.slots:
            reason = self._why_no_trial(slot, now_s)
            if reason is not None:
                slot.note = reason
                if slot.is_idle:
                    slot.end_agent()
                    slot.start_at_s = now_s
                    self._look_for_trial(slot, now_s)  # it may have got one just before its end
            elif slot.is_empty and slot.start_at_s is not None and now_s >= max(slot.start_at_s, self._next_start_s):
                self._next_start_s = now_s + self.rules.stagger_s
                slot.start_agent()
                slot.note = "waits for a trial"

    def _look_for_idleness(self, now_s: float) -> None:
        if any(slot.trial is not None for slot in self.slots) or not any(slot.is_idle for slot in self.slots):
            self._busy_at_s = now_s
        elif self._idle_reason is None:
            idle_s = now_s - self._busy_at_s
            self._idle_reason = policy.idle_reason(idle_s, self.rules.idle_limit_s, is_paused=self._watcher.is_paused)

    def _why_no_trial(self, slot: AgentSlot, now_s: float) -> str | None:
        """Return why no agent may ask for a trial in this slot, or None."""
        if slot.name in self._done:
            return self._done[slot.name]
        if slot.device.name in self._quarantined:
            return f"quarantined: {self._quarantined[slot.device.name]}"
        if self._halted is not None:
            return self._halted
        if not policy.fits_deadline(self.endings.trials, now_s, self.rules.deadline_s):
            return policy.TOO_LATE_PAUSED if self._watcher.is_paused else policy.TOO_LATE
        if self._idle_reason is not None:
            return self._idle_reason
        waiting = sum(other.is_idle for other in self.slots if other is not slot)
        return None if policy.has_room(self.rules.count, self._begun, waiting) else policy.COUNT_REACHED

    # --- the end of the fleet ---------------------------------------------------------------------------------------

    def _outcome(self) -> Outcome | None:
        waits_for_callbacks = bool(self._after_trials) and len(self._signals) < 2
        if waits_for_callbacks or not all(slot.is_empty for slot in self.slots):
            return None
        if self._signals:
            return Outcome(self._exit_codes[self._signals[0]], f"ended by {self._signals[0].name}")
        now_s = time.monotonic()
        return policy.fleet_outcome([self._why_no_trial(slot, now_s) for slot in self.slots], self._halted)

    def _end_trials(self, now_s: float) -> None:
        """End agents and trials: the first signal is passed on, a second one or the end of the grace kills."""
        new_signals = len(self._signals) - self._signals_handled
        self._signals_handled += new_signals
        if self._kill_at_s is None:
            self._kill_at_s = now_s + self.rules.grace_s
            new_signals -= 1
            self._pass_on(self._signals[0], now_s)
        if new_signals or now_s >= self._kill_at_s:
            for slot in self.slots:
                slot.signal_trial(signal.SIGKILL)

    def _pass_on(self, number: signal.Signals, now_s: float) -> None:
        for slot in self.slots:
            slot.end_agent()
            self._look_for_trial(slot, now_s)
            slot.signal_trial(signal.SIGTERM if number is signal.SIGHUP else number)
        trials = counted(sum(slot.trial is not None for slot in self.slots), "trial")
        text = f"asked {trials} to end within {duration(self.rules.grace_s)}; a second signal kills at once"
        self._report("ending", None, f"{number.name}: {text}")

    # --- reports ----------------------------------------------------------------------------------------------------

    def _report_wandb_errors(self) -> None:
        error = self._watcher.error
        if (error is None) != (self._wandb_error is None):
            text = f"W&B does not answer ({error}); agents and trials go on" if error else "W&B answers again"
            self._report("w&b", None, text)
        self._wandb_error = error

    def _report_pause(self) -> None:
        if self._watcher.is_paused != self._is_paused:
            self._is_paused = self._watcher.is_paused
            paused = "the sweep is paused: the devices wait for amc-sweep resume; Ctrl-C gives them back"
            self._report("sweep", None, paused if self._is_paused else "the sweep goes on")

    def _report_after_trials(self) -> None:
        for future in [future for future in self._after_trials if future.done()]:
            slot = self._after_trials.pop(future)
            error = future.exception()
            text = str(error) if error is not None else future.result()
            if text:
                self._report("afterwards", slot, text)

    def _report(self, kind: str, slot: AgentSlot | None, text: str, **facts: object) -> None:
        self._display.report(Event(kind, slot.name if slot else None, text, facts))

    def _show(self, now_s: float) -> None:
        self._display.show(rows(self.slots, self.endings.trials, self._readings, self._watcher, now_s))
