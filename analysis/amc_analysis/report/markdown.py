"""The report as Markdown: an entry to paste into a research log."""

from __future__ import annotations

from collections.abc import Sequence

from amc_analysis.report import wording
from amc_analysis.report.blocks import Command, Section, Table, Warned
from amc_analysis.report.comparison import Comparison, comparison_table
from amc_analysis.report.sections import sections
from amc_analysis.results.analysed_sweep import AnalysedSweep, run_label
from amc_sweeps.number_formats import counted

_MARKS = {"error": "❌", "warning": "⚠️", "note": "ℹ️"}


def to_markdown(analysed: AnalysedSweep) -> str:
    """Return the entry, with every run of the sweep."""
    record, scale, peak = analysed.record, analysed.scale, analysed.peak_name
    name = record.name or record.sweep_id or record.project
    title = f"Sweep: {record.sweep_id} - {name}" if record.sweep_id and name != record.sweep_id else f"Sweep: {name}"
    lines = [
        f"## {_cell(title)}",
        "",
        f"**Status**: {record.state.lower() or 'unknown'}, {counted(len(record.runs), 'run')}, "
        f"read {record.read_at:%Y-%m-%d %H:%M} UTC",
        f"**Metric**: {_cell(wording.metric_text(analysed))}; ranked by each run's {peak} value in its whole "
        "history, never by test",
        f"**Configuration**: {_cell(_configuration(analysed))}",
        f"**Result**: **{_cell(wording.headline(analysed))}**",
        "",
    ]
    for warning in wording.warnings(analysed):
        lines += [f"> {_cell(warning)}", ""]
    if not analysed.ranked:
        return "\n".join(lines)
    head = ["#", "run", peak, "at epoch", "smoothed", "last", "test", "epochs", "state", "cause", "because"]
    is_told = bool(analysed.treatments)
    lines += [
        f"### Ranking by {peak}{' value' if peak == 'lowest' else ''}",
        "",
        _row([*head, *["told the search"] * is_told]),
        _row(["--:", "---", *["--:"] * 6, "---", "---", "---", *["---"] * is_told]),
    ]
    lines += [
        _row(
            [
                wording.rank_text(entry),
                run_label(entry),
                scale.text(entry.peak),
                wording.epoch_text(entry.peak_epoch),
                scale.text(entry.smoothed_peak),
                scale.text(entry.last),
                scale.text(entry.test),
                wording.epochs_text(entry),
                entry.run.state,
                f"{entry.cause} ({entry.diagnosis.confidence})",
                entry.diagnosis.because,
                *[str(entry.treatment or "-")] * is_told,
            ]
        )
        for entry in analysed.ranked
    ]
    lines.append("")
    for legend in wording.legends(analysed):
        lines += [f"{legend}.", ""]
    for section in sections(analysed):
        lines += _section(section)
    return "\n".join(lines)


def comparison_markdown(comparison: Comparison) -> str:
    """Return the comparison as Markdown."""
    table = comparison_table(comparison)
    caveats = (f"> {_cell(caveat)}\n" for caveat in comparison.caveats)
    return "\n".join(["# " + " and ".join(table.titles[1:]), "", *_table(table), *caveats]) + "\n"


def _configuration(analysed: AnalysedSweep) -> str:
    method = analysed.config.get("method")
    text = f"searched {', '.join(analysed.parameter_names) or 'nothing'}" + (f" by {method}" if method else "")
    return text + ("; Hyperband" if isinstance(analysed.config.get("early_terminate"), dict) else "")


def _section(section: Section) -> list[str]:
    lines = [f"### {section.title}", ""]
    for block in section.blocks:
        if isinstance(block, Table):
            lines += _table(block)
        elif isinstance(block, Command):
            lines += ["```bash", block.text, "```", ""]
        elif isinstance(block, Warned):
            lines += [f"- {_MARKS[block.severity]} **{block.name}** {_cell(block.text)}"]
            lines += [f"  - {_cell(text)}" for text in block.more]
        else:
            lines += [_cell(block), ""]
    return [*lines, ""] if lines[-1] else lines


def _table(table: Table) -> list[str]:
    lines = [_cell(table.caption), ""] if table.caption else []
    lines.append(_row(table.titles))
    lines.append(_row(["--:" if table.is_numeric(number) else "---" for number in range(len(table.titles))]))
    return [*lines, *map(_row, table.rows), ""]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _cell(text: str) -> str:
    flat = " ".join(text.split()).replace("\\", "\\\\").replace("<", "&lt;")
    for mark in "|*`[]":
        flat = flat.replace(mark, f"\\{mark}")
    return flat
