"""The fleet's decisions: pure functions over records, without processes and clocks.

docs/fleet.md has the same rules for users ("What the fleet does about failures").
"""

from __future__ import annotations

import re
import signal
import statistics
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from amc_agents.fleet.trial_evidence import last_lines
from amc_sweeps.number_formats import counted, duration
from amc_sweeps.runs.causes import FAILURES, Cause

LEAST_FAILURES = 3  # in a row on one device, before the device is suspected
CHANCE = 0.01  # a device is quarantined when its failures in a row are less likely than this
TRIALS_A_LOOK = 20  # one comparison per this many trials: corrects for the many comparisons of a long sweep
HOPELESS = 6  # failures in a row of the whole fleet, at least
HOPELESS_A_DEVICE = 3

FIRST_RESTART_S = 5.0
LONGEST_RESTART_S = 300.0
RESTARTS = 8  # of one agent in a row without a trial between them: 15 minutes of waiting

SWEEP_IS_OVER = "the sweep is over"
COUNT_REACHED = "all trials of --count have begun"
TOO_LATE = "no trial would end in time"
TOO_LATE_PAUSED = "--time-limit is over while the sweep is paused"
NOTHING_TO_DO = "no run was handed out within --idle-limit"
PAUSED_TOO_LONG = "the sweep stayed paused for --idle-limit"
GOOD_ENDS = (SWEEP_IS_OVER, COUNT_REACHED, TOO_LATE, TOO_LATE_PAUSED, NOTHING_TO_DO, PAUSED_TOO_LONG)

# Exit codes of a trial that somebody ended with a signal: they say nothing about the device.
_ENDED_FROM_OUTSIDE = {sign * code for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
                       for sign, code in ((-1, int(number)), (1, 128 + int(number)))}  # fmt: skip


@dataclass(frozen=True)
class Rules:
    """The limits that the user gave."""

    count: int | None = None  # trials in all
    max_failures: int | None = None
    deadline_s: float | None = None  # of the monotonic clock
    grace_s: float = 60.0  # between asking a trial to end and killing it
    stagger_s: float = 2.0  # between two starts of agents
    idle_limit_s: float | None = None  # how long all agents may wait for a trial


@dataclass(frozen=True)
class Outcome:
    """How the fleet ended."""

    exit_code: int
    reason: str


@dataclass(frozen=True)
class EndedTrial:
    """A trial that has ended on this machine. Times are seconds of the monotonic clock."""

    device: str
    cause: Cause
    because: str
    began_s: float
    ended_s: float
    run: str | None = None
    exit_code: int | None = None  # negative: a signal; None: unknown
    configuration: str | None = None  # equal texts are equal parameters
    device_fault: str | None = None  # reported by the driver while the trial ran
    crowded: str | None = None  # other processes with memory on the device when the trial began

    @property
    def lasted_s(self) -> float:
        return self.ended_s - self.began_s

    @property
    def is_failure(self) -> bool:
        """Whether it counts as failed; a run that was stopped from outside does not."""
        return self.cause in FAILURES


@dataclass(frozen=True)
class RunningTrial:
    device: str
    began_s: float


class Blame(Enum):
    """What probably made a trial fail."""

    NOTHING = auto()  # it ended well, or was stopped from outside
    CONFIGURATION = auto()  # these parameters fail everywhere
    MACHINE = auto()  # something that all devices share
    DEVICE = auto()  # the driver reported a fault
    OPEN = auto()  # the device or the program: compare with other devices


def blame(trial: EndedTrial, ended: Sequence[EndedTrial]) -> Blame:
    """Return what probably made a trial fail, by comparison with all trials that have ended on this machine."""
    if not trial.is_failure or trial.exit_code in _ENDED_FROM_OUTSIDE:
        return Blame.NOTHING
    if trial.device_fault is not None:
        return Blame.DEVICE
    if trial.cause in {Cause.DIVERGED, Cause.CONFIG_REFUSED}:
        return Blame.CONFIGURATION
    if trial.cause is Cause.OUT_OF_MEMORY:
        return Blame.OPEN if trial.crowded is not None else Blame.CONFIGURATION
    if trial.cause is Cause.DATA_ERROR:
        return Blame.MACHINE
    if trial.configuration is not None and any(
        other.configuration == trial.configuration and other.device != trial.device and other.is_failure
        for other in ended
    ):
        return Blame.CONFIGURATION  # it failed on two devices
    return Blame.OPEN


def quarantine_reason(
    device: str, ended: Sequence[EndedTrial], running: Sequence[RunningTrial], now_s: float
) -> str | None:
    """Return why a device should get no more trials, or None.

    One failure is enough when the driver reported a fault. Otherwise two conditions must hold. The last trials of the
    device all failed with an open blame. At the failure rate of the other devices, so many failures in a row have a
    chance below 1%. A trial on another device counts as good once it has run longer than the failed ones. Other suspect
    devices are left out of the rate.
    """
    on_device = [trial for trial in ended if trial.device == device]
    if not on_device:
        return None
    last = on_device[-1]
    if blame(last, ended) is Blame.DEVICE:
        return f"{last.device_fault}, and the trial on it failed ({last.cause})"
    streak = _open_streak(on_device, ended)
    if len(streak) < LEAST_FAILURES:
        return None
    lasted_s = max(trial.lasted_s for trial in streak)
    other_devices = {trial.device for trial in ended} | {trial.device for trial in running}
    other_devices.discard(device)
    other_devices -= {other for other in other_devices if _is_suspect(other, ended)}
    others = [trial for trial in ended if trial.device in other_devices]
    failed = sum(blame(trial, ended) in {Blame.OPEN, Blame.DEVICE} for trial in others)
    healthy = sum(trial.device in other_devices and now_s - trial.began_s > lasted_s for trial in running)
    if len(others) - failed + healthy == 0:
        return None  # no other device does better: it may be the program
    rate = (failed + 1) / (len(others) + healthy + 2)  # Laplace's rule: never 0 after a few trials
    chance = rate ** len(streak) * max(1.0, len(ended) / TRIALS_A_LOOK)
    if chance >= CHANCE:
        return None
    return (
        f"its last {counted(len(streak), 'trial')} failed ({count_causes(streak)}), each within {duration(lasted_s)}; "
        f"on other devices {failed} of {counted(len(others) + healthy, 'trial')} failed"
    )


def _is_suspect(device: str, ended: Sequence[EndedTrial]) -> bool:
    return len(_open_streak([trial for trial in ended if trial.device == device], ended)) >= LEAST_FAILURES


def _open_streak(on_device: Sequence[EndedTrial], ended: Sequence[EndedTrial]) -> list[EndedTrial]:
    """Return the latest failures in a row with an open blame; failures with another blame are skipped."""
    streak = []
    for trial in reversed(on_device):
        if blame(trial, ended) is Blame.OPEN:
            streak.append(trial)
        elif not trial.is_failure:
            break
    return streak


def halt_reason(
    ended: Sequence[EndedTrial], devices: Collection[str], quarantined: Collection[str], max_failures: int | None
) -> str | None:
    """Return why no more trials should begin on any device, or None.

    Args:
        ended: every trial that has ended on this machine, in order.
        devices: all devices of the fleet.
        quarantined: those that get no more trials; their failures count only for ``max_failures``.
        max_failures: the user's limit; None: the limit of failures in a row.
    """
    if devices and set(devices) <= set(quarantined):
        return "no device is left"
    failures = [trial for trial in ended if trial.is_failure]
    if max_failures is not None:
        if len(failures) >= max_failures:
            return f"{counted(len(failures), 'trial')} failed ({count_causes(failures)}): --max-failures {max_failures}"
        return None
    limit = max(HOPELESS, HOPELESS_A_DEVICE * (len(devices) - len(quarantined)))
    last = [trial for trial in ended if trial.device not in quarantined][-limit:]
    if len(last) == limit and all(trial.is_failure for trial in last):
        scope = "" if len({trial.device for trial in last}) == 1 else " on every device alike"
        return f"the last {counted(limit, 'trial')} all failed{scope} ({count_causes(last)})"
    return None


def has_room(count: int | None, begun: int, waiting: int) -> bool:
    """Return whether one more agent may ask for a trial.

    An agent cannot refuse the trial that it gets, so one trial is reserved for every waiting agent.

    Args:
        count: how many trials in all; None: no limit.
        begun: how many have begun.
        waiting: how many other agents wait for one.
    """
    return count is None or begun + waiting < count


def fits_deadline(ended: Sequence[EndedTrial], now_s: float, deadline_s: float | None) -> bool:
    """Return whether a trial that begins now would end in time, by the median of those that did not fail."""
    if deadline_s is None:
        return True
    lasted_s = [trial.lasted_s for trial in ended if not trial.is_failure]
    return now_s + (statistics.median(lasted_s) if lasted_s else 0.0) < deadline_s


def idle_reason(idle_s: float, limit_s: float | None, *, is_paused: bool) -> str | None:
    """Return why a fleet whose agents have all waited for a trial for so long gives its devices back, or None."""
    if limit_s is None or idle_s < limit_s:
        return None
    return PAUSED_TOO_LONG if is_paused else NOTHING_TO_DO


def fleet_outcome(reasons: Sequence[str | None], halted: str | None) -> Outcome | None:
    """Return how an idle fleet ends, or None if it goes on.

    Args:
        reasons: for each slot, why it gets no more trials; None if it may get one.
        halted: why the whole fleet was halted.
    """
    if None in reasons:
        return None
    if halted is not None:
        return Outcome(1, halted)
    good = next((reason for reason in GOOD_ENDS if reason in reasons), None)
    return Outcome(0, good) if good is not None else Outcome(1, "; ".join(sorted({str(r) for r in reasons})))


class AgentEnd(Enum):
    SWEEP_IS_OVER = auto()
    SWEEP_IS_UNKNOWN = auto()
    DIED = auto()


def agent_end(exit_code: int, log: str) -> AgentEnd:
    if exit_code == 0 and "Received exit command" in log:
        return AgentEnd.SWEEP_IS_OVER
    if exit_code > 0 and re.search(r"(?im)^.*\bsweep\b.*\bnot found", last_lines(log, 3)):
        return AgentEnd.SWEEP_IS_UNKNOWN
    return AgentEnd.DIED


def restart_delay_s(deaths: int) -> float | None:
    """Return the delay before an agent is restarted, after that many deaths in a row; None: give it up."""
    if deaths > RESTARTS:
        return None
    return min(FIRST_RESTART_S * 2.0 ** (deaths - 1), LONGEST_RESTART_S)


def count_causes(trials: Sequence[EndedTrial]) -> str:
    """Return causes with their counts, the most frequent first: ``3 x error, diverged``."""
    counts = Counter(trial.cause for trial in trials).most_common()
    return ", ".join(f"{count} x {cause}" if count > 1 else str(cause) for cause, count in counts)
