"""The version of a wandb client, and whether this server was tested with it (``make clients``).

The public API and the command line name their version in User-Agent: ``W&B Public Client 0.31.0``. wandb-core, which
sends for runs, does not; a run's config holds it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

TESTED_FROM, TESTED_BELOW = (0, 19), (0, 32)
OLDEST_TESTED, NEWEST_TESTED = "0.19.0", "0.31.9999"  # as `wandb verify` wants them
WANDB_RANGE = ">=0.19,<0.32"
MOST_WARNED = 10_000  # runs that are remembered as warned; beyond that a run may be warned twice

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
    """What a run of an untested client is told at its start.

    The reply is HTTP 429 with a text. wandb-core prints the text of a reply that it retries, and sends the request
    again two seconds later. Clients without wandb-core (before 0.18) name their version in User-Agent. They print the
    text of the third such reply only, after seven seconds.
    """

    def __init__(self) -> None:
        self._warnings: dict[str, int] = {}  # by run

    def for_trial(self, variables: Mapping[str, Any], version: str | None) -> str | None:
        """Return the text for a client that begins a run with these variables, or None.

        ``wandb.init`` is recognised by its host. ``version`` is that of User-Agent.
        """
        if not variables.get("host"):
            return None
        in_config = _IN_CONFIG.search(str(variables.get("config")))
        most = 1 if version is None else 3
        version = version or (in_config[1] if in_config else None)
        run = str(variables.get("name"))
        if version is None or is_tested(version) or self._warnings.get(run, 0) >= most:
            return None
        if len(self._warnings) >= MOST_WARNED:
            self._warnings.clear()
        self._warnings[run] = self._warnings.get(run, 0) + 1
        return (
            f"{range_hint(version)}. Parts of this run may be lost. To be safe, end it and run: "
            f'pip install "wandb{WANDB_RANGE}"'
        )
