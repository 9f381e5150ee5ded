"""The version of a wandb client, and whether this server was tested with it.

The public API and the command line send ``W&B Public Client 0.31.0``. wandb-core, which sends for runs, has none.
"""

from __future__ import annotations

import re

TESTED_FROM, TESTED_BELOW = (0, 31), (0, 32)
WANDB_RANGE = ">=0.31,<0.32"

_USER_AGENT = re.compile(r"W&B Public Client (\d{1,6})\.(\d{1,6})([\w.+\-]{0,40})")


def version_of(user_agent: str | None) -> str | None:
    """Return the version in a User-Agent, or None."""
    match = _USER_AGENT.match(user_agent or "")
    return match[0].rsplit(" ", 1)[1] if match else None


def is_tested(version: str) -> bool:
    """Return whether a client of this version is in the tested range."""
    match = re.match(r"(\d+)\.(\d+)", version)
    return match is not None and TESTED_FROM <= (int(match[1]), int(match[2])) < TESTED_BELOW


def range_hint(user_agent: str | None) -> str:
    """Return a hint for errors about a request that the server does not understand."""
    version = version_of(user_agent)
    hint = f"this server is tested with wandb {WANDB_RANGE}"
    return f"{hint}, this client says it is {version}" if version and not is_tested(version) else hint
