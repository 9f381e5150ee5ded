"""How much memory a training step needs, from counts of known networks: neither torch nor the network is needed.

memory.csv has the parameters of each network, and the bytes that a forward pass keeps of each frame for the backward
pass: with images of 64 and of 128 pixels, in float32 and in mixed precision.
``tests/core/models/test_memory_estimate.py`` counts them.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from amc_core.config import MODEL_ALIASES

COUNTED_SIZES = (64, 128)  # pixels
_BYTES_PER_PARAMETER = 16  # float32 weight, gradient and AdamW's two moments
_BYTES_OF_AVERAGE = 4
_BYTES_OF_COPY = 2  # bfloat16 weights, which mixed precision keeps for the backward pass


@dataclass(frozen=True)
class Count:
    """One network's row: bytes are those of one frame at COUNTED_SIZES."""

    parameters: int
    float32: tuple[int, int]
    mixed: tuple[int, int]


def bytes_of_step(model_type: str, *, frames: int, image_size: int, amp: bool, average: bool = False) -> int | None:
    """Return about how many bytes an optimiser step holds at its peak; None for a network that was not counted.

    These are weights, gradients, AdamW's moments and the tensors that are saved for the backward pass. The saved
    tensors of a frame are linear in its pixels. Temporary memory of cuDNN and of the allocator comes on top.

    Args:
        frames: of one forward pass.
        image_size: side of the image, pixels; networks for samples have the same counts for every size.
        amp: mixed precision, on CUDA.
        average: of the weights, as ``ema_decay`` keeps it.
    """
    count = counts().get(MODEL_ALIASES.get(model_type, model_type).split(".", 1)[0])
    if count is None:
        return None
    low, high = count.mixed if amp else count.float32
    small, large = COUNTED_SIZES
    per_frame = low + (high - low) * (image_size**2 - small**2) / (large**2 - small**2)
    per_parameter = _BYTES_PER_PARAMETER + (_BYTES_OF_COPY if amp else 0) + (_BYTES_OF_AVERAGE if average else 0)
    return per_parameter * count.parameters + frames * max(0, round(per_frame))


@cache
def counts() -> Mapping[str, Count]:
    """Return the table by the network's name."""
    rows = csv.reader((files("amc_core.models") / "memory.csv").read_text().splitlines()[1:])
    numbers = ((name, list(map(int, values))) for name, *values in rows)
    return {name: Count(n[0], (n[1], n[2]), (n[3], n[4])) for name, n in numbers}
