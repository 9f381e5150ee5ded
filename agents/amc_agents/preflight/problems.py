"""Problems: a sweep with one is not registered. To add a check, write a function and add it to a list at the end."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from itertools import chain, combinations, islice, product

from amc_agents.preflight.command import command_problems, flags_of, shell_text, with_envvars
from amc_agents.preflight.flat_sweep import Check, FlatSweep, possible_values
from amc_core.config import FIELDS, VARIANT, VARIANT_EXAMPLE, ConfigError, TrialConfig, check_value, unknown_field
from amc_core.metric_names import (
    EPOCH_METRICS,
    FINAL_METRICS,
    OCCASIONAL_METRICS,
    detail_metrics,
    is_epoch_metric,
    level_of,
)
from amc_core.models.model_names import is_model, similar_models, timm_names
from amc_core.modulations import CLASSES, FILE_CLASSES, class_names
from amc_sweeps.grammar.distributions import Range
from amc_sweeps.grammar.sweep_config import Leaf, Nested
from amc_sweeps.grammar.trial_program import TRIAL_PROGRAM
from amc_sweeps.number_formats import quoted

_MOST_CANDIDATES = 20_000  # configurations that are tried; they take a few seconds


def parameter_problems(sweep: FlatSweep) -> Iterator[str]:
    """Find names and values that a trial does not accept."""
    for path, leaf in sweep.parameters:
        if path[0] == VARIANT:
            continue  # one that cannot be read
        if len(path) > 1:
            yield f"{'.'.join(path)}: a trial has no nested parameters"
        elif path[0] not in FIELDS:
            yield unknown_field(path[0])
        else:
            yield from _value_problems(path[0], leaf)


def _value_problems(name: str, leaf: Leaf) -> list[str]:
    spec = FIELDS[name]
    if isinstance(leaf, Range) and spec.kind not in {"int", "float"}:
        return [f"{name}: {leaf.distribution} draws numbers; allowed: {spec.allowed()}; list them under values"]
    if isinstance(leaf, Range) and spec.kind == "int" and not _draws_whole_numbers(leaf):
        alternatives = "int_uniform (min and max without a dot), q_uniform with a whole q and min, or values"
        return [f"{name}: {leaf.distribution} draws fractions; allowed: {spec.allowed()}; use {alternatives}"]
    results = (check_value(name, value) for value in possible_values(leaf))
    texts = [value for value in possible_values(leaf) if spec.kind == "str" and isinstance(value, str)]
    return [problem for _, problem in results if problem is not None] + [
        _shell_problem(name, text, found) for text in texts if (found := shell_text(text)) is not None
    ]


def _shell_problem(name: str, text: str, found: str) -> str:
    """Return what to write instead of a value that only a shell would expand."""
    if (instead := with_envvars(text)) is None:
        line = "write the value itself"
    else:
        line = f'leave {name} out, and write command: ["${{env}}", "${{program}}", "--{name}={instead}", "${{args}}"]'
    own = f"; or export AMC_DATA={text} before `wandb agent` starts" if name == "data" else ""
    return f"{name}: {quoted(text)}: W&B passes {found} on as it stands, because no shell reads it; {line}{own}"


def variant_problems(sweep: FlatSweep) -> Iterator[str]:
    """Find variants that cannot be read, and fields that a variant and something else set."""
    leaf = sweep.config.parameters.get(VARIANT)
    if isinstance(leaf, Range | Nested):
        yield f"{VARIANT}: its values name several fields, such as {VARIANT_EXAMPLE}; list them under values"
    yield from sweep.unreadable_variants
    for name in sweep.merged.fields:
        if name in sweep.varied_by_variant and name in sweep.config.parameters:
            yield (
                f"{name}: given as a parameter and by a variant, and a trial has one value; leave the parameter out, "
                f"and name {name} in every variant"
            )
    yield from (
        f"command: --{name} is also set by a variant; leave it out"
        for name in flags_of(sweep)
        if name in sweep.varied_by_variant
    )


def model_problems(sweep: FlatSweep) -> Iterator[str]:
    """Find networks that no trial can build."""
    for name in sweep.values["model_type"] if "model_type" in sweep.fields else ():
        if not is_model(name):
            near = similar_models(name, timm_names())
            line = f"write {' or '.join(near)}" if near else "timm.list_models() lists the names"
            network = quoted(name)
            yield f"model_type: timm has no network {network}, so a run with it ends before its first epoch; {line}"


def _draws_whole_numbers(leaf: Range) -> bool:
    if leaf.distribution == "int_uniform":
        return True
    # A grid and bayes count q_uniform from its min, so its min must be whole, too.
    start = leaf.min if leaf.distribution == "q_uniform" else 0
    return leaf.q is not None and float(leaf.q).is_integer() and float(start).is_integer()


def combination_problems(sweep: FlatSweep) -> Iterator[str]:
    """Find allowed values that TrialConfig does not accept together.

    Every pair of values is tried with the first value of all other fields. Each of TrialConfig's rules is about two
    fields, so this finds every bad pair, unless there are very many pairs. Each configuration that is tried is one that
    a run may get.
    """
    base = {name: sweep.values[name][0] for name in sweep.fields}
    names = [name for name in sweep.fields if len(sweep.values[name]) > 1]
    alone = [{**base, name: value} for name in names for value in sweep.values[name]] or [base]
    pairs = (
        {**base, left: a, right: b}
        for left, right in combinations(names, 2)
        for a, b in product(sweep.values[left], sweep.values[right])
    )
    for candidate in islice(chain(alone, pairs), _MOST_CANDIDATES):
        try:
            TrialConfig.from_mapping(candidate)
        except ConfigError as error:
            yield from error.problems


def metric_problems(sweep: FlatSweep) -> Iterator[str]:
    """Find a metric that a trial does not log every epoch."""
    if sweep.config.metric is None:
        return
    name = sweep.config.metric.name
    if is_epoch_metric(name) or _is_of_own_class(name, sweep):
        yield from _not_logged_by_all(name, sweep)
    elif name in OCCASIONAL_METRICS:
        yield f"metric.name: {name} is not logged in every epoch, so a search cannot use it"
    elif name in FINAL_METRICS or name.startswith("test/"):
        instead = name.replace("test/", "val/", 1)
        hint = f"; use {instead}" if instead in EPOCH_METRICS else ""
        yield f"metric.name: {name} is logged once, after the last epoch, so a search cannot use it{hint}"
    else:
        matches = difflib.get_close_matches(name, EPOCH_METRICS | detail_metrics(CLASSES, ()), n=1)
        hint = f"; did you mean {matches[0]}?" if matches else "; write name: val/combined_acc"
        names = ", ".join([*sorted(EPOCH_METRICS), "f1/mod/CLASS", "f1/family/FAMILY", "f1/snr/DB", "acc/snr/DB"])
        yield f"metric.name: no trial logs {quoted(name)}; logged every epoch: {names}{hint}"


def _is_of_own_class(name: str, sweep: FlatSweep) -> bool:
    """Whether a metric may be of a class besides RadioML's."""
    label_sets = set(sweep.values["label_set"])
    if FILE_CLASSES in label_sets:
        return name.startswith(("f1/mod/", "f1/family/"))
    return any(name in detail_metrics(class_names(label_set), ()) for label_set in label_sets)


def _not_logged_by_all(name: str, sweep: FlatSweep) -> Iterator[str]:
    """Find a metric of one class, family or SNR level that some trials of this sweep do not have."""
    if (level := level_of(name)) is not None:
        lowest, highest = max(sweep.numbers("snr_min_db")), min(sweep.numbers("snr_max_db"))
        if not lowest <= level <= highest:
            yield f"metric.name: {name} needs a level that every trial has: from {lowest:g} to {highest:g} dB"
        return
    for label_set in sweep.values["label_set"]:
        if label_set != FILE_CLASSES and name not in EPOCH_METRICS | detail_metrics(class_names(label_set), ()):
            yield f"metric.name: {name} is not logged with label_set {label_set}"


def program_problems(sweep: FlatSweep) -> Iterator[str]:
    """Find a sweep that does not say what its agents start."""
    if sweep.config.program is None and not {"program", "job", "image_uri"} & sweep.config.raw.keys():
        yield f"program: missing; W&B's agent starts nothing without it; write {TRIAL_PROGRAM}"


VARIANT_PROBLEMS: tuple[Check, ...] = (variant_problems,)  # of the sweep; the others are of each of its variants
TRIAL_PROBLEMS: tuple[Check, ...] = (
    command_problems,
    parameter_problems,
    model_problems,
    combination_problems,
    metric_problems,
)
OTHER_PROGRAM_PROBLEMS: tuple[Check, ...] = (program_problems,)
