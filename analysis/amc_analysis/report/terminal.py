"""The report on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from amc_analysis.report import wording
from amc_analysis.report.blocks import Command, Section, Table, Warned
from amc_analysis.report.column_widths import BETWEEN, SHORTEST_NAME, fit, shortened
from amc_analysis.report.comparison import Comparison, comparison_table
from amc_analysis.report.sections import sections
from amc_analysis.results.analysed_sweep import AnalysedSweep
from amc_sweeps.number_formats import counted
from amc_sweeps.runs.cause_groups import group_of
from amc_sweeps.runs.ranked_run import RankedRun

TABLE_ROWS = {"ends": 8, "inside": 5}  # most rows of a table, by section; elsewhere all
EFFECTS_SHOWN = 6

_STYLES = {"ended well": "green", "cut short": "yellow", "failed": "red", "running or unknown": "cyan"}
_SEVERITIES = {"error": "bold red", "warning": "yellow", "note": "cyan"}


def print_report(analysed: AnalysedSweep, console: Console, rows: int | None = wording.ROWS) -> None:
    """Print the report: headline, ranking and sections."""
    print_head(analysed, console, rows)
    print_sections(analysed, console)


def print_head(analysed: AnalysedSweep, console: Console, rows: int | None = wording.ROWS) -> None:
    """Print the headline and the ranking, which need no importances."""
    record = analysed.record
    path = "/".join(piece for piece in (record.entity, record.project, record.sweep_id) if piece)
    runs = counted(len(record.runs), "run")
    console.print(
        Text.assemble(
            (path, "bold"),
            f"  {record.name}" if record.name and record.name != record.sweep_id else "",
            (f"  {runs}, {record.state.lower() or 'state unknown'}; {wording.metric_text(analysed)}", "dim"),
        )
    )
    console.print()
    console.print(Text(wording.headline(analysed), style="bold"))
    for warning in wording.warnings(analysed):
        console.print(Text(warning, style="yellow"))
    if not analysed.ranked:
        return
    console.print()
    _print_ranking(analysed, console, rows)
    hidden = len(analysed.ranked) - len(wording.shown_rows(analysed, rows))
    notes = [f"{counted(hidden, 'more run')}: --top 0 shows all"] if hidden else []
    notes += wording.legends(analysed, _gem(console))
    if any(entry.diagnosis.confidence != "certain" for entry in analysed.ranked):
        notes.append("? the cause is not certain; --html and --markdown give the evidence")
    for note in notes:
        console.print(Text(note, style="dim"))


def print_sections(analysed: AnalysedSweep, console: Console) -> None:
    """Print what follows the ranking; nothing for a sweep without runs."""
    if analysed.ranked:
        for section in sections(analysed):
            _print_section(section, console)
        console.print()


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print the comparison above the reports of the single sweeps."""
    _print_table(comparison_table(comparison), console)
    console.print()
    for caveat in comparison.caveats:
        console.print(Text(caveat, style="yellow"))
    console.print()


def _print_section(section: Section, console: Console) -> None:
    console.print()
    console.print(Text(section.title, style="bold underline"))
    tables = 0
    for block in section.blocks:
        if isinstance(block, Table):
            tables += 1
            if section.key == "matters" and tables > EFFECTS_SHOWN:
                continue
            _print_table(block, console, TABLE_ROWS.get(section.key))
        elif isinstance(block, Command):
            console.print(Text("  " + block.text), soft_wrap=True)  # not wrapped, so that it can be copied
        elif isinstance(block, Warned):
            console.print(
                Text.assemble((f"{block.name} ({block.severity})", _SEVERITIES[block.severity]), f"  {block.text}")
            )
            if block.more:
                hidden = counted(len(block.more), "more finding")
                console.print(Text(f"{hidden} of this kind: --html and --markdown show all", style="dim"))
        else:
            console.print(Text(block))
    if section.key == "matters" and tables > EFFECTS_SHOWN:
        hidden = counted(tables - EFFECTS_SHOWN, "more table")
        console.print(Text(f"{hidden}: --html and --markdown show all", style="dim"))


def _print_table(table: Table, console: Console, max_rows: int | None = None) -> None:
    console.print()
    if table.caption:
        console.print(Text(table.caption))
    _print_columns(replace(table, rows=table.rows[:max_rows]), console)
    if max_rows is not None and len(table.rows) > max_rows:
        hidden = counted(len(table.rows) - max_rows, "more row")
        console.print(Text(f"{hidden}: --html and --markdown show all", style="dim"))


def _print_columns(
    table: Table, console: Console, *, row_styles: Sequence[str] = (), last_styles: Sequence[str] = ()
) -> None:
    """Print a table in as many parts as its figures need; the styles are of every row, and of its last cell."""
    for part in fit(table, console.width):
        printed = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
        for column, width in zip(part.columns, part.widths, strict=True):
            printed.add_column(
                Text(table.titles[column]), justify="right" if table.is_numeric(column) else "left", width=width
            )
        for place, row in enumerate(table.rows):
            cells = [
                Text(shortened(row[column], width)) for column, width in zip(part.columns, part.widths, strict=True)
            ]
            if last_styles and part.columns[-1] == len(row) - 1:
                cells[-1].stylize(last_styles[place])
            printed.add_row(*cells, style=row_styles[place] if row_styles else None)
        needed = sum(part.widths) + BETWEEN * len(part.widths)
        console.print(printed, width=max(console.width, needed), crop=False)


def _print_ranking(analysed: AnalysedSweep, console: Console, rows: int | None) -> None:
    """Print the ranking; a narrow terminal gets it without the smoothed peak first, then without display names."""
    entries = wording.shown_rows(analysed, rows)
    columns = _columns(analysed, entries, _gem(console))
    names = ["" if entry.run.name == entry.run.run_id else entry.run.name for entry in entries]
    longest = max(map(len, names), default=0)
    needed = sum(_width(title, cells) for title, cells in columns.items())
    if needed + min(longest, 2 * SHORTEST_NAME) + 2 > console.width:
        needed -= _width("smoothed", columns.pop("smoothed"))
    if longest and console.width - needed - 2 >= SHORTEST_NAME:
        before = list(columns.items())
        columns = dict([*before[:2], ("name", names), *before[2:]])
    _print_columns(
        Table(list(columns), [list(row) for row in zip(*columns.values(), strict=True)]),
        console,
        row_styles=["bold" if entry.is_gem else "" for entry in entries],
        last_styles=[_STYLES[group_of(entry.cause)] for entry in entries],
    )


def _columns(analysed: AnalysedSweep, entries: Sequence[RankedRun], gem: str) -> dict[str, list[str]]:
    """Return title -> cells of the ranking; a column of test values only where there are any."""
    scale = analysed.scale
    columns = {
        "#": [wording.rank_text(entry, gem) + ("" if entry.is_gem or entry.excluded_by else "  ") for entry in entries],
        "run": [entry.run.run_id for entry in entries],
        analysed.peak_name: [scale.text(entry.peak) for entry in entries],
        "smoothed": [scale.text(entry.smoothed_peak) for entry in entries],
        "at": [wording.epoch_text(entry.peak_epoch) for entry in entries],
        "last": [scale.text(entry.last) for entry in entries],
        "test": [scale.text(entry.test) for entry in entries],
        "epochs": [wording.epochs_text(entry) for entry in entries],
        "state": [entry.run.state for entry in entries],
        "cause": [f"{entry.cause}{'' if entry.diagnosis.confidence == 'certain' else '?'}" for entry in entries],
    }
    if all(entry.test is None for entry in analysed.ranked):
        del columns["test"]
    return columns


def _gem(console: Console) -> str:
    return "*" if console.options.ascii_only else "◆"


def _width(title: str, cells: Sequence[str]) -> int:
    return max(map(len, [title, *cells])) + 2
