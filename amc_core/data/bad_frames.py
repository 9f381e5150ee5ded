"""How many frames of a trial have NaN or infinite samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

__all__ = ["BadFrames"]


class BadFrames:
    """Turn the representation's running count, which grows with every pass, into numbers of frames.

    A pass takes every frame once at most: the most that one pass over a part has met is a number of frames of it, and
    the same after a resume as without the interruption. A curriculum's passes, and a last batch that is left out, may
    miss some.

    Args:
        counter: the representation's tensor on the device. Reading it waits, which happens between passes only.
    """

    def __init__(self, counter: Tensor) -> None:
        self._counter = counter
        self._most = {"train": 0, "val": 0, "test": 0}
        self._trained: int | None = None  # of the finished training pass whose validation is not finished

    def finish(self, part: str) -> int:
        """Return what the pass over this part has met, and begin the next pass."""
        met = int(self._counter)
        self._counter.zero_()
        self._most[part] = max(self._most[part], met)
        self._trained = met if part == "train" else None
        return met

    def total(self) -> int:
        """Return the bad frames of all parts, as far as finished passes have met them."""
        return sum(self._most.values())

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint needs: it continues inside the training pass, or after it."""
        return {"most": dict(self._most), "trained": int(self._counter) if self._trained is None else self._trained}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a checkpoint was written."""
        self._most = dict(state["most"])
        self._counter.fill_(state["trained"])
