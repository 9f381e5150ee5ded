"""Several sweeps side by side, and what their numbers must not be compared on."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from amc_analysis.runs.findings import Findings
from amc_analysis.runs.wording import Scale, scale_of
from amc_core.modulations import LABEL_SETS
from amc_sweeps.runs.evidence import epochs_planned
from amc_sweeps.runs.records import SweepRecord

SNR_STEP_DB = 2  # between RadioML's levels
COMPARISON_VERSION = 1  # of what comparison_json writes
MOST_SHOWN = 3  # different values of one thing in a sentence


@dataclass(frozen=True)
class Side:
    """One sweep's column."""

    title: str
    metric: str
    goal: str
    percentage: bool
    runs: int  # on record
    runs_total: int | None  # where fewer are on record
    best: str | None  # run id
    best_peak: float | None
    best_whole: str | None  # run id of the best one that ended as it was meant to
    best_whole_peak: float | None
    failures: int
    ended: int
    failure_interval: tuple[float, float]  # Wilson, 95 %
    early_stopped: int
    gems: int
    median_epochs: float | None
    epochs_planned: tuple[int, ...]
    label_sets: tuple[str, ...]
    snr_ranges_db: tuple[str, ...]
    classes: tuple[int, ...]  # of (modulation, SNR) together: chance is one in so many
    held_out: tuple[int, ...]  # frames of validation
    splits: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """Sweeps side by side. Unequal things that the reader must know of come as sentences."""

    sides: tuple[Side, ...]
    caveats: tuple[str, ...]


def title_of(sweep: SweepRecord) -> str:
    """Name what was read."""
    if sweep.sweep_id:
        return sweep.sweep_id
    return sweep.project if sweep.kind == "project" else f"{len(sweep.runs)} runs of {sweep.project}"


def compare(found: Sequence[Findings]) -> Comparison:
    """Put analysed sweeps side by side."""
    sides = tuple(_side(findings) for findings in found)
    return Comparison(sides, tuple(_caveats(sides)))


def _side(findings: Findings) -> Side:
    sweep, best, whole, rate = findings.sweep, findings.best, findings.best_whole, findings.failure_rate
    configs = [run.config for run in sweep.runs]
    epochs = [entry.epochs for entry in findings.ranked if entry.epochs]
    return Side(
        title=title_of(sweep),
        metric=sweep.metric.name,
        goal=sweep.metric.goal,
        percentage=scale_of(findings).percentage,
        runs=len(sweep.runs),
        runs_total=sweep.runs_total,
        best=best.run.run_id if best else None,
        best_peak=best.peak if best else None,
        best_whole=whole.run.run_id if whole else None,
        best_whole_peak=whole.peak if whole else None,
        failures=rate.failures,
        ended=rate.ended,
        failure_interval=rate.interval,
        early_stopped=findings.early_stops.runs,
        gems=len(findings.gems),
        median_epochs=median(epochs) if epochs else None,
        epochs_planned=tuple(sorted({found for config in configs if (found := epochs_planned(config))})),
        label_sets=_texts(configs, lambda config: config.get("label_set")),
        snr_ranges_db=_texts(configs, _snr_range),
        classes=tuple(sorted({count for config in configs if (count := classes_of(config)) is not None})),
        held_out=tuple(sorted({count for config in configs if isinstance(count := config.get("n_val"), int)})),
        splits=_texts(configs, lambda config: config.get("split_fingerprint") or config.get("split")),
    )


def classes_of(config: Mapping[str, Any]) -> int | None:
    """Return how many classes, modulation and SNR together, a run's configuration makes; None for unknown."""
    told = config.get("n_classes")
    if isinstance(told, int) and not isinstance(told, bool):
        return told
    low, high, labels = config.get("snr_min_db"), config.get("snr_max_db"), config.get("label_set")
    if not isinstance(low, int) or not isinstance(high, int) or labels not in LABEL_SETS:
        return None
    return len(LABEL_SETS[str(labels)]) * ((high - low) // SNR_STEP_DB + 1)


def _snr_range(config: Mapping[str, Any]) -> str | None:
    low, high = config.get("snr_min_db"), config.get("snr_max_db")
    return None if low is None or high is None else f"{low}..{high}"


def _texts(configs: Iterable[Mapping[str, Any]], of: Callable[[Mapping[str, Any]], Any]) -> tuple[str, ...]:
    return tuple(sorted({str(value) for config in configs if (value := of(config)) is not None}))


def _caveats(sides: Sequence[Side]) -> list[str]:
    found = []
    for name, what, consequence in (
        ("metric", "metrics", "their values are not of one kind"),
        ("goal", "goals", "the better value is not the same way round"),
    ):
        values = list(dict.fromkeys(getattr(side, name) for side in sides))
        if len(values) > 1:
            found.append(f"The {what} differ ({', '.join(values)}): {consequence}.")
    for name, what, consequence in (
        ("classes", "numbers of classes", "chance differs, so equal accuracies do not mean equal skill"),
        ("label_sets", "label sets", "the tasks differ"),
        ("snr_ranges_db", "SNR ranges in dB", "low SNR cannot be told apart: the tasks differ"),
        ("splits", "splits", "a frame that one trained on may be held out of the other"),
        ("held_out", "numbers of validation frames", "their values have different errors"),
        (
            "epochs_planned",
            "planned numbers of epochs",
            "longer runs have more chances at a peak: compare at equal epochs",
        ),
    ):
        known = [(side.title, getattr(side, name)) for side in sides if getattr(side, name)]
        if len({values for _, values in known}) > 1:
            shown = "; ".join(f"{title}: {_listed(values)}" for title, values in known)
            found.append(f"The {what} differ ({shown}): {consequence}.")
    counts = [side.runs_total or side.runs for side in sides]
    if len(set(counts)) > 1:
        shown = ", ".join(f"{count} in {side.title}" for side, count in zip(sides, counts, strict=True))
        found.append(
            f"The best of more runs is better by chance alone ({shown}): compare the expected best of equal n."
        )
    found += [
        f"Of {side.title} {side.runs} of {side.runs_total} runs are on record."
        for side in sides
        if side.runs_total and side.runs_total != side.runs
    ]
    return found


def _listed(values: Sequence[Any]) -> str:
    shown = ", ".join(f"{value:,}" if isinstance(value, int) else str(value) for value in values[:MOST_SHOWN])
    return (shown + (", ..." if len(values) > MOST_SHOWN else "")) or "unknown"


def rows_of(comparison: Comparison) -> list[tuple[str, list[str]]]:
    """Return (what, a text for every side), the lines of the table that people read."""

    def line(what: str, of: Callable[[Side], str]) -> tuple[str, list[str]]:
        return what, [of(side) for side in comparison.sides]

    def value(side: Side, number: float | None, run: str | None) -> str:
        return "-" if number is None else f"{Scale(side.percentage).text(number)} {run or ''}".rstrip()

    def failures(side: Side) -> str:
        low, high = side.failure_interval
        return "-" if not side.ended else f"{side.failures} of {side.ended} ({low:.0%} to {high:.0%})"

    return [
        line("runs", lambda side: str(side.runs) + (f" of {side.runs_total}" if side.runs_total else "")),
        line("metric", lambda side: f"{side.metric}, {side.goal}d"),
        line("best peak", lambda side: value(side, side.best_peak, side.best)),
        line("best that ended well", lambda side: value(side, side.best_whole_peak, side.best_whole)),
        line("failed (95% interval)", failures),
        line("early stopped", lambda side: str(side.early_stopped)),
        line("hidden gems", lambda side: str(side.gems)),
        line("epochs, median", lambda side: "-" if side.median_epochs is None else f"{side.median_epochs:g}"),
        line("epochs planned", lambda side: _listed(side.epochs_planned)),
        line("label set", lambda side: _listed(side.label_sets)),
        line("SNR, dB", lambda side: _listed(side.snr_ranges_db)),
        line("classes, chance", lambda side: ", ".join(f"{n}, {1 / n:.2%}" for n in side.classes[:1]) or "unknown"),
        line("validation frames", lambda side: _listed(side.held_out)),
    ]


def comparison_json(comparison: Comparison, documents: Sequence[str]) -> str:
    """Return one JSON document: the comparison, then the analysis of every sweep as it is alone."""
    content = {
        "schema": "amc-analyze-comparison",
        "version": COMPARISON_VERSION,
        "caveats": list(comparison.caveats),
        "sides": [vars(side) for side in comparison.sides],
        "sweeps": [json.loads(document) for document in documents],
    }
    return json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def comparison_csv(found: Sequence[Findings], tables: Sequence[str]) -> str:
    """Return the tables of several sweeps as one, with the sweep in front and every column that one of them has."""
    lines = [
        {"sweep": title_of(findings.sweep), **line}
        for findings, table in zip(found, tables, strict=True)
        for line in csv.DictReader(io.StringIO(table))
    ]
    names = list(dict.fromkeys(name for table in tables for name in next(csv.reader(io.StringIO(table)))))
    out = io.StringIO()
    writer = csv.DictWriter(out, ["sweep", *names], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print the comparison above the reports of the single sweeps."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0), show_edge=False)
    table.add_column("")
    for side in comparison.sides:
        table.add_column(Text(side.title))
    for what, cells in rows_of(comparison):
        table.add_row(Text(what, style="dim"), *map(Text, cells))
    console.print(table)
    console.print()
    for caveat in comparison.caveats:
        console.print(Text(caveat, style="yellow"))
    console.print()


def comparison_markdown(comparison: Comparison) -> str:
    """Return the comparison as Markdown."""
    titles = [side.title for side in comparison.sides]
    lines = ["# " + " and ".join(titles), "", "| | " + " | ".join(titles) + " |", "|---" * (len(titles) + 1) + "|"]
    lines += [f"| {what} | " + " | ".join(cells) + " |" for what, cells in rows_of(comparison)]
    return "\n".join([*lines, "", *(f"> {caveat}\n" for caveat in comparison.caveats)]) + "\n"
