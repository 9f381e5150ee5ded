"""The findings for people: sentences, the terminal's report and Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from amc_analysis.findings import SMALL_GROUP, Findings, commands_of, logged_metrics, nobody_logged, shown_as_percentage
from amc_analysis.ranking import GEM_AMONG_BEST, RankedRun
from amc_sweeps.causes import CENSORED, FAILURES, WHOLE, Cause

ROWS = 20  # of the ranking in the terminal, unless asked for more
FAILURES_SHOWN = 8
GEMS_SHOWN = 3
LARGEST_IN_FULL = 1e6  # from here on values are written as powers of ten
SHORTEST_NAME = 8  # characters of a display name under which its column is left out

GEM_LEGEND = (
    f"hidden gem: cut short, yet better than every run that ended well, or among the best {GEM_AMONG_BEST} of all"
)

_STYLES = {"ended well": "green", "cut short": "yellow", "failed": "red", "running or unknown": "cyan"}


@dataclass(frozen=True)
class Scale:
    """How values of the metric are written: stored as fractions, accuracies are read as percentages."""

    percentage: bool
    decimals: int = 3  # of what is no percentage

    def text(self, value: float | None) -> str:
        """Write a value."""
        if value is None:
            return "-"
        if math.isnan(value):
            return "NaN"
        if math.isinf(value):
            return "inf" if value > 0 else "-inf"
        if self.percentage:
            return f"{100 * value:.2f}%"
        return f"{value:.{self.decimals}f}" if abs(value) < LARGEST_IN_FULL else f"{value:.3g}"

    def difference(self, value: float) -> str:
        """Write the size of a difference."""
        return f"{100 * abs(value):.2f} points" if self.percentage else f"{abs(value):.3g}"


def scale_of(findings: Findings) -> Scale:
    """Return how the sweep's metric is written."""
    sizes = [abs(entry.peak) for entry in findings.ranked if entry.peak]
    # As many decimals as give a typical peak four digits, the same for all: columns of numbers line up.
    decimals = 3 - math.floor(math.log10(median(sizes))) if sizes else 3
    return Scale(shown_as_percentage(findings), decimals=min(max(decimals, 0), 8))


def group_of(cause: Cause) -> str:
    """Sort a cause into what it means for the reader."""
    if cause in WHOLE:
        return "ended well"
    if cause in CENSORED:
        return "cut short"
    return "failed" if cause in FAILURES else "running or unknown"


def label(entry: RankedRun) -> str:
    """Name a run so that it can be found: display name and id."""
    run = entry.run
    return run.run_id if run.name == run.run_id else f"{run.name} ({run.run_id})"


def epoch_text(epoch: float | None) -> str:
    """Write an epoch, which some scripts log as a fraction."""
    return "-" if epoch is None else f"{epoch:.0f}" if epoch == int(epoch) else f"{epoch:.1f}"


def epochs_text(entry: RankedRun) -> str:
    """Write how many epochs of how many."""
    return str(entry.epochs) if entry.epochs_planned is None else f"{entry.epochs}/{entry.epochs_planned}"


def headline(findings: Findings) -> str:
    """Say who won by peak, and whether a run that was cut short beats those that ended well."""
    metric, best, whole, scale = findings.metric, findings.best, findings.best_whole, scale_of(findings)
    if not findings.ranked:
        return "This sweep has no runs yet."
    if best is None or best.peak is None:
        others = logged_metrics(findings.sweep) if nobody_logged(findings) else []
        hint = f" Logged were: {', '.join(others)}." if others else ""
        return f"No run has logged a finite value of {metric.name}.{hint}"
    where = "" if best.peak_epoch is None else f" at epoch {epoch_text(best.peak_epoch)}"
    if best.cause is Cause.RUNNING:
        return f"{label(best)} leads with a peak {metric.name} of {scale.text(best.peak)}{where}; it is still running."
    text = f"{label(best)} has the best peak: {metric.name} {scale.text(best.peak)}{where} ({best.cause})."
    if best.cause in WHOLE:
        return text
    if whole is None or whole.peak is None:
        return f"{text} No run has ended as it was meant to."
    gap = best.peak - whole.peak
    if gap == 0:
        return f"{text} {label(whole)}, which ended well, reached the same."
    text += f" It is a hidden gem: {scale.difference(gap)} better than the best run that ended well, {label(whole)} "
    text += f"({scale.text(whole.peak)})."
    if best.noise_sd is not None and abs(gap) < 2 * best.noise_sd:
        text += f" The gap is within its own epoch-to-epoch noise (sd {scale.difference(best.noise_sd)}): repeat it."
    return text


def failure_text(findings: Findings) -> str:
    """Say how many runs failed, with an interval, and what counting states would have said."""
    rate = findings.failure_rate
    if rate.rate is None or rate.naive_rate is None:
        return "No run has ended yet."
    low, high = rate.interval
    text = f"{rate.failures} of {rate.ended} ended runs failed: {rate.rate:.0%} (95% interval {low:.0%} to {high:.0%})."
    if rate.ended < SMALL_GROUP:
        text += f" With {rate.ended} that is hardly a rate."
    if rate.censored:
        named = ", ".join(f"{count} {cause}" for cause, count in rate.censored.items())
        text += f" Counted among the {rate.ended} but not as failures: {named}."
    if rate.unknown:
        text += f" How {rate.unknown} ended is unknown."
    if rate.not_finished != rate.failures:
        text += f" By state alone it would be {rate.not_finished} of {rate.ended}, {rate.naive_rate:.0%}."
    return text


def early_stop_text(findings: Findings) -> str | None:
    """Say what Hyperband stopped and saved; None where it stopped nothing."""
    stops = findings.early_stops
    if not stops.runs:
        return None
    saved = "" if stops.epochs_saved is None else f" (about {stops.epochs_saved} epochs saved)"
    return f"Early stopped: {stops.runs} by Hyperband{saved}."


def metric_text(findings: Findings) -> str:
    """Name the metric and its goal."""
    return f"{findings.metric.name}, {findings.metric.goal}d"


def warnings(findings: Findings) -> list[str]:
    """Say what the reader must know about the records themselves."""
    found = []
    if findings.unread:
        first = findings.unread[0]
        found.append(
            f"The history of {len(findings.unread)} runs could not be read, first {label(first)}: {first.run.unread}"
        )
    if findings.ranked and all(entry.run.stop_recorded is None for entry in findings.ranked):
        found.append("The server tells no stop flags and exit codes: causes are inferred from the rest.")
    return found


def failed(findings: Findings) -> list[RankedRun]:
    """Return the runs that failed, best peak first."""
    return [entry for entry in findings.ranked if entry.cause in FAILURES]


def shown_rows(findings: Findings, rows: int | None) -> list[RankedRun]:
    """Return the first rows of the ranking and every hidden gem; None: all."""
    if rows is None:
        return list(findings.ranked)
    return [entry for place, entry in enumerate(findings.ranked) if place < rows or entry.is_gem]


# --- terminal ------------------------------------------------------------------------------------------------------


def print_report(findings: Findings, console: Console, rows: int | None = ROWS) -> None:
    """Print the report: headline, ranking, ends, and where to look next."""
    sweep = findings.sweep
    console.print(
        Text.assemble(
            (f"{sweep.entity}/{sweep.project}/{sweep.sweep_id}", "bold"),
            f"  {sweep.name}" if sweep.name and sweep.name != sweep.sweep_id else "",
            (f"  {len(sweep.runs)} runs, {sweep.state.lower() or 'state unknown'}; {metric_text(findings)}", "dim"),
        )
    )
    console.print()
    console.print(Text(headline(findings), style="bold"))
    for warning in warnings(findings):
        console.print(Text(warning, style="yellow"))
    if not findings.ranked:
        return
    console.print()
    console.print(_ranking_table(findings, console, rows))
    hidden = len(findings.ranked) - len(shown_rows(findings, rows))
    notes = [f"{hidden} more runs: --top 0 shows all"] if hidden else []
    if findings.gems:
        notes.append(f"{'*' if console.options.ascii_only else '◆'} {GEM_LEGEND}")
    if any(entry.verdict.confidence != "certain" for entry in findings.ranked):
        notes.append("? not certain; --html and --markdown give the evidence")
    for note in notes:
        console.print(Text(note, style="dim"))
    console.print()
    _print_ends(findings, console)
    _print_next(findings, console)


def _ranking_table(findings: Findings, console: Console, rows: int | None) -> Table:
    """Lay the ranking out within the console's width: first the smoothed peak gives way, then display names."""
    shown = shown_rows(findings, rows)
    columns = _columns(findings, shown, gem="◆" if not console.options.ascii_only else "*")
    names = {entry.run.run_id: entry.run.name for entry in shown if entry.run.name != entry.run.run_id}
    longest = max(map(len, names.values()), default=0)
    needed = sum(_width(title, cells) for title, cells in columns.items())
    if needed + min(longest, 2 * SHORTEST_NAME) + 2 > console.width:
        needed -= _width("smoothed", columns.pop("smoothed"))
    room = min(longest, console.width - needed - 2)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for title, cells in columns.items():
        text = title in {"run", "state", "cause"}
        table.add_column(
            title, justify="left" if text else "right", no_wrap=True, min_width=max(map(len, [title, *cells]))
        )
        if title == "run" and room >= SHORTEST_NAME:
            table.add_column("name", no_wrap=True, min_width=room)
    for place, entry in enumerate(shown):
        row = [Text(column[place]) for column in columns.values()]
        row[-1].stylize(_STYLES[group_of(entry.cause)])
        if room >= SHORTEST_NAME:
            name = names.get(entry.run.run_id, "")
            row.insert(2, Text(name if len(name) <= room else name[: room - 1] + "…", style="dim"))
        table.add_row(*row, style="bold" if entry.is_gem else "")
    return table


def _columns(findings: Findings, shown: Sequence[RankedRun], gem: str) -> dict[str, list[str]]:
    """Return title -> cells of the ranking; a column of test values only where there are any."""
    scale = scale_of(findings)
    columns = {
        "#": [f"{entry.rank or ''}{' ' + gem if entry.is_gem else '  '}" for entry in shown],
        "run": [entry.run.run_id for entry in shown],
        "peak": [scale.text(entry.peak) for entry in shown],
        "smoothed": [scale.text(entry.smoothed_peak) for entry in shown],
        "at": [epoch_text(entry.peak_epoch) for entry in shown],
        "last": [scale.text(entry.last) for entry in shown],
        "test": [scale.text(entry.test) for entry in shown],
        "epochs": [epochs_text(entry) for entry in shown],
        "state": [entry.run.state for entry in shown],
        "cause": [f"{entry.cause}{'' if entry.verdict.confidence == 'certain' else '?'}" for entry in shown],
    }
    if all(entry.test is None for entry in findings.ranked):
        del columns["test"]
    return columns


def _width(title: str, cells: Sequence[str]) -> int:
    return max(map(len, [title, *cells])) + 2


def _print_ends(findings: Findings, console: Console) -> None:
    counts = ", ".join(f"{count} {cause}" for cause, count in findings.causes.items())
    console.print(Text.assemble(("How they ended  ", "bold"), counts))
    console.print(Text(failure_text(findings)))
    stops = early_stop_text(findings)
    if stops:
        console.print(Text(stops))
    print_places(findings, console)
    failures = failed(findings)
    if failures:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
        table.add_column("failed run", no_wrap=True)
        table.add_column("cause", no_wrap=True)
        table.add_column("sure?", no_wrap=True)
        table.add_column("because")
        for entry in failures[:FAILURES_SHOWN]:
            cause = Text(entry.cause, style="red")
            table.add_row(escape(entry.run.run_id), cause, entry.verdict.confidence, escape(entry.verdict.because))
        console.print()
        console.print(table)
        if len(failures) > FAILURES_SHOWN:
            console.print(Text(f"{len(failures) - FAILURES_SHOWN} more: see --csv or --html", style="dim"))
    console.print()


def print_places(findings: Findings, console: Console) -> None:
    """Print failures per host and per agent, where there are several to compare and something failed."""
    for title, places in (("host", findings.hosts), ("agent", findings.agents)):
        if len(places) < 2 or not findings.failure_rate.failures:
            continue
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
        for column in (title, "failed", "95% interval", "how"):
            table.add_column(column)
        for place in places[:FAILURES_SHOWN]:
            low, high = place.rate.interval
            how = ", ".join(f"{count} {cause}" for cause, count in place.causes.items())
            failed_of = f"{place.rate.failures} of {place.rate.ended}"
            table.add_row(escape(place.name), failed_of, f"{low:.0%} to {high:.0%}", how or "-")
        console.print()
        console.print(table)


def _print_next(findings: Findings, console: Console) -> None:
    gems = findings.gems[:GEMS_SHOWN]
    if not gems:
        return
    console.print(Text("Where to look next", style="bold"))
    for entry in gems:
        console.print(
            Text(f"Repeat {label(entry)}, {scale_of(findings).text(entry.peak)} before it ended as {entry.cause}:")
        )
        for command in commands_of(findings.sweep, entry):  # not wrapped: a command line is copied
            console.print(Text("  " + command), soft_wrap=True)


# --- Markdown ------------------------------------------------------------------------------------------------------


def to_markdown(findings: Findings) -> str:
    """Return the report as Markdown, every run of it."""
    sweep, scale = findings.sweep, scale_of(findings)
    lines = [
        f"# Sweep {_cell(sweep.name or sweep.sweep_id)}",
        "",
        f"`{sweep.entity}/{sweep.project}/{sweep.sweep_id}` · {len(sweep.runs)} runs · {sweep.state.lower()} · "
        f"{metric_text(findings)} · read {sweep.read_at:%Y-%m-%d %H:%M} UTC",
        "",
        f"**{_cell(headline(findings))}**",
        "",
    ]
    for warning in warnings(findings):
        lines += [f"> {_cell(warning)}", ""]
    if not findings.ranked:
        return "\n".join(lines)
    head = ["#", "run", "peak", "at epoch", "smoothed", "last", "test", "epochs", "state", "cause", "because"]
    lines += ["## Ranking by peak", "", _row(head), _row(["--:", "---", *["--:"] * 6, "---", "---", "---"])]
    lines += [
        _row(
            [
                ("" if entry.rank is None else str(entry.rank)) + (" ◆" if entry.is_gem else ""),
                label(entry),
                scale.text(entry.peak),
                epoch_text(entry.peak_epoch),
                scale.text(entry.smoothed_peak),
                scale.text(entry.last),
                scale.text(entry.test),
                epochs_text(entry),
                entry.run.state,
                f"{entry.cause} ({entry.verdict.confidence})",
                entry.verdict.because,
            ]
        )
        for entry in findings.ranked
    ]
    lines += ["", f"◆ {GEM_LEGEND}.", ""]
    lines += ["## How they ended", "", _row(["cause", "runs", ""]), _row(["---", "--:", "---"])]
    lines += [_row([str(cause), str(count), group_of(cause)]) for cause, count in findings.causes.items()]
    lines += ["", failure_text(findings), ""]
    stops = early_stop_text(findings)
    lines += [stops, ""] if stops else []
    if findings.gems:
        lines += ["## Where to look next", ""]
        for entry in findings.gems[:GEMS_SHOWN]:
            lines += [f"Repeat {_cell(label(entry))}:", "", "```bash", *commands_of(sweep, entry), "```", ""]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _cell(text: str) -> str:
    """Keep a text on one line and from being read as markup."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")
