"""Prior runs of a sweep: how the client names them, and their values as the sweep would have chosen them.

A script may change the type of a value: argparse turns 1 into "1", a YAML dump turns true into "True". Such a value
counts as the sweep's value that reads the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from amc_server.store.records import Run
from amc_sweeps.grammar.configurations import value_key
from amc_sweeps.grammar.distributions import Range, ends
from amc_sweeps.grammar.sweep_config import Constant, Leaf, SweepConfig, flatten
from amc_sweeps.values import MISSING, is_number, is_whole, look_up, nest


class RunPath(NamedTuple):
    """The client's name of a prior run: an id, a path such as ENTITY/PROJECT/ID, or the address of a page."""

    text: str
    project: str | None
    run_id: str


def named_runs(filters: Mapping[str, Any]) -> list[RunPath] | None:
    """Return the runs that ``wandb sweep --prior_run`` asks for; None for filters of another form."""
    parts = filters.get("$or")
    if set(filters) != {"$or"} or not isinstance(parts, list):
        return None
    names = [part.get("name") if isinstance(part, Mapping) and len(part) == 1 else None for part in parts]
    return [_path(str(name)) for name in names] if all(isinstance(name, str) for name in names) else None


def _path(text: str) -> RunPath:
    *before, run_id = [part for part in text.partition("?")[0].strip().strip("/").split("/") if part != "runs"] or [""]
    return RunPath(text, before[-1] if before else None, run_id)


def fit(values: Mapping[str, Any], config: SweepConfig) -> tuple[dict[str, Any], list[str]]:
    """Return a run's values of the sweep's parameters, with the sweep's own types, and the problems of the others.

    A value that does not fit is returned unchanged. The search learns nothing from a run with such a
    value, except that bayes does not look at fixed values.
    """
    items, problems = [], []
    for path, leaf in flatten(config.parameters):
        name = ".".join(path)
        value = look_up(values, name, MISSING)
        if value is MISSING:
            problems.append(f"its config has no {name}")
            continue
        choice = _as_chosen(leaf, value)
        if choice is MISSING:
            problems.append(f"its {name} is {value!r:.60}, which this sweep does not try")
        items.append((path, value if choice is MISSING else choice))
    return nest(items), problems


def renewed_parameters(run: Run, config: SweepConfig) -> dict[str, Any]:
    """Return the parameters of a sweep's run under another config of the sweep.

    What the sweep has chosen stays, because the run may be handed out again. A parameter that the sweep did not have
    gets the value of the run's own config: a run that trained with its default is a run of the new space.
    """
    values = run.config_values()
    if run.origin == "prior":
        return fit(values, config)[0]
    parameters = run.swept_values()
    for path, leaf in flatten(config.parameters):
        name = ".".join(path)
        value = look_up(values, name, MISSING)
        if value is MISSING or look_up(parameters, name, MISSING) is not MISSING:
            continue
        inner: Any = parameters
        for key in path[:-1]:
            inner = inner.setdefault(key, {}) if isinstance(inner, dict) else None
        if isinstance(inner, dict):
            chosen = _as_chosen(leaf, value)
            inner[path[-1]] = value if chosen is MISSING else chosen
    return parameters


def _as_chosen(leaf: Leaf, value: Any) -> Any:
    """Return the sweep's own value for a run's value, or ``MISSING``."""
    if isinstance(leaf, Range):
        number = value if is_number(value) else _number(value)
        low, high = ends(leaf)
        if number is None or not low <= number <= high:
            return MISSING
        if leaf.distribution == "int_uniform":
            return int(number) if float(number).is_integer() else MISSING
        return number
    allowed = (leaf.value,) if isinstance(leaf, Constant) else leaf.values
    same = [choice for choice in allowed if value_key(choice) == value_key(value)]
    alike = same or [choice for choice in allowed if _reading(choice) == _reading(value)]
    return alike[0] if alike and (same or len(alike) == 1) else MISSING


def _number(value: Any) -> float | None:
    try:
        number = float(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return number if is_number(number) else None


def _reading(value: Any) -> str:
    """Return how a value reads, whatever its type: 1, 1.0 and "1" read the same."""
    number = value if is_number(value) else _number(value)
    if number is not None and not isinstance(value, bool):
        return str(number) if is_whole(number) else f"{number:.12g}"
    return value.strip().lower() if isinstance(value, str) else value_key(value)
