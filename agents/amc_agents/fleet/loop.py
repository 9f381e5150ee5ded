"""A fleet of plain ``wandb agent`` processes, one a GPU: started, watched, started again, and ended without remainder.

This is the loop and nothing else: what it sees comes from ``fleet_agent`` and ``fleet_watch``, what follows from it is
decided in ``fleet_policy``, what a person sees of it is ``fleet_display``.
"""

from __future__ import annotations

import re
import select
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import FrameType

from amc_agents.fleet import policy
from amc_agents.fleet.agent_slot import Place, Trial
from amc_agents.fleet.devices import Driver, Reading, crowd, fault
from amc_agents.fleet.display import Display, Event, Row
from amc_agents.fleet.evidence import NOTHING, MemoryKills, conclude, last_words
from amc_agents.fleet.policy import Alive, Ended
from amc_agents.fleet.processes import reap_inherited, tagged
from amc_agents.fleet.rows import in_words, rows
from amc_agents.fleet.watch import Watch
from amc_sweeps.runs.causes import EXIT_CODES, EndReason

TICK_S = 0.25  # a trial's end is noticed at once; this is for its beginning
READ_DEVICES_EVERY_S = 2.0
TOLD_WITHIN_S = 20.0  # how long a good end waits for W&B's word of how good it was
LAST_LOOK_S = 10.0

PREEMPTED = EXIT_CODES[EndReason.PREEMPTED]
# What a signal to the fleet is to its trials, and the fleet's own exit code then.
FORWARDED = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGUSR1: PREEMPTED}

OVER, ENOUGH, LATE = "the sweep is over", "all trials that were asked for have begun", "no trial would end in time"
GOOD_ENDS = (OVER, ENOUGH, LATE)


@dataclass(frozen=True)
class Rules:
    """What the user asked for."""

    count: int | None = None  # trials in all
    max_failures: int | None = None
    deadline_s: float | None = None  # of the monotonic clock
    grace_s: float = 60.0  # for trials that were asked to end
    stagger_s: float = 2.0  # between two starts


@dataclass(frozen=True)
class Outcome:
    """How the fleet's work ended."""

    exit_code: int
    reason: str


@dataclass
class _Told:
    """An end whose cause W&B may still correct."""

    index: int  # in Fleet.ended
    place: Place
    exit_code: int | None
    log: str
    oom: str | None
    said: bool  # whether the user has been told


class Fleet:
    """The places, and the loop over them."""

    def __init__(
        self,
        places: Sequence[Place],
        rules: Rules,
        *,
        tag: str,
        watch: Watch,
        driver: Driver,
        display: Display,
        sigterm_preempts: bool = False,
        after: Callable[[Ended], str | None] = lambda _: None,
    ) -> None:
        """Prepare.

        Args:
            places: where agents may run.
            rules: what the user asked for.
            tag: of all processes of this fleet, see ``fleet_processes.PROCESS_TAG``.
            watch: what W&B holds; started already.
            driver: what is known of GPUs.
            display: where events and rows go.
            sigterm_preempts: whether the launcher declared that its SIGTERM takes the machine away.
            after: called with every trial that has ended, in a thread; what it returns is told, and the fleet does not
                end before it has returned.
        """
        self.places = list(places)
        self.rules = rules
        self.ended: list[Ended] = []
        self._tag, self._watch, self._driver, self._display = tag, watch, driver, display
        self._after = after
        self._pool = ThreadPoolExecutor(thread_name_prefix="after")
        self._aftermath: dict[Future[str | None], Place] = {}
        self._exit_codes = {**FORWARDED, **({signal.SIGTERM: PREEMPTED} if sigterm_preempts else {})}
        self._kills = MemoryKills()
        self._drawn = 0
        self._readings: dict[str, Reading | None] = {}
        self._read_at_s = -READ_DEVICES_EVERY_S
        self._started_at_s = -rules.stagger_s
        self._quarantined: dict[str, str] = {}
        self._left: dict[str, str] = {}  # places that are done with, and why
        self._halt: str | None = None
        self._told: list[_Told] = []
        self._signals: list[signal.Signals] = []
        self._obeyed = 0  # signals
        self._kill_at_s: float | None = None
        self._trouble: str | None = None

    # --- the loop ---------------------------------------------------------------------------------------------------

    def run(self) -> Outcome:
        """Work until nothing is left to do."""
        before = {number: signal.signal(number, self._on_signal) for number in FORWARDED}
        try:
            while (outcome := self._outcome()) is None:
                self._tick(time.monotonic())
                self._wait()
            self._last_words()
            return outcome
        finally:
            self._pool.shutdown(wait=False, cancel_futures=True)
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._signals.append(signal.Signals(number))

    def _wait(self) -> None:
        """Wait for the end of a trial, a signal or the next turn."""
        alarms = select.poll()
        for place in self.places:
            if place.trial is not None and place.trial.alarm is not None:
                alarms.register(place.trial.alarm, select.POLLIN)
        alarms.poll(TICK_S * 1000)

    def _tick(self, now_s: float) -> None:
        for place in self.places:
            self._look_for_a_trial(place, now_s)
            if found := place.ended_trial():
                self._trial_ended(place, *found, now_s=time.monotonic())
            if (code := place.agent_ended()) is not None:
                self._agent_ended(place, code, now_s)
            place.sweep_leftovers(now_s)
        reap_inherited({place.trial.pid for place in self.places if place.trial is not None})
        self._tell_aftermath()
        self._tell_trouble()
        if self._signals:
            self._obey(now_s)
        else:
            self._direct(now_s)
        self._correct_causes(now_s)
        if now_s - self._read_at_s >= READ_DEVICES_EVERY_S:
            self._read_at_s = now_s
            self._read_devices()
            self._display.show(self._rows(now_s))

    # --- what happened ----------------------------------------------------------------------------------------------

    def _look_for_a_trial(self, place: Place, now_s: float) -> None:
        if trial := place.find_trial(now_s):
            self._trial_began(place, trial)

    def _trial_began(self, place: Place, trial: Trial) -> None:
        self._drawn += 1
        trial.kills = self._kills.count()
        trial.reading = self._driver.read(place.device)
        if trial.reading is not None and trial.reading.holders:
            shared = sum(other.device == place.device for other in self.places) > 1
            trial.crowded = crowd(trial.reading, {process.pid for process in tagged(self._tag)}, shared=shared)
        crowded = f"; {trial.crowded}" if trial.crowded else ""
        self._say("began", place, f"{trial.run or 'a run'} begins{crowded}", run=trial.run)
        self._want_records()

    def _trial_ended(self, place: Place, trial: Trial, exit_code: int | None, log: str, now_s: float) -> None:
        record = self._watch.record(trial.run) or NOTHING
        oom = self._kills.since(trial.kills, trial.pid, trial.began_s)
        self._read_xids((place, trial))
        asked = self._kill_at_s is not None
        verdict = conclude(exit_code, log, run=trial.run, oom=oom, asked=asked, record=record)
        ended = Ended(
            device=place.device.name,
            cause=verdict.cause,
            because=verdict.because,
            began_s=trial.began_s,
            ended_s=now_s,
            run=trial.run,
            exit_code=exit_code,
            configuration=trial.configuration,
            device_fault=fault(trial.reading, self._driver.read(place.device), trial.xids),
            crowded=trial.crowded,
        )
        self.ended.append(ended)
        told = _Told(len(self.ended) - 1, place, exit_code, log, oom, said=exit_code != 0)
        self._told.append(told)
        if told.said:
            self._say_ended(place, ended, log)
        self._want_records()
        self._watch.look_soon()
        self._aftermath[self._pool.submit(self._after, ended)] = place
        if place.device.name not in self._quarantined:
            alive = [Alive(one.device.name, one.trial.began_s) for one in self.places if one.trial is not None]
            if reason := policy.quarantine(place.device.name, self.ended, alive, now_s):
                self._quarantined[place.device.name] = reason
                self._say("quarantined", place, f"{place.device.name} gets no more trials: {reason}; see {place.log}")

    def _tell_trouble(self) -> None:
        trouble = self._watch.trouble
        if (trouble is None) != (self._trouble is None):
            goes_on = "agents and trials go on by themselves"
            self._say("w&b", None, f"W&B does not answer ({trouble}); {goes_on}" if trouble else "W&B answers again")
        self._trouble = trouble

    def _tell_aftermath(self) -> None:
        for done in [future for future in self._aftermath if future.done()]:
            place = self._aftermath.pop(done)
            error = done.exception()
            text = str(error) if error is not None else done.result()
            if text:
                self._say("afterwards", place, text)

    def _agent_ended(self, place: Place, exit_code: int, now_s: float) -> None:
        self._look_for_a_trial(place, now_s)
        log = place.agent_log()
        if exit_code == 0 and "Received exit command" in log:
            self._left[place.name] = OVER
            return
        if exit_code > 0 and re.search(
            r"^.*\bsweep\b.*\bnot found", last_words(log, lines=3), re.IGNORECASE | re.MULTILINE
        ):
            self._halt = self._halt or f"W&B does not know the sweep (any more): {last_words(log)}"
            return
        place.deaths += 1
        how = f"by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"with exit code {exit_code}"
        after_s = policy.restart_after(place.deaths)
        if after_s is None:
            self._left[place.name] = f"its agent ended {place.deaths} times without a trial: {last_words(log)}"
            self._say("gave_up", place, f"{self._left[place.name]}; see {place.log}")
            return
        place.start_at_s = now_s + after_s
        next_ = "; its trial goes on, then a new agent follows" if place.trial else f"; a new one in {after_s:.0f} s"
        said = "" if place.trial else f" ({last_words(log)})"
        self._say("agent_ended", place, f"its agent ended {how}{next_}{said}", exit_code=exit_code)

    def _correct_causes(self, now_s: float) -> None:
        """Take W&B's word where it comes: who stopped a run, what a good end was."""
        for told in list(self._told):
            ended = self.ended[told.index]
            record = self._watch.record(ended.run)
            final = record is not None and record.is_final
            if record is not None and final:
                asked = self._kill_at_s is not None
                verdict = conclude(told.exit_code, told.log, run=ended.run, oom=told.oom, asked=asked, record=record)
                corrected = replace(ended, cause=verdict.cause, because=verdict.because)
                self.ended[told.index] = corrected
                if told.said and corrected.cause is not ended.cause:
                    self._say("corrected", told.place, f"{ended.run}: {corrected.cause} ({corrected.because})")
            if not told.said and (final or now_s - ended.ended_s > TOLD_WITHIN_S):
                told.said = True
                self._say_ended(told.place, self.ended[told.index], told.log)
            if final or now_s - ended.ended_s > 600:
                self._told.remove(told)

    def _want_records(self) -> None:
        """Have W&B asked about the runs under way, and about those whose end it may still explain."""
        runs = [place.trial.run for place in self.places if place.trial is not None]
        runs += [self.ended[told.index].run for told in self._told]
        self._watch.want([run for run in runs if run is not None])

    def _last_words(self) -> None:
        """Wait a little for W&B's word of the last ends."""
        until_s = time.monotonic() + LAST_LOOK_S
        while any(not told.said for told in self._told) and time.monotonic() < until_s:
            self._watch.look_soon()
            time.sleep(TICK_S)
            self._correct_causes(time.monotonic())
        self._correct_causes(time.monotonic() + TOLD_WITHIN_S)
        self._display.show(self._rows(time.monotonic()))

    # --- what follows -----------------------------------------------------------------------------------------------

    def _direct(self, now_s: float) -> None:
        """Start and end agents as the policy has it."""
        devices = {place.device.name for place in self.places}
        if self._halt is None:
            self._halt = policy.halt(self.ended, devices, self._quarantined, self.rules.max_failures)
            if self._halt is not None:
                self._say("halted", None, f"no more trials begin: {self._halt}")
        for place in self.places:
            reason = self._why_not(place, now_s)
            if reason is not None:
                place.note = reason
                if place.is_idle:
                    place.end_agent()
                    place.start_at_s = now_s
                    self._look_for_a_trial(place, now_s)  # that it was handed in its last moment
            elif place.is_empty and place.start_at_s is not None and place.start_at_s <= now_s:
                if now_s - self._started_at_s < self.rules.stagger_s:
                    continue
                self._started_at_s = now_s
                place.start()
                place.note = "waits for a trial"

    def _why_not(self, place: Place, now_s: float) -> str | None:
        """Return why a place should have no agent that asks for a trial, or None."""
        if place.name in self._left:
            return self._left[place.name]
        if place.device.name in self._quarantined:
            return f"quarantined: {self._quarantined[place.device.name]}"
        if self._halt is not None:
            return self._halt
        if not policy.fits(self.ended, now_s, self.rules.deadline_s):
            return LATE
        waiting = sum(other.is_idle for other in self.places if other is not place)
        return None if policy.has_room(self.rules.count, self._drawn, waiting) else ENOUGH

    def _outcome(self) -> Outcome | None:
        impatient = len(self._signals) > 1
        if (self._aftermath and not impatient) or not all(place.is_empty for place in self.places):
            return None
        if self._signals:
            return Outcome(self._exit_codes[self._signals[0]], f"ended by {self._signals[0].name}")
        now_s = time.monotonic()
        reasons = [self._why_not(place, now_s) for place in self.places]
        if any(reason is None for reason in reasons):
            return None
        if self._halt is not None:
            return Outcome(1, self._halt)
        for good in GOOD_ENDS:
            if good in reasons:
                return Outcome(0, good)
        return Outcome(1, "; ".join(sorted({str(reason) for reason in reasons})))

    # --- ending -----------------------------------------------------------------------------------------------------

    def _obey(self, now_s: float) -> None:
        """End agents and trials: the first signal asks, the second and the end of the grace kill."""
        new, self._obeyed = self._signals[self._obeyed :], len(self._signals)
        if self._kill_at_s is None:
            self._kill_at_s = now_s + self.rules.grace_s
            first = self._signals[0]
            for place in self.places:
                place.end_agent()
                self._look_for_a_trial(place, now_s)
                place.signal_trial(first if first is not signal.SIGHUP else signal.SIGTERM)
            alive = [place for place in self.places if place.trial is not None]
            self._say(
                "ending",
                None,
                f"{first.name}: {len(alive)} trials are asked to end and have {self.rules.grace_s:.0f} s"
                "; a second signal kills them",
            )
            new = new[1:]
        if new or now_s >= self._kill_at_s:
            for place in self.places:
                place.signal_trial(signal.SIGKILL)

    # --- what is shown ----------------------------------------------------------------------------------------------

    def _say(self, kind: str, place: Place | None, text: str, **facts: object) -> None:
        self._display.tell(
            Event(kind, place.name if place else None, text, {k: v for k, v in facts.items() if v is not None})
        )

    def _say_ended(self, place: Place, ended: Ended, log: str) -> None:
        text = f"{ended.run or 'a run'} ended after {ended.lasted_s:.0f} s: {ended.cause} ({ended.because})"
        if ended.is_failure and policy.blame(ended, self.ended) is policy.Blame.CONFIGURATION:
            text += f"; its configuration fails and is not tried again here: {in_words(ended.configuration)}"
        if ended.is_failure:
            text += f"; last line: {last_words(log)}; see {place.log}"
        self._say(
            "ended",
            place,
            text,
            run=ended.run,
            cause=str(ended.cause),
            because=ended.because,
            exit_code=ended.exit_code,
            lasted_s=round(ended.lasted_s, 1),
        )

    def _rows(self, now_s: float) -> list[Row]:
        return rows(self.places, self.ended, self._readings, self._watch, now_s)

    def _read_devices(self) -> None:
        self._readings = {place.device.identity: self._driver.read(place.device) for place in self.places}
        self._read_xids()

    def _read_xids(self, *just_ended: tuple[Place, Trial]) -> None:
        alive = [(place, place.trial) for place in self.places if place.trial is not None]
        for identity, xid in self._driver.new_xids():
            for place, trial in (*alive, *just_ended):
                if place.device.identity == identity:
                    trial.xids.append(xid)
