"""The nodes of the one user and the one entity that there are."""

from __future__ import annotations

from typing import Any

from amc_server.ids import global_id
from amc_server.scheduling.coordinator import ENTITY


class UserNode:
    """The one user there is."""

    id = global_id("User", 1)
    name = username = entity = ENTITY
    email = deleted_at = None
    admin = True
    flags = "{}"

    def api_keys(self) -> dict[str, Any]:
        return {"edges": []}

    def teams(self) -> dict[str, Any]:
        return {"edges": [{"node": EntityNode(ENTITY)}]}


class EntityNode:
    """The one entity there is."""

    id = global_id("Entity", 1)
    organization = None
    xxhash_digests_enabled = False

    def __init__(self, name: str) -> None:
        self.name = name
