"""Where in the searched space the best and the impossible lie."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from amc_analysis.effects.parameters import Floats, Parameter, text_of
from amc_analysis.rules.case import Case
from amc_analysis.rules.finding import Firing, Rule, Severity
from amc_sweeps.grammar.distributions import Range, ends
from amc_sweeps.grammar.sweep_config import Choice
from amc_sweeps.runs.statistics import wilson_interval

LEAST_LEVELS = 5  # of a list; the best of a null list of 3 lies at an end two times in three
EFFECT_P = 0.02  # corrected: without an effect the best value lies somewhere by chance
AT_END_SHARE = 0.7  # of the resampled fits whose optimum is at the end
RESAMPLES = 300
NEAR_END = 0.3  # of the range
BEST_SHARE = 0.1  # of the runs, at least 3: most of them too have to lie near the end

FAILS_P = 0.01  # corrected
FAILS_RATE = 0.75
FAILS_LEAST = 3  # runs


def best_at_boundary(case: Case) -> Iterator[Firing]:
    """Fire where performance rises up to an end of what was searched.

    Needs at least 5 ordered values or a range, an effect over all looks (corrected p < 0.02), a quadratic whose
    optimum lies at that end in 70 % of bootstrap samples, and the best tenth of the runs in the outer 30 %.
    """
    effects = {effect.parameter: effect for effect in case.effects}
    for parameter in case.parameters:
        effect = effects.get(parameter.name)
        if effect is None or effect.p_corrected is None or effect.p_corrected >= EFFECT_P:
            continue
        place = _place_in_space(parameter)
        if place is None:
            continue
        known = np.flatnonzero(np.isfinite(place) & np.isfinite(case.outcomes.standing))
        # Normal scores: shares of beaten runs bend at 0 and 1, which would look like an optimum inside.
        place_K, standing_K = place[known], normal_scores(case.outcomes.standing[known])
        top = max(3, math.ceil(BEST_SHARE * len(known)))
        median_of_best = float(np.median(place_K[np.argsort(-standing_K, kind="stable")[:top]]))
        if NEAR_END < median_of_best < 1 - NEAR_END:
            continue
        end = 1.0 if median_of_best > 0.5 else 0.0
        share = float((optima(place_K, standing_K, np.random.default_rng(case.seed)) == end).mean())
        if share < AT_END_SHARE:
            continue
        value = _end(parameter, end)
        which = "highest" if end else "lowest"
        yield Firing(
            rule=Rule.BEST_AT_BOUNDARY,
            severity=Severity.NOTE,
            subjects=(parameter.name, f"{parameter.name}={text_of(value)}"),
            numbers={"boundary": value, "share": share, "p_corrected": effect.p_corrected, "n": len(known)},
            evidence=f"Performance rises up to {parameter.name} = {text_of(value)}, the {which} that was searched: in "
            f"{share:.0%} of resampled fits the optimum lies there ({len(known)} runs, corrected p "
            f"{effect.p_corrected:.2g}).",
            consequence="The optimum may lie outside: widen the range beyond this end before narrowing it.",
        )


def infeasible_region(case: Case) -> Iterator[Firing]:
    """Fire where runs of one value, or one part of a range, fail almost always, and more than chance allows."""
    for effect in case.effects:
        if effect.failure_p_corrected is None or effect.failure_p_corrected >= FAILS_P:
            continue
        parameter = next(known for known in case.parameters if known.name == effect.parameter)
        for label, failures, ended in _mostly_failing(parameter, case.outcomes.failed):
            low, high = wilson_interval(failures, ended)
            known = case.outcomes.failed[parameter.has]
            elsewhere = (int(np.nansum(known)) - failures, int(np.isfinite(known).sum()) - ended)
            yield Firing(
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
                evidence=f"{failures} of {ended} runs with {effect.parameter} {label} failed (95 % interval {low:.0%} "
                f"to {high:.0%}), {elsewhere[0]} of {elsewhere[1]} elsewhere.",
                consequence="Runs there are mostly lost: leave it out, or make it trainable first; its good runs are "
                "the lucky ones.",
            )


def _mostly_failing(parameter: Parameter, failed: Floats) -> list[tuple[str, int, int]]:
    """Return (label, failures, ended) of every listed value, or of the one end of a range, that mostly fails."""
    if not parameter.is_range:
        counted = [(parameter.label(part), failed[runs]) for part, runs in enumerate(parameter.parts)]
        found = [(label, int(np.nansum(some)), int(np.isfinite(some).sum())) for label, some in counted]
        return [each for each in found if _mostly(*each[1:])]
    ended = np.flatnonzero(parameter.has & np.isfinite(failed))
    rising = ended[np.argsort(parameter.index[ended], kind="stable")]
    ends = []
    for order, sign in ((rising, "<="), (rising[::-1], ">=")):
        failures = np.cumsum(failed[order]).astype(int)
        # A stretch holds all runs of its last value, and not most of all runs.
        closed = np.append(np.diff(parameter.index[order]) != 0, True)
        for count in np.flatnonzero(closed[: len(order) // 2]) + 1:
            if _mostly(int(failures[count - 1]), int(count)):
                value = parameter.levels[parameter.index[order[count - 1]]]
                ends.append((f"{sign} {text_of(value)}", int(failures[count - 1]), int(count)))
    return sorted(ends, key=lambda end: -wilson_interval(end[1], end[2])[0])[:1]


def _mostly(failures: int, ended: int) -> bool:
    return ended >= FAILS_LEAST and failures >= FAILS_RATE * ended


def normal_scores(standing_K: Floats) -> Floats:
    """Return the normal quantiles of shares of beaten runs."""
    from scipy.special import ndtri

    n = len(standing_K)
    return np.asarray(ndtri((standing_K * (n - 1) + 0.5) / n))


def optima(place_K: Floats, standing_K: Floats, rng: np.random.Generator) -> Floats:
    """Return where in 0..1 a quadratic has its optimum, for bootstrap samples of the runs."""
    drawn_SK = rng.integers(len(place_K), size=(RESAMPLES, len(place_K)))
    place_SK, standing_SK = place_K[drawn_SK], standing_K[drawn_SK]
    powers_SKP = np.stack([np.ones_like(place_SK), place_SK, place_SK**2], axis=2)
    gram_SPP = powers_SKP.transpose(0, 2, 1) @ powers_SKP
    # A trace of ridge: a sample may hold two places only.
    gram_SPP += 1e-9 * len(place_K) * np.eye(3)
    coefficients_SP = np.linalg.solve(gram_SPP, (powers_SKP.transpose(0, 2, 1) @ standing_SK[:, :, None]))[:, :, 0]
    slope_S, bend_S = coefficients_SP[:, 1], coefficients_SP[:, 2]
    better_end_S = (slope_S + bend_S > 0).astype(np.float64)
    vertex_S = np.divide(-slope_S, 2 * bend_S, out=better_end_S.copy(), where=bend_S < 0)
    return np.asarray(np.where(bend_S < 0, np.clip(vertex_S, 0.0, 1.0), better_end_S))


def _place_in_space(parameter: Parameter) -> Floats | None:
    """Return where in 0..1 of what is searched every run lies; None for what has no order, or too few values."""
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
