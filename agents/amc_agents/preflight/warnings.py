"""Warnings: a sweep with one can be registered. To add a check, write a function and add it to a list at the end."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from amc_agents.preflight.bands import band_warnings, last_level_is_full, last_level_joins
from amc_agents.preflight.command import other_command_warnings, shell_text
from amc_agents.preflight.flat_sweep import Check, FlatSweep, possible_values
from amc_agents.preflight.memory import memory_warnings
from amc_core.config import FIELDS, RECURRENT_NETWORKS
from amc_core.modulations import CLASSES, FILE_CLASSES, class_names
from amc_sweeps.grammar.configurations import value_key
from amc_sweeps.grammar.distributions import EXPONENT_OF_E, Range, ends
from amc_sweeps.grammar.hyperband import bands
from amc_sweeps.grammar.strict_yaml import number_in_text
from amc_sweeps.grammar.sweep_config import Choice
from amc_sweeps.grammar.trial_program import TRIAL_PROGRAM
from amc_sweeps.number_formats import counted, quoted

_LOWER_IS_BETTER = ("loss", "error", "mae", "mse")
_HIGHER_IS_BETTER = ("acc", "f1", "auc", "precision", "recall")
_NOT_AN_OBJECTIVE = ("epoch", "lr", "weight/mod", "weight/snr", "throughput/frames_per_s", "gap/combined_acc")

_SUMMARIES = ("max", "min", "mean", "best", "last", "first")  # what define_metric(summary=...) computes

# field -> (another field, values of that field with which the first one has no effect)
_IDLE_WHILE: Mapping[str, tuple[str, tuple[Any, ...]]] = {
    "snr_loss_alpha": ("snr_loss", ("cross_entropy", "ordinal", "smooth_l1", "l1")),
    "snr_loss_scale": ("snr_loss", ("cross_entropy",)),
    "task_weight_mod": ("task_weighting", ("kendall",)),
    "curriculum_mode": ("curriculum", (False,)),
    "curriculum_window": ("curriculum", (False,)),
    "curriculum_epochs_per_stage": ("curriculum", (False,)),
    "epochs_per_cycle": ("lr_schedule", ("constant", "plateau", "cosine")),
    "plateau_factor": ("lr_schedule", ("constant", "triangular2", "cosine")),
    "plateau_patience": ("lr_schedule", ("constant", "triangular2", "cosine")),
    "compile": ("model_type", tuple(RECURRENT_NETWORKS)),
}


def metric_warnings(sweep: FlatSweep) -> Iterator[str]:
    metric, section = sweep.config.metric, sweep.config.raw.get("metric")
    if metric is None or not isinstance(section, Mapping):
        if "metric" not in sweep.config.raw:
            yield "metric: missing; W&B cannot rank the runs"
        return
    words = re.split(r"[^a-z0-9]+", metric.name.lower())
    higher = any(word.startswith(_HIGHER_IS_BETTER) for word in words)
    lower = any(word in _LOWER_IS_BETTER for word in words) and not higher
    if "goal" not in section:
        advice = "; an accuracy needs goal: maximize" if higher else ""
        yield f"metric.goal: not given, so {metric.name} is minimised{advice}"
    elif (higher and metric.goal == "minimize") or (lower and metric.goal == "maximize"):
        yield f"metric.goal: {metric.goal} of {metric.name} searches for the worst model"
    option, impute = sweep.crashed_runs, metric.impute if sweep.config.method == "bayes" else None
    if option is not None and impute not in (None, option):
        yield f"metric.impute: {impute} has no effect on this server: --crashed-runs {option} wins"
    elif impute == "worst":
        yield (
            "metric.impute: worst gives every crashed or stopped run the worst value, and bayes avoids configurations "
            "like it; leave impute out (amc-sweep's server then goes by the cause of each end), or write impute: best"
        )


def summary_metric_warnings(sweep: FlatSweep) -> Iterator[str]:
    """Find a metric of another program whose name says that ``define_metric`` computes it for the summary."""
    name = sweep.config.metric.name if sweep.config.metric is not None else ""
    base, dot, kind = name.rpartition(".")
    if base and dot and kind in _SUMMARIES:
        yield (
            f"metric.name: {name} looks like a value that define_metric keeps in the summary only; no run has a curve "
            f"of it, so bayes and Hyperband of W&B's servers see nothing; write name: {base}, or log it in every epoch "
            f'under a name without a dot, such as wandb.log({{"{kind}_{base}": ...}})'
        )


def size_warnings(sweep: FlatSweep) -> Iterator[str]:
    config, count = sweep.config, sweep.configurations
    if config.run_cap is None and "run_cap" not in config.raw:
        is_grid = config.method == "grid"
        end = f"it has run {counted(count, 'configuration')}" if count is not None and is_grid else "somebody stops it"
        yield f"run_cap: not given; the sweep goes on until {end}"
    elif config.run_cap is not None and count is not None and config.run_cap > count:
        effect = "ends after them" if config.method == "grid" else "may run some of them again"
        available = counted(count, "configuration")
        yield f"run_cap: {counted(config.run_cap, 'run')}, but only {available}; {config.method} {effect}"
    if config.parameters and count == 1:
        again = "" if config.method == "grid" else f", and {config.method} repeats it until the sweep is stopped"
        yield (
            f"parameters: there is only one configuration{again}, so there is nothing to search; give a parameter "
            "several values, such as max_lr: {values: [0.0005, 0.002]}; to repeat one configuration, write method: "
            "grid and seed: {values: [0, 1, 2]}"
        )


def choice_warnings(sweep: FlatSweep) -> Iterator[str]:
    """Find listed values that repeat, or that are never drawn."""
    method = sweep.config.method
    for path, leaf in sweep.parameters:
        if not isinstance(leaf, Choice):
            continue
        if len(possible_values(leaf)) < len(leaf.values):
            times = "once" if method == "grid" else "as often as it is listed"
            yield f"{'.'.join(path)}: a value is listed more than once; {method} takes it {times}"
        if leaf.probabilities is not None and 0 in leaf.probabilities:
            yield f"{'.'.join(path)}: a value of probability 0 is never drawn"


def range_warnings(sweep: FlatSweep) -> Iterator[str]:
    """Find ranges whose values are not those that min and max suggest."""
    for path, leaf in sweep.parameters:
        if not isinstance(leaf, Range):
            continue
        name, (low, high) = ".".join(path), ends(leaf)
        if leaf.distribution in EXPONENT_OF_E:
            yield (
                f"{name}: min and max of {leaf.distribution} are exponents of e: values run from {low:g} to {high:g}; "
                f"{EXPONENT_OF_E[leaf.distribution]} takes the values themselves"
            )
        elif leaf.distribution == "q_uniform" and sweep.config.method == "grid":
            yield f"{name}: a grid counts q_uniform from min and leaves out max = {leaf.max:g}"
        elif leaf.q is not None and leaf.max is not None and not math.isclose(high, leaf.max):
            yield f"{name}: max = {leaf.max:g} is never drawn: the last multiple of q = {leaf.q:g} is {high:g}"


def controller_warnings(sweep: FlatSweep) -> Iterator[str]:
    controller = sweep.config.raw.get("controller")
    if isinstance(controller, Mapping) and controller.get("type") == "local":
        yield "controller: type local; no server hands out runs, somebody has to start `wandb controller`"


def hyperband_warnings(sweep: FlatSweep) -> Iterator[str]:
    config, section = sweep.config.early_terminate, sweep.config.raw.get("early_terminate")
    if config is None or not isinstance(section, Mapping):
        return
    if "strict" not in section:
        yield (
            "early_terminate.strict: not given; W&B's engine uses true (judge a run by its value at the band), "
            "its documentation says false (by its best value so far); write the one that you want"
        )
    if config.max_iter is not None and config.min_iter is not None:
        yield "early_terminate.min_iter: ignored, because max_iter is given"
    if config.max_iter is not None and (number := len(bands(config))) < (config.s or 0):
        yield f"early_terminate.s: {config.s} bands, but max_iter and eta give only {number}"


def other_program_warnings(sweep: FlatSweep) -> Iterator[str]:
    """Say what cannot be checked of a program that is not amc-train, and find numbers that YAML reads as text."""
    program = sweep.config.program or "another program"
    yield f"program: {program} is not {TRIAL_PROGRAM}: its parameters and its metric cannot be checked here"
    for path, leaf in sweep.parameters:
        name, values = ".".join(path), () if isinstance(leaf, Range) else possible_values(leaf)
        yield from (f"{name}{hint.replace(';', ':', 1)}" for hint in map(number_in_text, values) if hint)
        for text in (value for value in values if isinstance(value, str)):
            if (found := shell_text(text)) is not None:
                yield (
                    f"{name}: {quoted(text)}: W&B passes {found} on as it stands; write its value, or let {program} "
                    "expand it"
                )


def objective_warnings(sweep: FlatSweep) -> Iterator[str]:
    """Find a metric of a trial that does not measure how good the model is."""
    metric = sweep.config.metric
    if metric is None:
        return
    if metric.name in _NOT_AN_OBJECTIVE:
        yield f"metric.name: {metric.name} is logged, but does not measure how good a model is"
    elif metric.name.startswith("train/"):
        yield f"metric.name: {metric.name} also improves when a model only memorises its training frames"
    is_fraction = metric.name.endswith("_acc") or metric.name.startswith(("f1/", "acc/"))
    if metric.target is not None and metric.target > 1 and is_fraction:
        yield f"metric.target: {metric.target:g} is never reached: accuracies are logged as fractions in 0..1"


def variant_warnings(sweep: FlatSweep) -> Iterator[str]:
    """Find variants that are the same trial, however they are written."""
    first: dict[str, str | None] = {}
    for trial in sweep.trials:
        key = value_key(trial.values)
        if key in first:
            other = first[key]
            yield f"variant: {trial.variant!r} is the same trial as {other!r}, and both are trained; leave one out"
        first.setdefault(key, trial.variant)


def idle_field_warnings(sweep: FlatSweep) -> Iterator[str]:
    """Find fields that have no effect in any run of the sweep."""
    sweep = sweep.merged
    for name, (other, idle) in _IDLE_WHILE.items():
        values = sweep.values[other]
        if name in sweep.fields and set(values) <= set(idle):
            yield f"{name}: has no effect: {other} is {' or '.join(map(str, values))} in every run"


def class_warnings(sweep: FlatSweep) -> Iterator[str]:
    """Find names of classes that only a file with such classes has."""
    own = {name for text in sweep.values["label_set"] if text != FILE_CLASSES for name in class_names(text)} - {
        *CLASSES
    }
    for name in sorted(own):
        near = difflib.get_close_matches(name, CLASSES, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        yield (
            f"label_set: {name} is none of RadioML's classes, so a run with it trains only where the data file "
            f"names such a class{hint}"
        )


def schedule_warnings(sweep: FlatSweep) -> Iterator[str]:
    """Find trials that end before their learning-rate schedule has done its work."""
    patience = min(sweep.numbers("patience"), default=math.inf)
    if "plateau" in sweep.values["lr_schedule"]:
        stall = max(sweep.numbers("plateau_patience"))
        if patience <= stall:
            yield (
                f"patience: {patience:g} ends a trial before plateau_patience = {stall:g} has reduced its learning rate"
            )
    joined, full, shortest = last_level_joins(sweep), last_level_is_full(sweep), min(sweep.numbers("epochs"))
    if joined > shortest:
        yield (
            f"curriculum: its last SNR level joins in epoch {joined:g}, but training may end with epoch {shortest:g}: "
            f"such a run never trains on the lowest level; write epochs: {{value: {2 * joined:g}}}, or raise snr_min_db"
        )
    elif full > shortest:
        yield (
            f"curriculum: its lowest SNR level has the full weight from epoch {full:g} on, but training may end with "
            f"epoch {shortest:g}: such a run takes too many frames for frames of a high SNR; write epochs: {{value: "
            f"{2 * full:g}}}, or raise snr_min_db"
        )
    if "triangular2" in sweep.values["lr_schedule"]:
        epochs, cycle = min(sweep.numbers("epochs")), max(sweep.numbers("epochs_per_cycle"))
        if epochs < cycle:
            yield (
                f"epochs_per_cycle: {cycle:g}, but training may end at epoch {epochs:g}, before the learning rate of "
                "the first cycle has come down again"
            )
        if patience < cycle and min(sweep.numbers("min_cycles")) < 1:
            yield (
                f"patience: {patience:g} is shorter than the first cycle ({counted(cycle, 'epoch')}) and min_cycles is "
                "0: a trial may end while its learning rate still rises"
            )


def unbounded_warnings(sweep: FlatSweep) -> Iterator[str]:
    """Find distributions that may draw a value that a trial refuses."""
    for name, leaf in sweep.fields.items():
        if not isinstance(leaf, Range):
            continue
        spec, (low, high) = FIELDS[name], ends(leaf)
        if (math.isinf(low) and spec.minimum is not None) or (math.isinf(high) and spec.maximum is not None):
            yield f"{name}: {leaf.distribution} may draw values beyond those allowed; allowed: {spec.allowed()}"


WARNINGS: tuple[Check, ...] = (
    metric_warnings,
    size_warnings,
    choice_warnings,
    range_warnings,
    controller_warnings,
    hyperband_warnings,
)
# Of a sweep of trials; the next ones are of each variant.
SEARCH_WARNINGS: tuple[Check, ...] = (idle_field_warnings, variant_warnings)
TRIAL_WARNINGS: tuple[Check, ...] = (
    objective_warnings,
    class_warnings,
    schedule_warnings,
    unbounded_warnings,
    band_warnings,
    memory_warnings,
)
OTHER_PROGRAM_WARNINGS: tuple[Check, ...] = (
    other_program_warnings,
    other_command_warnings,
    summary_metric_warnings,
)
