"""The ids that GraphQL clients hand back to the server."""

from __future__ import annotations

import base64

from amc_server.errors import Refused


def global_id(kind: str, pk: int | str) -> str:
    """Return the id that a client hands back to us: of what kind of record, and its key."""
    return base64.b64encode(f"{kind}:{pk}".encode()).decode()


def read_global_id(kind: str, text: str) -> int:
    """Return the key in a global id.

    Raises:
        Refused: when it is of something else, or of nothing here.
    """
    try:
        found, _, pk = base64.b64decode(text, validate=True).decode().partition(":")
        if found == kind:
            return int(pk)
    except ValueError:
        pass
    raise Refused(f"{text[:80]!r} is not the id of a {kind.lower()} here", status=404)
