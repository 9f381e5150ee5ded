"""Memory of the process: errors that mean a lack of it, and keeping what was freed (free of torch)."""

from __future__ import annotations

import ctypes
import re

# malloc.h of glibc; 32 MiB is the largest threshold that it takes.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_HEAP_BLOCK, _NEVER = 32 << 20, 2**31 - 1

# Texts of a plain RuntimeError: from the CPU's allocator, the driver, and libraries with memory of their own.
_LACK = re.compile(
    r"can't allocate memory|CUDA error: out of memory|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_\w*ALLOC\w*_FAILED"
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that the host or the GPU has no memory left."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch.OutOfMemoryError, for CUDA
        return True
    return isinstance(error, RuntimeError) and _LACK.search(str(error)) is not None


def keep_freed_memory() -> bool:
    """Make glibc keep freed memory for the next step; return whether it does.

    By default glibc returns large blocks to the kernel, which soon hands them out again, zeroed page by page. That took
    a sixth of a training step on the CPU (tests/benchmarks/results/loop.md). The process's peak stays the same.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST_HEAP_BLOCK)) and bool(mallopt(_M_TRIM_THRESHOLD, _NEVER))
