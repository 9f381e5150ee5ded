"""A sweep file against everything that it will meet: W&B's grammar, TrialConfig, the metrics that a trial logs.

Nothing is started and nothing is asked over the network: what is found here costs a moment, what is found by an agent
costs a run.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import PurePath
from typing import Any

from amc_core.config import FIELDS, ConfigError, TrialConfig, check_value, unknown_field
from amc_core.metric_names import (
    EPOCH_METRICS,
    FINAL_METRICS,
    OCCASIONAL_METRICS,
    detail_metrics,
    is_epoch_metric,
    level_of,
)
from amc_core.modulations import CLASSES, LABEL_SETS
from amc_sweeps.grammar.distributions import EXPONENT_OF_E, Range, ends
from amc_sweeps.grammar.hyperband import bands
from amc_sweeps.grammar.strict_yaml import number_in_text
from amc_sweeps.grammar.sweep_config import (
    Choice,
    Constant,
    Leaf,
    SweepConfig,
    count_configurations,
    examine,
    flatten,
    value_key,
)

__all__ = ["Preflight", "check"]

TRIAL_PROGRAM = "amc-train"
TRIAL_COMMAND = '["${env}", "${program}", "${args}"]'

# What wandb 0.31's agent replaces in a command; anything else would reach the trial as it stands.
_MACROS = frozenset(
    {
        *("env", "interpreter", "program", "args", "args_no_equals", "args_no_hyphens", "args_no_boolean_flags"),
        *("args_json", "args_json_file", "args_append_hydra", "args_override_hydra"),
    }
)
_MACRO = re.compile(r"\$\{([^}]*)\}")

_LOWER_IS_BETTER = ("loss", "error", "mae", "mse")
_HIGHER_IS_BETTER = ("acc", "f1", "auc", "precision", "recall")
_NOT_AN_OBJECTIVE = ("epoch", "lr", "weight/mod", "weight/snr", "throughput/frames_per_s", "gap/combined_acc")

# A field that means something only while another one has none of these values.
_IDLE_WHILE: Mapping[str, tuple[str, tuple[Any, ...]]] = {
    "snr_loss_alpha": ("snr_loss", ("cross_entropy", "ordinal", "smooth_l1", "l1")),
    "snr_loss_scale": ("snr_loss", ("cross_entropy",)),
    "task_weight_mod": ("task_weighting", ("kendall",)),
    "curriculum_window": ("curriculum", (False,)),
    "curriculum_epochs_per_stage": ("curriculum", (False,)),
    "epochs_per_cycle": ("lr_schedule", ("constant", "plateau")),
    "plateau_factor": ("lr_schedule", ("constant", "triangular2")),
    "plateau_patience": ("lr_schedule", ("constant", "triangular2")),
}

_FEW = 8  # values of one numeric field that are all tried in combinations; of more only the outermost
_LONGEST_TRIAL = 10_000  # logged values; up to here bands are told of a program whose epochs are not known


@dataclass(frozen=True)
class Preflight:
    """What was found. A sweep with ``problems`` must not be registered; one with ``warnings`` may well be meant so."""

    source: str
    problems: list[str]
    warnings: list[str]
    configurations: int | None  # different ones; None: infinitely many, or the file could not be read
    bands_epochs: tuple[int, ...]  # after which epochs Hyperband may stop a run; the last epoch is none
    sweep: SweepConfig | None  # None where there is no sweep to speak of

    @property
    def epochs_at_most(self) -> int | None:
        """Epochs that the sweep trains if nothing is stopped early; None where nothing bounds them."""
        if self.sweep is None or self.problems:
            return None
        limits = [self.sweep.run_cap]
        if self.sweep.method == "grid":
            limits.append(self.configurations)
        runs = min((limit for limit in limits if limit is not None), default=None)
        if runs is None or not _runs_trial(self.sweep):
            return None
        return runs * int(max(_numbers(_values(self.sweep), "epochs")))


def check(text: str, *, source: str) -> Preflight:
    """Check the YAML text of a sweep file; every violation is reported at once.

    Args:
        text: what the file holds.
        source: where it came from, for the report.
    """
    sweep, problems = examine(text)
    if sweep is None:
        return Preflight(source, problems, [], None, (), None)
    count = None if problems else count_configurations(sweep)
    warnings = [*_metric_warnings(sweep), *_search_warnings(sweep, count)]
    if _runs_trial(sweep):
        problems = [*problems, *_command_problems(sweep), *_field_problems(sweep), *_metric_problems(sweep)]
        warnings += _trial_warnings(sweep)
    else:
        warnings += _foreign_warnings(sweep)
        if sweep.program is None and not {"program", "job", "image_uri"} & sweep.raw.keys():
            problems = [*problems, f"program: missing; W&B's agent starts nothing without it; write {TRIAL_PROGRAM}"]
    warnings += _hyperband_warnings(sweep)
    return Preflight(
        source=source,
        problems=list(dict.fromkeys(problems)),
        warnings=list(dict.fromkeys(warnings)),
        configurations=count,
        bands_epochs=_reachable_bands(sweep),
        sweep=sweep,
    )


def _runs_trial(sweep: SweepConfig) -> bool:
    return sweep.program is not None and PurePath(sweep.program).name == TRIAL_PROGRAM


# what the trial accepts


def _field_problems(sweep: SweepConfig) -> list[str]:
    problems: list[str] = []
    candidates: dict[str, list[Any]] = {}
    for path, leaf in flatten(sweep.parameters):
        if len(path) > 1:
            problems.append(f"{'.'.join(path)}: a trial has no nested parameters")
        elif path[0] not in FIELDS:
            problems.append(unknown_field(path[0]))
        else:
            problems.extend(_value_problems(path[0], leaf))
            candidates[path[0]] = _candidates(path[0], leaf)
    return problems + _combination_problems(candidates)


def _value_problems(name: str, leaf: Leaf) -> list[str]:
    """Check the constant, every listed value, or both ends of a range."""
    if not isinstance(leaf, Range):
        checked = (check_value(name, value)[1] for value in _listed(leaf))
        return [problem for problem in checked if problem is not None]
    spec = FIELDS[name]
    if spec.kind not in {"int", "float"}:
        return [f"{name}: {leaf.distribution} draws numbers; allowed: {spec.allowed()}; list them under values"]
    if spec.kind == "int" and not _draws_whole_numbers(leaf):
        whole = "int_uniform (min and max without a dot), q_uniform with a whole q and min, or values"
        return [f"{name}: {leaf.distribution} draws fractions; allowed: {spec.allowed()}; use {whole}"]
    checked = (check_value(name, end)[1] for end in _inner_ends(leaf))
    return [problem for problem in checked if problem is not None]


def _draws_whole_numbers(leaf: Range) -> bool:
    if leaf.distribution == "int_uniform":
        return True
    # A grid and Optuna count q_uniform from its min, so that has to be whole as well.
    counted_from = leaf.low if leaf.distribution == "q_uniform" else 0
    return leaf.q is not None and float(leaf.q).is_integer() and float(counted_from).is_integer()


def _inner_ends(leaf: Range) -> list[float]:
    """Return the ends that are really drawn: those of normal, log_normal and beta are not."""
    low, high = ends(leaf)
    if leaf.distribution == "beta":
        return [1e-9, 1 - 1e-9]
    if leaf.distribution == "log_normal":
        return [math.exp(leaf.mu)]
    return [end for end in (low, high) if math.isfinite(end)]


def _combination_problems(candidates: Mapping[str, Sequence[Any]]) -> list[str]:
    """Try every pair of values together with the first value of everything else.

    TrialConfig's rules about combinations are about two fields each, so no bad pair escapes, and what is refused here
    is a configuration that a run may really get.
    """
    first = {name: values[0] for name, values in candidates.items()}
    several = [name for name, values in candidates.items() if len(values) > 1]
    mappings = [first]
    for one, other in combinations(several, 2):
        mappings += [{**first, one: a, other: b} for a, b in product(candidates[one], candidates[other])]
    if len(several) == 1:
        mappings += [{**first, several[0]: value} for value in candidates[several[0]]]
    problems: dict[str, None] = {}
    for mapping in mappings:
        try:
            TrialConfig.from_mapping(mapping)
        except ConfigError as error:
            problems.update(dict.fromkeys(error.problems))
    return list(problems)


def _candidates(name: str, leaf: Leaf) -> list[Any]:
    """Return allowed values that stand for all of a field's: every listed one, or the outermost of many numbers."""
    checked = [check_value(name, value) for value in (_inner_ends(leaf) if isinstance(leaf, Range) else _listed(leaf))]
    values = [value for value, problem in checked if problem is None] or [FIELDS[name].default]
    numbers = [value for value in values if isinstance(value, int | float)]
    if len(values) > _FEW and FIELDS[name].kind in {"int", "float"}:
        return [min(numbers), max(numbers)]
    return values


def _listed(leaf: Constant | Choice) -> tuple[Any, ...]:
    if isinstance(leaf, Constant):
        return (leaf.value,)
    return tuple({value_key(value): value for value in leaf.values}.values())


def _metric_problems(sweep: SweepConfig) -> list[str]:
    if sweep.metric is None:
        return []
    name = sweep.metric.name
    if is_epoch_metric(name):
        return _not_logged_here(name, sweep)
    if name in OCCASIONAL_METRICS:
        return [f"metric.name: {name} is logged only in epochs that have one, and must not steer a search"]
    if name in FINAL_METRICS or name.startswith("test/"):
        instead = name.replace("test/", "val/", 1)
        hint = f"; use {instead}" if instead in EPOCH_METRICS else ""
        return [f"metric.name: {name} is logged once, after the last epoch, and must not steer a search{hint}"]
    near = difflib.get_close_matches(name, EPOCH_METRICS | detail_metrics(CLASSES, ()), n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    logged = ", ".join([*sorted(EPOCH_METRICS), "f1/mod/CLASS", "f1/family/FAMILY", "f1/snr/DB", "acc/snr/DB"])
    return [f"metric.name: no trial logs {name!r}; logged every epoch: {logged}{hint}"]


def _not_logged_here(name: str, sweep: SweepConfig) -> list[str]:
    """Say which of this sweep's trials do not log a metric that is about one class, family or SNR level."""
    values = _values(sweep)
    if (level := level_of(name)) is not None:
        lowest, highest = max(_numbers(values, "snr_min_db")), min(_numbers(values, "snr_max_db"))
        inside = lowest <= level <= highest
        return (
            []
            if inside
            else [f"metric.name: {name} is of a level that not every trial has: {lowest:g}..{highest:g} dB"]
        )
    lacking = [
        label_set
        for label_set in values["label_set"]
        if name not in EPOCH_METRICS | detail_metrics([CLASSES[column] for column in LABEL_SETS[label_set]], ())
    ]
    return [f"metric.name: {name} is not logged with label_set {label_set}" for label_set in lacking]


def _command_problems(sweep: SweepConfig) -> list[str]:
    if "command" not in sweep.raw:
        return [f"command: missing; without it the agent runs 'python {sweep.program}'; write {TRIAL_COMMAND}"]
    parts = [part for part in sweep.command or [] if isinstance(part, str)]
    problems = [
        f"command: ${{{name}}} is no macro of W&B's agent; known: {', '.join(sorted(_MACROS))}, envvar:NAME"
        for part in parts
        for name in _MACRO.findall(part)
        if name not in _MACROS and not name.startswith("envvar:")
    ]
    if "${interpreter}" in parts:
        problems.append(f"command: ${{interpreter}} would run 'python {sweep.program}'; write {TRIAL_COMMAND}")
    return problems


# what may be meant so, but is worth a look


def _metric_warnings(sweep: SweepConfig) -> list[str]:
    given = sweep.raw.get("metric")
    if sweep.metric is None or not isinstance(given, Mapping):
        return [] if "metric" in sweep.raw else ["metric: none is named; W&B cannot rank the runs"]
    metric, warnings = sweep.metric, []
    words = re.split(r"[^a-z0-9]+", metric.name.lower())
    higher = any(word.startswith(_HIGHER_IS_BETTER) for word in words)
    lower = any(word in _LOWER_IS_BETTER for word in words) and not higher
    if "goal" not in given:
        suspicion = "; an accuracy wants goal: maximize" if higher else ""
        warnings.append(f"metric.goal: not given, so {metric.name} is minimised{suspicion}")
    elif (higher and metric.goal == "minimize") or (lower and metric.goal == "maximize"):
        warnings.append(f"metric.goal: {metric.goal} of {metric.name} searches for the worst model")
    if sweep.method == "bayes" and "impute" not in given:
        warnings.append(
            "metric.impute: not given, so bayes takes every crashed or stopped run for as bad as the worst one; "
            "write impute: best (or latest)"
        )
    return warnings


def _search_warnings(sweep: SweepConfig, count: int | None) -> list[str]:
    warnings = []
    if sweep.run_cap is None and "run_cap" not in sweep.raw:
        grid = sweep.method == "grid" and count is not None
        until = f"all {count:,} configurations are done" if grid else "somebody stops it"
        warnings.append(f"run_cap: not given; the sweep goes on until {until}")
    elif sweep.run_cap is not None and count is not None and sweep.run_cap > count:
        then = "ends after them" if sweep.method == "grid" else "may run some of them again"
        warnings.append(f"run_cap: {sweep.run_cap} runs, but only {count} configurations; {sweep.method} {then}")
    if sweep.parameters and count == 1 and sweep.method != "grid":
        warnings.append(f"parameters: there is one configuration only; {sweep.method} has nothing to search")
    for path, leaf in flatten(sweep.parameters):
        warnings.extend(_parameter_warnings(".".join(path), leaf, sweep.method))
    controller = sweep.raw.get("controller")
    if isinstance(controller, Mapping) and controller.get("type") == "local":
        warnings.append("controller: type local; no server hands out runs, somebody has to start `wandb controller`")
    return warnings


def _parameter_warnings(name: str, leaf: Leaf, method: str) -> list[str]:
    if isinstance(leaf, Constant):
        return []
    if isinstance(leaf, Choice):
        warnings = []
        if len(_listed(leaf)) < len(leaf.values):
            again = "once" if method == "grid" else "as often as it is listed"
            warnings.append(f"{name}: a value is listed more than once; {method} takes it {again}")
        if leaf.probabilities is not None and 0 in leaf.probabilities:
            warnings.append(f"{name}: a value of probability 0 is never drawn")
        return warnings
    low, high = ends(leaf)
    if leaf.distribution in EXPONENT_OF_E:
        instead = EXPONENT_OF_E[leaf.distribution]
        return [
            f"{name}: min and max of {leaf.distribution} are exponents of e: values run from {low:g} to {high:g}; "
            f"{instead} takes the values themselves"
        ]
    if leaf.distribution == "q_uniform" and method == "grid":
        return [f"{name}: a grid counts q_uniform from min and leaves out max = {leaf.high:g}"]
    if leaf.q is not None and leaf.max is not None and not math.isclose(high, leaf.max):
        return [f"{name}: max = {leaf.max:g} is never drawn: the last multiple of q = {leaf.q:g} is {high:g}"]
    return []


def _hyperband_warnings(sweep: SweepConfig) -> list[str]:
    config, given = sweep.early_terminate, sweep.raw.get("early_terminate")
    if config is None or not isinstance(given, Mapping):
        return []
    warnings = []
    if "strict" not in given:
        warnings.append(
            "early_terminate.strict: not given; W&B's engine takes true (a run is judged by its value at the band), "
            "its documentation says false (by its best value so far); write which one is meant"
        )
    if config.max_iter is not None and config.min_iter is not None:
        warnings.append("early_terminate.min_iter: ignored, because max_iter is given")
    laid_out = bands(config)
    if config.max_iter is not None and len(laid_out) < (config.s or 0):
        warnings.append(f"early_terminate.s: {config.s} bands are asked for, {len(laid_out)} lie above 0")
    if not _runs_trial(sweep):
        return warnings
    values = _values(sweep)
    epochs, warmups = _numbers(values, "epochs"), _numbers(values, "warmup_epochs")
    shortest, longest = min(epochs), max(epochs)
    if laid_out[0] >= longest:
        warnings.append(
            f"early_terminate: the first band, epoch {laid_out[0]}, is not before the end, epoch {longest:g}"
        )
    elif config.max_iter is not None and laid_out[-1] >= shortest:
        beyond = ", ".join(str(band) for band in laid_out if band >= shortest)
        warnings.append(f"early_terminate: bands at epoch {beyond}, but a trial may end with epoch {shortest:g}")
    inside = [band for band in laid_out if band <= max(warmups)]
    if inside:
        warnings.append(
            f"early_terminate: bands at epoch {', '.join(map(str, inside))} lie within the warmup of "
            f"{max(warmups):g} epochs, where a good configuration has not shown itself yet"
        )
    return warnings


def _trial_warnings(sweep: SweepConfig) -> list[str]:
    warnings = []
    values = _values(sweep)
    if sweep.metric is not None and sweep.metric.name in _NOT_AN_OBJECTIVE:
        warnings.append(f"metric.name: {sweep.metric.name} is logged, but says nothing of how good a model is")
    elif sweep.metric is not None and sweep.metric.name.startswith("train/"):
        warnings.append(f"metric.name: {sweep.metric.name} also rises when a model learns its frames by heart")
    target = sweep.metric.target if sweep.metric is not None else None
    if target is not None and target > 1 and sweep.metric is not None and _is_fraction(sweep.metric.name):
        warnings.append(f"metric.target: {target:g} is never reached: accuracies are logged as fractions in 0..1")
    warnings += [
        f"{name}: has no effect while {other} is {' or '.join(map(str, values[other]))}, and it is nothing else here"
        for name, (other, idle) in _IDLE_WHILE.items()
        if name in sweep.parameters and set(values[other]) <= set(idle)
    ]
    if "plateau" in values["lr_schedule"]:
        patience, stall = _numbers(values, "patience"), _numbers(values, "plateau_patience")
        if patience and min(patience) <= max(stall):
            warnings.append(
                f"patience: {min(patience):g} epochs end a trial before plateau_patience = {max(stall):g} has reduced "
                "its learning rate"
            )
    if "triangular2" in values["lr_schedule"]:
        epochs, cycles = _numbers(values, "epochs"), _numbers(values, "epochs_per_cycle")
        patience, min_cycles = _numbers(values, "patience"), _numbers(values, "min_cycles")
        if min(epochs) < max(cycles):
            warnings.append(
                f"epochs_per_cycle: {max(cycles):g}, but training may end after {min(epochs):g} epochs: the learning "
                "rate does not come down again in the first cycle"
            )
        if patience and min(patience) < max(cycles) and min(min_cycles) < 1:
            warnings.append(
                f"patience: {min(patience):g} is shorter than the first cycle of {max(cycles):g} epochs and min_cycles "
                "is 0: a trial may end while its learning rate still rises"
            )
    warnings += [
        f"{path[0]}: {leaf.distribution} may draw values beyond those allowed; allowed: {FIELDS[path[0]].allowed()}"
        for path, leaf in flatten(sweep.parameters)
        if len(path) == 1 and path[0] in FIELDS and isinstance(leaf, Range) and _reaches_beyond(path[0], leaf)
    ]
    return warnings


def _is_fraction(metric: str) -> bool:
    return metric.endswith("_acc") or metric.startswith(("f1/", "acc/"))


def _reaches_beyond(name: str, leaf: Range) -> bool:
    low, high = ends(leaf)
    minimum, maximum = FIELDS[name].minimum, FIELDS[name].maximum
    too_low = math.isinf(low) and minimum is not None
    return too_low or (math.isinf(high) and maximum is not None)


def _foreign_warnings(sweep: SweepConfig) -> list[str]:
    what = sweep.program or "another program"
    warnings = [f"program: {what} is not {TRIAL_PROGRAM}: its parameters and its metric cannot be checked here"]
    for path, leaf in flatten(sweep.parameters):
        if isinstance(leaf, Range):
            continue
        hints = (number_in_text(value) for value in _listed(leaf))
        warnings += [f"{'.'.join(path)}{hint.replace(';', ':', 1)}" for hint in hints if hint]
    return warnings


# what the parameters amount to


def _values(sweep: SweepConfig) -> dict[str, list[Any]]:
    """Return, for every field of a trial, the values it may get here: its default where the sweep says nothing."""
    values = {name: [spec.default] for name, spec in FIELDS.items()}
    for path, leaf in flatten(sweep.parameters):
        if len(path) == 1 and path[0] in FIELDS:
            values[path[0]] = _candidates(path[0], leaf)
    return values


def _numbers(values: Mapping[str, Iterable[Any]], name: str) -> list[float]:
    return [value for value in values[name] if isinstance(value, int | float)]


def _reachable_bands(sweep: SweepConfig) -> tuple[int, ...]:
    if sweep.early_terminate is None:
        return ()
    longest = max(_numbers(_values(sweep), "epochs")) if _runs_trial(sweep) else _LONGEST_TRIAL
    return tuple(band for band in bands(sweep.early_terminate) if band < longest)
