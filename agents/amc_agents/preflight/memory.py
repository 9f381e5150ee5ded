"""Whether the largest step of a sweep fits into the memory of usual GPUs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from amc_agents.preflight.flat_sweep import FlatSweep
from amc_core.config import SIGNAL_NETWORKS
from amc_core.models.memory_estimate import bytes_of_step
from amc_sweeps.number_formats import counted

_GPU_GIB = (16, 24, 40, 48, 80, 141)
_GIB = 2**30


def memory_warnings(sweep: FlatSweep) -> Iterator[str]:
    """Find a combination whose step needs more memory than a usual GPU has.

    ``micro_batch_size: auto`` divides a batch until it fits, so there only a single frame must fit.
    """
    size, average = int(max(sweep.numbers("image_size"))), max(sweep.numbers("ema_decay")) > 0
    needs = [
        (need, model, frames)
        for model, frames, amp in product(sweep.values["model_type"], _frames(sweep), sweep.values["amp"])
        if (need := bytes_of_step(model, frames=frames, image_size=size, amp=amp, average=average)) is not None
    ]
    need, model, frames = max(needs, default=(0, "", 0))
    exceeded = max((gib for gib in _GPU_GIB if need > gib * _GIB), default=None)
    if exceeded is not None:
        shape = "" if model in SIGNAL_NETWORKS else f" of {size} x {size} pixels"
        line = (
            "write a smaller network" if frames == 1 else "write micro_batch_size: {value: auto}, which finds what fits"
        )
        yield (
            f"model_type: {model} with {counted(frames, 'frame')}{shape} in a forward pass needs about "
            f"{need / _GIB:,.0f} GiB, more than a {exceeded} GiB GPU has, so runs may end as out_of_memory; {line}"
        )


def _frames(sweep: FlatSweep) -> set[int]:
    """Return the largest numbers of frames in a forward pass that the sweep asks for."""
    batch = int(max(sweep.numbers("batch_size")))
    of_value = {"auto": 1, None: batch}
    return {
        of_value[value] if value in of_value else min(int(value), batch) for value in sweep.values["micro_batch_size"]
    }
