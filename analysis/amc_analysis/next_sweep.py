"""The next sweep: what the runs cannot exclude is kept, what they can is dropped, and every range says why.

Runs are compared at equal epochs (``next_sweep_outcomes``), so that a run which crashed or was stopped early counts for
what it had shown by then. A surrogate (``next_sweep_surrogate``) says where the optimum can still be; a value that holds
it in hardly any draw is dropped, if at least ``LEAST_TO_DROP`` runs had it. What failures alone exclude is the end of a
range in which most runs fail and clearly more than elsewhere: machines crash everywhere, configurations do not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amc_analysis.findings import Findings
from amc_analysis.next_sweep_axes import Axis, axes_of, kept_share, look_for, part_of_range
from amc_analysis.next_sweep_failures import FailingEnd, failing_end, is_its_own_failure, may_have_failed
from amc_analysis.next_sweep_outcomes import Outcomes, at_equal_epochs
from amc_analysis.next_sweep_surrogate import Belief, Points, believe
from amc_analysis.ranking import RankedRun
from amc_sweeps.causes import Cause
from amc_sweeps.sweep_config import Choice, SweepConfig, examine

LEAST_RUNS = 8  # with a value; under that nothing is excluded
LEAST_TO_DROP = 3  # runs of a listed value, under which it is kept whatever they did
EXCLUDED = 0.01  # share of the draws: a value that holds the optimum in fewer is dropped; of a range so much on each side
MOST_CANDIDATES = 900
GRID = 30  # places of a range among the candidates
SEPARATE = 2.0  # noise sd of a difference (sqrt 2 of one run's), within which two runs count as equal
SEED = 0


class NoNextSweepError(ValueError):
    """There is nothing from which a sweep could be written; the message says what is missing."""


@dataclass(frozen=True)
class ValueEvidence:
    """One listed value, or one part of a range."""

    label: Any  # the value; of a range "below 0.0013"
    n: int  # runs with a value of the metric there
    best: float | None
    share: float  # of the draws that have the optimum there


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


def narrow(findings: Findings, *, excluded: float = EXCLUDED) -> Narrowing:
    """Say which values of every searched parameter the runs leave possible.

    Raises:
        NoNextSweepError: when the sweep's configuration cannot be read.
    """
    sweep, problems = examine(findings.sweep.config)
    if sweep is None or not sweep.parameters:
        told = "; ".join(problems) or "it has no parameters"
        raise NoNextSweepError(f"no next sweep can be written from this one's configuration: {told}")
    axes = axes_of(sweep, findings)
    placed = [(entry, _coordinates(entry, axes)) for entry in findings.ranked]
    known = [(entry, place) for entry, place in placed if place is not None and entry.peak is not None]
    left_out = sum(entry.peak is not None for entry, _ in placed) - len(known)
    varied = [
        number for number in range(len(axes)) if len({place[number] for _, place in known if place is not None}) > 1
    ]
    if len(known) < LEAST_RUNS or not varied:
        decisions = tuple(_kept_whole(axis, number, known) for number, axis in enumerate(axes))
        return Narrowing(sweep, decisions, len(known), left_out, None, None, 0)
    entries = [entry for entry, _ in known]
    places = np.array([place for _, place in known])
    outcomes = at_equal_epochs([_curve(entry) for entry in entries], maximise=findings.metric.goal == "maximize")
    candidates = _candidates([axes[number] for number in varied], places[:, varied])
    shown = [axes[number] for number in varied]
    belief = believe(
        _points(shown, places[:, varied]), outcomes.values, outcomes.variances, _points(shown, candidates), seed=SEED
    )
    optimum = candidates[belief.optimum]
    decisions = []
    for number, axis in enumerate(axes):
        if number not in varied:
            decisions.append(_kept_whole(axis, number, known))
            continue
        column = varied.index(number)
        decide = _decide_range if axis.values is None else _decide_listed
        decisions.append(decide(axis, optimum[:, column], places[:, number], entries, excluded))
    return Narrowing(
        sweep, tuple(decisions), len(known), left_out, outcomes, belief.noise_sd, _equals(outcomes, belief)
    )


def _coordinates(entry: RankedRun, axes: Sequence[Axis]) -> list[float] | None:
    found = [axis.coordinate(look_for(entry.run.config, axis.path)) for axis in axes]
    return None if any(one is None for one in found) else [one for one in found if one is not None]


def _curve(entry: RankedRun) -> list[float]:
    """Return a run's finite values; its peak alone where the rows of some epochs are missing."""
    curve = entry.run.curve
    assert entry.peak is not None
    return curve if curve and entry.epochs <= len(entry.run.points) else [entry.peak]


def _points(axes: Sequence[Axis], places: NDArray[np.float64]) -> Points:
    ordered = [number for number, axis in enumerate(axes) if axis.ordered]
    others = [number for number, axis in enumerate(axes) if not axis.ordered]
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
    return np.concatenate([np.stack(drawn, axis=1), ran[:MOST_CANDIDATES // 3]])


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


def _kept_whole(axis: Axis, number: int, known: Sequence[tuple[RankedRun, list[float] | None]]) -> Decision:
    """Keep everything; values that nobody ran are exploration."""
    section = _whole_section(axis)
    ran = [place[number] for _, place in known if place is not None]
    if axis.values is None:
        return Decision(axis, section, 1.0, (), (), _beyond(axis, ran, 0.0, 1.0) if ran else (), None)
    kept, never = [], []
    for value, place in zip(axis.values, _levels(axis), strict=True):
        there = [entry for entry, one in known if one is not None and math.isclose(one[number], place, abs_tol=1e-9)]
        if there:
            kept.append(ValueEvidence(value, len(there), _best(there), 1.0))
        else:
            never.append(value)
    return Decision(axis, section, 1.0, tuple(kept), (), tuple(never), None)


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
    weights = {index: 0.0 for index in range(len(axis.values))}
    for value, weight in zip(axis.leaf.values, axis.leaf.probabilities, strict=True):
        place = axis.coordinate(value)
        index = int(np.argmin([abs((axis.coordinate(one) or 0.0) - (place or 0.0)) for one in axis.values]))
        weights[index] += weight
    chosen = [weights[axis.values.index(value)] for value in values]
    total = sum(chosen) or 1.0
    return {"values": list(values), "probabilities": [round(weight / total, 6) for weight in chosen]}


def _decide_listed(
    axis: Axis,
    optimum: NDArray[np.float64],
    places: NDArray[np.float64],
    entries: Sequence[RankedRun],
    excluded: float,
) -> Decision:
    assert axis.values is not None
    found = []
    for value, place in zip(axis.values, _levels(axis), strict=True):
        there = [entry for entry, one in zip(entries, places, strict=True) if math.isclose(one, place, abs_tol=1e-9)]
        share = float(np.isclose(optimum, place, atol=1e-9).mean())
        found.append(ValueEvidence(value, len(there), _best(there), share))
    leader = int(np.argmin(np.abs(_levels(axis) - places[0])))  # of the run with the best peak
    surest = max(range(len(found)), key=lambda index: found[index].share)
    keep = [
        index in (leader, surest) or one.share >= excluded or one.n < LEAST_TO_DROP for index, one in enumerate(found)
    ]
    kept = [one for one, stays in zip(found, keep, strict=True) if stays]
    section = _listed_section(axis, [one.label for one in kept])
    return Decision(
        axis=axis,
        section=section,
        share=len(kept) / len(found),
        kept=tuple(one for one in kept if one.n),
        dropped=tuple(one for one, stays in zip(found, keep, strict=True) if not stays),
        never_ran=tuple(one.label for one in kept if not one.n),
        failing=None,
    )


def _decide_range(
    axis: Axis,
    optimum: NDArray[np.float64],
    places: NDArray[np.float64],
    entries: Sequence[RankedRun],
    excluded: float,
) -> Decision:
    half = 0.5 / (GRID - 1)
    low = min(float(np.quantile(optimum, excluded)) - half, float(places[0]))
    high = max(float(np.quantile(optimum, 1 - excluded)) + half, float(places[0]))
    asked = [number for number, entry in enumerate(entries) if may_have_failed(entry.cause)]
    failing = failing_end(
        places[asked],
        np.array([is_its_own_failure(entries[number].cause) for number in asked], dtype=bool),
        optimum,
        seed=SEED,
    )
    if failing is not None and (failing.beyond > places[0]) == failing.upper:
        high = min(high, failing.beyond) if failing.upper else high
        low = max(low, failing.beyond) if not failing.upper else low
    else:
        failing = None
    low, high = max(low, 0.0), min(high, 1.0)
    if not axis.bounded:
        return Decision(axis, {}, 1.0, (_part(axis, "kept", 0, 1, optimum, places, entries),), (), (), None)
    section = part_of_range(axis, axis.value_at(low), axis.value_at(high))
    first, last = axis.coordinate(section["min"]), axis.coordinate(section["max"])
    low, high = (low if first is None else first), (high if last is None else last)
    dropped = []
    if low > 0:
        dropped.append(_part(axis, f"below {section['min']:.4g}", -math.inf, low, optimum, places, entries))
    if high < 1:
        dropped.append(_part(axis, f"above {section['max']:.4g}", high, math.inf, optimum, places, entries))
    return Decision(
        axis=axis,
        section=section,
        share=kept_share(axis, section),
        kept=(_part(axis, "kept", low, high, optimum, places, entries),),
        dropped=tuple(dropped),
        never_ran=_beyond(axis, list(places), low, high),
        failing=failing,
    )


def _part(
    axis: Axis,
    label: str,
    low: float,
    high: float,
    optimum: NDArray[np.float64],
    places: NDArray[np.float64],
    entries: Sequence[RankedRun],
) -> ValueEvidence:
    there = [entry for entry, place in zip(entries, places, strict=True) if low <= place <= high]
    return ValueEvidence(label, len(there), _best(there), float(((optimum >= low) & (optimum <= high)).mean()))


def _beyond(axis: Axis, ran: Sequence[float], low: float, high: float) -> tuple[str, ...]:
    """Name the ends of what is kept that lie clearly outside of what was run."""
    found = []
    reach = 1 / GRID
    if min(ran) - low > reach:
        found.append(f"below {axis.value_at(min(ran)):.3g}")
    if high - max(ran) > reach:
        found.append(f"above {axis.value_at(max(ran)):.3g}")
    return tuple(found)


def _best(entries: Sequence[RankedRun]) -> float | None:
    return entries[0].peak if entries else None  # they come in the order of the ranking


def epochs_a_run(findings: Findings) -> float | None:
    """Return how many epochs a run of the sweep took on average, those cut short included."""
    taken = [entry.epochs for entry in findings.ranked if entry.epochs and entry.cause is not Cause.RUNNING]
    return fmean(taken) if taken else None


def cut_short_or_failed(findings: Findings) -> int:
    """Count the runs that bayes would take for as bad as the worst one under ``impute: worst``."""
    return sum(entry.run.state in {"crashed", "failed", "killed"} for entry in findings.ranked)


def constants_of(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the sections of a sweep's parameters as they were given."""
    parameters = config.get("parameters")
    return parameters if isinstance(parameters, Mapping) else {}
