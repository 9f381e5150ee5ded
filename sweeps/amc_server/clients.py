"""The version of a wandb client, and whether this server was tested with it (``make clients``).

The public API and the command line name their version in User-Agent: ``W&B Public Client 0.31.0``. wandb-core, which
sends for runs, does not; a run's config holds it.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

TESTED_FROM, TESTED_BELOW = (0, 19), (0, 32)
OLDEST_TESTED, NEWEST_TESTED = "0.19.0", "0.31.9999"  # as `wandb verify` wants them
WANDB_RANGE = ">=0.19,<0.32"
MOST_TEXTS = 10_000  # texts that are remembered as sent; beyond that one may be sent twice

_VERSION = r"(\d{1,6})\.(\d{1,6})([\w.+\-]{0,40})"
_USER_AGENT = re.compile(rf"W&B (?:Public|Internal) Client {_VERSION}")
_IN_CONFIG = re.compile(rf'"cli_version": ?"({_VERSION})"')


def version_of(user_agent: str | None) -> str | None:
    """Return the version in a User-Agent, or None."""
    match = _USER_AGENT.match(user_agent or "")
    return match[0].rsplit(" ", 1)[1] if match else None


def is_tested(version: str) -> bool:
    """Return whether a client of this version is in the tested range."""
    match = re.match(r"(\d+)\.(\d+)", version)
    return match is not None and TESTED_FROM <= (int(match[1]), int(match[2])) < TESTED_BELOW


def range_hint(version: str | None) -> str:
    """Return which clients the server is tested with, and the client's own version if it is another."""
    hint = f"this server is tested with wandb {WANDB_RANGE}"
    return f"{hint}, this client says it is {version}" if version and not is_tested(version) else hint


class FirstWords:
    """Texts that a client gets before its reply, so that its user sees them.

    The reply is HTTP 429 with a text. wandb-core prints the text of a reply that it retries, and sends the request
    again two seconds later. Clients without wandb-core (before 0.18) name their version in User-Agent. They print the
    text of the third such reply only, after seven seconds.
    """

    def __init__(self) -> None:
        self._counts: dict[Hashable, int] = {}  # how often each text was sent

    def for_trial(self, variables: Mapping[str, Any], version: str | None) -> str | None:
        """Return the text for an untested client that begins a run with these variables, or None.

        ``wandb.init`` is recognised by its host. ``version`` is that of User-Agent.
        """
        if not variables.get("host"):
            return None
        in_config = _IN_CONFIG.search(str(variables.get("config")))
        times = 1 if version is None else 3
        version = version or (in_config[1] if in_config else None)
        if version is None or is_tested(version) or not self._is_due(str(variables.get("name")), times):
            return None
        return (
            f"{range_hint(version)}. Parts of this run may be lost. To be safe, end it and run: "
            f'pip install "wandb{WANDB_RANGE}"'
        )

    def for_refusal(self, request: bytes, messages: Sequence[str]) -> str | None:
        """Return the text for a run whose request is refused; None for the same request again."""
        return "; ".join(messages) if self._is_due(hash(request), 1) else None

    def _is_due(self, key: Hashable, times: int) -> bool:
        if self._counts.get(key, 0) >= times:
            return False
        if len(self._counts) >= MOST_TEXTS:
            self._counts.clear()
        self._counts[key] = self._counts.get(key, 0) + 1
        return True
