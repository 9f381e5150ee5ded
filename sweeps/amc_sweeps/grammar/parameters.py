"""Read and check the ``parameters`` section of a sweep."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from amc_sweeps.grammar.distributions import DISTRIBUTIONS, EXPONENT_OF_E, Range, range_problem
from amc_sweeps.grammar.problems import Problems
from amc_sweeps.grammar.sweep_config import Choice, Constant, Nested, Parameter, Path, flatten
from amc_sweeps.values import is_64_bit, is_number, is_whole

_DISCRETE = ("constant", "categorical", "categorical_w_probabilities")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{,199}")
_LARGEST_EXPONENT = 700  # e^709 is the largest power that a float holds


def parse_parameters(section: Any, problems: Problems, path: str = "parameters") -> dict[str, Parameter]:
    """Return the parameters that can be read; add the problems of the others.

    Args:
        section: the mapping of names to parameters, unchecked.
        problems: where problems go.
        path: where the section is in the file.
    """
    if not isinstance(section, Mapping) or not section:
        problems.refuse(path, section, "a mapping of at least one parameter")
        return {}
    parameters = {}
    for name, spec in section.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            place = f"{path}.{str(name)[:80]}"
            problems.refuse(place, name, "a name of letters, digits, _ . - that starts with a letter or _, 200 at most")
            continue
        parameter = _parse_parameter(f"{path}.{name}", spec, problems)
        if parameter is not None:
            parameters[str(name)] = parameter
    return parameters


def name_problems(parameters: Mapping[str, Parameter]) -> list[str]:
    """Return a problem for each name that is given twice: flat, as ``a.b``, and nested, as ``b`` in ``a``."""
    paths: dict[str, Path] = {}
    problems = []
    for path, _ in flatten(parameters):
        name = ".".join(path)
        first = paths.setdefault(name, path)
        if first != path:
            keep, leave = sorted((".parameters.".join(way) for way in (path, first)), key=len, reverse=True)
            problems.append(
                f"parameters.{name}: given twice, as parameters.{leave} and as parameters.{keep}; W&B has one name for "
                f"both; leave out parameters.{leave}"
            )
    return problems


def _parse_parameter(path: str, spec: Any, problems: Problems) -> Parameter | None:
    if not isinstance(spec, Mapping):
        key = "values" if isinstance(spec, list) else "value"
        problems.refuse(path, spec, f"a mapping; write {key}: {json.dumps(spec, default=str)[:200]}")
        return None
    if "parameters" in spec:
        problems.refuse_unknown_keys(spec, f"{path}.", ("parameters",))
        return Nested(parse_parameters(spec["parameters"], problems, f"{path}.parameters"))
    distribution = spec.get("distribution", _default_distribution(spec))
    if distribution is None:
        problems.refuse(path, dict(spec), "value, values, min with max, distribution, or nested parameters")
        return None
    if not isinstance(distribution, str) or distribution not in (*_DISCRETE, *DISTRIBUTIONS):
        names = (*_DISCRETE, *DISTRIBUTIONS)
        problems.refuse(f"{path}.distribution", distribution, ", ".join(names), names)
        return None
    if distribution == "constant":
        problems.refuse_unknown_keys(spec, f"{path}.", ("value", "distribution"), of=distribution)
        if "value" not in spec:
            problems.missing(f"{path}.value", "the constant")
        return Constant(spec.get("value"))
    if distribution in _DISCRETE:
        return _parse_choice(path, spec, distribution, problems)
    return _parse_range(path, spec, distribution, problems)


def _default_distribution(spec: Mapping[str, Any]) -> str | None:
    """Return the distribution that W&B takes when none is named."""
    if "values" in spec:
        return "categorical_w_probabilities" if "probabilities" in spec else "categorical"
    if "value" in spec:
        return "constant"
    if "min" in spec or "max" in spec:
        are_integers = all(is_whole(spec.get(key)) for key in ("min", "max"))
        return "int_uniform" if are_integers else "uniform"
    return None


def _parse_choice(path: str, spec: Mapping[str, Any], distribution: str, problems: Problems) -> Choice | None:
    is_weighted = distribution == "categorical_w_probabilities"
    keys = ("values", "probabilities", "distribution") if is_weighted else ("values", "distribution")
    before = len(problems)
    problems.refuse_unknown_keys(spec, f"{path}.", keys, of=distribution)
    values, weights = spec.get("values"), spec.get("probabilities") if is_weighted else None
    if not isinstance(values, list) or not values:
        problems.refuse_key(spec, f"{path}.values", "a list of at least one value")
    if is_weighted and (not isinstance(weights, list) or not all(is_number(w) and w >= 0 for w in weights)):
        problems.refuse_key(spec, f"{path}.probabilities", "a list of numbers >= 0")
    elif isinstance(weights, list) and isinstance(values, list) and len(weights) != len(values):
        problems.refuse(f"{path}.probabilities", weights, f"one for each value ({len(values)})")
    elif isinstance(weights, list) and not math.isclose(sum(weights), 1.0, rel_tol=1e-5):
        problems.refuse(f"{path}.probabilities", weights, f"a sum of 1 (these sum to {sum(weights):g})")
    if len(problems) > before or not isinstance(values, list):
        return None
    return Choice(tuple(values), None if weights is None else tuple(weights))


def _parse_range(path: str, spec: Mapping[str, Any], distribution: str, problems: Problems) -> Range | None:
    before = len(problems)
    keys = DISTRIBUTIONS[distribution]
    problems.refuse_unknown_keys(spec, f"{path}.", (*keys, "distribution"), of=distribution)
    needs_integers = distribution == "int_uniform"
    kind = "a whole number within 64 bits" if needs_integers else "a number"
    numbers: dict[str, Any] = {}
    for key, default in keys.items():
        value = spec.get(key, default)
        if value is None and key not in spec:
            problems.missing(f"{path}.{key}", f"{kind}, which {distribution} needs")
        elif not (is_64_bit(value) if needs_integers else is_number(value)):
            problems.refuse(f"{path}.{key}", value, kind)
        elif (key in {"q", "a", "b"} and value <= 0) or (key == "sigma" and value < 0):
            problems.refuse(f"{path}.{key}", value, "a number >= 0" if key == "sigma" else "a number > 0")
        else:
            numbers[key] = value
    if len(problems) == before and "min" in keys:
        _check_bounds(path, distribution, numbers["min"], numbers["max"], problems)
    if len(problems) > before:
        return None
    parsed = Range(distribution, **numbers)
    problem = range_problem(parsed)
    if problem is not None:
        problems.refuse(path, dict(spec), problem)
    return parsed if problem is None else None


def _check_bounds(path: str, distribution: str, low: float, high: float, problems: Problems) -> None:
    if low >= high:
        problems.refuse(f"{path}.min", low, f"less than max = {high:g}; for one value write value: {low:g}")
    elif distribution.endswith("_values") and low <= 0:
        problems.refuse(f"{path}.min", low, f"a number > 0: {distribution} takes logarithms")
    elif distribution in EXPONENT_OF_E and max(abs(low), abs(high)) > _LARGEST_EXPONENT:
        instead = f"an exponent of e up to {_LARGEST_EXPONENT}; {EXPONENT_OF_E[distribution]} takes values"
        problems.refuse(f"{path}.max", high, instead)
