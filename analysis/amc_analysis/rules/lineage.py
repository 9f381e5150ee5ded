"""Runs that start from another run's weights: on the same split, without having seen what is held out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from amc_analysis.effects.outcomes import is_gapless
from amc_analysis.rules.case import Case, counted, label, number_in, text_in
from amc_analysis.rules.finding import Firing, Rule, Severity
from amc_sweeps.runs.ranking import RankedRun

JUMP_NOISE_SDS = 3.0
SAME_TOTAL = 1e-3  # relative difference of two splits' totals up to which they divide the same frames
_EPOCH_OF_FILE = re.compile(r"epoch[_=-]?(\d+)")


@dataclass(frozen=True)
class _Split:
    """How one run divided its frames, as far as it is known."""

    fingerprint: str | None
    fractions: tuple[float, ...] | None
    counts: tuple[float, float, float] | None  # train, val, test

    def differs_from(self, other: _Split) -> bool:
        """Whether two runs are known to have divided their frames otherwise."""
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


def split_changed_on_resume(case: Case) -> Iterator[Firing]:
    """Fire where a run continues another's weights on another split."""
    for child, parent in _descents(case):
        own, before = _split(child), _parent_split(child, parent)
        if not own.differs_from(before):
            continue
        yield Firing(
            rule=Rule.SPLIT_CHANGED_ON_RESUME,
            severity=Severity.ERROR,
            subjects=(child.run.run_id, *([parent.run.run_id] if parent else [])),
            numbers={"split": str(own), "parent_split": str(before)},
            evidence=f"{label(child)} has split {own}, and starts from weights trained on split {before}.",
            consequence="Its validation and test values are no measure of generalisation: train it anew on one split.",
        )


def heldout_overlap_bound(case: Case) -> Iterator[Firing]:
    """Fire where held-out frames are known, by a record or by counting, to have been trained on."""
    for child, parent in _descents(case):
        own = _split(child)
        held_out = None if own.counts is None else own.counts[1] + own.counts[2]
        share = number_in(child.run.config, "heldout_trained_on")
        if share is not None:
            if share <= 0:
                continue
            overlap = None if held_out is None else round(share * held_out)
            how = "by the record of the run"
        else:
            overlap = _least_overlap(own, _parent_split(child, parent))
            if not overlap or not held_out:
                continue
            share, how = overlap / held_out, "more frames than there are would be needed otherwise"
        count = "" if overlap is None else f"at least {overlap:,} of {held_out:,.0f} held-out frames, "
        yield Firing(
            rule=Rule.HELDOUT_OVERLAP_BOUND,
            severity=Severity.ERROR,
            subjects=(child.run.run_id, *([parent.run.run_id] if parent else [])),
            numbers={"overlap": overlap, "held_out": held_out, "share": share},
            evidence=f"The weights that {label(child)} starts from were trained on {count}{share:.1%} of them ({how}).",
            consequence="Its validation and test values are too high by what was learnt by heart: this is leakage, and "
            "they belong in no comparison.",
        )


def resume_jump(case: Case) -> Iterator[Firing]:
    """Fire where the first value after a start from weights lies above what these weights had by 3 noise sd."""
    sign = case.outcomes.sign
    for child, parent in _descents(case):
        if not child.run.curve:
            continue
        first = child.run.curve[0]
        before = _value_of_weights(case, child, parent)
        noise, whose = _noise(case, child, parent)
        if before is None or noise is None or sign * (first - before) <= JUMP_NOISE_SDS * noise:
            continue
        jump = first - before
        yield Firing(
            rule=Rule.RESUME_JUMP,
            severity=Severity.ERROR,
            subjects=(child.run.run_id, *([parent.run.run_id] if parent else [])),
            numbers={"first": first, "parent": before, "jump": jump, "noise_sd": noise, "noise_sds": abs(jump) / noise},
            evidence=f"{label(child)} begins at {case.text(first)}, its weights had {case.text(before)}: a jump of "
            f"{case.difference(jump)}, {abs(jump) / noise:.1f} times the epoch-to-epoch noise {whose}.",
            consequence="One epoch does not do that: the frames, their shuffling or the evaluation changed, so its "
            "values continue no curve.",
        )


def _descents(case: Case) -> Iterator[tuple[RankedRun, RankedRun | None]]:
    """Yield every run that starts from weights, with the run that they are of where it is among the records."""
    for entry in case.ranked:
        config = entry.run.config
        name = text_in(config, "parent_run")
        if name or text_in(config, "parent_split_fingerprint", "resume_from", "init_from"):
            parent = case.by_name.get(name) if name else None
            yield entry, (None if parent is entry else parent)


def _split(entry: RankedRun) -> _Split:
    config = entry.run.config
    counts = tuple(number_in(config, name) for name in ("n_train", "n_val", "n_test"))
    train, val, test = counts
    return _Split(
        fingerprint=text_in(config, "split_fingerprint"),
        fractions=_fractions(config.get("split")),
        counts=None if train is None or val is None or test is None else (train, val, test),
    )


def _parent_split(child: RankedRun, parent: RankedRun | None) -> _Split:
    """Return the split of the weights: what the child says of it, then what the parent's own record says."""
    said = child.run.config
    known = _split(parent) if parent else _Split(None, None, None)
    return _Split(
        fingerprint=text_in(said, "parent_split_fingerprint") or known.fingerprint,
        fractions=_fractions(said.get("parent_split")) or known.fractions,
        counts=known.counts,
    )


def _fractions(value: object) -> tuple[float, ...] | None:
    if isinstance(value, list | tuple) and len(value) == 3 and all(isinstance(part, int | float) for part in value):
        return tuple(float(part) for part in value)
    return None


def _least_overlap(own: _Split, before: _Split) -> int | None:
    """Count by the pigeonhole: frames trained on plus frames held out, beyond all frames that there are."""
    if own.counts is None or not own.differs_from(before):
        return None
    total = sum(own.counts)
    if before.counts is not None:
        if abs(sum(before.counts) - total) > SAME_TOTAL * total:
            return None  # other frames altogether: nothing can be counted
        trained = before.counts[0]
    elif before.fractions is not None:
        trained = int(before.fractions[0] * total)
    else:
        return None
    return max(0, round(trained + own.counts[1] + own.counts[2] - total)) or None


def _value_of_weights(case: Case, child: RankedRun, parent: RankedRun | None) -> float | None:
    """Return what the weights were worth: at their epoch or, where the parent went on, one later; else its peak."""
    if parent is None:
        return number_in(child.run.config, "parent_value")
    named = _EPOCH_OF_FILE.search(text_in(child.run.config, "resume_from", "init_from") or "")
    epoch = float(named[1]) if named else number_in(parent.run.summary, "checkpoint_epoch")
    if epoch is not None:
        near = [value for at in (epoch, epoch + 1) if (value := case.value_at(parent, at)) is not None]
        if near:
            return max(near, key=lambda value: case.outcomes.sign * value)
    return parent.peak


def _noise(case: Case, child: RankedRun, parent: RankedRun | None) -> tuple[float | None, str]:
    """Return the parent's noise, else what is usual among the other runs whose curves are whole; and whose it is.

    The child is left out: what is wrong with its values may be in its noise, too.
    """
    if parent is not None and parent.noise_sd and is_gapless(parent):
        return parent.noise_sd, f"of {label(parent)}"
    usual = [entry.noise_sd for entry in case.ranked if entry is not child and entry.noise_sd and is_gapless(entry)]
    return (median(usual), f"of {counted(len(usual), 'other run')} (median)") if usual else (None, "")
