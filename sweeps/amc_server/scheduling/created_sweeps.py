"""Recognises a request for a new sweep that the client sends again, so that it creates no second sweep.

A user may also ask for an equal sweep once more, and that request has the same bytes. But every client asks who its
user is (``viewer``) before it creates a sweep, and does not ask before it repeats a request. The first repetition comes
after 2 s, the last one within 20 minutes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from amc_server.clock import Clock

REPEATED_S = (1.5, 1200.0)  # from a request to its repetitions


class CreatedSweeps:
    """The requests that have created a sweep since a client last asked who its user is."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._created: dict[str, tuple[float, int]] = {}

    def client_began(self) -> None:
        """Forget all requests: the next equal one asks for a second sweep."""
        self._created.clear()

    def created(self, request: Mapping[str, Any], sweep: int) -> None:
        """Record the key of the sweep that a request has created."""
        self._created[json.dumps(request, sort_keys=True)] = (self._clock.monotonic(), sweep)

    def sweep_of(self, request: Mapping[str, Any]) -> int | None:
        """Return the key of the sweep that the same request has created before, if this is a repetition."""
        at, sweep = self._created.get(json.dumps(request, sort_keys=True), (0.0, None))
        return sweep if REPEATED_S[0] <= self._clock.monotonic() - at <= REPEATED_S[1] else None
