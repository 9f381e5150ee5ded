"""The result tables of soak tests, in tests/soak/results/, with the machine that measured them."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

FOLDER = Path(__file__).parent / "results"


def keep(name: str, *, full: bool, figures: Mapping[str, object]) -> None:
    """Write the last table of one soak; the first line tells if a run was below the full size."""
    FOLDER.mkdir(exist_ok=True)
    kind = (
        "full run"
        if full
        else "SHORT RUN, below the full size: it shows that the test works, not that the product endures"
    )
    machine = f"{os.cpu_count()} CPU cores, {platform.system()}, Python {platform.python_version()}"
    load = ", ".join(f"{value:.1f}" for value in psutil.getloadavg())
    lines = [
        f"# {name}: {kind}",
        "",
        f"{time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC, {machine}, load average at the end {load}",
        "",
        "| quantity | measured |",
        "|---|---|",
        *(f"| {quantity} | {_shown(value)} |" for quantity, value in figures.items()),
    ]
    (FOLDER / f"{name}.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.3g}" if abs(value) < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
