"""What follows from how trials end: pure functions over records, with no process and no clock of their own.

The rules in words are in docs/fleet.md, "What the fleet does about failures"; a user should be able to predict them.
"""

from __future__ import annotations

import signal
import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from amc_sweeps.runs.causes import FAILURES, Cause

LEAST_FAILURES = 3  # in a row on one device, before the device is suspected at all
CHANCE = 0.01  # a device is taken out when so many failures in a row had a smaller chance among the others
CHANCES_TAKEN = 20  # trials after which a long sweep's many chances of a false alarm are allowed for
HOPELESS = 6  # failures in a row of the whole fleet, at least
HOPELESS_A_DEVICE = 3

RESTART_FIRST_S = 5.0
RESTART_LONGEST_S = 300.0
RESTARTS = 8  # of one agent in a row, without a trial between them: a quarter of an hour of waiting

# Somebody outside ended the trial: that tells nothing of the device.
_ENDED_FROM_OUTSIDE = {sign * code for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
                       for sign, code in ((-1, int(number)), (1, 128 + int(number)))}  # fmt: skip


@dataclass(frozen=True)
class Ended:
    """A trial that has ended on this machine. Times are the fleet's monotonic clock, in seconds."""

    device: str
    cause: Cause
    because: str
    began_s: float
    ended_s: float
    run: str | None = None
    exit_code: int | None = None  # negative: the signal that ended it; None: nobody saw it
    configuration: str | None = None  # equal texts are equal parameters
    device_fault: str | None = None  # what the driver reported of the device while the trial ran
    crowded: str | None = None  # who else held memory of the device when the trial began

    @property
    def lasted_s(self) -> float:
        """How long it ran."""
        return self.ended_s - self.began_s

    @property
    def is_failure(self) -> bool:
        """Whether it counts as failed; a run that was cut short from outside does not."""
        return self.cause in FAILURES


@dataclass(frozen=True)
class Alive:
    """A trial under way."""

    device: str
    began_s: float


class Blame(Enum):
    """What a trial's end speaks against."""

    NOTHING = auto()  # it ended well, or was cut short from outside
    CONFIGURATION = auto()  # these parameters fail wherever they are tried
    MACHINE = auto()  # what all devices of this machine share
    DEVICE = auto()  # the driver says so
    OPEN = auto()  # the device or the program: to be told by comparison


def blame(trial: Ended, ended: Sequence[Ended]) -> Blame:
    """Say what one trial's end speaks against, knowing the others."""
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


def quarantine(device: str, ended: Sequence[Ended], alive: Sequence[Alive], now_s: float) -> str | None:
    """Return why a device should get no more trials, or None.

    At once where the driver reported a fault while a trial failed. Otherwise by comparison: the device's last trials
    all failed in a way that may be the device's, and at the rate at which trials fail on the others, so many failures
    in a row would be a chance of less than one in a hundred over the sweep so far. Trials that others have been
    running for longer than the failed ones lasted count as not failed; devices that look as bad are no measure.

    Args:
        device: which.
        ended: every trial that has ended on this machine, in order.
        alive: every trial under way.
        now_s: the time.
    """
    mine = [trial for trial in ended if trial.device == device]
    if not mine:
        return None
    if blame(mine[-1], ended) is Blame.DEVICE:
        return f"{mine[-1].device_fault}, and the trial on it failed ({mine[-1].cause})"
    streak = _open_streak(mine, ended)
    if len(streak) < LEAST_FAILURES:
        return None
    lasted_s = max(trial.lasted_s for trial in streak)
    compared = {trial.device for trial in ended} | {one.device for one in alive}
    compared.discard(device)
    compared -= {other for other in compared if _is_suspect(other, ended)}
    others = [trial for trial in ended if trial.device in compared]
    failed = sum(blame(trial, ended) in {Blame.OPEN, Blame.DEVICE} for trial in others)
    healthy = sum(one.device in compared and now_s - one.began_s > lasted_s for one in alive)
    if len(others) - failed + healthy == 0:
        return None  # nobody fares better: it may as well be the program
    rate = (failed + 1) / (len(others) + healthy + 2)  # Laplace's rule: no rate is nought after a few trials
    chance = rate ** len(streak) * max(1.0, len(ended) / CHANCES_TAKEN)
    if chance >= CHANCE:
        return None
    return (
        f"its last {len(streak)} trials failed ({_causes(streak)}), each within {lasted_s:.0f} s, "
        f"while on other devices {failed} of {len(others) + healthy} did"
    )


def _is_suspect(device: str, ended: Sequence[Ended]) -> bool:
    return len(_open_streak([trial for trial in ended if trial.device == device], ended)) >= LEAST_FAILURES


def _open_streak(mine: Sequence[Ended], ended: Sequence[Ended]) -> list[Ended]:
    """Return the latest failures in a row that may be the device's; what speaks against others is passed over."""
    streak = []
    for trial in reversed(mine):
        what = blame(trial, ended)
        if what is Blame.OPEN:
            streak.append(trial)
        elif not trial.is_failure:
            break
    return streak


def halt(
    ended: Sequence[Ended], devices: Collection[str], quarantined: Collection[str], max_failures: int | None
) -> str | None:
    """Return why no trial should be begun any more on any device, or None.

    Args:
        ended: every trial that has ended on this machine, in order.
        devices: all that the fleet began with.
        quarantined: those that get no more trials; their failures count in ``max_failures`` only.
        max_failures: what the user allows in all; None: until too many in a row.
    """
    if devices and set(devices) <= set(quarantined):
        return "no device is left"
    failures = [trial for trial in ended if trial.is_failure]
    if max_failures is not None:
        if len(failures) >= max_failures:
            return f"{len(failures)} trials failed ({_causes(failures)}): --max-failures {max_failures}"
        return None
    counted = [trial for trial in ended if trial.device not in quarantined]
    limit = max(HOPELESS, HOPELESS_A_DEVICE * (len(devices) - len(quarantined)))
    last = counted[-limit:]
    if len(last) == limit and all(trial.is_failure for trial in last):
        alike = "" if len({trial.device for trial in last}) == 1 else " on every device alike"
        return f"the last {limit} trials all failed{alike} ({_causes(last)})"
    return None


def has_room(count: int | None, drawn: int, waiting: int) -> bool:
    """Return whether one more agent may ask for a trial.

    An agent that asks cannot be told to leave a trial that it is handed, so every waiting one has a trial reserved.

    Args:
        count: how many trials in all; None: no limit.
        drawn: how many have begun.
        waiting: how many other agents are waiting for one.
    """
    return count is None or drawn + waiting < count


def fits(ended: Sequence[Ended], now_s: float, deadline_s: float | None) -> bool:
    """Return whether a trial begun now would end in time, by the median of those that did not fail."""
    if deadline_s is None:
        return True
    lasted_s = [trial.lasted_s for trial in ended if not trial.is_failure]
    return now_s + (statistics.median(lasted_s) if lasted_s else 0.0) < deadline_s


def restart_after(deaths: int) -> float | None:
    """Return how many seconds to wait before an agent is started again, or None to give it up.

    Args:
        deaths: how often in a row it died without having begun a trial, this time included.
    """
    if deaths > RESTARTS:
        return None
    return min(RESTART_FIRST_S * 2.0 ** (deaths - 1), RESTART_LONGEST_S)


def _causes(trials: Sequence[Ended]) -> str:
    """Count causes in words, the commonest first."""
    counts: dict[str, int] = {}
    for trial in trials:
        counts[trial.cause] = counts.get(trial.cause, 0) + 1
    return ", ".join(
        f"{count} x {cause}" if count > 1 else str(cause)
        for cause, count in sorted(counts.items(), key=lambda c: -c[1])
    )
