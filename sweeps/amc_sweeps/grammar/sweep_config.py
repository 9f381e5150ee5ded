"""W&B's sweep grammar: read a sweep, check it, count its configurations, walk its grid, sample from it.

The grammar is that of the JSON schema in the package ``sweeps`` 0.3.0, W&B's own engine, which refuses every key and
word that it does not know. Everything wrong with a sweep is reported at once.
"""

from __future__ import annotations

import difflib
import json
import math
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from amc_sweeps.grammar.distributions import DISTRIBUTIONS, EXPONENT_OF_E, Range, draw, steps
from amc_sweeps.grammar.hyperband import HyperbandConfig, bands
from amc_sweeps.grammar.strict_yaml import number_in_text, read_mapping

__all__ = [
    "Choice",
    "Constant",
    "Leaf",
    "Metric",
    "Nested",
    "Parameter",
    "Range",
    "SweepConfig",
    "SweepConfigError",
    "count_configurations",
    "examine",
    "flatten",
    "grid",
    "parse",
    "sample",
    "value_key",
]

METHODS = ("grid", "random", "bayes")
GOALS = ("minimize", "maximize")
IMPUTE = ("worst", "best", "latest")

# Optuna, the engine of bayes, has no equivalent of the others; W&B's own Optuna scheduler refuses the same ones.
BAYES_DISTRIBUTIONS = ("int_uniform", "uniform", "q_uniform", "log_uniform_values", "q_log_uniform_values")
GRID_DISTRIBUTIONS = ("int_uniform", "q_uniform")

_TOP_LEVEL = (
    *("method", "metric", "parameters", "early_terminate", "run_cap", "program", "command", "name", "description"),
    *("project", "entity", "controller", "job", "image_uri", "apiVersion", "kind", "metrics", "scheduler"),
)
_METRIC = ("name", "goal", "target", "impute", "impute_while_running")
_HYPERBAND = ("type", "min_iter", "max_iter", "s", "eta", "strict")
_DISCRETE = ("constant", "categorical", "categorical_w_probabilities")
_PARAMETER_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_LARGEST_EXPONENT = 700  # e^709 is the largest power that a float holds


class SweepConfigError(ValueError):
    """A sweep that nothing may be started from; ``problems`` holds one sentence for every violation."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class Metric:
    """What the search optimises."""

    name: str
    goal: str = "minimize"  # or maximize
    target: float | None = None  # the sweep ends once a run reaches it
    impute: str = "worst"  # what bayes believes of a run that failed, crashed or was killed: worst, best, latest
    impute_while_running: str = "false"  # the same of a run that has not ended; W&B wants the text "false"


@dataclass(frozen=True)
class Constant:
    """A parameter with one value."""

    value: Any


@dataclass(frozen=True)
class Choice:
    """A parameter with listed values; without ``probabilities`` each is as likely as the others."""

    values: tuple[Any, ...]
    probabilities: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Nested:
    """A parameter that is a mapping of parameters."""

    parameters: Mapping[str, Parameter]


Parameter = Constant | Choice | Range | Nested


@dataclass(frozen=True)
class SweepConfig:
    """A sweep whose every key is known and whose every value is possible."""

    method: str  # grid, random or bayes
    parameters: Mapping[str, Parameter]
    metric: Metric | None = None
    early_terminate: HyperbandConfig | None = None
    run_cap: int | None = None  # runs at most, over all agents
    program: str | None = None
    command: list[Any] | None = None
    name: str | None = None
    description: str | None = None
    project: str | None = None
    entity: str | None = None
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)  # what was given, as it was given


def parse(source: str | Mapping[str, Any]) -> SweepConfig:
    """Read a sweep from YAML text or from the mapping that such a text holds.

    Raises:
        SweepConfigError: with *all* violations of the grammar, and what its method cannot do with its parameters.
    """
    config, problems = examine(source)
    if config is None or problems:
        raise SweepConfigError(problems)
    return config


def examine(source: str | Mapping[str, Any]) -> tuple[SweepConfig | None, list[str]]:
    """Read as ``parse`` does, but return the problems beside what could be read, for those who look further.

    Parts that could not be read are missing from the configuration; without a mapping there is none. One with problems
    is for looking at: neither to be counted nor drawn from.
    """
    problems: list[str] = []
    mapping: Any = source
    if isinstance(source, str):
        mapping, problems = read_mapping(source)
        if mapping is None:
            return None, problems
    if not isinstance(mapping, Mapping):
        return None, [f"a sweep is a mapping, not {_given(mapping)}"]
    reader = _Reader()
    config = reader.read(mapping)
    return config, problems + reader.problems


def count_configurations(config: SweepConfig) -> int | None:
    """Return how many different configurations the sweep has; None when a continuous range makes them infinite."""
    total = 1
    for _, parameter in flatten(config.parameters):
        if isinstance(parameter, Constant):
            continue
        if config.method == "grid":
            count: int | None = len(_grid_values(parameter))
        elif isinstance(parameter, Choice):
            weights = parameter.probabilities or (1.0,) * len(parameter.values)
            possible = [value for value, weight in zip(parameter.values, weights, strict=True) if weight > 0]
            count = len(_distinct(possible))
        else:
            count = steps(parameter)
        if count is None:
            return None
        total *= count
    return total


def grid(config: SweepConfig) -> Iterator[dict[str, Any]]:
    """Yield every configuration once, as W&B walks a grid: by name in alphabetical order, the first one slowest.

    Values come in the order of the file, one that is listed twice only once. As in W&B's engine ``int_uniform``
    includes its max and ``q_uniform`` counts from min and leaves out its max.
    """
    leaves = sorted(flatten(config.parameters), key=lambda leaf: leaf[0])
    for values in _product([_grid_values(parameter) for _, parameter in leaves]):
        yield _nest((path, value) for (path, _), value in zip(leaves, values, strict=True))


def sample(config: SweepConfig, rng: random.Random) -> dict[str, Any]:
    """Draw one configuration at random, every parameter by itself."""
    return _nest((path, _draw(parameter, rng)) for path, parameter in flatten(config.parameters))


Path = tuple[str, ...]
Leaf = Constant | Choice | Range


def flatten(parameters: Mapping[str, Parameter], prefix: Path = ()) -> list[tuple[Path, Leaf]]:
    """Return (path, parameter) of everything that has a value, in the order of the file."""
    leaves: list[tuple[Path, Leaf]] = []
    for name, parameter in parameters.items():
        path = (*prefix, name)
        if isinstance(parameter, Nested):
            leaves.extend(flatten(parameter.parameters, path))
        else:
            leaves.append((path, parameter))
    return leaves


def value_key(value: Any) -> str:
    """Return a text that is the same for values that W&B takes as the same: 1 and 1.0, but not 1 and true."""

    def whole(item: Any) -> Any:
        if isinstance(item, float) and item.is_integer():
            return int(item)
        if isinstance(item, Mapping):
            return {str(key): whole(part) for key, part in item.items()}
        return [whole(part) for part in item] if isinstance(item, list | tuple) else item

    return json.dumps(whole(value), sort_keys=True, default=str)


def _distinct(values: Iterable[Any]) -> list[Any]:
    first: dict[str, Any] = {}
    for value in values:
        first.setdefault(value_key(value), value)
    return list(first.values())


def _grid_values(parameter: Leaf) -> Sequence[Any]:
    if isinstance(parameter, Constant):
        return [parameter.value]
    if isinstance(parameter, Choice):
        return _distinct(parameter.values)
    if parameter.distribution == "int_uniform":
        return range(int(parameter.low), int(parameter.high) + 1)
    step = parameter.q or 1.0
    factors = range(math.ceil((parameter.high - parameter.low) / step - 1e-9))  # (1.1 - 0.5) / 0.2 exceeds 3
    values = (parameter.low + factor * step for factor in factors)
    return [value if isinstance(value, int) else float(f"{value:.12g}") for value in values]


def _product(choices: Sequence[Sequence[Any]]) -> Iterator[tuple[Any, ...]]:
    """Yield what itertools.product does without holding a long range in memory."""
    if not choices:
        yield ()
        return
    for value in choices[0]:
        for rest in _product(choices[1:]):
            yield (value, *rest)


def _draw(parameter: Leaf, rng: random.Random) -> Any:
    if isinstance(parameter, Constant):
        return parameter.value
    if isinstance(parameter, Range):
        return draw(parameter, rng)
    if parameter.probabilities is None:
        return rng.choice(parameter.values)
    return rng.choices(parameter.values, weights=parameter.probabilities)[0]


def _nest(items: Iterable[tuple[Path, Any]]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for path, value in items:
        inner = nested
        for name in path[:-1]:
            inner = inner.setdefault(name, {})
        inner[path[-1]] = value
    return nested


class _Reader:
    """Reads one sweep and collects its problems on the way."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def read(self, source: Mapping[str, Any]) -> SweepConfig:
        self._known("", source, _TOP_LEVEL)
        for key, instead in (
            ("metrics", "one metric: several objectives need W&B's client-side scheduler"),
            ("scheduler", "method: grid, random or bayes: W&B's client-side scheduler is a program of its own"),
        ):
            if key in source:
                self._problem(key, source[key], instead)
        method = source.get("method")
        if method not in METHODS:
            self._problem("method", source.get("method", _MISSING), ", ".join(METHODS), near=METHODS)
        metric = self._metric(source["metric"]) if "metric" in source else None
        early_terminate = self._hyperband(source["early_terminate"]) if "early_terminate" in source else None
        needed_by = "bayes" if method == "bayes" else "early_terminate" if "early_terminate" in source else None
        if "metric" not in source and needed_by is not None:
            self._problem("metric", _MISSING, f"a mapping with name and goal, which {needed_by} needs")
        if "parameters" in source:
            parameters = self._parameters("parameters", source["parameters"])
        else:
            parameters = {}
            self._problem("parameters", _MISSING, "a mapping of parameter names")
        if method in METHODS:
            self._what_the_method_cannot_do(str(method), parameters)
        run_cap = source.get("run_cap")
        if "run_cap" in source and (run_cap is None or not _is_int(run_cap) or run_cap < 1):
            self._problem("run_cap", run_cap, "a whole number >= 1")
            run_cap = None
        texts = {key: self._text(key, source) for key in ("program", "name", "description", "project", "entity")}
        for key in ("job", "image_uri", "apiVersion"):
            self._text(key, source)
        if source.get("kind", "sweep") != "sweep":
            self._problem("kind", source["kind"], "sweep")
        command = source.get("command")
        if "command" in source and not isinstance(command, list):
            self._problem("command", command, 'a list, such as ["${env}", "${program}", "${args}"]')
            command = None
        self._controller(source)
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

    def _metric(self, section: Any) -> Metric | None:
        if not isinstance(section, Mapping):
            self._problem("metric", section, "a mapping with name and goal")
            return None
        self._known("metric.", section, _METRIC)
        name = section.get("name")
        if not isinstance(name, str) or not name:
            self._problem("metric.name", section.get("name", _MISSING), "the name of a logged metric")
        goal = self._word("metric.goal", section, GOALS)
        target = section.get("target")
        if "target" in section and not _is_number(target):
            self._problem("metric.target", target, "a number")
        impute = self._word("metric.impute", section, IMPUTE)
        while_running = section.get("impute_while_running", "false")
        if while_running is False:
            self._problem("metric.impute_while_running", False, 'text: write "false" in quotes')
        elif while_running not in (*IMPUTE, "false"):
            self._problem("metric.impute_while_running", while_running, ", ".join((*IMPUTE, '"false"')))
        return Metric(name, goal, target, impute, str(while_running)) if isinstance(name, str) else None

    def _hyperband(self, section: Any) -> HyperbandConfig | None:
        path = "early_terminate"
        if not isinstance(section, Mapping):
            self._problem(path, section, "a mapping with type: hyperband")
            return None
        before = len(self.problems)
        self._known(f"{path}.", section, _HYPERBAND)
        if section.get("type") != "hyperband":
            self._problem(f"{path}.type", section.get("type", _MISSING), "hyperband")
        for key in ("min_iter", "max_iter", "s"):
            if key in section and not (_is_int(section[key]) and section[key] >= 1):
                self._problem(f"{path}.{key}", section[key], "a whole number >= 1")
        eta = section.get("eta", 3)
        if not (_is_number(eta) and eta > 1):
            self._problem(f"{path}.eta", eta, "a number > 1")
        strict = section.get("strict", True)
        if not isinstance(strict, bool):
            self._problem(f"{path}.strict", strict, "true, false")
        if "max_iter" in section and "s" not in section:
            self._problem(f"{path}.s", _MISSING, "the number of bands below max_iter, which max_iter needs")
        if "max_iter" not in section and "min_iter" not in section:
            self._problem(path, dict(section), "min_iter (with eta), or max_iter with s")
        if len(self.problems) > before:
            return None
        config = HyperbandConfig(section.get("min_iter"), section.get("max_iter"), section.get("s"), eta, strict)
        if not bands(config):
            self._problem(f"{path}.max_iter", config.max_iter, f"at least eta = {eta:g}: below it there is no band")
            return None
        return config

    def _parameters(self, path: str, section: Any) -> dict[str, Parameter]:
        if not isinstance(section, Mapping) or not section:
            self._problem(path, section, "a mapping of at least one parameter")
            return {}
        parameters = {}
        for name, spec in section.items():
            if not isinstance(name, str) or not _PARAMETER_NAME.fullmatch(name):
                self._problem(f"{path}.{name}", name, "a name of letters, digits, _ . - that starts with a letter or _")
            parameter = self._parameter(f"{path}.{name}", spec)
            if parameter is not None:
                parameters[str(name)] = parameter
        return parameters

    def _parameter(self, path: str, spec: Any) -> Parameter | None:
        if not isinstance(spec, Mapping):
            wanted = "values" if isinstance(spec, list) else "value"
            self._problem(path, spec, f"a mapping; write {wanted}: {json.dumps(spec, default=str)}")
            return None
        if "parameters" in spec:
            self._known(f"{path}.", spec, ("parameters",))
            return Nested(self._parameters(f"{path}.parameters", spec["parameters"]))
        distribution = spec.get("distribution", _inferred(spec))
        if distribution is None:
            self._problem(path, dict(spec), "value, values, min with max, distribution, or nested parameters")
            return None
        if not isinstance(distribution, str) or distribution not in (*_DISCRETE, *DISTRIBUTIONS):
            known = (*_DISCRETE, *DISTRIBUTIONS)
            self._problem(f"{path}.distribution", distribution, ", ".join(known), near=known)
            return None
        if distribution == "constant":
            self._known(f"{path}.", spec, ("value", "distribution"), of=distribution)
            if "value" not in spec:
                self._problem(f"{path}.value", _MISSING, "the constant")
            return Constant(spec.get("value"))
        if distribution in _DISCRETE:
            return self._choice(path, spec, distribution)
        return self._range(path, spec, distribution)

    def _choice(self, path: str, spec: Mapping[str, Any], distribution: str) -> Choice | None:
        weighted = distribution == "categorical_w_probabilities"
        keys = ("values", "probabilities", "distribution") if weighted else ("values", "distribution")
        before = len(self.problems)
        self._known(f"{path}.", spec, keys, of=distribution)
        values = spec.get("values", _MISSING)
        if not isinstance(values, list) or not values:
            self._problem(f"{path}.values", values, "a list of at least one value")
        if not weighted:
            return Choice(tuple(values)) if len(self.problems) == before else None
        weights = spec.get("probabilities", _MISSING)
        if not isinstance(weights, list) or not all(_is_number(weight) and weight >= 0 for weight in weights):
            self._problem(f"{path}.probabilities", weights, "a list of numbers >= 0")
        elif isinstance(values, list) and len(weights) != len(values):
            self._problem(f"{path}.probabilities", weights, f"one for each of the {len(values)} values")
        elif not math.isclose(sum(weights), 1.0, rel_tol=1e-5):
            self._problem(f"{path}.probabilities", weights, f"a sum of 1 (these sum to {sum(weights):g})")
        return Choice(tuple(values), tuple(weights)) if len(self.problems) == before else None

    def _range(self, path: str, spec: Mapping[str, Any], distribution: str) -> Range | None:
        before = len(self.problems)
        keys = DISTRIBUTIONS[distribution]
        self._known(f"{path}.", spec, (*keys, "distribution"), of=distribution)
        numbers: dict[str, Any] = {}
        for key, default in keys.items():
            value = spec.get(key, default)
            wanted = "a whole number" if distribution == "int_uniform" else "a number"
            if value is None and key not in spec:
                self._problem(f"{path}.{key}", _MISSING, f"{wanted}, which {distribution} needs")
            elif not (_is_int(value) if distribution == "int_uniform" else _is_number(value)):
                self._problem(f"{path}.{key}", value, wanted)
            elif (key in {"q", "a", "b"} and value <= 0) or (key == "sigma" and value < 0):
                self._problem(f"{path}.{key}", value, "a number >= 0" if key == "sigma" else "a number > 0")
            else:
                numbers[key] = value
        if len(self.problems) > before:
            return None
        if "min" in keys:
            self._bounds(path, distribution, numbers)
        return Range(distribution, **numbers) if len(self.problems) == before else None

    def _bounds(self, path: str, distribution: str, numbers: Mapping[str, float]) -> None:
        low, high = numbers["min"], numbers["max"]
        if low >= high:
            self._problem(f"{path}.min", low, f"less than max = {high:g}; for one value write value: {low:g}")
        elif distribution.endswith("_values") and low <= 0:
            self._problem(f"{path}.min", low, f"a number > 0: {distribution} takes logarithms")
        elif distribution in EXPONENT_OF_E and max(abs(low), abs(high)) > _LARGEST_EXPONENT:
            instead = f"an exponent of e up to {_LARGEST_EXPONENT}; {EXPONENT_OF_E[distribution]} takes values"
            self._problem(f"{path}.max", high, instead)

    def _what_the_method_cannot_do(self, method: str, parameters: Mapping[str, Parameter]) -> None:
        for path, parameter in flatten(parameters):
            where = ".".join(("parameters", *path))
            if method == "grid" and isinstance(parameter, Range) and parameter.distribution not in GRID_DISTRIBUTIONS:
                self._problem(where, parameter.distribution, "values, int_uniform or q_uniform: a grid is finite")
            elif method == "bayes" and isinstance(parameter, Range):
                if parameter.distribution not in BAYES_DISTRIBUTIONS:
                    allowed = f"values, {', '.join(BAYES_DISTRIBUTIONS)} (or method: random, which draws from any)"
                    self._problem(where, parameter.distribution, f"under bayes: {allowed}")
            elif method != "random" and isinstance(parameter, Choice) and parameter.probabilities is not None:
                self._problem(where, "probabilities", f"values without them: {method} does not draw by probability")

    def _controller(self, source: Mapping[str, Any]) -> None:
        if "controller" not in source:
            return
        section = source["controller"]
        if not isinstance(section, Mapping) or section.get("type") not in ("local", "cloud"):
            self._problem("controller", section, "a mapping with type: cloud or type: local")

    def _text(self, key: str, source: Mapping[str, Any]) -> str | None:
        value = source.get(key)
        if key in source and not isinstance(value, str):
            self._problem(key, value, "text")
            return None
        return value

    def _word(self, path: str, section: Mapping[str, Any], allowed: tuple[str, ...]) -> str:
        value = section.get(path.rpartition(".")[2], allowed[0])
        if value not in allowed:
            self._problem(path, value, ", ".join(allowed), near=allowed)
        return str(value)

    def _known(self, prefix: str, section: Mapping[str, Any], known: Iterable[str], of: str = "") -> None:
        known = tuple(known)
        for key in section:
            if key not in known:
                near = difflib.get_close_matches(str(key), known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
                self.problems.append(f"{prefix}{key}: no such key{f' of {of}' if of else ''}; {hint}")

    def _problem(self, path: str, given: Any, allowed: str, near: Iterable[str] = ()) -> None:
        if given is _MISSING:
            self.problems.append(f"{path}: missing; allowed: {allowed}")
            return
        close = difflib.get_close_matches(str(given), list(near), n=1)
        hint = number_in_text(given) or (f"; did you mean {close[0]}?" if close else "")
        self.problems.append(f"{path}: {_given(given)} is not allowed; allowed: {allowed}{hint}")


_MISSING = object()


def _inferred(spec: Mapping[str, Any]) -> str | None:
    """Return the distribution that W&B takes when none is named."""
    if "values" in spec:
        return "categorical_w_probabilities" if "probabilities" in spec else "categorical"
    if "value" in spec:
        return "constant"
    if "min" in spec or "max" in spec:
        both_whole = all(_is_int(spec.get(key)) for key in ("min", "max"))
        return "int_uniform" if both_whole else "uniform"
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _given(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
