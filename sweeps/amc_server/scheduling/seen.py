"""Which configurations a sweep has had, and the walk over a grid that leaves them out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from amc_server.store.logged_values import swept_values
from amc_sweeps.bounded_texts import json_object
from amc_sweeps.grammar.configurations import Grid, value_key
from amc_sweeps.grammar.sweep_config import SweepConfig

Configuration = dict[str, Any]


class Seen:
    """The configurations that a sweep has had, and its position in the grid.

    Args:
        config: of the sweep.
        shuffle: the seed of the order of a grid; None for W&B's order.
    """

    def __init__(self, config: SweepConfig, *, shuffle: int | None = None) -> None:
        self.config = config
        self.newest = 0  # key of the newest run that was added
        self.begun = 0  # how many runs the sweep itself has begun
        self.keys: set[str] = set()
        self._walk = _walk(config, shuffle)
        self._ahead = next(self._walk, None)

    def add(self, run: int, parameters: str | None, *, is_begun: bool) -> None:
        """Add a run, whose parameters are a JSON text or None. Runs come in the order of their keys."""
        self.newest = run
        self.begun += is_begun
        # By the present parameters: a run from before an update, or a queued one, may have others.
        self.keys.add(value_key(swept_values(json_object(parameters or "{}")[0], self.config)))

    def next_of_grid(self) -> Configuration | None:
        """Return the grid's first configuration that the sweep has not had; None for any other search."""
        while self._ahead is not None and value_key(self._ahead) in self.keys:
            self._ahead = next(self._walk, None)
        return self._ahead

    def is_exhausted(self) -> bool:
        """Return whether the search has proposed everything; only a grid ends."""
        return self.config.method == "grid" and self.next_of_grid() is None


def _walk(config: SweepConfig, shuffle: int | None) -> Iterator[Configuration]:
    if config.method != "grid":
        return iter(())
    return iter(Grid(config)) if shuffle is None else Grid(config).shuffled(shuffle)
