"""Read a sweep and check it against W&B's grammar; everything wrong with it is reported at once.

The grammar is that of the JSON schema in the package ``sweeps`` 0.3.0, W&B's own engine. It allows no
unknown key and no unknown word.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from amc_sweeps.grammar.configurations import space_problems
from amc_sweeps.grammar.distributions import Range
from amc_sweeps.grammar.hyperband import HyperbandConfig, bands
from amc_sweeps.grammar.parameters import name_problems, parse_parameters
from amc_sweeps.grammar.problems import Problems
from amc_sweeps.grammar.strict_yaml import read_mapping
from amc_sweeps.grammar.sweep_config import Choice, Metric, Parameter, SweepConfig, SweepConfigError, flatten
from amc_sweeps.number_formats import at_most
from amc_sweeps.values import is_64_bit, is_number, printable

METHODS = ("grid", "random", "bayes")
GOALS = ("minimize", "maximize")
IMPUTE = ("worst", "best", "latest")

GRID_DISTRIBUTIONS = ("int_uniform", "q_uniform")

_TOP_LEVEL_KEYS = (
    *("method", "metric", "parameters", "early_terminate", "run_cap", "program", "command", "name", "description"),
    *("project", "entity", "controller", "job", "image_uri", "apiVersion", "kind", "metrics", "scheduler"),
)
_LONGEST_NAME = 1000
NO_SCHEDULER = (
    "W&B's client-side scheduler, `wandb sweep-scheduler`, is not supported, because it would be a second search"
)
_METRIC_KEYS = ("name", "goal", "target", "impute", "impute_while_running")
_HYPERBAND_KEYS = ("type", "min_iter", "max_iter", "s", "eta", "strict")


def parse(source: str | Mapping[str, Any], *, is_new: bool = True) -> SweepConfig:
    """Read a sweep from YAML text or from the mapping that such a text holds.

    Args:
        is_new: False for a sweep that was registered before: it may have a grid that is refused now.

    Raises:
        SweepConfigError: with all violations of the grammar, and all parameters that the method cannot use.
    """
    config, problems = parse_leniently(source, is_new=is_new)
    if config is None or problems:
        raise SweepConfigError(problems)
    return config


def parse_leniently(source: str | Mapping[str, Any], *, is_new: bool = True) -> tuple[SweepConfig | None, list[str]]:
    """Read as ``parse`` does, but return what can be read together with the problems, one sentence each.

    Parts that cannot be read are missing from the configuration; it is None where there is no mapping. A sweep with
    problems may be read. Do not count its configurations, and do not draw from it.
    """
    problems = Problems()
    mapping: Any = source
    if isinstance(source, str):
        mapping, yaml_problems = read_mapping(source)
        problems.extend(yaml_problems)
        if mapping is None:
            return None, list(problems)
    if not isinstance(mapping, Mapping):
        return None, [f"a sweep is a mapping, not {mapping!r:.80}"]
    config = _parse_sweep(mapping, problems)
    if is_new and not problems:
        problems.extend(_unprintable(mapping))
        problems.extend(name_problems(config.parameters))
        problems.extend(space_problems(config))
    return config, [printable(problem) for problem in at_most(problems)]


def _unprintable(mapping: Mapping[str, Any]) -> list[str]:
    """Return which sections hold texts that a terminal must not get: the values of parameters are given to trials."""
    return [
        f"{key} is {printable(repr(mapping[key])):.200}: names and values may hold no control characters and no marks "
        "that turn the direction of text"
        for key in ("metric", "parameters")
        if key in mapping and repr(printable(mapping[key])) != repr(mapping[key])
    ]


def _parse_sweep(source: Mapping[str, Any], problems: Problems) -> SweepConfig:
    problems.refuse_unknown_keys(source, "", _TOP_LEVEL_KEYS)
    for key, instead in (
        ("metrics", f"one metric. {NO_SCHEDULER}, and nothing else searches for several objectives"),
        (
            "scheduler",
            f"method: grid, random or bayes without it; the server searches (bayes too). {NO_SCHEDULER}",
        ),
    ):
        if key in source:
            problems.refuse(key, source[key], instead)
    method = source.get("method")
    if method not in METHODS:
        problems.refuse_key(source, "method", ", ".join(METHODS), METHODS)
    metric = _parse_metric(source["metric"], problems) if "metric" in source else None
    early_terminate = _parse_hyperband(source["early_terminate"], problems) if "early_terminate" in source else None
    needed_by = "bayes" if method == "bayes" else "early_terminate" if "early_terminate" in source else None
    if "metric" not in source and needed_by is not None:
        problems.missing("metric", f"a mapping with name and goal, which {needed_by} needs")
    if "parameters" not in source:
        problems.missing("parameters", "a mapping of parameter names")
    parameters = parse_parameters(source["parameters"], problems) if "parameters" in source else {}
    if method in METHODS:
        _check_method(str(method), parameters, problems)
    run_cap = source.get("run_cap")
    if "run_cap" in source and not (is_64_bit(run_cap) and run_cap >= 1):
        problems.refuse("run_cap", run_cap, "a whole number >= 1")
        run_cap = None
    texts = {key: _text(key, source, problems) for key in ("program", "name", "description", "project", "entity")}
    for key in ("job", "image_uri", "apiVersion"):
        _text(key, source, problems)
    if source.get("kind", "sweep") != "sweep":
        problems.refuse("kind", source["kind"], "sweep")
    command = source.get("command")
    if "command" in source and not isinstance(command, list):
        problems.refuse("command", command, 'a list, such as ["${env}", "${program}", "${args}"]')
        command = None
    controller = source.get("controller", {"type": "cloud"})
    if not isinstance(controller, Mapping) or controller.get("type") not in ("local", "cloud"):
        problems.refuse("controller", controller, "a mapping with type: cloud or type: local")
    return SweepConfig(
        method=str(method),
        parameters=parameters,
        metric=metric,
        early_terminate=early_terminate,
        run_cap=run_cap,
        command=command,
        raw=dict(source),
        **texts,
    )


def _parse_metric(section: Any, problems: Problems) -> Metric | None:
    if not isinstance(section, Mapping):
        problems.refuse("metric", section, "a mapping with name and goal")
        return None
    problems.refuse_unknown_keys(section, "metric.", _METRIC_KEYS)
    name = section.get("name")
    if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_NAME:
        problems.refuse_key(section, "metric.name", f"the name of a logged metric, {_LONGEST_NAME} characters at most")
    goal = _word(section, "goal", GOALS, problems)
    target = section.get("target")
    if "target" in section and not is_number(target):
        problems.refuse("metric.target", target, "a number")
    impute = _word(section, "impute", IMPUTE, problems) if "impute" in section else None
    while_running = section.get("impute_while_running", "false")
    if while_running is False:
        problems.refuse("metric.impute_while_running", False, 'text: write "false" in quotes')
    elif while_running not in (*IMPUTE, "false"):
        problems.refuse("metric.impute_while_running", while_running, ", ".join((*IMPUTE, '"false"')))
    return Metric(name, goal, target, impute, str(while_running)) if isinstance(name, str) else None


def _word(section: Mapping[str, Any], key: str, words: tuple[str, ...], problems: Problems) -> str:
    """Return a word of the metric's section, the first of ``words`` where none is given."""
    value = section.get(key, words[0])
    if value not in words:
        problems.refuse(f"metric.{key}", value, ", ".join(words), words)
    return str(value)


def _parse_hyperband(section: Any, problems: Problems) -> HyperbandConfig | None:
    path = "early_terminate"
    if not isinstance(section, Mapping):
        problems.refuse(path, section, "a mapping with type: hyperband")
        return None
    before = len(problems)
    problems.refuse_unknown_keys(section, f"{path}.", _HYPERBAND_KEYS)
    if section.get("type") != "hyperband":
        problems.refuse_key(section, f"{path}.type", "hyperband")
    for key in ("min_iter", "max_iter", "s"):
        if key in section and not (is_64_bit(section[key]) and section[key] >= 1):
            problems.refuse(f"{path}.{key}", section[key], "a whole number >= 1")
    eta = section.get("eta", 3)
    if not (is_number(eta) and eta > 1):
        problems.refuse(f"{path}.eta", eta, "a number > 1")
    strict = section.get("strict", True)
    if not isinstance(strict, bool):
        problems.refuse(f"{path}.strict", strict, "true, false")
    if "max_iter" in section and "s" not in section:
        problems.missing(f"{path}.s", "the number of bands below max_iter, which max_iter needs")
    if "max_iter" not in section and "min_iter" not in section:
        problems.refuse(path, dict(section), "min_iter (with eta), or max_iter with s")
    if len(problems) > before:
        return None
    config = HyperbandConfig(section.get("min_iter"), section.get("max_iter"), section.get("s"), eta, strict)
    if not bands(config):
        problems.refuse(f"{path}.max_iter", config.max_iter, f"at least eta = {eta:g}: below it there is no band")
        return None
    return config


def _check_method(method: str, parameters: Mapping[str, Parameter], problems: Problems) -> None:
    for path, parameter in flatten(parameters):
        where = ".".join(("parameters", *path))
        if method == "grid" and isinstance(parameter, Range) and parameter.distribution not in GRID_DISTRIBUTIONS:
            problems.refuse(where, parameter.distribution, "values, int_uniform or q_uniform: a grid is finite")
        elif method != "random" and isinstance(parameter, Choice) and parameter.probabilities is not None:
            problems.refuse(where, "probabilities", f"values without them: {method} does not draw by probability")


def _text(key: str, source: Mapping[str, Any], problems: Problems) -> str | None:
    value = source.get(key)
    if key in source and not isinstance(value, str):
        problems.refuse(key, value, "text")
        return None
    return value
