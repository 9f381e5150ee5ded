"""The ranking as a table of texts, with the parameters before the statistics."""

from __future__ import annotations

from collections.abc import Sequence

from amc_analysis.report import wording
from amc_analysis.report.blocks import Table
from amc_analysis.results.analysed_sweep import AnalysedSweep, run_label
from amc_analysis.runs.parameters import text_of
from amc_sweeps.runs.ranked_run import RankedRun
from amc_sweeps.values import look_up

MOST_PARAMETERS = 8  # columns


def ranking_table(analysed: AnalysedSweep, entries: Sequence[RankedRun], *, has_evidence: bool) -> Table:
    """Return some runs of the ranking, a row each; a column of test values only where there are any."""
    scale, names = analysed.scale, analysed.parameter_names[:MOST_PARAMETERS]
    has_test = any(entry.test is not None for entry in entries)

    def row(entry: RankedRun) -> list[str]:
        values = [look_up(entry.run.config, name) for name in names]
        noise = "-" if entry.noise_sd is None else scale.difference(entry.noise_sd).removesuffix(" points")
        doubt = "" if entry.diagnosis.confidence == "certain" else f" ({entry.diagnosis.confidence})"
        return [
            wording.rank_text(entry) or "-",
            run_label(entry),
            f"{entry.cause}{doubt}",
            scale.text(entry.peak),
            *("-" if value is None else text_of(value) for value in values),
            wording.epoch_text(entry.peak_epoch),
            scale.text(entry.last),
            wording.epochs_text(entry),
            scale.text(entry.smoothed_peak),
            noise,
            *([scale.text(entry.test)] if has_test else []),
            *([entry.run.state, entry.diagnosis.because] if has_evidence else []),
        ]

    titles = ["#", "run", "cause", analysed.peak_name, *names, "at epoch", "last", "epochs", "smoothed", "noise sd"]
    titles += ["test"] if has_test else []
    titles += ["state", "evidence"] if has_evidence else []
    return Table(titles, [row(entry) for entry in entries])
