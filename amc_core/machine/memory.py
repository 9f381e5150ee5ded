"""Memory of the process: what tensors gave back is kept, and a lack of it is known by its errors (free of torch)."""

from __future__ import annotations

import ctypes
import re

# malloc.h of glibc; 32 MiB is the largest threshold that it takes.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_HEAP_BLOCK, _NEVER = 32 << 20, 2**31 - 1

# What a plain RuntimeError says: the CPU's allocator, the driver, and libraries that take memory of their own.
_LACK = re.compile(
    r"can't allocate memory|CUDA error: out of memory|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_\w*ALLOC\w*_FAILED"
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that the host or the GPU has no memory left."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # the latter is torch's, for CUDA
        return True
    return isinstance(error, RuntimeError) and _LACK.search(str(error)) is not None


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed memory for the next step; return whether it does.

    By default it gives large blocks back to the kernel, which hands out the same ones a moment later, page by page and
    zeroed: a sixth of a training step on the CPU went into that (tests/benchmarks/results/loop.md). What a process
    needs at most stays the same.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST_HEAP_BLOCK)) and bool(mallopt(_M_TRIM_THRESHOLD, _NEVER))
