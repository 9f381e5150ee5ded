"""Sentences and labels that the terminal, Markdown and the page share."""

from __future__ import annotations

from amc_analysis.results.analysed_sweep import AnalysedSweep, run_label
from amc_analysis.runs.failure_rates import SMALL_GROUP
from amc_sweeps.number_formats import counted, percent
from amc_sweeps.runs.causes import ENDED_WELL, Cause
from amc_sweeps.runs.hidden_gems import GEM_TOP_RANKS
from amc_sweeps.runs.metric_scale import interval_text
from amc_sweeps.runs.ranked_run import RankedRun

ROWS = 20  # of the ranking on the terminal, without --top
GEMS_SHOWN = 3


def epoch_text(epoch: float | None) -> str:
    """Write an epoch, which some scripts log as a fraction."""
    return "-" if epoch is None else f"{epoch:.0f}" if epoch == int(epoch) else f"{epoch:.1f}"


def epochs_text(entry: RankedRun) -> str:
    """Write how many epochs of how many; "-" where it is unknown."""
    epochs = "-" if entry.epochs is None else str(entry.epochs)
    return epochs if entry.epochs_planned is None else f"{epochs}/{entry.epochs_planned}"


def p_text(p: float | None) -> str:
    """Write a p-value with its relation sign."""
    if p is None:
        return "unknown"
    return "< 0.001" if p < 0.001 else f"= {p:.2g}"


def rank_text(entry: RankedRun, gem: str = "◆") -> str:
    """Write a run's rank and its mark: a hidden gem, or excluded."""
    mark = f" {gem}" if entry.is_gem else " !" if entry.excluded_by else ""
    return f"{entry.rank or ''}{mark}"


def headline(analysed: AnalysedSweep) -> str:
    """Name the best run that can be compared, and the better ones that are excluded."""
    best, sentences = analysed.best, [_winner(analysed)]
    for entry in analysed.ranked:
        if entry.excluded_by is None or entry.peak is None or best is None or (entry.rank or 0) > (best.rank or 0):
            continue
        value = analysed.scale.text(entry.peak)
        sentences.append(f"{run_label(entry)} with {value} is excluded: {entry.excluded_by}.")
    if len(analysed.finalists.ranked) > 1:
        first = analysed.finalists.ranked[0]
        sentences.append(f"By the mean over seeds, {first.run} leads ({analysed.scale.text(first.mean)}).")
    return " ".join(sentences)


def _winner(analysed: AnalysedSweep) -> str:
    """Name the best run, and compare it with the best one that ended well."""
    metric, best, ended_well, scale = analysed.metric, analysed.best, analysed.best_ended_well, analysed.scale
    if not analysed.ranked:
        return "This sweep has no runs yet."
    if best is None or best.peak is None:
        logged = [] if analysed.has_metric else analysed.logged_metrics
        hint = f" Logged metrics: {', '.join(logged)}." if logged else ""
        return f"No run has logged a finite value of {metric.name}.{hint}"
    where = "" if best.peak_epoch is None else f" at epoch {epoch_text(best.peak_epoch)}"
    record = f"best peak: {metric.name}" if metric.goal == "maximize" else f"lowest {metric.name}:"
    if best.cause is Cause.RUNNING:
        return f"{run_label(best)} is still running and has the {record} {scale.text(best.peak)}{where}."
    text = f"{run_label(best)} has the {record} {scale.text(best.peak)}{where} ({best.cause})."
    if best.cause in ENDED_WELL:
        return text
    if ended_well is None or ended_well.peak is None:
        return f"{text} No run has ended well."
    gap = best.peak - ended_well.peak
    if best.excluded_by:
        return text
    if gap == 0:
        return f"{text} {run_label(ended_well)}, which ended well, reached the same value."
    text += f" It is a hidden gem: {scale.difference(gap)} better than the best run that ended well, "
    text += f"{run_label(ended_well)} ({scale.text(ended_well.peak)})."
    if best.noise_sd is not None and abs(gap) < 2 * best.noise_sd:
        noise = scale.difference(best.noise_sd)
        text += f" The gap is under 2 sd of its epoch-to-epoch noise (sd {noise}): repeat the run."
    return text


def failure_rate_text(analysed: AnalysedSweep) -> str:
    """Give the failure rate with its interval."""
    rate = analysed.failure_rate
    if rate.rate is None:
        return "No run has ended yet."
    ended = f"{rate.failures} of {counted(rate.ended, 'ended run')}"
    runs, total = len(analysed.ranked), analysed.record.runs_total or 0
    if total > runs:
        text = f"{ended} on record failed. {runs_on_record(runs, total).capitalize()}, so no rate is given."
    else:
        text = f"{ended} failed: {percent(rate.rate)} (95% interval {interval_text(rate.interval)})."
        if rate.ended < SMALL_GROUP:
            text += f" {counted(rate.ended, 'run')} {'is' if rate.ended == 1 else 'are'} too few for a rate."
    return text


def failure_text(analysed: AnalysedSweep) -> str:
    """Give the failure rate with its interval, the rate by W&B's states alone, and the early stops."""
    rate, text = analysed.failure_rate, failure_rate_text(analysed)
    if rate.naive_rate is None:
        return text
    if rate.censored:
        causes = ", ".join(f"{count} {cause}" for cause, count in rate.censored.items())
        text += f" Ended but not counted as failures: {causes}."
    if rate.unknown:
        text += f" The cause is unknown for {counted(rate.unknown, 'run')}."
    if rate.not_finished != rate.failures:
        naive = f"{rate.not_finished} of {rate.ended} failed ({percent(rate.naive_rate)})"
        text += f" W&B's states alone would call {naive}."
    stops = analysed.early_stops
    if stops.runs:
        saved = "" if stops.epochs_saved is None else f", which saved about {counted(stops.epochs_saved, 'epoch')}"
        text += f" Hyperband stopped {counted(stops.runs, 'run')} early{saved}."
    return text


def runs_on_record(runs: int, total: int) -> str:
    """Write how many of a sweep's runs are on record, as a clause."""
    return f"only {runs} of {counted(total, 'run')} {'is' if runs == 1 else 'are'} on record"


def legends(analysed: AnalysedSweep, gem: str = "◆") -> list[str]:
    """Explain the marks that the ranking of this sweep has."""
    texts = []
    if analysed.gems:
        texts.append(
            f"{gem} hidden gem: a run that did not end as it was meant to, but is better than every run that did, or "
            f"among the best {GEM_TOP_RANKS} of all"
        )
    if any(entry.excluded_by for entry in analysed.ranked):
        texts.append("! excluded: do not compare it with other runs, see Integrity")
    return texts


def metric_text(analysed: AnalysedSweep) -> str:
    """Name the metric and its goal."""
    return f"{analysed.metric.name}, {analysed.metric.goal}d"


def warnings(analysed: AnalysedSweep) -> list[str]:
    """List the gaps in the records."""
    texts = []
    runs, total = len(analysed.ranked), analysed.record.runs_total or 0
    if total > runs:
        texts.append(f"{runs_on_record(runs, total).capitalize()}; the other runs are unknown.")
    if analysed.unread:
        first = analysed.unread[0]
        texts.append(
            f"The history of {counted(len(analysed.unread), 'run')} could not be read completely, first "
            f"{run_label(first)}: {first.run.unread}. Read again later."
        )
    if analysed.ranked and all(entry.run.stop_recorded is None for entry in analysed.ranked):
        texts.append("This record has no stop requests and no exit codes, so causes are inferred.")
    return texts


def shown_rows(analysed: AnalysedSweep, rows: int | None) -> list[RankedRun]:
    """Return the first rows of the ranking and every hidden gem; None: all rows."""
    if rows is None:
        return list(analysed.ranked)
    return [entry for place, entry in enumerate(analysed.ranked) if place < rows or entry.is_gem]
