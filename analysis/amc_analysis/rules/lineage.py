"""Runs that start from another run's weights: changed splits, held-out frames seen in training, jumps; and runs that
hold two trainings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from amc_analysis.results.analysed_sweep import AnalysedSweep, run_label
from amc_analysis.results.finding import Finding, Rule, Severity
from amc_analysis.rules.lookups import number_in, runs_by_name, text_in, value_at
from amc_analysis.runs.outcomes import is_gapless
from amc_sweeps.number_formats import counted, percent
from amc_sweeps.runs.ranked_run import RankedRun

JUMP_NOISE_SDS = 3.0
SAME_TOTAL = 1e-3  # largest relative difference of the totals of two splits of the same frames
_EPOCH_OF_FILE = re.compile(r"epoch[_=-]?(\d+)")


@dataclass(frozen=True)
class _Split:
    """The split of one run's frames, as far as it is on record."""

    fingerprint: str | None
    fractions: tuple[float, ...] | None
    counts: tuple[float, float, float] | None  # train, val, test

    def differs_from(self, other: _Split) -> bool:
        """Return whether two runs are known to have divided their frames differently."""
        if self.fingerprint and other.fingerprint:
            return self.fingerprint != other.fingerprint
        if self.fractions and other.fractions:
            return any(abs(a - b) > 1e-6 for a, b in zip(self.fractions, other.fractions, strict=False))
        if self.counts and other.counts:
            return self.counts != other.counts
        return False

    def __str__(self) -> str:
        if self.fractions:
            return "/".join(f"{100 * fraction:.0f}" for fraction in self.fractions)
        if self.counts:
            return "/".join(f"{count:,.0f}" for count in self.counts)
        return self.fingerprint or "unknown"


def split_changed_on_resume(analysed: AnalysedSweep) -> Iterator[Finding]:
    """Report a run that continues another run's weights on another split."""
    for child, parent in _continued_runs(analysed):
        split, parent_split = _split(child), _parent_split(child, parent)
        if not split.differs_from(parent_split):
            continue
        yield Finding(
            rule=Rule.SPLIT_CHANGED_ON_RESUME,
            severity=Severity.ERROR,
            subjects=(child.run.run_id, *([parent.run.run_id] if parent else [])),
            numbers={"split": str(split), "parent_split": str(parent_split)},
            evidence=f"{run_label(child)} has split {split} and starts from weights that were trained on split "
            f"{parent_split}.",
            consequence="Its validation and test values do not measure generalisation. Train it again on one split.",
        )


def heldout_overlap_bound(analysed: AnalysedSweep) -> Iterator[Finding]:
    """Report held-out frames that were trained on, by the run's record or by counting frames."""
    for child, parent in _continued_runs(analysed):
        split = _split(child)
        held_out = None if split.counts is None else split.counts[1] + split.counts[2]
        share = number_in(child.run.config, "heldout_trained_on")
        if share is not None:
            if share <= 0:
                continue
            overlap = None if held_out is None else round(share * held_out)
            source = "from the run's record"
        else:
            overlap = _least_overlap(split, _parent_split(child, parent))
            if not overlap or not held_out:
                continue
            share, source = (
                overlap / held_out,
                "by counting: training and held-out frames together are more than all frames",
            )
        count = "" if overlap is None else f"at least {overlap:,} of {held_out:,.0f} held-out frames, "
        yield Finding(
            rule=Rule.HELDOUT_OVERLAP_BOUND,
            severity=Severity.ERROR,
            subjects=(child.run.run_id, *([parent.run.run_id] if parent else [])),
            numbers={"overlap": overlap, "held_out": held_out, "share": share},
            evidence=f"{run_label(child)} starts from weights that were trained on {count}{percent(share, 1)} of all "
            f"held-out frames ({source}).",
            consequence="Its validation and test values are inflated: the network has seen these frames. Do not "
            "compare it with other runs.",
        )


def resume_jump(analysed: AnalysedSweep) -> Iterator[Finding]:
    """Report a run whose first value lies 3 noise sd above the value that its starting weights had."""
    sign, scale = analysed.outcomes.sign, analysed.scale
    for child, parent in _continued_runs(analysed):
        if not child.run.curve:
            continue
        first = child.run.curve[0]
        before = _value_of_weights(sign, child, parent)
        noise, source = _noise(analysed, child, parent)
        if before is None or noise is None or sign * (first - before) <= JUMP_NOISE_SDS * noise:
            continue
        jump, times = first - before, f"{abs(first - before) / noise:.0f}"
        yield Finding(
            rule=Rule.RESUME_JUMP,
            severity=Severity.ERROR,
            subjects=(child.run.run_id, *([parent.run.run_id] if parent else [])),
            numbers={"first": first, "parent": before, "jump": jump, "noise_sd": noise, "noise_sds": abs(jump) / noise},
            evidence=f"{run_label(child)} begins at {scale.text(first)}, but its weights had {scale.text(before)}: a "
            f"jump of {scale.difference(jump)}, {times} times the usual change between epochs of {source}.",
            consequence="One epoch cannot explain this: the frames, their order or the evaluation changed. Do not read "
            "its values as a continuation of the other run.",
        )


def steps_restart(analysed: AnalysedSweep) -> Iterator[Finding]:
    """Report a run whose `_step` goes back: its script called `wandb.init` twice, and two trainings share the run."""
    for entry in analysed.ranked:
        steps = [point.step for point in entry.run.points if point.step is not None]
        if steps == sorted(steps):
            continue
        row = next(row for row, (step, after) in enumerate(pairwise(steps), start=2) if after < step)
        yield Finding(
            rule=Rule.STEPS_RESTART,
            severity=Severity.ERROR,
            subjects=(entry.run.run_id,),
            numbers={"row": row, "step_before": steps[row - 2], "step": steps[row - 1]},
            evidence=f"In {run_label(entry)} `_step` goes back from {steps[row - 2]} to {steps[row - 1]} "
            f"at value {row} of {len(steps)}.",
            consequence="Two trainings share this run: the trial called wandb.init twice, or ran again without resume. "
            f"Its {analysed.best_value_name} may be of either. Call wandb.init once in a trial, and train it again.",
        )


def _continued_runs(analysed: AnalysedSweep) -> Iterator[tuple[RankedRun, RankedRun | None]]:
    """Yield every run that starts from weights, with the run that made them where it is on record."""
    by_name = runs_by_name(analysed.ranked)
    for entry in analysed.ranked:
        config = entry.run.config
        name = text_in(config, "parent_run")
        if name or text_in(config, "parent_split_fingerprint", "resume_from", "init_from"):
            parent = by_name.get(name) if name else None
            yield entry, (None if parent is entry else parent)


def _split(entry: RankedRun) -> _Split:
    config = entry.run.config
    train, val, test = (number_in(config, name) for name in ("n_train", "n_val", "n_test"))
    return _Split(
        fingerprint=text_in(config, "split_fingerprint"),
        fractions=_fractions(config.get("split")),
        counts=None if train is None or val is None or test is None else (train, val, test),
    )


def _parent_split(child: RankedRun, parent: RankedRun | None) -> _Split:
    """Return the split of the weights: from the child's configuration, else from the parent's record."""
    config = child.run.config
    recorded = _split(parent) if parent else _Split(None, None, None)
    return _Split(
        fingerprint=text_in(config, "parent_split_fingerprint") or recorded.fingerprint,
        fractions=_fractions(config.get("parent_split")) or recorded.fractions,
        counts=recorded.counts,
    )


def _fractions(value: object) -> tuple[float, ...] | None:
    if isinstance(value, list | tuple) and len(value) == 3 and all(isinstance(part, int | float) for part in value):
        return tuple(float(part) for part in value)
    return None


def _least_overlap(own: _Split, before: _Split) -> int | None:
    """Return the least overlap: frames trained on plus frames held out, minus all frames."""
    if own.counts is None or not own.differs_from(before):
        return None
    total = sum(own.counts)
    if before.counts is not None:
        if abs(sum(before.counts) - total) > SAME_TOTAL * total:
            return None  # the splits divide different frames
        trained = before.counts[0]
    elif before.fractions is not None:
        trained = int(before.fractions[0] * total)
    else:
        return None
    return max(0, round(trained + own.counts[1] + own.counts[2] - total)) or None


def _value_of_weights(sign: float, child: RankedRun, parent: RankedRun | None) -> float | None:
    """Return the metric of the weights at their epoch (or one later, where that is better); else the parent's peak."""
    if parent is None:
        return number_in(child.run.config, "parent_value")
    match = _EPOCH_OF_FILE.search(text_in(child.run.config, "resume_from", "init_from") or "")
    epoch = float(match[1]) if match else number_in(parent.run.summary, "checkpoint_epoch")
    if epoch is not None:
        near = [value for at in (epoch, epoch + 1) if (value := value_at(parent, at)) is not None]
        if near:
            return max(near, key=lambda value: sign * value)
    return parent.peak


def _noise(analysed: AnalysedSweep, child: RankedRun, parent: RankedRun | None) -> tuple[float | None, str]:
    """Return the parent's noise, else the median noise of the other runs without missing epochs; and its source.

    The child is left out, because the same fault may affect its noise.
    """
    if parent is not None and parent.noise_sd and is_gapless(parent):
        return parent.noise_sd, run_label(parent)
    noises = [
        entry.noise_sd for entry in analysed.ranked if entry is not child and entry.noise_sd and is_gapless(entry)
    ]
    return (median(noises), f"{counted(len(noises), 'other run')} (median)") if noises else (None, "")
