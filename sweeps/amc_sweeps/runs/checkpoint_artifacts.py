"""The artifact that holds a run's checkpoint: its name, and when a newer version makes an older one superfluous.

A trial uploads its whole checkpoint at every preemption, so a run that is preempted six times has six versions. Only
the last one is continued. The trial writes into each version how far it came and what it holds. The embedded server
deletes a version once a newer one replaces it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from amc_sweeps.values import is_whole

ARTIFACT_TYPE = "checkpoint"
_RULE, _NEWEST = "amc_keep", "newest"


def artifact_name(run_id: str) -> str:
    """Return the name of the artifact that has the checkpoints of a run."""
    return f"checkpoint-{run_id}"


def checkpoint_facts(*, epoch: int, steps_done: int, split_fingerprint: str, files: Iterable[str]) -> dict[str, Any]:
    """Return the metadata of a version.

    Args:
        epoch: complete epochs.
        steps_done: optimiser steps of the epoch after them.
        split_fingerprint: of the frames that it was trained on.
        files: the names that a continuation finds; two of them may be one file.
    """
    facts = {"epoch": epoch, "steps_done": steps_done, "split_fingerprint": split_fingerprint}
    return {**facts, "holds": sorted(files), _RULE: _NEWEST}


def progress(facts: Mapping[str, Any]) -> tuple[int, int]:
    """Return how far the training of a version came: complete epochs, and the steps after them."""
    epoch, steps = facts.get("epoch", 0), facts.get("steps_done", 0)
    return (epoch if is_whole(epoch) else 0), (steps if is_whole(steps) else 0)


def replaces(newer: Mapping[str, Any], older: Mapping[str, Any]) -> bool:
    """Return whether nothing is lost if the older version of a run's checkpoint is deleted; both are metadata.

    Only a version that this toolkit uploaded may go. The newer one must be of the same split, have come as far, and
    hold every file. A trial that was taken for dead may upload an old checkpoint late: its version then replaces none.
    """
    if newer.get(_RULE) != _NEWEST or older.get(_RULE) != _NEWEST:
        return False
    held, needed = newer.get("holds"), older.get("holds")
    if not isinstance(held, list) or not isinstance(needed, list):
        return False
    is_same_split = newer.get("split_fingerprint") == older.get("split_fingerprint")
    return is_same_split and progress(newer) >= progress(older) and all(name in held for name in needed)
