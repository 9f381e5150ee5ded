"""The next sweep as a file: every range with its evidence, and what the whole of it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from amc_analysis.effects.parameters import is_seed
from amc_analysis.next_sweep.narrowing import (
    LEAST_RUNS,
    LEAST_TO_DROP,
    WHOLE,
    Decision,
    Narrowing,
    NoNextSweepError,
    ValueEvidence,
    cut_short_or_failed,
    epochs_a_run,
    narrow,
)
from amc_analysis.next_sweep.surrogate import DRAWS
from amc_analysis.next_sweep.yaml_text import comment, literal, parameters
from amc_analysis.rules.finding import Firing
from amc_analysis.runs.findings import Findings
from amc_analysis.runs.wording import Scale, scale_of
from amc_sweeps.grammar.configurations import count_configurations
from amc_sweeps.grammar.distributions import DISTRIBUTIONS, Range
from amc_sweeps.grammar.parse import parse_leniently
from amc_sweeps.grammar.sweep_config import Constant, Leaf, flatten
from amc_sweeps.runs.evidence import epochs_planned

SEEDS = 3  # repeats of a configuration where the best runs cannot be told apart
FEWEST_RUNS = 12  # that the next sweep may make
TRIAL_PROGRAM = "amc-train"
TRIAL_COMMAND = ("${env}", "${program}", "${args}")
_CARRIED = ("project", "entity", "controller", "job", "image_uri", "apiVersion", "kind")

Path = tuple[str, ...]
Sections = dict[Path, Mapping[str, Any]]
Comments = dict[Path, list[str]]


@dataclass(frozen=True)
class NextSweep:
    """The next sweep's file and what it comes to."""

    text: str  # the YAML
    summary: str  # one sentence: configurations, runs, epochs, how much smaller the space is
    configurations: int | None  # None: infinitely many
    run_cap: int
    epochs: int | None  # about; runs as long as this sweep's were on average
    epochs_at_most: int | None  # if every run takes all that is planned
    narrowing: Narrowing


def next_sweep(findings: Findings, firings: Sequence[Firing] = ()) -> NextSweep:
    """Write the next sweep, with an eye to what the integrity rules found.

    Raises:
        NoNextSweepError: when this sweep's configuration cannot be read, or no valid sweep follows from it.
    """
    narrowing = narrow(findings, firings)
    sections, comments = _parameters(narrowing, scale_of(findings))
    repeated = _add_seeds(findings, narrowing, sections, comments)
    method = narrowing.sweep.method
    configurations = _count(findings, method, sections)
    run_cap, why = _run_cap(findings, method, configurations)
    a_run, planned = epochs_a_run(findings), _planned(findings)
    epochs = None if a_run is None else _two_digits(run_cap * a_run)
    at_most = None if planned is None else run_cap * planned
    summary = _summary(configurations, run_cap, epochs, at_most, narrowing)
    lines = _head(findings, narrowing, summary, repeated)
    lines += _top_level(findings, narrowing)
    lines += [*comment(why), f"run_cap: {run_cap}", "", "parameters:", *parameters(sections, comments)]
    text = "\n".join(lines) + "\n"
    _, problems = parse_leniently(text)
    if problems:
        raise NoNextSweepError("no valid sweep follows from this one: " + "; ".join(problems))
    return NextSweep(text, summary, configurations, run_cap, epochs, at_most, narrowing)


# --- the head ------------------------------------------------------------------------------------------------------


def _head(findings: Findings, narrowing: Narrowing, summary: str, repeated: str | None) -> list[str]:
    sweep, outcomes = findings.sweep, narrowing.outcomes
    told = [
        f"The sweep after {sweep.entity}/{sweep.project}/{sweep.sweep_id}, written by amc-analyze from its "
        f"{len(findings.ranked)} runs, judged by {findings.metric.name} ({findings.metric.goal}).",
        f"{summary}.",
    ]
    if outcomes is None:
        told.append(
            f"{narrowing.runs} runs with a value exclude nothing: {LEAST_RUNS} are needed, and a parameter that took "
            "two values."
        )
    else:
        told.append(
            f"{narrowing.runs} runs were compared at epoch {outcomes.horizon}. {outcomes.carried} ended before it and "
            "were carried there by what the others gained from the same epoch, with a doubt as large as these differ."
        )
        told.append(
            f'"Optimum in 40% of draws": of {DRAWS} surfaces drawn from a Gaussian process given these runs, so many '
            f"have it there. Under 1% a value is dropped, if at least {LEAST_TO_DROP} runs had it."
        )
        noise = scale_of(findings).difference(narrowing.noise_sd or 0.0)
        told.append(
            f"Equal runs differ by about {noise} (sd). {narrowing.equals} runs lie within that of the best one."
        )
    if narrowing.left_out:
        told.append(
            f"Runs left out because their configuration is not known or not within this sweep's space: "
            f"{narrowing.left_out}."
        )
    if repeated is not None:
        told.append(repeated)
    lines: list[str] = []
    for text in told:
        lines += comment(text)
    return lines


def _summary(
    configurations: int | None, run_cap: int, epochs: int | None, at_most: int | None, narrowing: Narrowing
) -> str:
    count = "infinitely many" if configurations is None else f"{configurations:,}"
    told = f"{count} configuration{'' if configurations == 1 else 's'}, {run_cap} runs at most"
    if epochs is not None:
        told += f", about {epochs:,} epochs"
        told += "" if at_most is None or at_most <= epochs else f" ({at_most:,} if none is cut short)"
    shrinks = narrowing.shrinks
    return f"{told}; the space is {shrinks:.1f} times smaller" if shrinks > 1.05 else f"{told}; the space stays whole"


# --- everything but the parameters ---------------------------------------------------------------------------------


def _top_level(findings: Findings, narrowing: Narrowing) -> list[str]:
    config = findings.sweep.config
    name = str(config.get("name") or findings.sweep.name or findings.sweep.sweep_id)
    lines = [
        f"name: {literal(name if name.endswith('-next') else f'{name}-next')}",
        f"description: {literal(f'follows {findings.sweep.sweep_id}')}",
        "",
    ]
    lines += [f"{key}: {literal(config[key])}" for key in _CARRIED if config.get(key) is not None]
    program = config.get("program")
    if program is not None:
        lines.append(f"program: {literal(program)}")
    command = config.get("command")
    if command is None and program is not None and PurePath(str(program)).name == TRIAL_PROGRAM:
        command = list(TRIAL_COMMAND)
    if command is not None:
        lines.append(f"command: [{', '.join(_quoted(part) for part in command)}]")
    lines += ["", f"method: {narrowing.sweep.method}", *_metric(findings, narrowing), *_early_terminate(findings)]
    return lines


def _quoted(part: Any) -> str:
    """Quote what holds a macro, as everybody writes it."""
    return f'"{part}"' if isinstance(part, str) and part.startswith("${") and '"' not in part else literal(part)


def _metric(findings: Findings, narrowing: Narrowing) -> list[str]:
    given = findings.sweep.config.get("metric")
    metric = dict(given) if isinstance(given, Mapping) and given.get("name") else {"name": findings.metric.name}
    metric.setdefault("goal", findings.metric.goal)
    metric = {key: metric[key] for key in sorted(metric, key=lambda key: key != "name")}
    lines = ["metric:"]
    if metric["name"] != findings.metric.name:
        lines += comment(f"The ranges below were judged by {findings.metric.name}.", 2)
    impute = metric.pop("impute", "worst")
    lines += [f"  {key}: {literal(value)}" for key, value in metric.items()]
    bad = cut_short_or_failed(findings)
    if narrowing.sweep.method != "bayes":
        lines += comment("Read by method bayes only.", 2)
    elif impute == "worst" and bad:
        lines += comment(
            f"With worst, W&B's default, bayes would believe that the {bad} runs of this sweep that crashed, failed or "
            "were killed reached no more than the worst one; best takes what they had reached.",
            2,
        )
    lines.append(f"  impute: {'best' if impute == 'worst' else literal(impute)}")
    return lines


def _early_terminate(findings: Findings) -> list[str]:
    given = findings.sweep.config.get("early_terminate")
    if not isinstance(given, Mapping):
        return []
    section = dict(given)
    lines = ["early_terminate:"]
    asked = section.pop("strict", None)
    lines += [f"  {key}: {literal(value)}" for key, value in section.items()]
    if asked is None:
        stopped = findings.early_stops.runs
        lines += comment(
            "Was not given, and W&B's engine takes true, its documentation false. Where peaks are ranked, a run is "
            f"judged by its best value so far, not by the one at the band ({stopped} runs of this sweep were stopped).",
            2,
        )
    lines.append(f"  strict: {literal(bool(asked))}")
    return lines


def _run_cap(findings: Findings, method: str, configurations: int | None) -> tuple[int, str]:
    if method == "grid" and configurations is not None:
        return configurations, "The whole grid."
    budget = max(FEWEST_RUNS, len(findings.ranked))
    if configurations is not None and configurations <= budget:
        return configurations, "Every configuration once."
    return budget, f"As many runs as this sweep made, at least {FEWEST_RUNS}."


def _planned(findings: Findings) -> int | None:
    planned = [value for entry in findings.ranked if (value := epochs_planned(entry.run.config)) is not None]
    return max(planned, default=None)


def _count(findings: Findings, method: str, sections: Sections) -> int | None:
    nested: dict[str, Any] = {}
    for path, section in sections.items():
        inner = nested
        for piece in path[:-1]:
            inner = inner.setdefault(piece, {"parameters": {}})["parameters"]
        inner[path[-1]] = dict(section)
    metric = {"name": findings.metric.name, "goal": findings.metric.goal}
    sweep, problems = parse_leniently({"method": method, "metric": metric, "parameters": nested})
    if sweep is None or problems:
        raise NoNextSweepError("no valid sweep follows from this one: " + "; ".join(problems))
    return count_configurations(sweep)


def _two_digits(value: float) -> int:
    """Round what is known to about two digits."""
    return int(float(f"{value:.2g}")) if value >= 100 else round(value)


# --- the parameters ------------------------------------------------------------------------------------------------


def _parameters(narrowing: Narrowing, scale: Scale) -> tuple[Sections, Comments]:
    decided = {decision.axis.path: decision for decision in narrowing.decisions}
    sections: Sections = {}
    comments: Comments = {}
    for path, leaf in flatten(narrowing.sweep.parameters):
        decision = decided.get(path)
        if decision is None or not decision.section:
            sections[path] = _as_given(leaf)
            if decision is not None and not decision.axis.bounded:
                comments[path] = ["Kept whole: of a distribution without ends no part can be taken."]
            continue
        values = decision.section.get("values")
        one = values is not None and len(values) == 1
        sections[path] = {"value": values[0]} if one and values is not None else decision.section
        comments[path] = _evidence(decision, scale, narrowing)
    return sections, comments


def _as_given(leaf: Leaf) -> dict[str, Any]:
    if isinstance(leaf, Constant):
        return {"value": leaf.value}
    if not isinstance(leaf, Range):
        weights = {} if leaf.probabilities is None else {"probabilities": list(leaf.probabilities)}
        return {"values": list(leaf.values), **weights}
    keys = {key: getattr(leaf, key) for key in DISTRIBUTIONS[leaf.distribution]}
    return {"distribution": leaf.distribution, **{key: value for key, value in keys.items() if value is not None}}


def _evidence(decision: Decision, scale: Scale, narrowing: Narrowing) -> list[str]:
    """Say on what a parameter's new values rest."""
    if narrowing.outcomes is None:
        told = [f"Kept whole: {narrowing.runs} runs exclude nothing. {_ran(decision, scale)}".strip()]
    elif _is_kept_whole(decision):
        told = [f"Kept whole: nothing to compare. {_ran(decision, scale)}".strip()]
    elif decision.axis.values is None:
        told = [f"Kept {decision.kept[0].label}: {_runs_text(decision.kept[0], scale, draws=True)}."]
    else:
        told = [f"Kept {'; '.join(_value_text(one, scale, draws=True) for one in decision.kept)}."]
    if decision.dropped:
        told.append(f"Dropped {'; '.join(_value_text(one, scale, draws=True) for one in decision.dropped)}.")
    if decision.rises is not None:
        told.append(
            f"{decision.rises.rule}: {decision.rises.evidence} {decision.rises.consequence} This end stays; nothing is "
            "written beyond it, because no run says what is possible there."
        )
    if decision.failing is not None:
        end = decision.failing
        where = "above" if end.upper else "below"
        place = decision.axis.value_at(end.beyond)
        told.append(
            f"Failures: {where} {place:.3g} {end.failures} of {end.n} runs failed (95% interval "
            f"{end.interval[0]:.0%} to {end.interval[1]:.0%}), elsewhere {end.failures_elsewhere} of "
            f"{end.n_elsewhere} (permutation p {end.p:.2g}): the configuration, not the machines."
        )
    if decision.ran_apart:
        named = ", ".join(map(literal, decision.ran_apart))
        told.append(f"Kept without a comparison: {named}, which only runs had of which too little else is known.")
    if decision.never_ran:
        named = ", ".join(one if decision.axis.values is None else literal(one) for one in decision.never_ran)
        told.append(f"EXPLORATION: none of these runs had {named}; kept because nothing speaks against it.")
    return told


def _ran(decision: Decision, scale: Scale) -> str:
    if not decision.kept:
        return ""
    return f"Ran: {'; '.join(_value_text(one, scale, draws=False) for one in decision.kept)}."


def _is_kept_whole(decision: Decision) -> bool:
    """Tell whether all runs had one value, so that nothing speaks for a part of what was searched."""
    if decision.axis.values is None:
        return bool(decision.kept[0].label == WHOLE)
    return not decision.dropped and len(decision.kept) < 2


def _value_text(one: ValueEvidence, scale: Scale, *, draws: bool) -> str:
    name = one.label if isinstance(one.label, str) else literal(one.label)
    return f"{name} ({_runs_text(one, scale, draws=draws)})"


def _runs_text(one: ValueEvidence, scale: Scale, *, draws: bool) -> str:
    told = f"n = {one.n}" + ("" if one.best is None else f", best {scale.text(one.best)}")
    if draws and one.n:
        told += f", optimum in {'under 1%' if one.share < 0.01 else f'{one.share:.0%}'} of draws"
    return f"{told}, {one.failures} of {one.ended} failed" if one.failures else told


# --- seeds ---------------------------------------------------------------------------------------------------------


def _add_seeds(findings: Findings, narrowing: Narrowing, sections: Sections, comments: Comments) -> str | None:
    """Ask for repeats where the best runs cannot be told apart; return what there is to say if that is impossible."""
    if narrowing.outcomes is None or narrowing.equals < 2:
        return None
    why = f"{narrowing.equals} runs lie within noise of the best one: repeats tell luck from merit."
    searched = [path for path in sections if is_seed(path[-1]) and "value" not in sections[path]]
    if searched:
        comments[searched[0]] = [f"Repeats, not a choice. {why}"]
        return None
    name = _seed_name(findings, sections)
    if name is None:
        return f"{why} No run's configuration names a seed, so none is written: repeat the best ones by hand."
    ran = sorted({value for entry in findings.ranked if isinstance(value := entry.run.config.get(name[0]), int)})
    first = ran[0] if ran else 0
    sections[name] = {"values": list(range(first, first + SEEDS))}
    comments[name] = [f"Repeats, not a choice. {why}"]
    return None


def _seed_name(findings: Findings, sections: Sections) -> Path | None:
    """Return the path of the parameter that seeds a run: of the sweep, else of what the runs' configurations say."""
    for path in sections:
        if path[-1] in {"seed", "random_seed", "rng_seed"}:
            return path
    program = findings.sweep.config.get("program")
    if program is not None and PurePath(str(program)).name == TRIAL_PROGRAM:
        return ("seed",)
    for name in ("seed", "random_seed", "rng_seed"):
        if any(name in entry.run.config for entry in findings.ranked):
            return (name,)
    return None
