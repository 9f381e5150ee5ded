"""What the search is told of a configuration that ran with several seeds: one run with the mean of their values."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence


def means_of_replicates(places: Sequence[Hashable], values: Sequence[float | None]) -> list[tuple[int, float | None]]:
    """Return the runs that stand for a configuration, as (position, value), in the order given.

    Several runs of one place become the first of them, with the mean of the known values: a single value is partly
    luck, and the best of several is more so. A living run says nothing new of a place with a known value.

    Args:
        places: one a run, equal for runs that differ only in seeds; None: the run stands for itself.
        values: one a run; None if it is not known yet.
    """
    together: dict[Hashable, list[int]] = {}
    for position, place in enumerate(places):
        together.setdefault(("run", position) if place is None else place, []).append(position)
    merged = []
    for positions in together.values():
        known = [value for position in positions if (value := values[position]) is not None]
        merged.append((positions[0], math.fsum(known) / len(known) if known else None))
    return merged
