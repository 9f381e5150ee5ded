"""The chart library of reports and live pages: one vendored file, written into each page."""

from functools import cache
from importlib.resources import files


@cache
def chart_library() -> str:
    """Return Apache ECharts as JavaScript for a script element; ``charts/README.md`` has version and licence."""
    return (files("amc_sweeps.charts") / "echarts.min.js").read_text(encoding="utf-8")
