"""What the nodes of one GraphQL request share: the transaction, ids, times, pages."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from amc_server.auth import Gate
from amc_server.coordinator import ENTITY, Coordinator
from amc_server.errors import Refused
from amc_server.files import Blobs
from amc_server.reader import Reader
from amc_server.records import Project, Run
from amc_server.writer import Writer


@dataclass(frozen=True)
class Nodes:
    """How the nodes are made that others point back to.

    Artifacts, runs and projects point to each other in circles, and their modules import each other one way: what a
    module cannot import it reaches through here.
    """

    project: Callable[[Context, Project], object]
    run: Callable[[Context, Run], object]


@dataclass
class Context:
    """What one request works with."""

    store: Reader
    coordinator: Coordinator
    gate: Gate
    blobs: Blobs
    base_url: str
    nodes: Nodes
    discarded: list[str] = field(default_factory=list)  # blobs that belong to nothing once this is committed

    @property
    def writer(self) -> Writer:
        """The transaction of a mutation."""
        assert isinstance(self.store, Writer), "only mutations write"
        return self.store


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


def iso_time(seconds: float | None) -> str | None:
    """Return Unix time as W&B writes it."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def page(nodes: Sequence[Any], *, after: str | None, first: int | None, wrap: Callable[[Any], Any]) -> dict[str, Any]:
    """Return one page of a list and the number of all; cursors are positions in it."""
    start = int(after) + 1 if after is not None and after.isdecimal() else 0
    end = len(nodes) if first is None else min(len(nodes), start + max(first, 0))
    edges = [{"node": wrap(nodes[index]), "cursor": str(index)} for index in range(start, end)]
    return {
        "edges": edges,
        "total_count": len(nodes),
        "page_info": {"end_cursor": edges[-1]["cursor"] if edges else None, "has_next_page": end < len(nodes)},
    }


def check_entity(input: Mapping[str, Any]) -> None:  # noqa: A002 - the schema's name
    """Refuse a mutation for another entity than the one that there is.

    Raises:
        Refused: with HTTP 400, which the client does not try again.
    """
    name = input.get("entityName")
    if name not in (None, "", ENTITY):
        raise Refused(
            f"there is no entity {name!r} here: this server has one, {ENTITY!r}. Leave the entity out "
            "(unset WANDB_ENTITY), or name another W&B with WANDB_BASE_URL.",
            status=400,
        )
