"""The refusal of a request."""

from __future__ import annotations

from amc_sweeps.values import printable

LONGEST_MESSAGE = 10_000  # characters; a message quotes the given value


def shortened(message: str) -> str:
    """Return a message as a terminal may get it, without its end where it is too long."""
    shown: str = printable(message if len(message) <= LONGEST_MESSAGE else f"{message[:LONGEST_MESSAGE]}...")
    return shown


class Refused(Exception):  # noqa: N818 - it is the client's request that is at fault
    """The server refuses a request; the message says what was given, what is allowed, and what to do.

    ``status`` is the HTTP status of the reply. None means 200 for a GraphQL error, which the wandb client then does not
    retry, and 400 elsewhere.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.message = shortened(message)
        self.status = status
