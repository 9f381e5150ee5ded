"""What the nodes of one GraphQL request share: the snapshot, signed URLs, pages of lists, the user and the entity."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from amc_server.auth import Gate
from amc_server.errors import Refused
from amc_server.graphql.run_lists import RunLists
from amc_server.ids import global_id
from amc_server.store.reader import Reader
from amc_server.store.records import ENTITY, Artifact, Project, Run
from amc_sweeps.number_formats import quoted


@dataclass(frozen=True)
class Nodes:
    """Functions that make nodes for the nodes of other modules.

    Artifacts, runs and projects point to each other in circles. Their modules do not import each other: they make each
    other's nodes through this.
    """

    project: Callable[[Context, Project], object]
    run: Callable[[Context, Run], object]
    artifact: Callable[[Context, Artifact], object]


@dataclass(frozen=True)
class Context:
    """The parts that the nodes of one request share."""

    store: Reader
    gate: Gate
    base_url: str
    nodes: Nodes
    agent_is_alive: Callable[[int], bool]
    run_lists: RunLists
    is_next_page: bool  # the client asks for another page of a list that it has begun to read
    client_began: Callable[[], None]  # is called when a client asks who its user is
    matches: dict[Any, Any] = field(default_factory=dict)  # runs that match filters, so that each list is read once

    def signed_url(self, action: str, *claim: int | str) -> str:
        """Return a URL where the client, without the key, may upload or download one file."""
        return f"{self.base_url}/storage/{self.gate.sign(action, *claim)}"


def page(nodes: Sequence[Any], *, after: str | None, first: int | None, wrap: Callable[[Any], Any]) -> dict[str, Any]:
    """Return one page of a list and the length of the list; cursors are positions in it."""
    start = int(after) + 1 if after is not None and after.isdecimal() else 0
    end = len(nodes) if first is None else min(len(nodes), start + max(first, 0))
    edges = [{"node": wrap(nodes[index]), "cursor": str(index)} for index in range(start, end)]
    return {
        "edges": edges,
        "total_count": len(nodes),
        "page_info": {"end_cursor": edges[-1]["cursor"] if edges else None, "has_next_page": end < len(nodes)},
    }


def check_entity(input: Mapping[str, Any]) -> None:  # noqa: A002 - the schema's name
    """Refuse a mutation for any entity but the server's own.

    Raises:
        Refused: with HTTP 400, which the client does not retry.
    """
    name = input.get("entityName")
    if name not in (None, "", ENTITY):
        raise Refused(
            f"there is no entity {quoted(name)} here: this server has one, {ENTITY!r}. Leave the entity out "
            "(unset WANDB_ENTITY), or name another W&B with WANDB_BASE_URL.",
            status=400,
        )


class UserNode:
    """The only user."""

    id = global_id("User", 1)
    name = username = entity = ENTITY
    email = deleted_at = None
    admin = True
    flags = "{}"

    def api_keys(self) -> dict[str, Any]:
        return {"edges": []}

    def teams(self) -> dict[str, Any]:
        return {"edges": [{"node": EntityNode()}]}


class EntityNode:
    """The only entity."""

    id = global_id("Entity", 1)
    name = ENTITY
    organization = None
    xxhash_digests_enabled = False
