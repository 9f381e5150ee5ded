"""How many frames a forward pass has, and how a batch is divided into such passes.

In names: B frames of a batch, X the shape of one frame's model input.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from amc_core.config import ConfigError, TrialConfig
from amc_core.inputs.representations import laid_out
from amc_core.machine.memory import is_out_of_memory
from amc_core.training.precision import Precision
from amc_sweeps.number_formats import counted

_SPARE = 0.1  # of a pass's memory: for the representation's temporaries, and memory that the allocator cannot use


def largest_that_fits(batch_size: int, attempt: Callable[[int], None], release: Callable[[], None]) -> int:
    """Return the first size, halving the batch, at which ``attempt`` does not run out of memory.

    Args:
        release: called between two attempts, when the failed one's traceback no longer holds its tensors.

    Raises:
        RuntimeError: of the attempt, if not even one frame fits or if the cause is not memory.
    """
    size = batch_size
    while True:
        try:
            attempt(size)
        except RuntimeError as error:  # torch.OutOfMemoryError is one
            if size == 1 or not (is_out_of_memory(error) or _is_ambiguous(error)):
                raise
        else:
            return size
        release()
        size = math.ceil(size / 2)


def micro_batch_frames(config: TrialConfig, device: torch.device, model: nn.Module, input_1X: Tensor) -> int:
    """Return the frames of a forward pass: the configuration's number, or, for ``auto``, what fits into the GPU.

    For ``auto`` it tries a forward and a backward pass beside the two moments of AdamW and the averaged weights, and
    requires a tenth more memory than they took. Weights, running means and random numbers stay as they were.

    Raises:
        ConfigError: only one frame fits, and batch norm needs more.
        RuntimeError: not even one frame fits.
    """
    if isinstance(config.micro_batch_size, int):
        return config.micro_batch_size
    if config.micro_batch_size is None or device.type != "cuda":
        return config.batch_size
    precision = Precision(config, device)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}

    def attempt(size: int) -> None:
        bytes_before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        n_copies = 3 if config.ema_decay else 2
        copies = [torch.empty_like(parameter) for parameter in model.parameters() for _ in range(n_copies)]
        try:
            with explained_few_frames(config, size), precision.autocast():
                output = model(laid_out(input_1X.expand(size, *input_1X.shape[1:]).contiguous()))
            sum(part.float().sum() for part in output).backward()
            bytes_of_pass = torch.cuda.max_memory_allocated(device) - bytes_before
        finally:
            model.zero_grad(set_to_none=True)
            copies.clear()
        del output
        if size > 1:  # one frame cannot be halved
            torch.cuda.empty_cache()
            torch.empty(int(bytes_of_pass * (1 + _SPARE)), dtype=torch.uint8, device=device)

    with torch.random.fork_rng(devices=[device]):
        model.train()
        # Blocks that a failed attempt left are too small for the next one, so they are released.
        size = largest_that_fits(config.batch_size, attempt, torch.cuda.empty_cache)
    torch.cuda.empty_cache()
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
    return size


def divide_batch(positions_B: npt.NDArray[np.int64], micro_frames: int) -> list[npt.NDArray[np.int64]]:
    """Divide a batch into chunks of nearly one size, at most ``micro_frames``.

    No chunk has a single frame while the batch has more, because batch norm may need two: an odd batch that is divided
    into twos has a chunk of three.
    """
    n_chunks = math.ceil(len(positions_B) / micro_frames)
    if micro_frames > 1:
        n_chunks = max(1, min(n_chunks, len(positions_B) // 2))
    return np.array_split(positions_B, n_chunks)


@contextlib.contextmanager
def explained_few_frames(config: TrialConfig, n_frames: int) -> Iterator[None]:
    """Raise a ConfigError in place of torch's refusal to normalise one value."""
    try:
        yield
    except (ValueError, RuntimeError) as error:  # the latter while torch.compile reads the step
        if "more than 1 value per channel" not in str(error):
            raise
        raise ConfigError(
            [
                f"batch_size: batch norm needs more than one value per channel, and {config.model_type} at image_size "
                f"{config.image_size} has only one in a forward pass of {counted(n_frames, 'frame')}; use batch_size "
                ">= 2 with micro_batch_size auto, null or >= 2, or a larger image_size"
            ]
        ) from error


def _is_ambiguous(error: RuntimeError) -> bool:
    """Whether cuBLAS or cuDNN could not start: for lack of memory, or for a reason that one frame brings up, too."""
    return "STATUS_NOT_INITIALIZED" in str(error)
