"""Memory: errors that mean a lack of it, blocks that glibc keeps, limits of control groups (free of torch)."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Sequence
from pathlib import Path

# Files of cgroup version 2 and of version 1: the limit, the use, and the entry of memory.stat for file pages that were
# not read lately, which the kernel can free.
_ACCOUNTS = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)

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


def memory_groups(proc: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> list[Path]:
    """Return the folders of this process's memory group and of the groups around it, its own first."""
    try:
        lines = [line.split(":", 2) for line in proc.read_text().splitlines()]
    except OSError:
        return []
    folders: list[Path] = []
    for _, controllers, path in (line for line in lines if len(line) == 3):
        if "memory" in controllers.split(","):
            mount = root / "memory"
        elif controllers == "":
            mount = root
        else:
            continue
        group = mount / path.lstrip("/")
        groups = [folder for folder in (group, *group.parents) if folder.is_relative_to(mount)]
        # In a container the path may be the host's, and the container's own group is mounted at the root.
        groups = [mount] if ".." in group.parts else groups
        folders += [folder for folder in groups if folder.is_dir() and folder not in folders]
    return folders


def free_memory(groups: Sequence[Path]) -> int | None:
    """Return the bytes that the tightest of these groups has left, None where no group has a limit."""
    free_bytes = []
    for folder in groups:
        for limit_name, use_name, reclaimable_name in _ACCOUNTS:
            limit, use = _number(_text(folder / limit_name)), _number(_text(folder / use_name))
            if limit is not None and use is not None:
                match = re.search(rf"^{reclaimable_name} (\d+)$", _text(folder / "memory.stat"), re.MULTILINE)
                free_bytes.append(max(0, limit - use + (int(match[1]) if match else 0)))
    return min(free_bytes, default=None)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _number(text: str) -> int | None:
    """Return a number; a group without a limit has the word max."""
    return int(text) if text.strip().isdigit() else None
