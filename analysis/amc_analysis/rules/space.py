"""The searched space against what was drawn from it: values that nobody ran, and runs that repeat each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from amc_analysis.effects.parameters import is_seed, text_of
from amc_analysis.rules.case import Case, counted, listed
from amc_analysis.rules.finding import Firing, Rule, Severity
from amc_sweeps.grammar.configurations import value_key
from amc_sweeps.grammar.sweep_config import Choice
from amc_sweeps.runs.claims import Claim, ClaimKind
from amc_sweeps.runs.run_states import SweepState
from amc_sweeps.values import look_up

DRAWS_EACH = 3  # runs a value, on average, after which one that is missing in a sweep that still runs is worth a word
_UNFINISHED = {SweepState.RUNNING, SweepState.PENDING, SweepState.PAUSED}
NEAR = 1e-9  # relative: a range's end counts as sampled however it was rounded


def never_sampled_value(case: Case) -> Iterator[Firing]:
    """Fire where the sweep lists a value that no run had."""
    for parameter in case.parameters:
        n = case.known_runs(parameter.name)
        if not isinstance(parameter.spec, Choice) or not n:
            continue
        if case.findings.sweep.state in _UNFINISHED and n < DRAWS_EACH * len(parameter.spec.values):
            continue  # it may still come
        sampled = case.sampled(parameter.name)
        weights = parameter.spec.probabilities or (1 / len(parameter.spec.values),) * len(parameter.spec.values)
        missing = {
            value_key(value): (value, weight)
            for value, weight in zip(parameter.spec.values, weights, strict=True)
            if value_key(value) not in sampled and weight > 0
        }
        for value, weight in missing.values():
            by_chance = (1 - weight) ** n
            yield Firing(
                rule=Rule.NEVER_SAMPLED_VALUE,
                severity=Severity.WARNING,
                subjects=(f"{parameter.name}={text_of(value)}",),
                numbers={"value": text_of(value), "n": n, "chance": by_chance},
                evidence=f"None of {n} runs had {parameter.name} = {text_of(value)}, which the sweep lists (by "
                f"random draws that happens with probability {by_chance:.2g}).",
                consequence=f"Nothing is known of {text_of(value)}: it may neither be recommended nor ruled out.",
            )


def zero_variance_param(case: Case) -> Iterator[Firing]:
    """Fire where a searched parameter took one value only."""
    for parameter in case.parameters:
        n = case.known_runs(parameter.name)
        sampled = list(case.sampled(parameter.name).values())
        if n is None or n < 2 or len(sampled) != 1:
            continue
        value = sampled[0]
        yield Firing(
            rule=Rule.ZERO_VARIANCE_PARAM,
            severity=Severity.WARNING,
            subjects=(parameter.name,),
            numbers={"value": text_of(value), "n": n},
            evidence=f"{parameter.name} was to be searched, and all {n} runs had {text_of(value)}.",
            consequence=f"This sweep says nothing about {parameter.name}.",
        )


def recommendation_outside_data(case: Case) -> Iterator[Firing]:
    """Fire where somebody recommends what nobody ran, or rests on more runs than there were."""
    for claim in case.claims(ClaimKind.RECOMMENDATION):
        if claim.parameter is None:
            continue
        sampled = case.sampled(claim.parameter)
        outside = _outside(claim, sampled)
        if not sampled or not outside:
            continue
        ran = listed([text_of(value) for value in sorted(sampled.values(), key=_sorting)])
        yield Firing(
            rule=Rule.RECOMMENDATION_OUTSIDE_DATA,
            severity=Severity.ERROR,
            subjects=(claim.parameter, *(f"{claim.parameter}={value}" for value in outside)),
            numbers={"recommended": ", ".join(outside), "sampled": ran, "runs": len(case.ranked)},
            evidence=f"“{claim.statement}” recommends {claim.parameter} {' and '.join(outside)}; the runs had {ran}.",
            consequence="That is a guess, and no finding of these runs: mark it as exploration.",
        )
    total = case.findings.sweep.runs_total or len(case.ranked)
    for claim in case.claims(ClaimKind.COUNT):
        n = claim.numbers.get("n")
        if n is not None and n > total:
            yield Firing(
                rule=Rule.RECOMMENDATION_OUTSIDE_DATA,
                severity=Severity.ERROR,
                subjects=(case.findings.sweep.sweep_id,),
                numbers={"claimed": n, "runs": total},
                evidence=f"“{claim.statement}” speaks of {n:.0f} runs; there were {total}.",
                consequence="What it rests on is not this sweep: ask where the other runs are before using it.",
            )


def duplicate_configs(case: Case) -> Iterator[Firing]:
    """Fire where runs repeat a configuration, seed included, that another one had."""
    if not case.parameters or case.config.get("method") == "grid":
        return
    seeds = [name for name in case.findings.parameters if is_seed(name)]
    groups: dict[tuple[str, ...], list[str]] = {}
    for place, entry in enumerate(case.ranked):
        if all(parameter.has[place] for parameter in case.parameters):
            varied = [value_key(parameter.values[place]) for parameter in case.parameters]
            varied += [value_key(look_up(entry.run.config, name)) for name in seeds or ("seed",)]
            groups.setdefault(tuple(varied), []).append(entry.run.run_id)
    repeated = [runs for runs in groups.values() if len(runs) > 1]
    if not repeated:
        return
    n, distinct = sum(map(len, groups.values())), len(groups)
    largest = max(repeated, key=len)
    yield Firing(
        rule=Rule.DUPLICATE_CONFIGS,
        severity=Severity.NOTE,
        subjects=tuple(run for runs in repeated for run in runs),
        numbers={"runs": n, "distinct": distinct, "most": len(largest)},
        evidence=f"{n} runs hold {counted(distinct, 'different configuration')}; one was run {len(largest)} "
        f"times ({listed(largest)}).",
        consequence=f"{counted(n - distinct, 'run')} explored nothing: repeats measure noise at best, and not that of "
        "seeds where the seed was the same.",
    )


def confounded_pair(case: Case) -> Iterator[Firing]:
    """Fire for every pair of parameters that moved together."""
    for pair in case.confounded:
        yield Firing(
            rule=Rule.CONFOUNDED_PAIR,
            severity=Severity.WARNING,
            subjects=(pair.first, pair.second),
            numbers={"strength": pair.strength, "measure": pair.measure, "n": pair.n, "p_corrected": pair.p_corrected},
            evidence=f"{pair.first} and {pair.second} moved together over {pair.n} runs ({pair.measure} "
            f"{pair.strength:.2f}).",
            consequence="What one of them did may have been the other's doing: vary them independently before "
            "believing either.",
        )


def _outside(claim: Claim, sampled: dict[str, Any]) -> list[str]:
    """Return which recommended values, or parts of a recommended range, lie where no run was."""
    numbers = [float(value) for value in sampled.values() if isinstance(value, int | float)]
    outside = [text_of(value) for value in claim.values if not _was_run(value, sampled, numbers)]
    low, high = claim.numbers.get("low"), claim.numbers.get("high")
    if low is not None and high is not None and numbers:
        inside = [value for value in numbers if low * (1 - NEAR) <= value <= high * (1 + NEAR)]
        if not inside:
            outside.append(f"{low:.4g} to {high:.4g}")
    return outside


def _was_run(value: Any, sampled: dict[str, Any], numbers: list[float]) -> bool:
    if value_key(value) in sampled:
        return True
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    # Between values that were run, where there are enough of them to be a range.
    return len(numbers) > 2 and min(numbers) <= value <= max(numbers)


def _sorting(value: Any) -> tuple[int, float, str]:
    is_number = isinstance(value, int | float)
    return (0, float(value), "") if is_number else (1, 0.0, text_of(value))
