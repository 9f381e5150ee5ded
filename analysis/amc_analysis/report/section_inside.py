"""What happened inside the runs, in words: learning rate, modes, overfitting, noise; and what only AMC runs log."""

from __future__ import annotations

from amc_analysis.dynamics.dynamics import (
    ClassScore,
    ClassView,
    CycleView,
    GapView,
    Modes,
    RunAttractor,
    RunDrift,
    RunVolatility,
)
from amc_analysis.report.sections import Block, Report, Section, Table, table
from amc_analysis.runs.wording import Scale, epoch_text, scale_of

MOST_ROWS = 8  # runs, best peak first
MOST_CLASSES = 24


def inside(report: Report) -> Section | None:
    """Say what happened inside the runs; None where nothing was logged from which to tell."""
    seen, scale = report.conclusions.dynamics, scale_of(report.findings)
    blocks: list[Block] = []
    if seen.modes is not None and seen.modes.bimodal:
        blocks.append(_modes(seen.modes, scale))
    if seen.cycles is not None:
        blocks.append(_cycles(seen.cycles, scale))
    if seen.gap is not None:
        blocks += _gap(seen.gap, scale)
    if seen.volatility:
        blocks.append(_volatility(seen.volatility, scale))
    if seen.drifts:
        blocks.append(_drifts(seen.drifts))
    if seen.attractors:
        blocks.append(_attractors(seen.attractors))
    if seen.classes is not None:
        blocks += _classes(seen.classes)
    return Section("inside", "Inside the runs", tuple(blocks)) if blocks else None


def _modes(modes: Modes, scale: Scale) -> str:
    told = f"The outcomes of {modes.n} runs fall into two groups (dip test, p {_p(modes.p)})"
    if modes.gap is None:
        return f"{told}."
    low, high = map(scale.text, modes.gap)
    return f"{told}: {modes.below} lie below {low}, {modes.above} above {high}, none between."


def _cycles(view: CycleView, scale: Scale) -> str:
    told = []
    if view.difference is not None and view.n:
        better = "falling" if view.difference > 0 else "rising"
        told.append(
            f"From epoch to epoch the metric does better by {scale.difference(view.difference)} while {view.metric} is "
            f"{better} ({view.runs_better_falling} of {view.n} runs do better while it falls)"
        )
        if view.interval is not None:
            low, high = view.interval
            told[-1] += f"; 95% interval of falling minus rising {_signed(low, scale)} to {_signed(high, scale)}"
    if view.peaks:
        told.append(f"Peaks lie {', '.join(f'{phase} in {count}' for phase, count in view.peaks.items())} of the runs")
    return f"Learning rate. {'. '.join(told)}." if told else "Learning rate. No run has epochs both ways."


def _gap(view: GapView, scale: Scale) -> list[Block]:
    parts = ((view.early, "first"), (view.middle, "middle"), (view.late, "last"))
    named = ", ".join(f"{_signed(value, scale)} in the {name}" for value, name in parts if value is not None)
    told = f"Train minus validation ({view.train_metric}): {named} third of the epochs." if named else ""
    onset = f"Overfit: {view.overfitting} of {view.judged}; there validation falls while train still rises."
    if view.judged < len(view.runs):
        onset += f" Not judged, for too few epochs: {len(view.runs) - view.judged}."
    blocks: list[Block] = [f"{told} {onset}".strip()]
    rows = [
        [
            run.run_id,
            *(_signed(one, scale) for one in (run.early, run.middle, run.late, run.at_peak)),
            _onset(run.onset_epoch),
        ]
        for run in view.runs[:MOST_ROWS]
    ]
    if view.overfitting:
        titles = ("run", "first third", "middle", "last third", "at the peak", "overfits from epoch")
        blocks.append(table(titles, rows, f"Train minus validation by run{_first(len(view.runs))}."))
    return blocks


def _volatility(runs: tuple[RunVolatility, ...], scale: Scale) -> Table:
    rows = [
        [
            run.run_id,
            scale.difference(run.noise_sd),
            scale.difference(run.largest_drop),
            _onset(run.drop_epoch),
            scale.difference(run.peak_inflation),
        ]
        for run in runs[:MOST_ROWS]
    ]
    titles = ("run", "noise sd", "largest drop", "at epoch", "peak too high by")
    caption = (
        "Epoch to epoch. A peak is picked among noisy epochs: of so many flat ones it would lie this much too high"
    )
    return table(titles, rows, f"{caption}{_first(len(runs))}.")


def _drifts(runs: tuple[RunDrift, ...]) -> Table:
    rows = [
        [run.run_id, *(f"{share:.1%}" for share in (run.first, run.last, run.lowest, run.highest))]
        for run in runs[:MOST_ROWS]
    ]
    titles = ("run", "first", "last", "lowest", "highest")
    return table(titles, rows, f"Weight of the modulation task, the rest is SNR's{_first(len(runs))}.")


def _attractors(runs: tuple[RunAttractor, ...]) -> Table:
    rows = [
        [
            run.run_id,
            "-" if run.usual_db is None else f"{run.usual_db:g} dB",
            f"{run.epochs_with}/{run.epochs}",
            f"{run.greatest_share:.1%}",
            f"{run.last_share:.1%}",
        ]
        for run in runs[:MOST_ROWS]
    ]
    titles = ("run", "level", "epochs with", "swallows at worst", "in the end")
    return table(titles, rows, f"SNR attractors: a level that swallows the frames of others{_first(len(runs))}.")


def _classes(view: ClassView) -> list[Block]:
    at = "" if view.epoch is None else f" at its peak, epoch {epoch_text(view.epoch)}"
    kinds = (("modulation", view.modulations), ("family", view.families), ("SNR level", view.levels))
    return [_scores(kind, scores, view.run_id, at) for kind, scores in kinds if scores]


def _scores(kind: str, scores: tuple[ClassScore, ...], run_id: str, at: str) -> Table:
    def text(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    rows = [
        [f"{one.name} dB" if kind == "SNR level" else one.name]
        + [text(value) for value in (one.at_peak, one.best, one.last, one.volatility, one.largest_drop)]
        for one in scores[:MOST_CLASSES]
    ]
    titles = (kind, "F1", "best", "last", "volatility", "largest drop")
    return table(titles, rows, f"F1 by {kind} of {run_id}{at}; volatility is the sd from epoch to epoch.")


def _first(n: int) -> str:
    return f"; the best {MOST_ROWS} of {n} runs" if n > MOST_ROWS else ""


def _signed(value: float | None, scale: Scale) -> str:
    return "-" if value is None else ("-" if value < 0 else "+") + scale.difference(value)


def _onset(epoch: float | None) -> str:
    return "-" if epoch is None else epoch_text(epoch)


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.2g}"
