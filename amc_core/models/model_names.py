"""Which names ``model_type`` may have, known without torch: a list of timm's names is kept beside this file."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from functools import cache
from importlib.resources import files

from amc_core.config import MODEL_ALIASES, OWN_NETWORKS


def is_model(model_type: str) -> bool:
    """Return whether a trial can build a network of this name.

    A name that is not on the list is asked of timm where timm is installed, because a newer one has more. Only this
    imports it, which takes seconds.
    """
    name = MODEL_ALIASES.get(model_type, model_type)
    if name in OWN_NETWORKS or name.split(".", 1)[0] in timm_names():  # after the dot: which weights
        return True
    try:
        import timm
    except ImportError:
        return False
    return bool(timm.is_model(name))


def similar_models(model_type: str, known: Iterable[str]) -> list[str]:
    """Return the three names that are spelt most like this one, the best first, of timm's known ones and of ours."""
    return difflib.get_close_matches(model_type, [*MODEL_ALIASES, *OWN_NETWORKS, *known], n=3)


@cache
def timm_names() -> frozenset[str]:
    """Return the names of the timm release with which the tests last passed."""
    lines = (files("amc_core.models") / "timm_names.txt").read_text().splitlines()
    return frozenset(lines[1:])
