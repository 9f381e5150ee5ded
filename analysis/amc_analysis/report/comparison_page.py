"""Several sweeps side by side as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from amc_analysis.report import wording
from amc_analysis.report.blocks import Section
from amc_analysis.report.comparison import compare, comparison_table
from amc_analysis.report.page_data import start_order
from amc_analysis.report.ranking_table import ranking_table
from amc_analysis.report.sections import sections
from amc_analysis.report.templates import render
from amc_analysis.results.analysed_sweep import AnalysedSweep
from amc_sweeps.browser.run_rows import short

ROWS = 10  # of each ranking, and every hidden gem


def comparison_html(sweeps: Sequence[AnalysedSweep]) -> str:
    """Return the page."""
    comparison = compare(sweeps)
    is_drawn = len({sweep.metric for sweep in sweeps}) == 1 and any(sweep.best is not None for sweep in sweeps)
    rankings = [ranking_table(sweep, wording.shown_rows(sweep, ROWS), has_evidence=False) for sweep in sweeps]
    return render(
        "comparison.html",
        "comparison.js",
        {"sweeps": list(map(_line, sweeps))} if is_drawn else None,
        sweeps=sweeps,
        comparison=comparison,
        wording=wording,
        table=Section("comparison", "Side by side", (comparison_table(comparison),)),
        rankings=[
            Section("ranking", f"Ranking of {sweep.title}", (table,))
            for sweep, table in zip(sweeps, rankings, strict=True)
        ],
        parts=[sections(sweep) for sweep in sweeps],
    )


def _line(analysed: AnalysedSweep) -> dict[str, Any]:
    """Return the best value so far after each run, in the order of their starts."""
    order = start_order(analysed)
    valued = [entry for entry in analysed.ranked if entry.peak is not None and entry.excluded_by is None]
    valued.sort(key=lambda entry: order[entry.run.run_id])
    better = max if analysed.metric.goal == "maximize" else min
    best = accumulate((entry.peak for entry in valued if entry.peak is not None), better)
    return {
        "title": analysed.title,
        "metric": analysed.metric.name,
        "maximize": analysed.metric.goal == "maximize",
        "percentage": analysed.scale.percentage,
        "decimals": analysed.scale.decimals,
        "best": [[order[entry.run.run_id], short(value)] for entry, value in zip(valued, best, strict=True)],
    }
