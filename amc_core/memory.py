"""How the process deals with memory that tensors gave back."""

from __future__ import annotations

import ctypes

__all__ = ["keep_freed_memory"]

# malloc.h of glibc; 32 MiB is the largest threshold that it takes.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_HEAP_BLOCK, _NEVER = 32 << 20, 2**31 - 1


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
