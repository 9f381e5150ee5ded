"""The chart library that reports and live pages share: one vendored file, written into each page."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def chart_library() -> str:
    """Return Apache ECharts as JavaScript for a script element; ``charts/README.md`` has version and licence."""
    return (files("amc_sweeps.charts") / "echarts.min.js").read_text(encoding="utf-8")
