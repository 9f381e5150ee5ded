"""The report as one self-contained HTML page."""

from __future__ import annotations

from amc_analysis.report import wording
from amc_analysis.report.answer import answer
from amc_analysis.report.blocks import Section
from amc_analysis.report.page_data import chart_data
from amc_analysis.report.ranking_table import ranking_table
from amc_analysis.report.sections import sections
from amc_analysis.report.templates import render
from amc_analysis.results.analysed_sweep import AnalysedSweep
from amc_analysis.runs.records import history_of
from amc_sweeps.number_formats import counted

FIRST = ("finalists", "integrity")  # sections before the charts; the others are below the ranking
LEAST_CHARTED = 5  # runs, from which on the parameters have charts; the ranking says as much of fewer


def to_html(analysed: AnalysedSweep) -> str:
    """Return the page."""
    has_charts = any(entry.peak is not None for entry in analysed.ranked)
    written = sections(analysed)
    peak = f"{analysed.peak_name}{' value' if analysed.peak_name == 'lowest' else ''}"
    record, static_ranking = analysed.record, ranking_table(analysed, analysed.ranked, has_evidence=True)
    return render(
        "report.html",
        "report.js",
        chart_data(analysed) if analysed.ranked else None,
        has_charts=has_charts,
        analysed=analysed,
        wording=wording,
        name=record.name or record.sweep_id or record.project,
        answer=answer(analysed),
        titles={section.key: section.title for section in written},
        runs=counted(len(analysed.ranked), "run"),
        peak=peak,
        first=[section for section in written if section.key in FIRST],
        others=[section for section in written if section.key not in FIRST],
        ranking=Section("ranking", f"Ranking by {peak}", (static_ranking,)),
        drawn=has_charts,
        parameters_drawn=has_charts and len(analysed.ranked) >= LEAST_CHARTED,
        levels=any(name.startswith("acc/snr/") for entry in analysed.ranked for name in history_of(entry.run).columns),
        curves=any(entry.run.curve for entry in analysed.ranked),
    )
