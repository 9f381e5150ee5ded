"""What every table of results says of the machine, and where tables go."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import numpy as np
import torch

RESULTS = Path(__file__).parent / "results"


def describe_machine() -> str:
    """Return the processor, the cores that this process may use, and the libraries, in one line."""
    cores = len(os.sched_getaffinity(0))
    return (
        f"{_processor()}, {cores} cores; Python {platform.python_version()}, torch {torch.__version__}, "
        f"numpy {np.__version__}."
    )


def write_table(name: str, text: str, *, command: str) -> Path:
    """Replace results/NAME.md by the text, under the command that it came from."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.md"
    path.write_text(f"# {name}\n\nWritten by `{command}`.\n\n{text.rstrip()}\n", encoding="utf-8")
    return path


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
