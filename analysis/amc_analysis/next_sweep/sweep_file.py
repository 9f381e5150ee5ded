"""The next sweep's file: the plan as YAML, with the evidence above every parameter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from amc_analysis.next_sweep.narrowing import ERROR, EXCLUDED, EXCLUDED_SIDE, LEAST_RUNS, LEAST_TO_DROP
from amc_analysis.next_sweep.plan import NoNextSweepError, plan_next_sweep
from amc_analysis.next_sweep.surrogate import DRAWS
from amc_analysis.next_sweep.yaml_text import comment, literal, parameters
from amc_analysis.results.analysed_sweep import AnalysedSweep
from amc_analysis.results.finding import Rule
from amc_analysis.results.next_sweep import Decision, NextSweep, ParameterPath, SweepPlan, ValueEvidence
from amc_analysis.runs.parameters import text_of, variants_of
from amc_core.config import VARIANT
from amc_sweeps.grammar.parse import parse_leniently
from amc_sweeps.grammar.trial_program import is_trial_program
from amc_sweeps.number_formats import counted, percent
from amc_sweeps.runs.metric_scale import MetricScale, interval_text

TRIAL_COMMAND = ("${env}", "${program}", "${args}")
_CARRIED = ("project", "entity", "controller", "job", "image_uri", "apiVersion", "kind")


def next_sweep(analysed: AnalysedSweep) -> NextSweep:
    """Plan the next sweep and write its file.

    Raises:
        NoNextSweepError: when this sweep's configuration cannot be read, or no valid sweep follows from it.
    """
    plan = plan_next_sweep(analysed)
    summary = _summary(plan)
    lines = [line for text in _head(analysed, plan, summary) for line in comment(text)]
    lines += [*_top_level(analysed, plan), *comment(plan.run_cap_reason), f"run_cap: {plan.run_cap}", ""]
    text = "\n".join([*lines, "parameters:", *parameters(plan.sections, _comments(analysed, plan))]) + "\n"
    _, problems = parse_leniently(text)
    if problems:
        raise NoNextSweepError("no valid sweep follows from this one: " + "; ".join(problems))
    return NextSweep(plan, text, summary)


def _summary(plan: SweepPlan) -> str:
    n = plan.configurations
    text = "infinitely many configurations" if n is None else counted(n, "configuration")
    text += f", at most {counted(plan.run_cap, 'run')}"
    if plan.epochs is not None:
        text += f", about {counted(plan.epochs, 'epoch')}"
        if plan.epochs_at_most is not None and plan.epochs_at_most > plan.epochs:
            text += f" ({plan.epochs_at_most:,} if no run is cut short)"
    shrinks = plan.narrowing.shrinks
    return (
        f"{text}; the space is {shrinks:.1f} times smaller" if shrinks > 1.05 else f"{text}; the space stays the same"
    )


def _head(analysed: AnalysedSweep, plan: SweepPlan, summary: str) -> list[str]:
    record, narrowing = analysed.record, plan.narrowing
    texts = [
        f"The sweep after {record.entity}/{record.project}/{record.sweep_id}. amc-analyze wrote it from the "
        f"{counted(len(analysed.ranked), 'run')} of that sweep, judged by {analysed.metric.name} "
        f"({analysed.metric.goal}d).",
        f"{summary[0].upper()}{summary[1:]}.",
    ]
    if narrowing.horizon is None:
        texts.append(
            f"Nothing is excluded: the sweep has {counted(narrowing.runs, 'run')} with a value. At least {LEAST_RUNS} "
            "are needed, and a parameter that took two values."
        )
    else:
        estimate = "their values at that epoch are estimated from the gains of the other runs"
        texts += [
            f"{counted(narrowing.runs, 'run')} were compared at epoch {narrowing.horizon}."
            + (f" Runs that ended earlier: {narrowing.carried}; {estimate}." if narrowing.carried else ""),
            f"A value, or an end of a range, is dropped only if at least {LEAST_TO_DROP} runs had it, its parameter "
            f"has a clear effect in the report, the optimum is there in under {percent(EXCLUDED)} of draws (of a range "
            f"{percent(EXCLUDED_SIDE, 1)} on each side), and a permutation test tells its runs from those "
            "near the optimum. So a value that is as good as the best is "
            f"dropped in at most {percent(ERROR)} of sweeps.",
            f'"Optimum in 40% of draws": {DRAWS:,} surfaces were drawn from a Gaussian process given these runs, and '
            "40% of them have their optimum there.",
            f"Repeats of a configuration differ by about {analysed.scale.difference(narrowing.noise_sd)} (sd).",
        ]
    if narrowing.left_out:
        texts.append(
            f"Left out: {counted(narrowing.left_out, 'run')} whose configuration is unknown or outside this sweep's "
            "space."
        )
    texts += [f"{item.evidence} {item.consequence}" for item in analysed.findings if item.rule is Rule.SPACE_CHANGED]
    if plan.seeds is not None and plan.seeds.path is None:
        texts.append(
            f"{plan.seeds.reason} The file has no seeds, because no run's configuration has one. Repeat the best runs "
            "by hand."
        )
    return texts


def _top_level(analysed: AnalysedSweep, plan: SweepPlan) -> list[str]:
    """Return everything but the comments above the file, the number of runs and the parameters."""
    config, record = analysed.config, analysed.record
    name = str(config.get("name") or record.name or record.sweep_id)
    lines = [
        f"name: {literal(name if name.endswith('-next') else f'{name}-next')}",
        f"description: {literal(f'follows {record.sweep_id}')}",
        "",
    ]
    lines += [f"{key}: {literal(config[key])}" for key in _CARRIED if config.get(key) is not None]
    program, command = config.get("program"), config.get("command")
    if program is not None:
        lines.append(f"program: {literal(program)}")
    if command is None and is_trial_program(program):
        command = TRIAL_COMMAND
    if command is not None:
        lines.append(f"command: [{', '.join(_quoted(part) for part in command)}]")
    return [*lines, "", f"method: {plan.method}", *_metric(analysed, plan), *_early_terminate(analysed)]


def _quoted(part: Any) -> str:
    return f'"{part}"' if isinstance(part, str) and part.startswith("${") and '"' not in part else literal(part)


def _metric(analysed: AnalysedSweep, plan: SweepPlan) -> list[str]:
    section = analysed.config.get("metric")
    metric = dict(section) if isinstance(section, Mapping) and section.get("name") else {"name": analysed.metric.name}
    metric.setdefault("goal", analysed.metric.goal)
    metric = {key: metric[key] for key in sorted(metric, key=lambda key: key != "name")}
    lines = ["metric:"]
    if metric["name"] != analysed.metric.name:
        lines += comment(f"The ranges below were judged by {analysed.metric.name}.", 2)
    impute = metric.pop("impute", None)
    lines += [f"  {key}: {literal(value)}" for key, value in metric.items()]
    bad = sum(entry.run.state in {"crashed", "failed", "killed"} for entry in analysed.ranked)
    if plan.method != "bayes":
        lines += comment("Only method bayes reads this.", 2)
    elif impute is None and analysed.record.crashed_runs is not None:
        return [
            *lines,
            *comment(
                "No impute: amc-sweep's server learns from a crashed run by the cause of its end. For W&B's own "
                f"servers write impute: best. Runs of this sweep that crashed, failed or were killed: {bad}.",
                2,
            ),
        ]
    elif impute in (None, "worst") and bad:
        lines += comment(
            "With worst, W&B's default, bayes counts a run that crashed, failed or was killed as the worst result; "
            f"with best, it counts the value that the run had reached. Such runs of this sweep: {bad}.",
            2,
        )
    return [*lines, f"  impute: {'best' if impute in (None, 'worst') else literal(impute)}"]


def _early_terminate(analysed: AnalysedSweep) -> list[str]:
    hyperband = analysed.config.get("early_terminate")
    if not isinstance(hyperband, Mapping):
        return []
    section = dict(hyperband)
    strict = section.pop("strict", None)
    lines = ["early_terminate:", *(f"  {key}: {literal(value)}" for key, value in section.items())]
    if strict is None:
        lines += comment(
            "This sweep did not set strict: W&B's engine takes true, but its documentation gives false. With false, "
            "a run is judged by its best value so far, which fits a ranking by peak. Early-stopped runs of this sweep: "
            f"{analysed.early_stops.runs}.",
            2,
        )
    return [*lines, f"  strict: {literal(bool(strict))}"]


def _comments(analysed: AnalysedSweep, plan: SweepPlan) -> dict[ParameterPath, list[str]]:
    comments = {decision.path: _evidence(decision, analysed.scale, plan) for decision in plan.narrowing.decisions}
    if (VARIANT,) in comments and (VARIANT,) not in plan.sections:  # its fields stand there instead
        names = {name for fields in variants_of(analysed.config) for name in fields}
        first = next(path for path in plan.sections if path[0] in names)
        comments[first] = comments.pop((VARIANT,))
    if plan.seeds is not None and plan.seeds.path is not None:
        comments[plan.seeds.path] = [f"Seeds for repeats. {plan.seeds.reason}"]
    return comments


def _evidence(decision: Decision, scale: MetricScale, plan: SweepPlan) -> list[str]:
    if not decision.is_bounded:
        return ["Kept whole: the distribution has no ends, so no part of it can be written."]
    if plan.narrowing.horizon is None:
        texts = [f"Kept whole: nothing is excluded. {_counts(decision, scale)}".strip()]
    elif not decision.is_compared:
        texts = [f"Kept whole: there is nothing to compare. {_counts(decision, scale)}".strip()]
    elif decision.is_range:
        texts = [f"Kept {decision.kept[0].label}: {_runs_text(decision.kept[0], scale, draws=True)}."]
    else:
        texts = [f"Kept {'; '.join(_value_text(value, scale, draws=True) for value in decision.kept)}."]
    if not decision.is_clear:
        texts.append("No clear effect in the report, so nothing is dropped.")
    if decision.dropped:
        texts.append(f"Dropped {'; '.join(_value_text(value, scale, draws=True) for value in decision.dropped)}.")
    if decision.rises is not None:
        texts.append(
            f"{decision.rises.rule}: {decision.rises.evidence} {decision.rises.consequence} This end is kept. Nothing "
            "is written beyond it, because no run has values there."
        )
    if decision.failing is not None:
        end = decision.failing
        texts.append(
            f"Failures: {end.failures} of {end.n} runs {'above' if end.upper else 'below'} {end.beyond:.3g} failed "
            f"(95% interval {interval_text(end.interval)}), {end.failures_elsewhere} of {end.n_elsewhere} elsewhere "
            f"(permutation test, p = {end.p:.2g}). The cause is the configuration, not the machines."
        )
    if decision.uncompared:
        values = ", ".join(map(literal, decision.uncompared))
        texts.append(f"Kept without a comparison: {values}, only used by runs whose other settings are not on record.")
    if decision.never_ran:
        values = ", ".join(str(value) if decision.is_range else literal(value) for value in decision.never_ran)
        texts.append(f"EXPLORATION: no run had {values}. Kept, because nothing is known against it.")
    return texts


def _counts(decision: Decision, scale: MetricScale) -> str:
    if not decision.kept:
        return ""
    return f"Runs: {'; '.join(_value_text(value, scale, draws=False) for value in decision.kept)}."


def _value_text(value: ValueEvidence, scale: MetricScale, *, draws: bool) -> str:
    is_text = isinstance(value.label, str | Mapping)
    name = text_of(value.label) if is_text else literal(value.label)
    return f"{name} ({_runs_text(value, scale, draws=draws)})"


def _runs_text(value: ValueEvidence, scale: MetricScale, *, draws: bool) -> str:
    text = f"n = {value.n}" + ("" if value.best is None else f", best {scale.text(value.best)}")
    if draws and value.n:
        text += f", optimum in {'under 1%' if value.share < 0.01 else percent(value.share)} of draws"
    return f"{text}, {value.failures} of {value.ended} failed" if value.failures else text
