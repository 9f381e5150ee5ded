"""What the server refuses, and how it says so."""

from __future__ import annotations


class Refused(Exception):  # noqa: N818 - it is the client's request that is at fault
    """A request that cannot be granted; the message says what was given, what is possible, what to do.

    ``status`` is the HTTP status of the reply. None lets a GraphQL error travel with 200, which the wandb client takes
    as final, and means 400 elsewhere.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
