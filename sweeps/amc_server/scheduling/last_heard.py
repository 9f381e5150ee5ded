"""How long ago each run and each agent gave a sign of life, on the monotonic clock.

The times are in memory on purpose: all timeouts restart when the server starts, because it heard nobody while it was
down. For the same reason the time does not count in which its process was stopped (Ctrl-Z, docker pause).
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass

from amc_server.clock import Clock

# From a reply to the next heartbeat of an agent that got the reply: it waits 5 s. Retries come after 2, 4 and 8 s.
POLL_S = (4.5, 8.0)
STOPPED_S = 5.0  # a shorter delay of the server is its load

logger = logging.getLogger(__name__)


@dataclass
class _HandOut:
    """The hand-out of a run that may have failed."""

    agent: int
    at: float  # when that agent first got the run
    counted_at: float


class LastHeard:
    """Ages of runs (by key) and agents (by key), all in seconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._begin = clock.monotonic()
        self._pauses: tuple[tuple[float, float], ...] = ()  # when the process was stopped
        self._heard: dict[int, float] = {}
        self._listed: dict[int, float] = {}
        self._unlisted: dict[int, float] = {}
        self._agents: dict[int, float] = {}
        self._delivered: dict[int, float] = {}
        self._stopped: dict[int, float] = {}
        self._hand_outs: dict[int, _HandOut] = {}
        self._received: dict[int, float] = {}  # by agent: when it first listed its latest run
        self._requests: dict[int, int] = {}

    def delayed(self, seconds: float) -> None:
        """Leave a delay that ends now out of every age, if it is so long that the process was stopped.

        Otherwise living runs would have crashed, and a run that was just handed out would be begun twice.
        """
        if seconds >= STOPPED_S:
            end = self._clock.monotonic()
            self._pauses += ((end - seconds, end),)
            logger.warning("the server was stopped for %.0f s; no timeout counts them", seconds)

    def run_heard(self, run: int) -> None:
        """Record that the run's trial is alive, so its hand-out has succeeded."""
        self._heard[run] = self._clock.monotonic()
        self._hand_outs.pop(run, None)
        self._requests.pop(run, None)

    def handed_out(self, run: int, agent: int, *, is_counted: bool) -> None:
        """Restart the timeouts of a run that was handed out.

        Args:
            is_counted: this hand-out counts towards those that a run may have.
        """
        now = self._clock.monotonic()
        self._heard[run] = now
        self._listed.pop(run, None)
        self._unlisted.pop(run, None)
        last = self._hand_outs.get(run)
        if last is None or is_counted:
            self._hand_outs[run] = _HandOut(agent, now, now)
        elif last.agent != agent:
            self._hand_outs[run] = _HandOut(agent, now, last.counted_at)

    def hand_out_failed(self, run: int, lost_replies_s: float) -> bool:
        """Return whether an agent got the run, although no trial of it began.

        The reply to the agent may have been lost. It was not lost if the agent has listed this run, or has started
        another one since. An agent that did neither may be cut off, but not for longer than ``lost_replies_s``.
        """
        if run in self._listed:
            return True
        last = self._hand_outs.get(run)
        if last is None:  # it was handed out before the server started
            return False
        has_started_another = self._received.get(last.agent, last.at) > last.at
        return has_started_another or self._since(last.counted_at) >= lost_replies_s

    def count_request(self, run: int) -> int:
        """Record that the run's agent asks for a run without listing this one.

        Returns:
            How many such requests came at the pace of a client that got the reply. At another pace, a request repeats
            one whose reply was lost.
        """
        if POLL_S[0] <= self.silent_s(run) < POLL_S[1]:
            self._requests[run] = self._requests.get(run, 0) + 1
        return self._requests.get(run, 0)

    def agent_received(self, agent: int) -> None:
        """Record that a reply which gave the agent a run has reached it."""
        self._received[agent] = self._clock.monotonic()

    def agent_heard(self, agent: int, listed: Collection[int], unlisted: Collection[int]) -> None:
        """Record an agent's heartbeat: which of its living runs it lists as alive, and which it does not."""
        now = self._clock.monotonic()
        self._agents[agent] = now
        for run in listed:
            if run not in self._listed:
                self.agent_received(agent)
            self._listed[run] = now
            self._unlisted.pop(run, None)
        for run in unlisted:
            self._unlisted.setdefault(run, now)

    def stop_recorded(self, run: int) -> None:
        self._stopped[run] = self._clock.monotonic()

    def stop_delivered(self, run: int) -> None:
        self._delivered.setdefault(run, self._clock.monotonic())

    def forget(self, run: int) -> None:
        for ages in (self._heard, self._listed, self._unlisted, self._delivered, self._stopped):
            ages.pop(run, None)
        self._hand_outs.pop(run, None)
        self._requests.pop(run, None)

    def silent_s(self, run: int) -> float:
        """Return the age of the run's last sign of life; without one, of the server."""
        return self._since(self._heard.get(run, self._begin))

    def listed_s(self, run: int) -> float | None:
        """Return the age of the last heartbeat in which the agent listed the run."""
        return self._age(self._listed, run)

    def unlisted_s(self, run: int) -> float | None:
        """Return for how long the agent has sent heartbeats without the run."""
        return self._age(self._unlisted, run)

    def agent_silent_s(self, agent: int) -> float | None:
        return self._age(self._agents, agent)

    def stop_s(self, run: int) -> float:
        """Return the age of the stop that is recorded for the run; after a restart, of the server."""
        return self._since(self._stopped.get(run, self._begin))

    def delivered_s(self, run: int) -> float | None:
        return self._age(self._delivered, run)

    def _since(self, at: float) -> float:
        """Return the age of a moment, without the time in which the process was stopped."""
        stopped = sum(end - max(begin, at) for begin, end in self._pauses if end > at)
        return self._clock.monotonic() - at - stopped

    def _age(self, since: dict[int, float], key: int) -> float | None:
        return self._since(since[key]) if key in since else None
