"""Ids: of sweeps, agents and runs, and the global ids that GraphQL clients send back."""

from __future__ import annotations

import base64
import secrets
import string

from amc_server.errors import Refused

_ALPHABET = string.ascii_lowercase + string.digits


def new_id() -> str:
    """Return a random id like the client's own: eight letters and digits."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(8))


def is_plain_name(text: str) -> bool:
    """Return whether a text can name a project or a run: 1 to 128 printable characters without a slash."""
    return "/" not in text and bool(text.strip()) and len(text) <= 128 and text.isprintable()


def global_id(kind: str, pk: int | str) -> str:
    """Return the id that a client sends back: the kind of record, and its key."""
    return base64.b64encode(f"{kind}:{pk}".encode()).decode()


def read_collection_id(text: str) -> tuple[int, str]:
    """Return (the project's key, the name) of the collection of artifacts with a global id.

    Raises:
        Refused: it is the id of another kind, or no id at all.
    """
    try:
        text_kind, _, rest = base64.b64decode(text, validate=True).decode().partition(":")
        project, _, name = rest.partition("/")
        if text_kind == "ArtifactSequence" and name:
            return int(project), name
    except ValueError:
        pass
    raise Refused(f"{text[:80]!r} is not the id of a collection of artifacts here", status=404)


def read_global_id(kind: str, text: str) -> int:
    """Return the key in a global id.

    Raises:
        Refused: it is the id of another kind, or no id at all.
    """
    try:
        text_kind, _, pk = base64.b64decode(text, validate=True).decode().partition(":")
        if text_kind == kind:
            return int(pk)
    except ValueError:
        pass
    raise Refused(f"{text[:80]!r} is not the id of a {kind.lower()} here", status=404)
