"""The report as Markdown: an entry to paste into a run log, with what its numbers can carry."""

from __future__ import annotations

from collections.abc import Sequence

from amc_analysis.report.section_ends import parts
from amc_analysis.report.sections import Command, Report, Section, Table, Warned
from amc_analysis.runs.wording import (
    GEM_LEGEND,
    epoch_text,
    epochs_text,
    headline,
    label,
    metric_text,
    rank_text,
    scale_of,
    warnings,
)

_WEIGHTS = {"error": "❌", "warning": "⚠️", "note": "ℹ️"}


def to_markdown(report: Report) -> str:
    """Return the entry, every run of the sweep in it."""
    findings = report.findings
    sweep, scale = findings.sweep, scale_of(findings)
    name = sweep.name or sweep.sweep_id or sweep.project
    title = f"Sweep: {sweep.sweep_id} - {name}" if sweep.sweep_id and name != sweep.sweep_id else f"Sweep: {name}"
    lines = [
        f"## {_cell(title)}",
        "",
        f"**Status**: {sweep.state.lower() or 'unknown'}, {len(sweep.runs)} runs, "
        f"read {sweep.read_at:%Y-%m-%d %H:%M} UTC",
        f"**Metric**: {_cell(metric_text(findings))}; ranked by the peak of each run's whole history, never by test",
        f"**Configuration**: {_cell(_configuration(report))}",
        f"**Result**: **{_cell(headline(findings))}**",
        "",
    ]
    for warning in warnings(findings):
        lines += [f"> {_cell(warning)}", ""]
    if not findings.ranked:
        return "\n".join(lines)
    head = ["#", "run", "peak", "at epoch", "smoothed", "last", "test", "epochs", "state", "cause", "because"]
    lines += ["### Ranking by peak", "", _row(head), _row(["--:", "---", *["--:"] * 6, "---", "---", "---"])]
    lines += [
        _row(
            [
                rank_text(entry),
                label(entry),
                scale.text(entry.peak),
                epoch_text(entry.peak_epoch),
                scale.text(entry.smoothed_peak),
                scale.text(entry.last),
                scale.text(entry.test),
                epochs_text(entry),
                entry.run.state,
                f"{entry.cause} ({entry.diagnosis.confidence})",
                entry.diagnosis.because,
            ]
        )
        for entry in findings.ranked
    ]
    lines += ["", f"◆ {GEM_LEGEND}.", ""]
    for section in parts(report):
        lines += _section(section)
    return "\n".join(lines)


def _configuration(report: Report) -> str:
    sweep = report.findings.sweep
    method = sweep.config.get("method")
    searched = ", ".join(report.findings.parameters) or "nothing"
    told = f"searched {searched}" + (f" by {method}" if method else "")
    return told + ("; Hyperband" if isinstance(sweep.config.get("early_terminate"), dict) else "")


def _section(section: Section) -> list[str]:
    lines = [f"### {section.title}", ""]
    for block in section.blocks:
        if isinstance(block, Table):
            lines += _table(block)
        elif isinstance(block, Command):
            lines += ["```bash", block.text, "```", ""]
        elif isinstance(block, Warned):
            lines += [f"- {_WEIGHTS[block.weight]} **{block.name}** {_cell(block.text)}"]
        else:
            lines += [_cell(block), ""]
    return [*lines, ""] if lines[-1] else lines


def _table(table: Table) -> list[str]:
    lines = [_cell(table.caption), ""] if table.caption else []
    lines.append(_row(table.titles))
    lines.append(_row(["--:" if table.numeric(number) else "---" for number in range(len(table.titles))]))
    return [*lines, *map(_row, table.rows), ""]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _cell(text: str) -> str:
    """Keep a text on one line and from being read as markup."""
    flat = " ".join(text.split()).replace("\\", "\\\\").replace("<", "&lt;")
    for mark in "|*`[]":
        flat = flat.replace(mark, f"\\{mark}")
    return flat
