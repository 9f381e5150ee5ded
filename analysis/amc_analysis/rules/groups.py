"""Groups of runs that are compared: enough of them, equally many, and seen for equally long."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from amc_analysis.effects.effects import Effect, ValueOutcome
from amc_analysis.effects.parameters import text_of
from amc_analysis.effects.permutation import dependence, shuffles, test
from amc_analysis.rules.case import Case, counted
from amc_analysis.rules.finding import Firing, Rule, Severity
from amc_analysis.runs.findings import SMALL_GROUP
from amc_sweeps.runs.claims import Claim, ClaimKind
from amc_sweeps.runs.statistics import wilson_interval

CENSORED_P = 0.01  # corrected, over all parameters
PERMUTATIONS = 2000
MUCH_MORE = 1.5  # times as many runs: the best of 13 against the best of 12 is no unfair comparison


def group_n_too_small(case: Case) -> Iterator[Firing]:
    """Fire where a statement rests on fewer than 5 runs, or the leading value of a parameter does."""
    claimed = set()
    for claim in case.claims(ClaimKind.GROUP):
        n = claim.numbers.get("n")
        if claim.parameter is None or n is None or n >= SMALL_GROUP:
            continue
        claimed.add(claim.parameter)
        named = f" with {claim.parameter} = {' or '.join(text_of(value) for value in claim.values)}"
        yield _small(f"“{claim.statement}”", named, int(n), claim.numbers.get("failures"), (claim.parameter,))
    for claim in case.claims(ClaimKind.COMPARISON):
        sizes = [claim.numbers[name] for name in ("n_first", "n_second") if name in claim.numbers]
        if claim.parameter is not None and claim.parameter not in claimed and min(sizes, default=99) < SMALL_GROUP:
            claimed.add(claim.parameter)
            named = f" with the rarer value of {claim.parameter}"
            yield _small(f"“{claim.statement}”", named, int(min(sizes)), None, (claim.parameter,))
    if not case.is_whole:
        return
    for effect in case.effects:
        leader = _leader(effect)
        # A part of a range is cut to hold a quarter of the runs: its n is no news.
        if effect.parameter in claimed or leader is None or leader.low is not None or leader.n >= SMALL_GROUP:
            continue
        value = f"{effect.parameter}={leader.label}"
        firing = _small(f"The lead of {value}", "", leader.n, None, (effect.parameter, value))
        yield replace(firing, severity=Severity.NOTE)  # nobody has claimed anything yet


def _small(told: str, named: str, n: int, failures: float | None, subjects: tuple[str, ...]) -> Firing:
    low, high = wilson_interval(min(int(failures or 0), n), n)
    rate = "" if failures is None else f"; {failures:.0f} of {n} failed, 95 % interval {low:.0%} to {high:.0%}"
    return Firing(
        rule=Rule.GROUP_N_TOO_SMALL,
        severity=Severity.WARNING,
        subjects=subjects,
        numbers={"n": n, "failures": failures, "low": low, "high": high},
        evidence=f"{told} rests on {counted(n, 'run')}{named}{rate}.",
        consequence=f"Under {SMALL_GROUP} runs neither a rate nor a mean carries an adjective: repeat it first.",
    )


def max_of_unequal_n(case: Case) -> Iterator[Firing]:
    """Fire where maxima over unequal n are compared, and equal numbers would say otherwise or nobody knows."""
    claimed = set()
    for claim in case.claims(ClaimKind.COMPARISON):
        first, second = claim.numbers.get("n_first"), claim.numbers.get("n_second")
        if claim.statistic != "max" or claim.parameter is None or (first is not None and first == second):
            continue
        claimed.add(claim.parameter)
        yield _unequal_claim(claim, first, second)
    for effect in case.effects if case.is_whole else ():
        if effect.parameter in claimed:
            continue
        known = [value for value in effect.values if value.best is not None and value.expected_best is not None]
        if len({value.runs for value in known}) < 2:
            continue
        sign = case.outcomes.sign
        by_max = max(known, key=lambda value: sign * (value.best or 0.0))
        fairly = max(known, key=lambda value: sign * (value.expected_best or 0.0))
        ahead = sign * ((fairly.expected_best or 0.0) - (by_max.expected_best or 0.0))
        if ahead <= 0 or by_max.runs < MUCH_MORE * fairly.runs:
            continue
        yield _unequal(case, effect, by_max, fairly)


def _unequal_claim(claim: Claim, first: float | None, second: float | None) -> Firing:
    known = first is not None and second is not None
    sizes = (
        f"the best of {first:.0f} runs against the best of {second:.0f}" if known else "one best run against another"
    )
    unknown = "" if known else "; of how many each is the best is not said"
    return Firing(
        rule=Rule.MAX_OF_UNEQUAL_N,
        severity=Severity.ERROR,
        subjects=(str(claim.parameter),),
        numbers={"n_first": first, "n_second": second, "difference": claim.numbers.get("difference")},
        evidence=f"“{claim.statement}” sets {sizes} ({claim.parameter}){unknown}.",
        consequence="The larger group tends to have the better best by chance alone: compare means, or "
        "the expected best of equally many runs.",
    )


def _unequal(case: Case, effect: Effect, by_max: ValueOutcome, fairly: ValueOutcome) -> Firing:
    best = [case.text(value.best or math.nan) for value in (by_max, fairly)]
    expected = [case.text(value.expected_best or math.nan) for value in (by_max, fairly)]
    return Firing(
        rule=Rule.MAX_OF_UNEQUAL_N,
        severity=Severity.WARNING,
        subjects=(effect.parameter, f"{effect.parameter}={by_max.label}", f"{effect.parameter}={fairly.label}"),
        numbers={
            "n_first": by_max.n,
            "best_first": by_max.best,
            "expected_first": by_max.expected_best,
            "n_second": fairly.n,
            "best_second": fairly.best,
            "expected_second": fairly.expected_best,
            "k": effect.k,
        },
        evidence=f"The best of {by_max.n} runs with {effect.parameter} = {by_max.label} is {best[0]}, "
        f"of {fairly.n} with {fairly.label} {best[1]}; the expected best of {effect.k} is "
        f"{expected[0]} and {expected[1]}.",
        consequence=f"{by_max.label} leads by having had more runs: at equal numbers {fairly.label} is ahead.",
    )


def censored_comparison(case: Case) -> Iterator[Firing]:
    """Fire where one value's runs were cut short more often than another's, so that their peaks do not compare."""
    yield from _inside_warmup(case)
    cut_N = case.outcomes.cut_short.astype(np.float64)
    if cut_N.all() or not cut_N.any():
        return
    parameters = [parameter for parameter in case.parameters if parameter.basis.shape[1]]
    order_BN = shuffles(case.outcomes.n, PERMUTATIONS, np.random.default_rng(case.seed))
    cut_BN = cut_N[order_BN]
    _, corrected_L = test([dependence(cut_BN, parameter, of_each_value=True) for parameter in parameters])
    for parameter, p_corrected in zip(parameters, corrected_L.tolist(), strict=True):
        if p_corrected >= CENSORED_P:
            continue
        counts = [(int(cut_N[runs].sum()), len(runs)) for runs in parameter.parts]
        told = ", ".join(f"{cut} of {n} with {parameter.label(part)}" for part, (cut, n) in enumerate(counts))
        yield Firing(
            rule=Rule.CENSORED_COMPARISON,
            severity=Severity.WARNING,
            subjects=(parameter.name,),
            numbers={
                "p_corrected": p_corrected,
                "equal_epochs": case.outcomes.equal_epochs,
                "least_share": min(cut / n for cut, n in counts),
                "greatest_share": max(cut / n for cut, n in counts),
            },
            evidence=f"Runs were cut short from outside unequally over {parameter.name}: {told}.",
            consequence="Peaks of runs that were not allowed to go on are no measure of their value: compare at equal "
            "epochs, as the table of effects does, and never by how many finished.",
        )


def _inside_warmup(case: Case) -> Iterator[Firing]:
    """Fire where a warmup is judged by runs that ended inside it."""
    ends = [claim.numbers["epoch"] for claim in case.claims(ClaimKind.READING) if "epoch" in claim.numbers]
    for claim in case.claims(ClaimKind.COMPARISON):
        lengths = [float(value) for value in claim.values if isinstance(value, int | float)]
        inside = [epoch for epoch in ends if lengths and 0 < epoch <= max(lengths)]
        if claim.parameter is None or "warmup" not in claim.parameter or not inside:
            continue
        yield Firing(
            rule=Rule.CENSORED_COMPARISON,
            severity=Severity.ERROR,
            subjects=(claim.parameter,),
            numbers={"warmup": max(lengths), "epoch": min(inside), "difference": claim.numbers.get("difference")},
            evidence=f"“{claim.statement}” judges a warmup of {max(lengths):g} epochs by runs of which most ended in "
            f"epoch {min(inside):g}, inside it.",
            consequence="A run that has not left its warmup has not begun: that says nothing about what warmup does.",
        )


def _leader(effect: Effect) -> ValueOutcome | None:
    """Return the value whose runs stand best."""
    known = [value for value in effect.values if value.standing is not None and value.n]
    return max(known, key=lambda value: value.standing or 0.0) if len(known) > 1 else None
