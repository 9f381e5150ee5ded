"""What every kind of report says, and its sentences: the same on the terminal, in Markdown and on the page."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median

from amc_analysis.runs.findings import SMALL_GROUP, Findings, logged_metrics, nobody_logged, shown_as_percentage
from amc_sweeps.runs.causes import CENSORED, ENDED_WELL, FAILURES, Cause
from amc_sweeps.runs.ranking import GEM_TOP_RANKS, RankedRun

ROWS = 20  # of the ranking in the terminal, unless asked for more
FAILURES_SHOWN = 8
GEMS_SHOWN = 3
LARGEST_IN_FULL = 1e6  # from here on values are written as powers of ten
SHORTEST_NAME = 8  # characters of a display name under which its column is left out

GEM_LEGEND = (
    f"hidden gem: cut short, yet better than every run that ended well, or among the best {GEM_TOP_RANKS} of all"
)

SET_ASIDE_LEGEND = "! set aside: its values belong in no comparison, see Integrity"

GROUPS = ("ended well", "cut short", "failed", "running or unknown")  # of causes: see group_of


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
    if cause in ENDED_WELL:
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
    """Write how many epochs of how many; a run that has a value but tells no epoch did not get through none."""
    done = "-" if entry.epochs == 0 and entry.peak is not None else str(entry.epochs)
    return done if entry.epochs_planned is None else f"{done}/{entry.epochs_planned}"


def headline(findings: Findings) -> str:
    """Say who won by peak among the runs that can be compared, and which better ones cannot."""
    best, told = findings.best, [_winner(findings)]
    for entry in findings.ranked:
        if entry.excluded_by is None or entry.peak is None or best is None or (entry.rank or 0) > (best.rank or 0):
            continue
        told.append(f"{label(entry)} with {scale_of(findings).text(entry.peak)} is set aside: {entry.excluded_by}.")
    return " ".join(told)


def rank_text(entry: RankedRun, gem: str = "◆") -> str:
    """Write a run's place and its mark: a gem, or one whose values belong in no comparison."""
    mark = f" {gem}" if entry.is_gem else " !" if entry.excluded_by else ""
    return f"{entry.rank or ''}{mark}"


def _winner(findings: Findings) -> str:
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
    if best.cause in ENDED_WELL:
        return text
    if whole is None or whole.peak is None:
        return f"{text} No run has ended as it was meant to."
    gap = best.peak - whole.peak
    if best.excluded_by:
        return text
    if gap == 0:
        return f"{text} {label(whole)}, which ended well, reached the same."
    text += f" It is a hidden gem: {scale.difference(gap)} better than the best run that ended well, {label(whole)} "
    text += f"({scale.text(whole.peak)})."
    if best.noise_sd is not None and abs(gap) < 2 * best.noise_sd:
        text += (
            f" The gap is under 2 sd of its own epoch-to-epoch noise (sd {scale.difference(best.noise_sd)}): repeat it."
        )
    return text


def failure_text(findings: Findings) -> str:
    """Say how many runs failed, with an interval, and what counting states would have said."""
    rate = findings.failure_rate
    if rate.rate is None or rate.naive_rate is None:
        return "No run has ended yet."
    low, high = rate.interval
    text = f"{rate.failures} of {rate.ended} ended runs failed: {rate.rate:.0%} (95% interval {low:.0%} to {high:.0%})."
    if (findings.sweep.runs_total or 0) > len(findings.ranked):
        text = f"{rate.failures} of {rate.ended} ended runs on record failed. They are not all: that is no rate."
    elif rate.ended < SMALL_GROUP:
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
    total = findings.sweep.runs_total
    if total is not None and total > len(findings.ranked):
        found.append(f"{len(findings.ranked)} of its {total} runs are on record: what the others did is not known.")
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
