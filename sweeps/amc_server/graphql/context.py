"""What the nodes of one GraphQL request share: the transaction, the pages of lists, the check of the entity."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from amc_server.auth import Gate
from amc_server.errors import Refused
from amc_server.scheduling.coordinator import ENTITY, Coordinator
from amc_server.store.blobs import Blobs
from amc_server.store.reader import Reader
from amc_server.store.records import Project, Run
from amc_server.store.writer import Writer


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
