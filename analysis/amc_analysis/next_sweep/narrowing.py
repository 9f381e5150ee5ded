"""The values of every searched parameter that the runs do not exclude.

A parameter without a clear effect in the report is kept whole, and nothing that fewer than ``LEAST_TO_DROP`` runs had
is dropped. Otherwise runs are compared at one epoch (``runs.outcomes.carry_to_horizon``): a run that crashed or was
stopped early counts with what it had reached by then. A surrogate model estimates where the optimum can be. A value is
dropped if hardly any draw of the optimum has it, and a permutation test tells its runs from those of the likeliest
value; an end of a range, if the test tells that outcomes change between this end and the optimum. Failures alone
exclude a value, or the end of a range, only where most runs fail, and clearly more than elsewhere: machines crash with
any configuration.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amc_analysis.next_sweep.axes import GRID, Axis, axes_of, part_of_range, tried_coordinates
from amc_analysis.next_sweep.failures import failing_end, is_evidence, is_own_failure, value_fails
from amc_analysis.next_sweep.surrogate import Points, Surrogate, clip_bad_outcomes
from amc_analysis.results.analysed_sweep import AnalysedSweep
from amc_analysis.results.effects import Effect
from amc_analysis.results.finding import Finding, Rule
from amc_analysis.results.next_sweep import WHOLE, Decision, Narrowing, ValueEvidence
from amc_analysis.runs.outcomes import CarriedOutcomes, carry_to_horizon
from amc_analysis.runs.parameters import text_of, variants_of
from amc_core.config import VARIANT
from amc_sweeps.grammar.sweep_config import Choice, SweepConfig
from amc_sweeps.runs.ranked_run import RankedRun
from amc_sweeps.values import look_up

Floats = NDArray[np.float64]
ExchangeTest = Callable[[NDArray[np.bool_]], float]

LEAST_RUNS = 8  # with a value; fewer exclude nothing
LEAST_TO_DROP = 3  # runs of a listed value or beyond an end of a range; with fewer it is kept
EXCLUDED = 0.01  # share of the draws under which a listed value is dropped
EXCLUDED_SIDE = 0.025  # share of the draws on each side of what is kept of a range
ERROR = 0.05  # chance that a value as good as the best one is dropped
MOST_CANDIDATES = 600
SAME_PLACE = 1e-9  # coordinates closer than this are equal
SEPARATE = 2.0  # noise sd of a difference (sqrt 2 of one run's); two runs closer than this count as equal
SEED = 0


def narrow(analysed: AnalysedSweep, sweep: SweepConfig) -> Narrowing:
    """Decide which values of every searched parameter to keep.

    The surrogate knows nothing beyond the end of a range. So where performance rises towards an end (BEST_AT_BOUNDARY
    among the findings), that end is kept, with at least LEAST_TO_DROP runs inside.

    Args:
        analysed: the sweep's runs and findings.
        sweep: its configuration.
    """
    axes = axes_of(sweep, analysed)
    placed = [(entry, _coordinates(entry, axes)) for entry in analysed.ranked]
    within = [(entry, place) for entry, place in placed if place is not None]
    entries = [entry for entry, _ in within]
    places = np.array([place for _, place in within]).reshape(len(within), len(axes))
    valued = np.array([entry.peak is not None for entry in entries], dtype=bool)
    runs = int(valued.sum())
    left_out = sum(entry.peak is not None for entry in analysed.ranked) - runs
    varied = [column for column in range(len(axes)) if len(np.unique(places[valued, column])) > 1]
    rises = {finding.subjects[0]: finding for finding in analysed.findings if finding.rule is Rule.BEST_AT_BOUNDARY}
    effects = _effects_by_axis(analysed)
    along = [
        _RunsAlongAxis(
            axis=axis,
            entries=entries,
            places=places[:, column],
            rises=rises.get(axis.name),
            effect=effects.get(axis.name),
            tried=tried_coordinates(axis, analysed),
        )
        for column, axis in enumerate(axes)
    ]
    if runs < LEAST_RUNS or not varied:
        return Narrowing(tuple(map(_keep_whole, along)), runs, left_out)
    curves = [_curve(entry) for entry in entries if entry.peak is not None]
    outcomes = carry_to_horizon(curves, maximise=analysed.metric.goal == "maximize")
    values, variances = clip_bad_outcomes(outcomes.values, outcomes.variances)
    ran, searched = places[valued][:, varied], [axes[column] for column in varied]
    candidates = _candidates(searched, ran)
    surrogate = Surrogate(_points(searched, ran), values, variances)
    optima = candidates[surrogate.draw_optima(_points(searched, candidates), seed=SEED)]
    decisions = []
    for column, runs_along in enumerate(along):
        if column in varied:
            place = varied.index(column)
            optimum, exchange_p = optima[:, place], _exchange(surrogate, place, valued)
        elif runs_along.axis.values is not None:
            # All runs with a value had this one; failures may exclude others.
            optimum, exchange_p = np.array([runs_along.leader]), lambda _among: 1.0
        else:
            decisions.append(_keep_whole(runs_along))
            continue
        decide = _decide_range if runs_along.axis.values is None else _decide_listed
        decision = decide(runs_along, optimum, exchange_p)
        decisions.append(replace(decision, is_clear=runs_along.may_matter or runs_along.may_fail))
    return Narrowing(
        decisions=tuple(decisions),
        runs=runs,
        left_out=left_out,
        horizon=outcomes.horizon,
        carried=outcomes.carried,
        noise_sd=surrogate.noise_sd,
        equals=_equals(outcomes, surrogate.noise_sd),
    )


def _effects_by_axis(analysed: AnalysedSweep) -> dict[str, Effect]:
    """Return the effect of every parameter; that of a variant is the clearest one of its fields."""
    effects = {effect.parameter: effect for effect in analysed.effects}
    names = {name for fields in variants_of(analysed.config) for name in fields}
    coupled = [effect for name, effect in effects.items() if name in names]
    if coupled:
        effects[VARIANT] = min(coupled, key=lambda effect: 1.0 if effect.p_corrected is None else effect.p_corrected)
    return effects


@dataclass(frozen=True)
class _RunsAlongAxis:
    """One axis and the runs' coordinates on it, best peak first; runs without any value come last."""

    axis: Axis
    entries: Sequence[RankedRun]
    places: Floats  # (N,)
    rises: Finding | None  # BEST_AT_BOUNDARY
    effect: Effect | None  # as the report has it; None: not tested
    tried: NDArray[np.float64]  # (M,) coordinates of all runs, those left out and those claimed included

    @property
    def rising_end(self) -> float | None:
        """The end where performance is best: 0 or 1."""
        place = None if self.rises is None else self.axis.coordinate(self.rises.numbers["boundary"])
        return None if place is None else float(round(place))

    @property
    def leader(self) -> float:
        """The coordinate of the run with the best peak."""
        return float(self.places[0])

    @property
    def may_matter(self) -> bool:
        """Whether performance may depend on the parameter, as far as the report tells."""
        return self.effect is None or self.effect.is_clear

    @property
    def may_fail(self) -> bool:
        """Whether failing may depend on the parameter, as far as the report tells."""
        return self.effect is None or self.effect.is_clear_for_failures

    @property
    def judged(self) -> NDArray[np.bool_]:
        """Which runs are evidence on whether their configuration fails."""
        return np.array([is_evidence(entry.cause) for entry in self.entries], dtype=bool)

    @property
    def failed(self) -> NDArray[np.bool_]:
        """Which runs failed, and not because of their machine."""
        return np.array([is_own_failure(entry.cause) for entry in self.entries], dtype=bool)

    def evidence(self, label: Any, low: float, high: float, share: float) -> ValueEvidence:
        """Count the runs between two coordinates, and take their best peak."""
        inside = (self.places >= low - SAME_PLACE) & (self.places <= high + SAME_PLACE)
        entries = (entry for entry, is_inside in zip(self.entries, inside, strict=True) if is_inside)
        peaks = [entry.peak for entry in entries if entry.peak is not None]
        has_peak = np.array([entry.peak is not None for entry in self.entries], dtype=bool)
        return ValueEvidence(
            label=label,
            n=int((inside & (has_peak | self.judged)).sum()),
            best=peaks[0] if peaks else None,
            share=share,
            failures=int((inside & self.failed).sum()),
            ended=int((inside & self.judged).sum()),
        )


def _exchange(surrogate: Surrogate, column: int, valued: NDArray[np.bool_]) -> ExchangeTest:
    """Return the permutation test of one parameter: from a mask over all runs to p."""
    return lambda among: surrogate.exchange_p(column, among[valued], seed=SEED)


def _coordinates(entry: RankedRun, axes: Sequence[Axis]) -> list[float] | None:
    places = [axis.coordinate(look_up(entry.run.config, axis.name)) for axis in axes]
    complete = [place for place in places if place is not None]
    return complete if len(complete) == len(axes) else None


def _curve(entry: RankedRun) -> list[float]:
    """Return a run's finite values; a flat line at its peak where the rows of some epochs are missing."""
    curve = entry.run.curve
    assert entry.peak is not None
    epochs = entry.epochs or 0
    return curve if curve and epochs <= len(entry.run.points) else [entry.peak] * max(epochs, 1)


def _points(axes: Sequence[Axis], places: Floats) -> Points:
    return Points(places, tuple(axis.ordered for axis in axes))


def _candidates(axes: Sequence[Axis], ran: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the candidates for the optimum: all configurations, or random ones and those that ran."""
    levels = [axis.levels() for axis in axes]
    if math.prod(len(level) for level in levels) <= MOST_CANDIDATES:
        return np.array(list(product(*levels)))
    rng = np.random.default_rng(SEED)
    drawn = [
        rng.uniform(size=MOST_CANDIDATES) if axis.values is None else rng.choice(level, size=MOST_CANDIDATES)
        for axis, level in zip(axes, levels, strict=True)
    ]
    return np.concatenate([np.stack(drawn, axis=1), ran[: MOST_CANDIDATES // 3]])


def _equals(outcomes: CarriedOutcomes, noise_sd: float) -> int:
    """Count the runs within noise of the best, the best included."""
    uncertainty = np.sqrt(outcomes.variances)
    certain = outcomes.values[uncertainty <= noise_sd]  # runs that were carried far are too uncertain
    return int((certain.max(initial=-math.inf) - certain <= SEPARATE * math.sqrt(2) * noise_sd).sum())


def _keep_whole(runs: _RunsAlongAxis) -> Decision:
    """Keep everything; values that no run had are exploration."""
    axis = runs.axis
    if axis.values is None:
        section = part_of_range(axis, axis.value_at(0), axis.value_at(1)) if axis.bounded else {}
        never = _untried_ends(axis, runs.tried, 0.0, 1.0) if len(runs.tried) and axis.bounded else ()
        whole = runs.evidence(WHOLE, -math.inf, math.inf, 1.0)
        return Decision(axis.path, section, 1.0, (whole,), never_ran=never, is_range=True, is_bounded=axis.bounded)
    values = [runs.evidence(value, place, place, 1.0) for value, place in zip(axis.values, axis.levels(), strict=True)]
    kept = tuple(value for value in values if value.n)
    never, uncompared = _without_evidence(runs, values)
    return Decision(axis.path, _listed_section(axis, axis.values), 1.0, kept, never_ran=never, uncompared=uncompared)


def _listed_section(axis: Axis, values: Sequence[Any]) -> dict[str, Any]:
    """Return a section that lists values, with their old probabilities where there were any."""
    assert axis.values is not None
    assert isinstance(axis.leaf, Choice)
    if axis.leaf.probabilities is None:
        return {"values": list(values)}
    weights = dict.fromkeys(range(len(axis.values)), 0.0)
    for value, weight in zip(axis.leaf.values, axis.leaf.probabilities, strict=True):
        place = axis.coordinate(value)
        distances = [abs((axis.coordinate(level) or 0.0) - (place or 0.0)) for level in axis.values]
        weights[int(np.argmin(distances))] += weight
    new_weights = [weights[axis.values.index(value)] for value in values]
    total = sum(new_weights) or 1.0
    return {"values": list(values), "probabilities": [round(weight / total, 6) for weight in new_weights]}


def _decide_listed(runs: _RunsAlongAxis, optimum: Floats, exchange_p: ExchangeTest) -> Decision:
    axis, levels = runs.axis, runs.axis.levels()
    assert axis.values is not None
    values = [
        runs.evidence(value, place, place, float((np.abs(optimum - place) < SAME_PLACE).mean()))
        for value, place in zip(axis.values, levels, strict=True)
    ]
    leader = int(np.argmin(np.abs(levels - runs.leader)))
    likeliest = max(range(len(values)), key=lambda index: values[index].share)
    failures, ended = sum(value.failures for value in values), sum(value.ended for value in values)
    kept: list[ValueEvidence] = []
    dropped: list[ValueEvidence] = []
    for index, value in enumerate(values):
        is_unlikely = (
            runs.may_matter
            and value.share < EXCLUDED
            and levels[index] != runs.rising_end
            and exchange_p(np.isin(runs.places, levels[[index, likeliest]])) < ERROR / (len(values) - 1)
        )
        holds_optimum = 0.0 if value.best is None else value.share  # without a peak only failures are known
        fails = runs.may_fail and value_fails(
            value.failures, value.ended, failures, ended, tests=len(values), holds_optimum=holds_optimum
        )
        is_kept = index in (leader, likeliest) or value.n < LEAST_TO_DROP or not (is_unlikely or fails)
        (kept if is_kept else dropped).append(value)
    never, uncompared = _without_evidence(runs, kept)
    return Decision(
        path=axis.path,
        section=_listed_section(axis, [value.label for value in kept]),
        share=len(kept) / len(values),
        kept=tuple(value for value in kept if value.n),
        dropped=tuple(dropped),
        never_ran=never,
        uncompared=uncompared,
        rises=runs.rises if runs.rising_end in {axis.coordinate(value.label) for value in kept} else None,
    )


def _decide_range(runs: _RunsAlongAxis, optimum: Floats, exchange_p: ExchangeTest) -> Decision:
    axis, half = runs.axis, 0.5 / (GRID - 1)
    if not axis.bounded:
        return replace(_keep_whole(runs), never_ran=())
    low, high = 0.0, 1.0
    centre = float(np.median(optimum))
    if runs.may_matter and exchange_p(runs.places <= centre) < ERROR / 2:
        low = min(float(np.quantile(optimum, EXCLUDED_SIDE)) - half, runs.leader)
    if runs.may_matter and exchange_p(runs.places >= centre) < ERROR / 2:
        high = max(float(np.quantile(optimum, 1 - EXCLUDED_SIDE)) + half, runs.leader)
    failing = failing_end(runs.places[runs.judged], runs.failed[runs.judged], optimum, seed=SEED)
    if failing is not None and (not runs.may_fail or (runs.leader > failing.beyond) == failing.upper):
        failing = None  # not clear, or the best run of all is there
    end = runs.rising_end if failing is None or float(failing.upper) != runs.rising_end else None
    if end is not None:  # keep the runs nearest to this end inside
        has_peak = [entry.peak is not None for entry in runs.entries]
        nearest = np.sort(np.abs(runs.places[has_peak] - end))[:LEAST_TO_DROP]
        low, high = (min(low, 1 - nearest[-1]), 1.0) if end else (0.0, max(high, nearest[-1]))
    if failing is not None:
        low, high = (low, min(high, failing.beyond)) if failing.upper else (max(low, failing.beyond), high)
    section, low, high, dropped = _cut(runs, low, high, optimum)
    inside = float(((optimum >= low) & (optimum <= high)).mean())
    return Decision(
        path=axis.path,
        section=section,
        share=min(high, 1.0) - max(low, 0.0),
        kept=(runs.evidence(f"{text_of(section['min'])} to {text_of(section['max'])}", low, high, inside),),
        dropped=dropped,
        never_ran=_untried_ends(axis, runs.tried, low, high),
        failing=None if failing is None or not dropped else replace(failing, beyond=axis.value_at(failing.beyond)),
        rises=None if end is None else runs.rises,
        is_range=True,
    )


def _cut(
    runs: _RunsAlongAxis, low: float, high: float, optimum: Floats
) -> tuple[dict[str, Any], float, float, tuple[ValueEvidence, ...]]:
    """Return the section of a part of a range, its rounded ends, and the ends that are dropped.

    An end beyond which fewer than LEAST_TO_DROP runs lie is kept whole.
    """
    axis = runs.axis
    section = part_of_range(axis, axis.value_at(max(low, 0.0)), axis.value_at(min(high, 1.0)))
    first, last = axis.coordinate(section["min"]), axis.coordinate(section["max"])
    low, high = (0.0 if first is None else first), (1.0 if last is None else last)
    below = above = None
    if low > SAME_PLACE:
        share = float((optimum < low).mean())
        below = runs.evidence(f"below {text_of(section['min'])}", -math.inf, low - 2 * SAME_PLACE, share)
    if high < 1 - SAME_PLACE:
        share = float((optimum > high).mean())
        above = runs.evidence(f"above {text_of(section['max'])}", high + 2 * SAME_PLACE, math.inf, share)
    keeps_low, keeps_high = (end is not None and end.n < LEAST_TO_DROP for end in (below, above))
    if keeps_low or keeps_high:
        return _cut(runs, 0.0 if keeps_low else low, 1.0 if keeps_high else high, optimum)
    return section, low, high, tuple(end for end in (below, above) if end is not None)


def _without_evidence(runs: _RunsAlongAxis, kept: Sequence[ValueEvidence]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Return the kept values that no run had, and those whose runs cannot be compared."""
    labels = [value.label for value in kept if not value.n]
    uncompared = tuple(label for label in labels if runs.axis.coordinate(label) in runs.tried)
    return tuple(label for label in labels if label not in uncompared), uncompared


def _untried_ends(axis: Axis, tried: NDArray[np.float64], low: float, high: float) -> tuple[str, ...]:
    """Return as text the ends of the kept range that lie clearly outside the runs' values."""
    ends = []
    reach = 1 / GRID
    if tried.min() - low > reach:
        ends.append(f"values below {axis.value_at(float(tried.min())):.3g}")
    if high - tried.max() > reach:
        ends.append(f"values above {axis.value_at(float(tried.max())):.3g}")
    return tuple(ends)
