"""Several sweeps side by side, and the differences that make their numbers hard to compare."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from amc_analysis.report.blocks import Table
from amc_analysis.report.wording import runs_on_record
from amc_analysis.results.analysed_sweep import AnalysedSweep
from amc_analysis.rules.lookups import classes_of, label_set_in, validated_with
from amc_sweeps.number_formats import listed, percent
from amc_sweeps.runs.evidence import epochs_planned
from amc_sweeps.runs.metric_scale import MetricScale, interval_text

COMPARISON_VERSION = 1  # of the document that comparison_json writes
MOST_SHOWN = 3  # different values in a sentence


@dataclass(frozen=True)
class Side:
    """One sweep's column."""

    title: str
    metric: str
    goal: str
    percentage: bool
    runs: int  # on record
    runs_total: int | None  # all runs, where it is known that only some are on record
    best: str | None  # run id
    best_peak: float | None
    best_whole: str | None  # run id of the best run that completed or ended by patience
    best_whole_peak: float | None
    failures: int
    ended: int
    failure_interval: tuple[float, float]  # Wilson, 95%
    early_stopped: int
    gems: int
    median_epochs: float | None
    epochs_planned: tuple[int, ...]
    label_sets: tuple[str, ...]
    snr_ranges_db: tuple[str, ...]
    classes: tuple[int, ...]  # modulations times SNR levels; chance level is 1 / classes
    held_out: tuple[int, ...]  # validation frames
    splits: tuple[str, ...]
    validated_with: tuple[str, ...]  # settings of validations


@dataclass(frozen=True)
class Comparison:
    """Sweeps side by side, and a sentence for every difference that a reader must know."""

    sides: tuple[Side, ...]
    caveats: tuple[str, ...]


def compare(sweeps: Sequence[AnalysedSweep]) -> Comparison:
    """Put analysed sweeps side by side."""
    sides = tuple(_side(analysed) for analysed in sweeps)
    return Comparison(sides, tuple(_caveats(sides)))


def _side(analysed: AnalysedSweep) -> Side:
    record, best, whole, rate = analysed.record, analysed.best, analysed.best_ended_well, analysed.failure_rate
    configs = [run.config for run in record.runs]
    epochs = [entry.epochs for entry in analysed.ranked if entry.epochs]
    return Side(
        title=analysed.title,
        metric=record.metric.name,
        goal=record.metric.goal,
        percentage=analysed.scale.percentage,
        runs=len(record.runs),
        runs_total=record.runs_total,
        best=best.run.run_id if best else None,
        best_peak=best.peak if best else None,
        best_whole=whole.run.run_id if whole else None,
        best_whole_peak=whole.peak if whole else None,
        failures=rate.failures,
        ended=rate.ended,
        failure_interval=rate.interval,
        early_stopped=analysed.early_stops.runs,
        gems=len(analysed.gems),
        median_epochs=median(epochs) if epochs else None,
        epochs_planned=tuple(sorted({planned for config in configs if (planned := epochs_planned(config))})),
        label_sets=_texts(configs, label_set_in),
        snr_ranges_db=_texts(configs, _snr_range),
        classes=tuple(sorted({count for config in configs if (count := classes_of(config)) is not None})),
        held_out=tuple(sorted({count for config in configs if isinstance(count := config.get("n_val"), int)})),
        splits=_texts(configs, lambda config: config.get("split_fingerprint") or config.get("split")),
        validated_with=_texts(configs, validated_with),
    )


def _snr_range(config: Mapping[str, Any]) -> str | None:
    low, high = config.get("snr_min_db"), config.get("snr_max_db")
    return None if low is None or high is None else f"{low}..{high}"


def _texts(configs: Iterable[Mapping[str, Any]], of: Callable[[Mapping[str, Any]], Any]) -> tuple[str, ...]:
    return tuple(sorted({str(value) for config in configs if (value := of(config)) is not None}))


def _caveats(sides: Sequence[Side]) -> list[str]:
    caveats = []
    for name, noun, consequence in (
        ("metric", "metrics", "the values cannot be compared"),
        ("goal", "goals", "higher is better in one, lower in the other"),
    ):
        values = list(dict.fromkeys(getattr(side, name) for side in sides))
        if len(values) > 1:
            caveats.append(f"The {noun} differ ({', '.join(values)}): {consequence}.")
    for name, noun, consequence in (
        ("classes", "numbers of classes", "chance differs, so equal accuracies do not mean equal skill"),
        ("label_sets", "label sets", "the tasks differ"),
        ("snr_ranges_db", "SNR ranges in dB", "low SNR is harder, so the tasks differ"),
        ("splits", "splits", "one sweep may train on frames that the other holds out"),
        (
            "validated_with",
            "settings of validations",
            "values differ while the learning rate is high, so compare at ends of cycles",
        ),
        ("held_out", "numbers of validation frames", "the standard errors differ"),
        (
            "epochs_planned",
            "planned numbers of epochs",
            "longer runs have more chances of a good value: compare at equal epochs",
        ),
    ):
        by_sweep = [(side.title, getattr(side, name)) for side in sides if getattr(side, name)]
        if len({values for _, values in by_sweep}) > 1:
            text = "; ".join(f"{title}: {_listed(values)}" for title, values in by_sweep)
            caveats.append(f"The {noun} differ ({text}): {consequence}.")
    counts = [side.runs_total or side.runs for side in sides]
    if len(set(counts)) > 1:
        text = ", ".join(f"{count} in {side.title}" for side, count in zip(sides, counts, strict=True))
        caveats.append(
            f"The best of more runs is better by chance alone ({text}). Compare the expected best of equally many runs."
        )
    caveats += [
        f"{side.title}: {runs_on_record(side.runs, side.runs_total)}."
        for side in sides
        if side.runs_total and side.runs_total != side.runs
    ]
    return caveats


def _listed(values: Sequence[Any]) -> str:
    return listed([f"{value:,}" if isinstance(value, int) else str(value) for value in values], MOST_SHOWN) or "unknown"


def comparison_table(comparison: Comparison) -> Table:
    """Return the comparison as a table: a line for every property, a column for every sweep."""

    def value(side: Side, number: float | None, run: str | None) -> str:
        return "-" if number is None else f"{MetricScale(side.percentage).text(number)} {run or ''}".rstrip()

    def failures(side: Side) -> str:
        return f"{side.failures} of {side.ended} ({interval_text(side.failure_interval)})" if side.ended else "-"

    best = "lowest value" if {side.goal for side in comparison.sides} == {"minimize"} else "best peak"
    lines: dict[str, Callable[[Side], str]] = {
        "runs": lambda side: str(side.runs) + (f" of {side.runs_total}" if side.runs_total else ""),
        "metric": lambda side: f"{side.metric}, {side.goal}d",
        best: lambda side: value(side, side.best_peak, side.best),
        "best run that ended well": lambda side: value(side, side.best_whole_peak, side.best_whole),
        "failed (95% interval)": failures,
        "early stopped": lambda side: str(side.early_stopped),
        "hidden gems": lambda side: str(side.gems),
        "epochs, median": lambda side: "-" if side.median_epochs is None else f"{side.median_epochs:g}",
        "epochs planned": lambda side: _listed(side.epochs_planned),
        "label set": lambda side: _listed(side.label_sets),
        "SNR, dB": lambda side: _listed(side.snr_ranges_db),
        "classes, chance": lambda side: ", ".join(f"{n}, {percent(1 / n, 2)}" for n in side.classes[:1]) or "unknown",
        "validation frames": lambda side: _listed(side.held_out),
    }
    rows = [[title, *map(text, comparison.sides)] for title, text in lines.items()]
    return Table(["", *(side.title for side in comparison.sides)], rows)


def comparison_json(comparison: Comparison, documents: Sequence[str]) -> str:
    """Return one JSON document: the comparison, then the document of every sweep."""
    content = {
        "schema": "amc-analyze-comparison",
        "version": COMPARISON_VERSION,
        "caveats": list(comparison.caveats),
        "sides": [vars(side) for side in comparison.sides],
        "sweeps": [json.loads(document) for document in documents],
    }
    return json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def comparison_csv(sweeps: Sequence[AnalysedSweep], tables: Sequence[str]) -> str:
    """Return the tables of several sweeps as one; the sweep is the first column, and no column is lost."""
    lines = [
        {"sweep": analysed.title, **line}
        for analysed, table in zip(sweeps, tables, strict=True)
        for line in csv.DictReader(io.StringIO(table))
    ]
    names = list(dict.fromkeys(name for table in tables for name in next(csv.reader(io.StringIO(table)))))
    out = io.StringIO()
    writer = csv.DictWriter(out, ["sweep", *names], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()
