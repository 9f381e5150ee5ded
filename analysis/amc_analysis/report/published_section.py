"""The runs beside published figures of RadioML 2018.01A, where they follow the protocol of the publications.

The protocol: all 24 modulations, all 26 SNR levels from -20 to 30 dB, and the mean over these levels of the modulation
accuracy on test frames. ``published_figures.csv`` has the figures and who measured them.
"""

from __future__ import annotations

import csv
from importlib.resources import files

from amc_analysis.report.blocks import Section, Table
from amc_analysis.results.analysed_sweep import AnalysedSweep, run_label
from amc_analysis.rules.lookups import label_set_in
from amc_sweeps.number_formats import percent
from amc_sweeps.runs.ranked_run import RankedRun
from amc_sweeps.runs.records import summary_number
from amc_sweeps.values import as_finite

MEAN, PEAK = "test/mod_acc_mean", "test/mod_acc_peak"
PROTOCOL = {"label_set": "all24", "snr_min_db": -20, "snr_max_db": 30}
FRAMES = 24 * 26 * 4096  # of RadioML 2018.01A
_RUNS_SHOWN = 3


def published_section(analysed: AnalysedSweep) -> Section | None:
    """Return the best runs that follow the protocol and were tested, above the published figures; None without any."""
    runs = [entry for entry in analysed.ranked if entry.excluded_by is None and _follows(entry)][:_RUNS_SHOWN]
    if not runs:
        return None
    titles = ("network", "input", "parameters", "mean", "best level", "split", "source")
    rows = [*map(_own_row, runs), *map(_published_row, published_figures())]
    table = Table(titles, rows, bold_rows=len(runs))
    notes = [
        "Modulation accuracy on test frames, mean over the SNR levels from -20 to 30 dB, 24 modulations. These runs "
        "are the best ones of the ranking above, not the best ones by test.",
        *(f"{run_label(entry)}: {note}" for entry in runs if (note := _other_frames(entry))),
    ]
    return Section("published", "Beside published figures of RadioML 2018.01A", (*notes, table))


def published_figures() -> list[dict[str, str]]:
    """Return the rows of the table of figures; what a source does not give is empty."""
    text = (files("amc_analysis.report") / "published_figures.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def _follows(entry: RankedRun) -> bool:
    config = entry.run.config
    is_tested = summary_number(entry.run.summary, MEAN, "maximize") is not None
    return is_tested and {name: config.get(name) for name in PROTOCOL} | {"label_set": label_set_in(config)} == PROTOCOL


def _other_frames(entry: RankedRun) -> str:
    """Return how the frames differ from those of the publications; empty: their number does not."""
    counts = [as_finite(entry.run.config.get(name)) for name in ("n_train", "n_val", "n_test")]
    n_frames = sum(count or 0 for count in counts)
    if n_frames == FRAMES:
        return ""
    return f"its file has {n_frames:,.0f} frames, RadioML 2018.01A has {FRAMES:,}, so the figures are not comparable."


def _own_row(entry: RankedRun) -> list[str]:
    config = entry.run.config
    n_parameters = as_finite(config.get("n_parameters"))
    split = config.get("split")
    return [
        str(config.get("model_type", "-")),
        str(config.get("representation", "-")),
        f"{n_parameters:,.0f}" if n_parameters is not None else "-",
        *(_percent(summary_number(entry.run.summary, name, "maximize")) for name in (MEAN, PEAK)),
        "/".join(f"{100 * part:.0f}" for part in split) if isinstance(split, list | tuple) else "-",
        f"run {run_label(entry)}",
    ]


def _published_row(row: dict[str, str]) -> list[str]:
    means = [_percent(float(row[name]) / 100 if row[name] else None) for name in ("mean_acc", "peak_acc")]
    source = row["source"] if row["measured"] == "benchmark" else f"{row['source']}, by its authors"
    n_parameters = f"{int(row['parameters']):,}" if row["parameters"] else "-"
    return [row["network"], row["input"], n_parameters, *means, row["split"] or "-", source]


def _percent(value: float | None) -> str:
    return "-" if value is None else percent(value, 2)
