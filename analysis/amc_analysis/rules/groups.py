"""Comparisons of groups of runs: too few runs, unequal numbers of runs, unequal lengths of runs."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from amc_analysis.effects.permutation import dependence, permutation_test, shuffles
from amc_analysis.results.analysed_sweep import AnalysedSweep
from amc_analysis.results.effects import Effect, ValueOutcome
from amc_analysis.results.finding import Finding, Rule, Severity
from amc_analysis.runs.failure_rates import SMALL_GROUP
from amc_analysis.runs.parameters import text_of
from amc_sweeps.number_formats import counted, listed
from amc_sweeps.runs.claims import Claim, ClaimKind
from amc_sweeps.runs.metric_scale import interval_text
from amc_sweeps.runs.statistics import wilson_interval

CENSORED_P = 0.01  # corrected, over all parameters
PERMUTATIONS = 2000
MUCH_MORE = 1.5  # ratio of group sizes; the best of 13 runs against the best of 12 is a fair comparison


def group_n_too_small(analysed: AnalysedSweep) -> Iterator[Finding]:
    """Report a claim that rests on fewer than 5 runs, or a parameter's leading value with fewer."""
    claimed = set()
    for claim in analysed.claims(ClaimKind.GROUP):
        n = claim.numbers.get("n")
        if claim.parameter is None or n is None or n >= SMALL_GROUP:
            continue
        claimed.add(claim.parameter)
        group = f" with {claim.parameter} = {' or '.join(text_of(value) for value in claim.values)}"
        yield _small(f"“{claim.statement}”", group, int(n), claim.numbers.get("failures"), (claim.parameter,))
    for claim in analysed.claims(ClaimKind.COMPARISON):
        sizes = [claim.numbers[name] for name in ("n_first", "n_second") if name in claim.numbers]
        if claim.parameter is not None and claim.parameter not in claimed and min(sizes, default=99) < SMALL_GROUP:
            claimed.add(claim.parameter)
            group = f" with the rarer value of {claim.parameter}"
            yield _small(f"“{claim.statement}”", group, int(min(sizes)), None, (claim.parameter,))
    if not analysed.is_complete:
        return
    leads = {}
    for effect in analysed.effects:
        leader = _leader(effect)
        # A part of a range always holds a quarter of the runs, so its n is no evidence.
        if effect.parameter in claimed or leader is None or leader.low is not None or leader.n >= SMALL_GROUP:
            continue
        leads[effect.parameter, f"{effect.parameter}={leader.label}"] = leader.n
    if leads:
        yield _small_leads(leads)


def _small_leads(leads: dict[tuple[str, str], int]) -> Finding:
    """Return the one finding about leading values: (parameter, parameter=value) -> number of runs."""
    names = [f"{value} ({counted(n, 'run')})" for (_, value), n in leads.items()]
    leading = f"The lead of {names[0]} rests" if len(names) == 1 else f"The leads of {listed(names)} each rest"
    return Finding(
        rule=Rule.GROUP_N_TOO_SMALL,
        severity=Severity.NOTE,  # no claim rests on them
        subjects=tuple(subject for lead in leads for subject in lead),
        numbers={"n": min(leads.values()), "leads": len(leads)},
        evidence=f"{leading} on fewer than {SMALL_GROUP} runs.",
        consequence='So few runs do not support words such as "best" or "unstable". Run these values again first.',
    )


def _small(statement: str, group: str, n: int, failures: float | None, subjects: tuple[str, ...]) -> Finding:
    low, high = wilson_interval(min(int(failures or 0), n), n)
    rate = "" if failures is None else f"; {failures:.0f} of {n} failed, 95% interval {interval_text((low, high))}"
    too_few = f"{counted(n, 'run')} {'is' if n == 1 else 'are'}"
    return Finding(
        rule=Rule.GROUP_N_TOO_SMALL,
        severity=Severity.WARNING,
        subjects=subjects,
        numbers={"n": n, "failures": failures, "low": low, "high": high},
        evidence=f"{statement} rests on {counted(n, 'run')}{group}{rate}.",
        consequence=f'{too_few} too few for words such as "best" or "unstable". Run it again first.',
    )


def max_of_unequal_n(analysed: AnalysedSweep) -> Iterator[Finding]:
    """Report a comparison of the best of unequal or unknown numbers of runs."""
    claimed = set()
    for claim in analysed.claims(ClaimKind.COMPARISON):
        first, second = claim.numbers.get("n_first"), claim.numbers.get("n_second")
        if claim.statistic != "max" or claim.parameter is None or (first is not None and first == second):
            continue
        claimed.add(claim.parameter)
        yield _unequal_claim(claim, first, second)
    for effect in analysed.effects if analysed.is_complete else ():
        if effect.parameter in claimed:
            continue
        valued = [value for value in effect.values if value.best is not None and value.expected_best is not None]
        if len({value.runs for value in valued}) < 2:
            continue
        sign = analysed.outcomes.sign
        by_max = max(valued, key=lambda value: sign * (value.best or 0.0))
        at_equal_n = max(valued, key=lambda value: sign * (value.expected_best or 0.0))
        ahead = sign * ((at_equal_n.expected_best or 0.0) - (by_max.expected_best or 0.0))
        if ahead <= 0 or by_max.runs < MUCH_MORE * at_equal_n.runs:
            continue
        yield _unequal(analysed, effect, by_max, at_equal_n)


def _unequal_claim(claim: Claim, first: float | None, second: float | None) -> Finding:
    has_sizes = first is not None and second is not None
    sizes = (
        f"the best of {first:.0f} runs with the best of {second:.0f}" if has_sizes else "the best runs of two groups"
    )
    unknown = "" if has_sizes else ", but does not give the sizes of the groups"
    return Finding(
        rule=Rule.MAX_OF_UNEQUAL_N,
        severity=Severity.ERROR,
        subjects=(str(claim.parameter),),
        numbers={"n_first": first, "n_second": second, "difference": claim.numbers.get("difference")},
        evidence=f"“{claim.statement}” compares {sizes} ({claim.parameter}){unknown}.",
        consequence="The best of a larger group is better by chance alone. Compare means, or the expected best of "
        "equally many runs.",
    )


def _unequal(analysed: AnalysedSweep, effect: Effect, by_max: ValueOutcome, at_equal_n: ValueOutcome) -> Finding:
    k = counted(effect.k, "run")
    best = [analysed.scale.text(value.best or math.nan) for value in (by_max, at_equal_n)]
    expected = [analysed.scale.text(value.expected_best or math.nan) for value in (by_max, at_equal_n)]
    return Finding(
        rule=Rule.MAX_OF_UNEQUAL_N,
        severity=Severity.WARNING,
        subjects=(effect.parameter, f"{effect.parameter}={by_max.label}", f"{effect.parameter}={at_equal_n.label}"),
        numbers={
            "n_first": by_max.n,
            "best_first": by_max.best,
            "expected_first": by_max.expected_best,
            "n_second": at_equal_n.n,
            "best_second": at_equal_n.best,
            "expected_second": at_equal_n.expected_best,
            "k": effect.k,
        },
        evidence=f"The best of {counted(by_max.n, 'run')} with {effect.parameter} = {by_max.label} is {best[0]}, the "
        f"best of {at_equal_n.n} with {at_equal_n.label} is {best[1]}; the expected best of {k} is {expected[0]} "
        f"and {expected[1]}.",
        consequence=f"{by_max.label} leads only by having more runs. At equal numbers {at_equal_n.label} leads.",
    )


def censored_comparison(analysed: AnalysedSweep) -> Iterator[Finding]:
    """Report a parameter whose values have unequal shares of runs that were cut short: peaks cannot be compared."""
    yield from _inside_warmup(analysed)
    cut_N = analysed.outcomes.cut_short.astype(np.float64)
    if cut_N.all() or not cut_N.any():
        return
    low = "low" if analysed.metric.goal == "maximize" else "high"
    parameters = [parameter for parameter in analysed.parameters if parameter.basis.shape[1]]
    order_BN = shuffles(analysed.outcomes.n, PERMUTATIONS, np.random.default_rng(analysed.seed))
    cut_BN = cut_N[order_BN]
    _, corrected_L = permutation_test([dependence(cut_BN, parameter, of_each_value=True) for parameter in parameters])
    for parameter, p_corrected in zip(parameters, corrected_L.tolist(), strict=True):
        if p_corrected >= CENSORED_P:
            continue
        counts = [(int(cut_N[runs].sum()), len(runs)) for runs in parameter.parts]
        shares = ", ".join(f"{cut} of {n} with {parameter.label(part)}" for part, (cut, n) in enumerate(counts))
        yield Finding(
            rule=Rule.CENSORED_COMPARISON,
            severity=Severity.WARNING,
            subjects=(parameter.name,),
            numbers={
                "p_corrected": p_corrected,
                "equal_epochs": analysed.outcomes.equal_epochs,
                "least_share": min(cut / n for cut, n in counts),
                "greatest_share": max(cut / n for cut, n in counts),
            },
            evidence=f"The values of {parameter.name} had unequal shares of runs that were cut short: {shares}.",
            consequence=f"The {analysed.best_value_name}s of runs that were cut short are too {low} for a comparison. "
            "Compare at equal epochs, as the table of effects does, and not by how many runs finished.",
        )


def _inside_warmup(analysed: AnalysedSweep) -> Iterator[Finding]:
    """Report a claim that judges a warmup by runs that ended in it."""
    ends = [claim.numbers["epoch"] for claim in analysed.claims(ClaimKind.READING) if "epoch" in claim.numbers]
    for claim in analysed.claims(ClaimKind.COMPARISON):
        lengths = [float(value) for value in claim.values if isinstance(value, int | float)]
        inside = [epoch for epoch in ends if lengths and 0 < epoch <= max(lengths)]
        if claim.parameter is None or "warmup" not in claim.parameter or not inside:
            continue
        yield Finding(
            rule=Rule.CENSORED_COMPARISON,
            severity=Severity.ERROR,
            subjects=(claim.parameter,),
            numbers={"warmup": max(lengths), "epoch": min(inside), "difference": claim.numbers.get("difference")},
            evidence=f"“{claim.statement}” judges a warmup of {max(lengths):g} epochs, but most of its runs ended in "
            f"epoch {min(inside):g}, during the warmup.",
            consequence="Runs that end during the warmup are no evidence about its effect.",
        )


def _leader(effect: Effect) -> ValueOutcome | None:
    scored = [value for value in effect.values if value.rank_score is not None and value.n]
    return max(scored, key=lambda value: value.rank_score or 0.0) if len(scored) > 1 else None
