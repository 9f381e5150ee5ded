"""How long ago each run and each agent gave a sign of life, on the monotonic clock.

The times are in memory on purpose: all timeouts restart when the server starts, because it heard nobody while it was
down.
"""

from __future__ import annotations

from collections.abc import Collection

from amc_server.clock import Clock


class LastHeard:
    """Ages of runs (by key) and agents (by key), all in seconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._begin = clock.monotonic()
        self._heard: dict[int, float] = {}
        self._listed: dict[int, float] = {}
        self._unlisted: dict[int, float] = {}
        self._agents: dict[int, float] = {}
        self._told: dict[int, float] = {}
        self._stopped: dict[int, float] = {}

    def run_heard(self, run: int) -> None:
        self._heard[run] = self._clock.monotonic()

    def handed_out(self, run: int) -> None:
        """Restart the timeouts of a run that was handed out."""
        self.run_heard(run)
        self._listed.pop(run, None)
        self._unlisted.pop(run, None)

    def agent_heard(self, agent: int, listed: Collection[int], unlisted: Collection[int]) -> None:
        """Record an agent's heartbeat: which of its living runs it lists as alive, and which it does not."""
        now = self._clock.monotonic()
        self._agents[agent] = now
        for run in listed:
            self._listed[run] = now
            self._unlisted.pop(run, None)
        for run in unlisted:
            self._unlisted.setdefault(run, now)

    def stop_recorded(self, run: int) -> None:
        self._stopped[run] = self._clock.monotonic()

    def stop_told(self, run: int) -> None:
        self._told.setdefault(run, self._clock.monotonic())

    def forget(self, run: int) -> None:
        for ages in (self._heard, self._listed, self._unlisted, self._told, self._stopped):
            ages.pop(run, None)

    def silent_s(self, run: int) -> float:
        """Return the age of the run's last sign of life; without one, of the server."""
        return self._clock.monotonic() - self._heard.get(run, self._begin)

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
        return self._clock.monotonic() - self._stopped.get(run, self._begin)

    def told_s(self, run: int) -> float | None:
        return self._age(self._told, run)

    def _age(self, since: dict[int, float], key: int) -> float | None:
        return self._clock.monotonic() - since[key] if key in since else None
