"""Who has been heard from and when, on the monotonic clock.

Kept in memory on purpose: what was not heard while the server was down is not the runs' silence, so after a restart
every age begins anew.
"""

from __future__ import annotations

from collections.abc import Collection

from amc_server.clock import Clock


class Presence:
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
        """Note a sign of life of the run's trial."""
        self._heard[run] = self._clock.monotonic()

    def handed_out(self, run: int) -> None:
        """Note that the run begins a new life with another agent."""
        self.run_heard(run)
        self._listed.pop(run, None)
        self._unlisted.pop(run, None)

    def agent_heard(self, agent: int, listed: Collection[int], unlisted: Collection[int]) -> None:
        """Note an agent's heartbeat: which of its runs it lists as living, and which living ones it leaves out."""
        now = self._clock.monotonic()
        self._agents[agent] = now
        for run in listed:
            self._listed[run] = now
            self._unlisted.pop(run, None)
        for run in unlisted:
            self._unlisted.setdefault(run, now)

    def stop_recorded(self, run: int) -> None:
        """Note that the run has been asked to end."""
        self._stopped[run] = self._clock.monotonic()

    def stop_told(self, run: int) -> None:
        """Note that the run's trial has been told so."""
        self._told.setdefault(run, self._clock.monotonic())

    def forget(self, run: int) -> None:
        """Drop everything about a run that has ended."""
        for ages in (self._heard, self._listed, self._unlisted, self._told, self._stopped):
            ages.pop(run, None)

    def silent_s(self, run: int) -> float:
        """Return the age of the run's last sign of life, or of the server."""
        return self._clock.monotonic() - self._heard.get(run, self._begin)

    def listed_s(self, run: int) -> float | None:
        """Return the age of the agent's last word that the run lives."""
        return self._age(self._listed, run)

    def unlisted_s(self, run: int) -> float | None:
        """Return for how long the living agent has left the run out."""
        return self._age(self._unlisted, run)

    def agents_heard_within(self, seconds: float) -> int:
        """Return how many agents have sent a heartbeat within so many seconds."""
        now = self._clock.monotonic()
        return sum(now - heard <= seconds for heard in tuple(self._agents.values()))

    def agent_silent_s(self, agent: int) -> float | None:
        """Return the age of the agent's last heartbeat."""
        return self._age(self._agents, agent)

    def stop_s(self, run: int) -> float:
        """Return the age of the stop that is recorded for the run, or of the server."""
        return self._clock.monotonic() - self._stopped.get(run, self._begin)

    def told_s(self, run: int) -> float | None:
        """Return for how long the trial has known that it should stop."""
        return self._age(self._told, run)

    def _age(self, since: dict[int, float], key: int) -> float | None:
        return self._clock.monotonic() - since[key] if key in since else None
