"""The section "Inside the runs": learning rate, two groups, overfitting, noise, and metrics that only AMC runs log."""

from __future__ import annotations

from amc_analysis.report.blocks import Block, Section, Table
from amc_analysis.report.wording import epoch_text, p_text
from amc_analysis.results.analysed_sweep import AnalysedSweep
from amc_analysis.results.dynamics import (
    ClassScore,
    ClassSummary,
    CycleSummary,
    GapSummary,
    Modes,
    RunAttractor,
    RunDrift,
    RunVolatility,
)
from amc_sweeps.number_formats import counted, percent
from amc_sweeps.runs.metric_scale import MetricScale

MOST_ROWS = 8  # runs, best peak first
MOST_CLASSES = 24


def dynamics_section(analysed: AnalysedSweep) -> Section | None:
    """Return the section on the dynamics inside runs; None where no run logged the metrics for it."""
    dynamics, scale = analysed.dynamics, analysed.scale
    blocks: list[Block] = []
    if dynamics.modes is not None and dynamics.modes.bimodal:
        blocks.append(_modes(dynamics.modes, scale))
    if dynamics.cycles is not None:
        blocks.append(_cycles(dynamics.cycles, analysed))
    if dynamics.gap is not None:
        blocks += _gap(dynamics.gap, analysed)
    if dynamics.volatility:
        blocks.append(_volatility(dynamics.volatility, analysed))
    if dynamics.drifts:
        blocks.append(_drifts(dynamics.drifts))
    if dynamics.attractors:
        blocks.append(_attractors(dynamics.attractors))
    if dynamics.classes is not None:
        blocks += _classes(dynamics.classes, analysed)
    return Section("inside", "Inside the runs", tuple(blocks)) if blocks else None


def _modes(modes: Modes, scale: MetricScale) -> str:
    text = f"The outcomes of {modes.n} runs fall into two groups (dip test, p {p_text(modes.p)})"
    if modes.gap is None:
        return f"{text}."
    low, high = map(scale.text, modes.gap)
    return f"{text}: {modes.below} at {low} or lower, {modes.above} at {high} or higher."


def _cycles(cycles: CycleSummary, analysed: AnalysedSweep) -> str:
    sentences, scale = [], analysed.scale
    if cycles.difference is not None and cycles.n:
        better = "falling" if cycles.difference > 0 else "rising"
        sentences.append(
            f"The metric improves by {scale.difference(cycles.difference)} more an epoch while {cycles.metric} is "
            f"{better} ({cycles.runs_better_falling} of {counted(cycles.n, 'run')} improved more while it fell)"
        )
        if cycles.interval is not None:
            low, high = map(scale.signed, cycles.interval)
            sentences[-1] += f"; 95% interval of falling minus rising: {low} to {high}"
    if cycles.peaks:
        phases = ", ".join(f"{phase} in {counted(count, 'run')}" for phase, count in cycles.peaks.items())
        sentences.append(f"Learning rate at the {analysed.best_value_name}: {phases}")
    return f"Learning rate. {'. '.join(sentences) or 'No run has epochs with a rising and with a falling rate'}."


def _gap(gap: GapSummary, analysed: AnalysedSweep) -> list[Block]:
    scale = analysed.scale
    name = "Train minus validation" if analysed.metric.goal == "maximize" else "Validation minus train"
    thirds = ((gap.early, "first"), (gap.middle, "middle"), (gap.late, "last"))
    means = ", ".join(f"{scale.signed(value)} in the {name}" for value, name in thirds if value is not None)
    text = f"{name} ({gap.train_metric}): {means} third of the epochs. " if means else ""
    if gap.judged:
        text += (
            f"{gap.overfitting} of {counted(gap.judged, 'run')} overfit: validation gets worse while train improves. "
        )
    if gap.judged < len(gap.runs):
        text += f"{counted(len(gap.runs) - gap.judged, 'run')} had too few epochs to judge."
    blocks: list[Block] = [text.rstrip()]
    if gap.overfitting:
        rows = [
            [
                run.run_id,
                *(scale.signed(value) for value in (run.early, run.middle, run.late, run.at_peak)),
                epoch_text(run.onset_epoch),
            ]
            for run in gap.runs[:MOST_ROWS]
        ]
        titles = ("run", "first third", "middle", "last third", f"at the {analysed.peak_name}", "overfits from epoch")
        blocks.append(Table(titles, rows, f"{name} by run.{_selection(len(gap.runs))}"))
    return blocks


def _volatility(runs: tuple[RunVolatility, ...], analysed: AnalysedSweep) -> Table:
    scale, is_maximised = analysed.scale, analysed.metric.goal == "maximize"
    rows = [
        [
            run.run_id,
            scale.difference(run.noise_sd),
            scale.difference(run.largest_drop),
            epoch_text(run.drop_epoch),
            scale.difference(run.peak_inflation),
        ]
        for run in runs[:MOST_ROWS]
    ]
    drop, inflation = ("drop", "peak inflated by") if is_maximised else ("rise", "lowest deflated by")
    titles = ("run", "noise sd", f"largest {drop}", "at epoch", inflation)
    best, side = ("peak", "above") if is_maximised else ("lowest value", "below")
    caption = (
        f"Noise from epoch to epoch. {best.capitalize()}s flatter: with this noise, a run that never improved would "
        f"still show a {best} this far {side} its mean.{_selection(len(runs))}"
    )
    return Table(titles, rows, caption)


def _drifts(runs: tuple[RunDrift, ...]) -> Table:
    rows = [
        [run.run_id, *(percent(share, 1) for share in (run.first, run.last, run.lowest, run.highest))]
        for run in runs[:MOST_ROWS]
    ]
    titles = ("run", "first", "last", "lowest", "highest")
    return Table(titles, rows, f"Weight of the modulation task; the SNR task has the rest.{_selection(len(runs))}")


def _attractors(runs: tuple[RunAttractor, ...]) -> Table:
    rows = [
        [
            run.run_id,
            "-" if run.usual_db is None else f"{run.usual_db:g} dB",
            f"{run.epochs_with}/{run.epochs}",
            percent(run.greatest_share, 1),
            percent(run.last_share, 1),
        ]
        for run in runs[:MOST_ROWS]
    ]
    titles = ("run", "level", "epochs with it", "largest share", "last share")
    caption = "SNR attractors: the level that is predicted for frames of other levels, and the share of these frames."
    return Table(titles, rows, f"{caption}{_selection(len(runs))}")


def _classes(classes: ClassSummary, analysed: AnalysedSweep) -> list[Block]:
    at = "" if classes.epoch is None else f" at its {analysed.best_value_name}, epoch {epoch_text(classes.epoch)}"
    kinds = (("modulation", classes.modulations), ("family", classes.families), ("SNR level", classes.levels))
    first = f"{classes.run_id}{at}; volatility is the sd from epoch to epoch"
    named = [(kind, scores) for kind, scores in kinds if scores]
    return [_scores(kind, scores, classes.run_id if place else first) for place, (kind, scores) in enumerate(named)]


def _scores(kind: str, scores: tuple[ClassScore, ...], of: str) -> Table:
    def text(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    rows = [
        [f"{score.name} dB" if kind == "SNR level" else score.name]
        + [text(value) for value in (score.at_peak, score.best, score.last, score.volatility, score.largest_drop)]
        for score in scores[:MOST_CLASSES]
    ]
    titles = (kind, "F1", "best", "last", "volatility", "largest drop")
    return Table(titles, rows, f"F1 by {kind} of {of}.")


def _selection(n: int) -> str:
    return f" Only the best {MOST_ROWS} of {n} runs are listed." if n > MOST_ROWS else ""
