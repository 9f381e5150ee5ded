"""Regions of the searched space: a best value at the end of a range, and values whose runs fail."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from amc_analysis.effects.statistics import normal_scores
from amc_analysis.results.analysed_sweep import AnalysedSweep
from amc_analysis.results.finding import Finding, Rule, Severity
from amc_analysis.runs.parameters import Floats, Parameter, text_of
from amc_sweeps.grammar.distributions import Range, ends
from amc_sweeps.grammar.sweep_config import Choice
from amc_sweeps.number_formats import counted, percent
from amc_sweeps.runs.metric_scale import interval_text
from amc_sweeps.runs.statistics import wilson_interval

LEAST_LEVELS = 5  # of a list; without any effect the best of 3 lies at an end two times in three
EFFECT_P = 0.02  # corrected; without an effect the place of the best value is chance
AT_END_SHARE = 0.7  # of the resampled fits whose optimum is at the end
RESAMPLES = 300
NEAR_END = 0.3  # of the range
BEST_SHARE = 0.1  # of the runs, at least 3; their median has to lie near the end

FAILS_P = 0.01  # corrected
FAILS_RATE = 0.75
FAILS_LEAST = 3  # runs


def best_at_boundary(analysed: AnalysedSweep) -> Iterator[Finding]:
    """Report a parameter whose optimum lies at an end of the searched values.

    Needs at least 5 ordered values or a range, an effect (corrected p < 0.02), a quadratic whose optimum lies at that
    end in 70% of bootstrap samples, and the best tenth of the runs in the outer 30%.
    """
    effects = {effect.parameter: effect for effect in analysed.effects}
    for parameter in analysed.parameters:
        effect = effects.get(parameter.name)
        if effect is None or effect.p_corrected is None or effect.p_corrected >= EFFECT_P:
            continue
        place = _place_in_space(parameter)
        if place is None:
            continue
        runs = np.flatnonzero(np.isfinite(place) & np.isfinite(analysed.outcomes.rank_score))
        # Use normal scores: shares of beaten runs flatten at 0 and 1, which looks like an optimum in the middle.
        place_K, rank_score_K = place[runs], normal_scores(analysed.outcomes.rank_score[runs])
        top = max(3, math.ceil(BEST_SHARE * len(runs)))
        median_of_best = float(np.median(place_K[np.argsort(-rank_score_K, kind="stable")[:top]]))
        if NEAR_END < median_of_best < 1 - NEAR_END:
            continue
        end = 1.0 if median_of_best > 0.5 else 0.0
        share = float((optima(place_K, rank_score_K, np.random.default_rng(analysed.seed)) == end).mean())
        if share < AT_END_SHARE:
            continue
        value = _end(parameter, end)
        yield Finding(
            rule=Rule.BEST_AT_BOUNDARY,
            severity=Severity.NOTE,
            subjects=(parameter.name, f"{parameter.name}={text_of(value)}"),
            numbers={"boundary": value, "share": share, "p_corrected": effect.p_corrected, "n": len(runs)},
            evidence=f"Performance improves towards {parameter.name} = {text_of(value)}, the "
            f"{'highest' if end else 'lowest'} searched value: {percent(share)} of resampled fits have the optimum "
            f"there ({len(runs)} runs, corrected p {effect.p_corrected:.2g}).",
            consequence="The optimum may lie outside: widen the range beyond this end before you narrow it.",
        )


def infeasible_region(analysed: AnalysedSweep) -> Iterator[Finding]:
    """Report a value, or one end of a range, whose runs mostly fail, more often than by chance."""
    for effect in analysed.effects:
        if effect.failure_p_corrected is None or effect.failure_p_corrected >= FAILS_P:
            continue
        parameter = next(parameter for parameter in analysed.parameters if parameter.name == effect.parameter)
        for label, failures, ended in _mostly_failing(parameter, analysed.outcomes.failed):
            low, high = wilson_interval(failures, ended)
            failed = analysed.outcomes.failed[parameter.has]
            elsewhere = (int(np.nansum(failed)) - failures, int(np.isfinite(failed).sum()) - ended)
            yield Finding(
                rule=Rule.INFEASIBLE_REGION,
                severity=Severity.WARNING,
                subjects=(effect.parameter, f"{effect.parameter}={label}"),
                numbers={
                    "failures": failures,
                    "ended": ended,
                    "low": low,
                    "high": high,
                    "failures_elsewhere": elsewhere[0],
                    "ended_elsewhere": elsewhere[1],
                    "p_corrected": effect.failure_p_corrected,
                },
                evidence=f"{failures} of {counted(ended, 'run')} with {effect.parameter} {label} failed (95% interval "
                f"{interval_text((low, high))}), elsewhere {elsewhere[0]} of {elsewhere[1]}.",
                consequence="Most runs there fail, and the good ones are exceptions. Leave it out, or fix the failures "
                "first.",
            )


def _mostly_failing(parameter: Parameter, failed: Floats) -> list[tuple[str, int, int]]:
    """Return (label, failures, ended) of every listed value, or of the one end of a range, that mostly fails."""
    if not parameter.is_range:
        parts = [(parameter.label(part), failed[runs]) for part, runs in enumerate(parameter.parts)]
        counts = [(label, int(np.nansum(values)), int(np.isfinite(values).sum())) for label, values in parts]
        return [count for count in counts if _most_fail(*count[1:])]
    ended = np.flatnonzero(parameter.has & np.isfinite(failed))
    rising = ended[np.argsort(parameter.index[ended], kind="stable")]
    ends = []
    for order, sign in ((rising, "<="), (rising[::-1], ">=")):
        failures = np.cumsum(failed[order]).astype(int)
        # A stretch holds all runs of its last value, and at most half of the runs.
        closed = np.append(np.diff(parameter.index[order]) != 0, True)
        for count in np.flatnonzero(closed[: len(order) // 2]) + 1:
            if _most_fail(int(failures[count - 1]), int(count)):
                value = parameter.levels[parameter.index[order[count - 1]]]
                ends.append((f"{sign} {text_of(value)}", int(failures[count - 1]), int(count)))
    return sorted(ends, key=lambda end: -wilson_interval(end[1], end[2])[0])[:1]


def _most_fail(failures: int, ended: int) -> bool:
    return ended >= FAILS_LEAST and failures >= FAILS_RATE * ended


def optima(place_K: Floats, rank_score_K: Floats, rng: np.random.Generator) -> Floats:
    """Return where in 0..1 a quadratic has its optimum, for bootstrap samples of the runs."""
    drawn_SK = rng.integers(len(place_K), size=(RESAMPLES, len(place_K)))
    place_SK, rank_score_SK = place_K[drawn_SK], rank_score_K[drawn_SK]
    powers_SKP = np.stack([np.ones_like(place_SK), place_SK, place_SK**2], axis=2)
    gram_SPP = powers_SKP.transpose(0, 2, 1) @ powers_SKP
    # A little ridge, because a sample may hold only two places.
    gram_SPP += 1e-9 * len(place_K) * np.eye(3)
    coefficients_SP = np.linalg.solve(gram_SPP, (powers_SKP.transpose(0, 2, 1) @ rank_score_SK[:, :, None]))[:, :, 0]
    slope_S, bend_S = coefficients_SP[:, 1], coefficients_SP[:, 2]
    better_end_S = (slope_S + bend_S > 0).astype(np.float64)
    vertex_S = np.divide(-slope_S, 2 * bend_S, out=better_end_S.copy(), where=bend_S < 0)
    return np.asarray(np.where(bend_S < 0, np.clip(vertex_S, 0.0, 1.0), better_end_S))


def _place_in_space(parameter: Parameter) -> Floats | None:
    """Return every run's position in the searched space, 0..1; None for values without order, or too few values."""
    if parameter.kind != "ordered":
        return None
    values = np.array([math.nan if value is None else float(value) for value in parameter.values])
    if isinstance(parameter.spec, Choice):
        listed = sorted({float(value) for value in parameter.spec.values})
        if len(listed) < LEAST_LEVELS:
            return None
        return np.where(np.isnan(values), np.nan, np.searchsorted(listed, values) / (len(listed) - 1))
    if not isinstance(parameter.spec, Range):
        return None
    low, high = ends(parameter.spec)
    if not (math.isfinite(low) and math.isfinite(high)) or low >= high:
        return None
    if parameter.scale == "log" and low > 0:
        return np.asarray(np.log(values / low) / math.log(high / low))
    return np.asarray((values - low) / (high - low))


def _end(parameter: Parameter, end: float) -> float:
    if isinstance(parameter.spec, Range):
        return ends(parameter.spec)[int(end)]
    return float(parameter.levels[-1] if end else parameter.levels[0])
