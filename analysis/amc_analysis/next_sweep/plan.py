"""The plan of the next sweep: the values of every parameter, repeats, the number of runs and their cost."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from amc_analysis.next_sweep.narrowing import narrow
from amc_analysis.results.analysed_sweep import AnalysedSweep
from amc_analysis.results.next_sweep import Decision, Narrowing, ParameterPath, Seeds, SweepPlan
from amc_analysis.runs.parameters import unreadable_parameters
from amc_analysis.runs.replicates import SEED_NAMES
from amc_core.config import VARIANT, read_variant
from amc_sweeps.grammar.configurations import count_configurations
from amc_sweeps.grammar.distributions import DISTRIBUTIONS, Range
from amc_sweeps.grammar.parse import parse_leniently
from amc_sweeps.grammar.sweep_config import Constant, Leaf, SweepConfig, flatten
from amc_sweeps.grammar.trial_program import is_trial_program
from amc_sweeps.runs.causes import Cause
from amc_sweeps.runs.evidence import epochs_planned
from amc_sweeps.values import names_seed, nest

SEEDS = 3  # repeats of a configuration where the best runs are equal within noise
FEWEST_RUNS = 12  # of the next sweep

Sections = dict[ParameterPath, dict[str, Any]]


class NoNextSweepError(ValueError):
    """No next sweep can be written; the message gives the reason."""


def plan_next_sweep(analysed: AnalysedSweep) -> SweepPlan:
    """Return the plan of the next sweep.

    Raises:
        NoNextSweepError: when the sweep's configuration, or one of its parameters, cannot be read.
    """
    sweep = _readable_config(analysed)
    narrowing = narrow(analysed, sweep)
    sections = _sections(sweep, narrowing)
    seeds = _seeds(analysed, narrowing, sections)
    if seeds is not None and seeds.path is not None and seeds.values is not None:
        sections[seeds.path] = {"values": list(seeds.values)}
    configurations = _count(analysed, sweep.method, sections)
    run_cap, reason = _run_cap(analysed, sweep.method, configurations)
    epochs_run = [entry.epochs for entry in analysed.ranked if entry.epochs and entry.cause is not Cause.RUNNING]
    planned = [epochs for entry in analysed.ranked if (epochs := epochs_planned(entry.run.config)) is not None]
    return SweepPlan(
        narrowing=narrowing,
        seeds=seeds,
        sections=sections,
        method=sweep.method,
        configurations=configurations,
        run_cap=run_cap,
        run_cap_reason=reason,
        epochs=_two_digits(run_cap * fmean(epochs_run)) if epochs_run else None,
        epochs_at_most=run_cap * max(planned) if planned else None,
    )


def _readable_config(analysed: AnalysedSweep) -> SweepConfig:
    if analysed.record.kind != "sweep":
        raise NoNextSweepError("no next sweep can be written: these runs were not read as a sweep. Give a SWEEP")
    sweep, problems = parse_leniently(analysed.config)
    if sweep is None or not sweep.parameters:
        reason = "; ".join(problems) or "it has no parameters"
        raise NoNextSweepError(f"no next sweep can be written from this one's configuration: {reason}")
    unreadable = unreadable_parameters(analysed.config)
    if unreadable:
        raise NoNextSweepError(
            f"no next sweep can be written: {', '.join(unreadable)} cannot be read from this sweep's file: "
            f"{'; '.join(problems)}"
        )
    return sweep


def _sections(sweep: SweepConfig, narrowing: Narrowing) -> Sections:
    decisions = {decision.path: decision for decision in narrowing.decisions}
    sections = {path: _section(leaf, decisions.get(path)) for path, leaf in flatten(sweep.parameters)}
    left = sections.get((VARIANT,), {})
    if "value" in left and is_trial_program(sweep.program):
        del sections[(VARIANT,)]  # only one is left, so its fields need not be coupled
        sections |= {(name,): {"value": value} for name, value in read_variant(left["value"]).items()}
    return sections


def _section(leaf: Leaf, decision: Decision | None) -> dict[str, Any]:
    if decision is not None and decision.section:
        values = decision.section.get("values", ())
        return {"value": values[0]} if len(values) == 1 else decision.section
    if isinstance(leaf, Constant):
        return {"value": leaf.value}
    if not isinstance(leaf, Range):
        weights = {} if leaf.probabilities is None else {"probabilities": list(leaf.probabilities)}
        return {"values": list(leaf.values), **weights}
    keys = {key: getattr(leaf, key) for key in DISTRIBUTIONS[leaf.distribution]}
    return {"distribution": leaf.distribution, **{key: value for key, value in keys.items() if value is not None}}


def _seeds(analysed: AnalysedSweep, narrowing: Narrowing, sections: Sections) -> Seeds | None:
    """Decide on repeats; None where one run is clearly the best, or too few were compared."""
    if narrowing.horizon is None or narrowing.equals < 2:
        return None
    reason = f"The best {narrowing.equals} runs are equal within noise; repeats show which is better."
    searched = [path for path in sections if names_seed(path[-1]) and "value" not in sections[path]]
    if searched:
        return Seeds(reason, searched[0], None)
    path = _seed_path(analysed, sections)
    if path is None:
        return Seeds(reason, None, None)
    used = [seed for entry in analysed.ranked if isinstance(seed := entry.run.config.get(path[0]), int)]
    first = min(used, default=0)
    return Seeds(reason, path, tuple(range(first, first + SEEDS)))


def _seed_path(analysed: AnalysedSweep, sections: Sections) -> ParameterPath | None:
    """Return the path of the parameter that seeds a run, from the sweep, else from the runs' configurations."""
    for path in sections:
        if path[-1] in SEED_NAMES:
            return path
    if is_trial_program(analysed.config.get("program")):
        return ("seed",)
    return next(((name,) for name in SEED_NAMES if any(name in entry.run.config for entry in analysed.ranked)), None)


def _count(analysed: AnalysedSweep, method: str, sections: Sections) -> int | None:
    parameters = nest(
        (tuple(key for name in path for key in (name, "parameters"))[:-1], dict(section))
        for path, section in sections.items()
    )
    metric = {"name": analysed.metric.name, "goal": analysed.metric.goal}
    sweep, problems = parse_leniently({"method": method, "metric": metric, "parameters": parameters})
    if sweep is None or problems:
        raise NoNextSweepError("no valid sweep follows from this one: " + "; ".join(problems))
    return count_configurations(sweep)


def _run_cap(analysed: AnalysedSweep, method: str, configurations: int | None) -> tuple[int, str]:
    if method == "grid" and configurations is not None:
        return configurations, "The whole grid."
    budget = max(FEWEST_RUNS, len(analysed.ranked))
    if configurations is not None and configurations <= budget:
        return configurations, "Every configuration once."
    return budget, f"As many runs as this sweep had, but at least {FEWEST_RUNS}."


def _two_digits(value: float) -> int:
    return int(float(f"{value:.2g}")) if value >= 100 else round(value)
