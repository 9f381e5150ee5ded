"""The searched space and the runs: values that no run had, parameters that moved together, repeated runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from amc_analysis.results.analysed_sweep import AnalysedSweep
from amc_analysis.results.finding import Finding, Rule, Severity
from amc_analysis.runs.parameters import text_of, variants_of
from amc_sweeps.grammar.configurations import value_key
from amc_sweeps.grammar.sweep_config import Choice
from amc_sweeps.number_formats import at_most, counted, listed
from amc_sweeps.runs.claims import Claim, ClaimKind
from amc_sweeps.runs.run_states import SweepState
from amc_sweeps.runs.sweep_changes import sweep_changes
from amc_sweeps.values import look_up, names_seed

DRAWS_EACH = 3  # mean number of runs per value; a running sweep with fewer may still draw a missing value
_UNFINISHED = {SweepState.RUNNING, SweepState.PENDING, SweepState.PAUSED}
MOST_CHANGES = 6  # shown
NEAR = 1e-9  # relative rounding error of a range's end


def space_changed(analysed: AnalysedSweep) -> Iterator[Finding]:
    """Report that a sweep's parameters or method were changed after some of its runs had begun."""
    for change in sweep_changes(analysed.record):
        at = change.update.at
        times = [entry.run.created_at for entry in analysed.ranked]
        before = sum(at is None or time is None or time <= at for time in times)
        if not change.space_changes or not before:
            continue
        yield Finding(
            rule=Rule.SPACE_CHANGED,
            severity=Severity.WARNING,
            subjects=change.parameters or (analysed.record.sweep_id,),
            numbers={"at": at.isoformat() if at else None, "before": before, "runs": len(times)},
            evidence=f"The sweep was changed {change.words}, after {before} of its {counted(len(times), 'run')} had "
            f"begun: {'; '.join(at_most(change.space_changes, MOST_CHANGES))}.",
            consequence="The runs before and after it were drawn from different spaces, so a difference between values "
            "may come from the change. Compare values among the runs of one space.",
        )


def never_sampled_value(analysed: AnalysedSweep) -> Iterator[Finding]:
    """Report a value that the sweep lists and no run had."""
    for parameter in analysed.parameters:
        n = _known_runs(analysed, parameter.name)
        if not isinstance(parameter.spec, Choice) or not n:
            continue
        if analysed.record.state in _UNFINISHED and n < DRAWS_EACH * len(parameter.spec.values):
            continue  # a later run may have it
        sampled = _sampled(analysed, parameter.name)
        weights = parameter.spec.probabilities or (1 / len(parameter.spec.values),) * len(parameter.spec.values)
        missing = {
            value_key(value): (value, weight)
            for value, weight in zip(parameter.spec.values, weights, strict=True)
            if value_key(value) not in sampled and weight > 0
        }
        for value, weight in missing.values():
            by_chance = (1 - weight) ** n
            yield Finding(
                rule=Rule.NEVER_SAMPLED_VALUE,
                severity=Severity.WARNING,
                subjects=(f"{parameter.name}={text_of(value)}",),
                numbers={"value": text_of(value), "n": n, "chance": by_chance},
                evidence=f"None of {counted(n, 'run')} had {parameter.name} = {text_of(value)}, which the sweep lists "
                f"(the probability of this in random draws is {by_chance:.2g}).",
                consequence=f"There is no evidence about {text_of(value)}. Do not recommend it or rule it out.",
            )


def zero_variance_param(analysed: AnalysedSweep) -> Iterator[Finding]:
    """Report a searched parameter that took one value only."""
    for parameter in analysed.parameters:
        n = _known_runs(analysed, parameter.name)
        sampled = list(_sampled(analysed, parameter.name).values())
        if n is None or n < 2 or len(sampled) != 1:
            continue
        value = sampled[0]
        yield Finding(
            rule=Rule.ZERO_VARIANCE_PARAM,
            severity=Severity.WARNING,
            subjects=(parameter.name,),
            numbers={"value": text_of(value), "n": n},
            evidence=f"The sweep searches {parameter.name}, but all {n} runs had {text_of(value)}.",
            consequence=f"This sweep is no evidence about {parameter.name}.",
        )


def recommendation_outside_data(analysed: AnalysedSweep) -> Iterator[Finding]:
    """Report a claim that recommends a value that no run had, or that counts more runs than there were."""
    for claim in analysed.claims(ClaimKind.RECOMMENDATION):
        if claim.parameter is None:
            continue
        sampled = _sampled(analysed, claim.parameter)
        outside = _outside(claim, sampled)
        if not sampled or not outside:
            continue
        values = listed([text_of(value) for value in sorted(sampled.values(), key=_sort_key)])
        yield Finding(
            rule=Rule.RECOMMENDATION_OUTSIDE_DATA,
            severity=Severity.ERROR,
            subjects=(claim.parameter, *(f"{claim.parameter}={value}" for value in outside)),
            numbers={"recommended": ", ".join(outside), "sampled": values, "runs": len(analysed.ranked)},
            evidence=f"“{claim.statement}” recommends {claim.parameter} {' and '.join(outside)}; "
            f"the runs had {values}.",
            consequence="These runs do not support it: mark it as exploration.",
        )
    total = analysed.record.runs_total or len(analysed.ranked)
    for claim in analysed.claims(ClaimKind.COUNT):
        n = claim.numbers.get("n")
        if n is not None and n > total:
            yield Finding(
                rule=Rule.RECOMMENDATION_OUTSIDE_DATA,
                severity=Severity.ERROR,
                subjects=(analysed.record.sweep_id,),
                numbers={"claimed": n, "runs": total},
                evidence=f"“{claim.statement}” counts {n:.0f} runs, but the sweep had {total}.",
                consequence="It does not rest on this sweep alone. Ask where the other runs are before you use it.",
            )


def duplicate_configs(analysed: AnalysedSweep) -> Iterator[Finding]:
    """Report runs that repeat the configuration of another run, seed included."""
    if not analysed.parameters or analysed.config.get("method") == "grid":
        return
    seeds = [name for name in analysed.parameter_names if names_seed(name)]
    groups: dict[tuple[str, ...], list[str]] = {}
    for place, entry in enumerate(analysed.ranked):
        if all(parameter.has[place] for parameter in analysed.parameters):
            varied = [value_key(parameter.values[place]) for parameter in analysed.parameters]
            varied += [value_key(look_up(entry.run.config, name)) for name in seeds or ("seed",)]
            groups.setdefault(tuple(varied), []).append(entry.run.run_id)
    repeated = [runs for runs in groups.values() if len(runs) > 1]
    if not repeated:
        return
    n, distinct = sum(map(len, groups.values())), len(groups)
    largest = max(repeated, key=len)
    yield Finding(
        rule=Rule.DUPLICATE_CONFIGS,
        severity=Severity.NOTE,
        subjects=tuple(run for runs in repeated for run in runs),
        numbers={"runs": n, "distinct": distinct, "most": len(largest)},
        evidence=f"{n} runs have {counted(distinct, 'different configuration')}; one of them has {len(largest)} runs "
        f"({listed(largest)}).",
        consequence=f"{counted(n - distinct, 'run')} tried nothing new. Repeats measure noise, but with the same seed "
        "not the noise between seeds.",
    )


def confounded_pair(analysed: AnalysedSweep) -> Iterator[Finding]:
    """Report every pair of parameters that moved together."""
    coupled = {name for fields in variants_of(analysed.config) for name in fields}
    for pair in analysed.confounded:
        yield Finding(
            rule=Rule.CONFOUNDED_PAIR,
            severity=Severity.WARNING,
            subjects=(pair.first, pair.second),
            numbers={"strength": pair.strength, "measure": pair.measure, "n": pair.n, "p_corrected": pair.p_corrected},
            evidence=f"{pair.first} and {pair.second} moved together over {pair.n} runs ({pair.measure} "
            f"{pair.strength:.2f}).",
            consequence="The sweep's variants couple them, so their effects are one effect: compare whole variants."
            if {pair.first, pair.second} <= coupled
            else "The effect of one may be the effect of the other. Vary them independently before you trust either.",
        )


def _outside(claim: Claim, sampled: dict[str, Any]) -> list[str]:
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
    # A number between the values of the runs counts as tried, where these are enough to be a range.
    return len(numbers) > 2 and min(numbers) <= value <= max(numbers)


def _sort_key(value: Any) -> tuple[int, float, str]:
    return (0, float(value), "") if isinstance(value, int | float) else (1, 0.0, text_of(value))


def _sampled(analysed: AnalysedSweep, parameter: str) -> dict[str, Any]:
    """Return the values of a parameter that some run is known to have had, by their key."""
    sampled = {value_key(value): value for value in _recorded_values(analysed, parameter)}
    for claim in analysed.claims(ClaimKind.GROUP):
        if claim.parameter == parameter and claim.numbers.get("n", 1) > 0:
            sampled |= {value_key(value): value for value in claim.values}
    return sampled


def _recorded_values(analysed: AnalysedSweep, parameter: str) -> list[Any]:
    """Return the value of every run that has one; a null that is written down counts."""
    configs = [entry.run.config for entry in analysed.ranked]
    values = [(look_up(config, parameter), parameter in config) for config in configs]
    return [value for value, is_written in values if value is not None or is_written]


def _known_runs(analysed: AnalysedSweep, parameter: str) -> int | None:
    """Return the number of runs whose value is known, if these are all runs of the sweep; else None.

    Where only some runs are on record, claims can complete them: "all 12 runs used 1e-3".
    """
    if analysed.is_complete:
        return len(_recorded_values(analysed, parameter))
    groups = {
        tuple(map(value_key, claim.values)): claim.numbers["n"]
        for claim in analysed.claims(ClaimKind.GROUP)
        if claim.parameter == parameter and "n" in claim.numbers
    }
    total = analysed.record.runs_total
    return total if total is not None and sum(groups.values()) == total else None
