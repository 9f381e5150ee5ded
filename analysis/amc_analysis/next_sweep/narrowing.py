"""The next sweep: what the runs cannot exclude is kept, what they can is dropped, and every range says why.

Runs are compared at equal epochs (``next_sweep_outcomes``): a run which crashed or was stopped early counts for what
it had shown by then. A surrogate (``next_sweep_surrogate``) says where the optimum can still be; a value that holds it
in hardly any draw is dropped, if at least ``LEAST_TO_DROP`` runs had it. What failures alone exclude is a value, or the
end of a range, with which most runs fail and clearly more than elsewhere: machines crash everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amc_analysis.next_sweep.axes import Axis, axes_of, had, kept_share, look_for, part_of_range, unread
from amc_analysis.next_sweep.failures import FailingEnd, failing_end, is_its_own_failure, may_have_failed, value_fails
from amc_analysis.next_sweep.outcomes import Outcomes, at_equal_epochs
from amc_analysis.next_sweep.surrogate import Belief, Points, believe
from amc_analysis.next_sweep.yaml_text import literal, number
from amc_analysis.rules.finding import Firing, Rule
from amc_analysis.runs.findings import Findings
from amc_sweeps.grammar.parse import parse_leniently
from amc_sweeps.grammar.sweep_config import Choice, SweepConfig
from amc_sweeps.runs.causes import Cause
from amc_sweeps.runs.ranking import RankedRun

LEAST_RUNS = 8  # with a value; under that nothing is excluded
LEAST_TO_DROP = 3  # runs of a listed value, under which it is kept whatever they did
EXCLUDED = (
    0.01  # share of the draws: a value that holds the optimum in fewer is dropped; of a range so much on each side
)
MOST_CANDIDATES = 900
SAME_PLACE = 1e-9  # coordinates closer than this are one
GRID = 30  # places of a range among the candidates
SEPARATE = 2.0  # noise sd of a difference (sqrt 2 of one run's), within which two runs count as equal
SEED = 0
WHOLE = "all of it"  # the label of a range of which nothing is said


class NoNextSweepError(ValueError):
    """There is nothing from which a sweep could be written; the message says what is missing."""


@dataclass(frozen=True)
class ValueEvidence:
    """One listed value, or one part of a range."""

    label: Any  # the value; of a range "below 0.0013"
    n: int  # runs with a value of the metric there
    best: float | None
    share: float  # of the draws that have the optimum there
    failures: int  # runs that failed, not by their machine
    ended: int  # those and the runs that ended as they were meant to


@dataclass(frozen=True)
class Decision:
    """What becomes of one searched parameter."""

    axis: Axis
    section: dict[str, Any]  # of the YAML
    share: float  # that is kept
    kept: tuple[ValueEvidence, ...]
    dropped: tuple[ValueEvidence, ...]
    never_ran: tuple[Any, ...]  # kept all the same, as exploration: listed values, or parts of a range as text
    failing: FailingEnd | None  # an end that failures exclude
    rises: Firing | None = None  # BEST_AT_BOUNDARY, for which an end is kept
    ran_apart: tuple[Any, ...] = ()  # listed values that only runs without evidence here had: left out, or claimed


@dataclass(frozen=True)
class Narrowing:
    """What the runs say of the searched space."""

    sweep: SweepConfig
    decisions: tuple[Decision, ...]
    runs: int  # that the surrogate has seen
    left_out: int  # runs with a value whose configuration is not wholly within the sweep's space
    outcomes: Outcomes | None  # None: too few runs
    noise_sd: float | None  # between equal runs
    equals: int  # runs within noise of the best one, the best one included

    @property
    def shrinks(self) -> float:
        """How many times smaller the space becomes."""
        return 1 / math.prod(decision.share for decision in self.decisions)


def narrow(findings: Findings, firings: Sequence[Firing] = (), *, excluded: float = EXCLUDED) -> Narrowing:
    """Say which values of every searched parameter the runs leave possible.

    An end of a parameter up to which performance rises (BEST_AT_BOUNDARY among ``firings``) stays, with at least
    LEAST_TO_DROP runs inside: the surrogate knows nothing of what lies beyond it.

    Raises:
        NoNextSweepError: when the sweep's configuration, or one of its parameters, cannot be read.
    """
    if findings.sweep.kind != "sweep":
        raise NoNextSweepError("no next sweep can be written: these runs were not read as a sweep; give --next a SWEEP")
    sweep, problems = parse_leniently(findings.sweep.config)
    if sweep is None or not sweep.parameters:
        told = "; ".join(problems) or "it has no parameters"
        raise NoNextSweepError(f"no next sweep can be written from this one's configuration: {told}")
    lost = unread(findings.sweep.config.get("parameters"), sweep.parameters)
    if lost:
        raise NoNextSweepError(
            f"no next sweep can be written: what this one says of {', '.join(lost)} cannot be read, and it would be "
            f"missing from the next one: {'; '.join(problems)}"
        )
    axes = axes_of(sweep, findings)
    placed = [(entry, _coordinates(entry, axes)) for entry in findings.ranked]
    within = [(entry, place) for entry, place in placed if place is not None]
    entries = [entry for entry, _ in within]
    places = np.array([place for _, place in within]).reshape(len(within), len(axes))
    valued = np.array([entry.peak is not None for entry in entries], dtype=bool)
    left_out = sum(entry.peak is not None for entry in findings.ranked) - int(valued.sum())
    varied = [column for column in range(len(axes)) if len(np.unique(places[valued, column])) > 1]
    rises = {firing.subjects[0]: firing for firing in firings if firing.rule is Rule.BEST_AT_BOUNDARY}
    seen = [
        _Seen(axis, entries, places[:, column], rises.get(axis.name), had(axis, findings))
        for column, axis in enumerate(axes)
    ]
    if valued.sum() < LEAST_RUNS or not varied:
        return Narrowing(sweep, tuple(map(_kept_whole, seen)), int(valued.sum()), left_out, None, None, 0)
    curves = [_curve(entry) for entry in entries if entry.peak is not None]
    outcomes = at_equal_epochs(curves, maximise=findings.metric.goal == "maximize")
    ran, searched = places[valued][:, varied], [axes[column] for column in varied]
    candidates = _candidates(searched, ran)
    belief = believe(
        _points(searched, ran), outcomes.values, outcomes.variances, _points(searched, candidates), seed=SEED
    )
    decisions = []
    for place, one in enumerate(seen):
        if place in varied:
            optimum = candidates[belief.optimum, varied.index(place)]
            decide = _decide_range if one.axis.values is None else _decide_listed
            decisions.append(decide(one, optimum, excluded))
        elif one.axis.values is not None:
            decisions.append(_decide_listed(one, np.array([one.leader]), excluded))  # failures may exclude others
        else:
            decisions.append(_kept_whole(one))
    equals = _equals(outcomes, belief)
    return Narrowing(sweep, tuple(decisions), int(valued.sum()), left_out, outcomes, belief.noise_sd, equals)


@dataclass(frozen=True)
class _Seen:
    """One axis and where on it the runs were, best peak first; those without any value come last."""

    axis: Axis
    entries: Sequence[RankedRun]
    places: NDArray[np.float64]  # (N,)
    rises: Firing | None  # BEST_AT_BOUNDARY
    had: NDArray[np.float64]  # (M,) where some run was, those that were left out and those claimed included

    @property
    def end(self) -> float | None:
        """The end up to which performance rises."""
        place = None if self.rises is None else self.axis.coordinate(self.rises.numbers["boundary"])
        return None if place is None else float(round(place))

    @property
    def leader(self) -> float:
        """Where the run with the best peak was."""
        return float(self.places[0])

    @property
    def asked(self) -> NDArray[np.bool_]:
        """Which runs say something about failing."""
        return np.array([may_have_failed(entry.cause) for entry in self.entries], dtype=bool)

    @property
    def failed(self) -> NDArray[np.bool_]:
        """Which runs failed, and not by their machine."""
        return np.array([is_its_own_failure(entry.cause) for entry in self.entries], dtype=bool)

    def evidence(self, label: Any, low: float, high: float, share: float) -> ValueEvidence:
        """Gather what the runs between two places came to."""
        there = (self.places >= low - SAME_PLACE) & (self.places <= high + SAME_PLACE)
        peaks = [entry.peak for entry, one in zip(self.entries, there, strict=True) if one and entry.peak is not None]
        return ValueEvidence(
            label=label,
            n=len(peaks),
            best=peaks[0] if peaks else None,
            share=share,
            failures=int((there & self.failed).sum()),
            ended=int((there & self.asked).sum()),
        )


def _coordinates(entry: RankedRun, axes: Sequence[Axis]) -> list[float] | None:
    found = [axis.coordinate(look_for(entry.run.config, axis.path)) for axis in axes]
    return None if any(one is None for one in found) else [one for one in found if one is not None]


def _curve(entry: RankedRun) -> list[float]:
    """Return a run's finite values; its peak all along where the rows of some epochs are missing."""
    curve = entry.run.curve
    assert entry.peak is not None
    return curve if curve and entry.epochs <= len(entry.run.points) else [entry.peak] * max(entry.epochs, 1)


def _points(axes: Sequence[Axis], places: NDArray[np.float64]) -> Points:
    ordered = [column for column, axis in enumerate(axes) if axis.ordered]
    others = [column for column, axis in enumerate(axes) if not axis.ordered]
    return Points(places[:, ordered], places[:, others].astype(np.int64))


def _candidates(axes: Sequence[Axis], ran: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return configurations among which the optimum is looked for: all, or a drawn part and those that ran."""
    levels = [_levels(axis) for axis in axes]
    if math.prod(len(one) for one in levels) <= MOST_CANDIDATES:
        return np.array(list(product(*levels)))
    rng = np.random.default_rng(SEED)
    drawn = [
        rng.uniform(size=MOST_CANDIDATES) if axis.values is None else rng.choice(level, size=MOST_CANDIDATES)
        for axis, level in zip(axes, levels, strict=True)
    ]
    return np.concatenate([np.stack(drawn, axis=1), ran[: MOST_CANDIDATES // 3]])


def _levels(axis: Axis) -> NDArray[np.float64]:
    if axis.values is None:
        return np.linspace(0, 1, GRID)
    places = (axis.coordinate(value) for value in axis.values)
    return np.array([place for place in places if place is not None])


def _equals(outcomes: Outcomes, belief: Belief) -> int:
    """Count the runs that cannot be told from the best one; 1 is the best one itself."""
    doubt = np.sqrt(outcomes.variances)
    known = outcomes.values[doubt <= belief.noise_sd]  # those that were carried far say nothing about ties
    return int((known.max(initial=-math.inf) - known <= SEPARATE * math.sqrt(2) * belief.noise_sd).sum())


def _kept_whole(seen: _Seen) -> Decision:
    """Keep everything; values that nobody ran are exploration."""
    axis, section = seen.axis, _whole_section(seen.axis)
    if axis.values is None:
        never = _beyond(axis, seen.had, 0.0, 1.0) if len(seen.had) and axis.bounded else ()
        return Decision(axis, section, 1.0, (seen.evidence(WHOLE, -math.inf, math.inf, 1.0),), (), never, None)
    found = [seen.evidence(value, place, place, 1.0) for value, place in zip(axis.values, _levels(axis), strict=True)]
    kept = tuple(one for one in found if one.n or one.ended)
    never, apart = _without_evidence(seen, found)
    return Decision(axis, section, 1.0, kept, (), never, None, ran_apart=apart)


def _whole_section(axis: Axis) -> dict[str, Any]:
    if axis.values is not None:
        return _listed_section(axis, axis.values)
    if axis.bounded:
        return part_of_range(axis, axis.value_at(0), axis.value_at(1))
    return {}


def _listed_section(axis: Axis, values: Sequence[Any]) -> dict[str, Any]:
    """List values, with their old probabilities where there were any."""
    assert axis.values is not None
    assert isinstance(axis.leaf, Choice)
    if axis.leaf.probabilities is None:
        return {"values": list(values)}
    weights = dict.fromkeys(range(len(axis.values)), 0.0)
    for value, weight in zip(axis.leaf.values, axis.leaf.probabilities, strict=True):
        place = axis.coordinate(value)
        index = int(np.argmin([abs((axis.coordinate(one) or 0.0) - (place or 0.0)) for one in axis.values]))
        weights[index] += weight
    chosen = [weights[axis.values.index(value)] for value in values]
    total = sum(chosen) or 1.0
    return {"values": list(values), "probabilities": [round(weight / total, 6) for weight in chosen]}


def _decide_listed(seen: _Seen, optimum: NDArray[np.float64], excluded: float) -> Decision:
    axis, levels = seen.axis, _levels(seen.axis)
    assert axis.values is not None
    found = [
        seen.evidence(value, place, place, float((np.abs(optimum - place) < SAME_PLACE).mean()))
        for value, place in zip(axis.values, levels, strict=True)
    ]
    leader = int(np.argmin(np.abs(levels - seen.leader)))
    surest = max(range(len(found)), key=lambda index: found[index].share)
    failures, ended = sum(one.failures for one in found), sum(one.ended for one in found)
    kept: list[ValueEvidence] = []
    dropped: list[ValueEvidence] = []
    for index, one in enumerate(found):
        unlikely = one.n >= LEAST_TO_DROP and one.share < excluded and levels[index] != seen.end
        holds = one.share if one.n else 0.0  # nothing but failures is known of it
        fails = value_fails(one.failures, one.ended, failures, ended, looks=len(found), holds_optimum=holds)
        (kept if index in (leader, surest) or not (unlikely or fails) else dropped).append(one)
    never, apart = _without_evidence(seen, kept)
    return Decision(
        axis=axis,
        section=_listed_section(axis, [one.label for one in kept]),
        share=len(kept) / len(found),
        kept=tuple(one for one in kept if one.n or one.ended),
        dropped=tuple(dropped),
        never_ran=never,
        ran_apart=apart,
        failing=None,
        rises=seen.rises if seen.end in {axis.coordinate(one.label) for one in kept} else None,
    )


def _decide_range(seen: _Seen, optimum: NDArray[np.float64], excluded: float) -> Decision:
    axis = seen.axis
    if not axis.bounded:
        return Decision(axis, {}, 1.0, (seen.evidence(WHOLE, -math.inf, math.inf, 1.0),), (), (), None)
    half = 0.5 / (GRID - 1)
    low = min(float(np.quantile(optimum, excluded)) - half, seen.leader)
    high = max(float(np.quantile(optimum, 1 - excluded)) + half, seen.leader)
    failing = failing_end(seen.places[seen.asked], seen.failed[seen.asked], optimum, seed=SEED)
    if failing is not None and (seen.leader > failing.beyond) == failing.upper:
        failing = None  # the best run of all lies there
    end = seen.end if failing is None or float(failing.upper) != seen.end else None
    if end is not None:  # the runs nearest to it come with it
        valued = np.array(
            [place for entry, place in zip(seen.entries, seen.places, strict=True) if entry.peak is not None]
        )
        nearest = np.sort(np.abs(valued - end))[:LEAST_TO_DROP]
        low, high = (min(low, 1 - nearest[-1]), 1.0) if end else (0.0, max(high, nearest[-1]))
    if failing is not None:
        low, high = (low, min(high, failing.beyond)) if failing.upper else (max(low, failing.beyond), high)
    section = part_of_range(axis, axis.value_at(max(low, 0.0)), axis.value_at(min(high, 1.0)))
    first, last = axis.coordinate(section["min"]), axis.coordinate(section["max"])
    low, high = (0.0 if first is None else first), (1.0 if last is None else last)
    dropped = []
    if low > SAME_PLACE:
        share = float((optimum < low).mean())
        dropped.append(seen.evidence(f"below {number(section['min'])}", -math.inf, low - 2 * SAME_PLACE, share))
    if high < 1 - SAME_PLACE:
        share = float((optimum > high).mean())
        dropped.append(seen.evidence(f"above {number(section['max'])}", high + 2 * SAME_PLACE, math.inf, share))
    inside = float(((optimum >= low) & (optimum <= high)).mean())
    return Decision(
        axis=axis,
        section=section,
        share=kept_share(axis, section),
        kept=(seen.evidence(f"{literal(section['min'])} to {literal(section['max'])}", low, high, inside),),
        dropped=tuple(dropped),
        never_ran=_beyond(axis, seen.had, low, high),
        failing=failing,
        rises=None if end is None else seen.rises,
    )


def _without_evidence(seen: _Seen, kept: Sequence[ValueEvidence]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Return the kept values that nobody ran, and those that only runs had which are not compared."""
    bare = [one.label for one in kept if not (one.n or one.ended)]
    apart = tuple(label for label in bare if seen.axis.coordinate(label) in seen.had)
    return tuple(label for label in bare if label not in apart), apart


def _beyond(axis: Axis, ran: NDArray[np.float64], low: float, high: float) -> tuple[str, ...]:
    """Name the ends of what is kept that lie clearly outside of what was run."""
    found = []
    reach = 1 / GRID
    if ran.min() - low > reach:
        found.append(f"values below {axis.value_at(float(ran.min())):.3g}")
    if high - ran.max() > reach:
        found.append(f"values above {axis.value_at(float(ran.max())):.3g}")
    return tuple(found)


def epochs_a_run(findings: Findings) -> float | None:
    """Return how many epochs a run of the sweep took on average, those cut short included."""
    taken = [entry.epochs for entry in findings.ranked if entry.epochs and entry.cause is not Cause.RUNNING]
    return fmean(taken) if taken else None


def cut_short_or_failed(findings: Findings) -> int:
    """Count the runs that bayes would take for as bad as the worst one under ``impute: worst``."""
    return sum(entry.run.state in {"crashed", "failed", "killed"} for entry in findings.ranked)
