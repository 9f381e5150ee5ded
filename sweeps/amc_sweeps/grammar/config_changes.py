"""What changes from one config of a sweep to another, in sentences."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from amc_sweeps.grammar.configurations import allows, distinct, value_key
from amc_sweeps.grammar.distributions import DISTRIBUTIONS, Range
from amc_sweeps.grammar.hyperband import HyperbandConfig, bands
from amc_sweeps.grammar.sweep_config import Choice, Constant, Leaf, Metric, SweepConfig, flatten
from amc_sweeps.number_formats import counted, listed
from amc_sweeps.values import MISSING, look_up

LONGEST_SHOWN = 60  # characters of a value
MOST_BANDS = 4  # shown
_PLACE = ("project", "entity")  # of a sweep when it is created; it stays there


def same_config(old: SweepConfig, new: SweepConfig) -> bool:
    """Return whether two configs mean the same; the order of keys, and the project, do not count."""
    return not changes(old, new)


def space_changes(old: SweepConfig, new: SweepConfig, runs: Sequence[Mapping[str, Any]] = ()) -> list[str]:
    """Return a sentence for every change of how configurations are drawn: of the method and of parameters."""
    return [*_replaced("method", old.method, new.method), *_parameter_changes(old, new, runs).values()]


def changed_parameters(old: SweepConfig, new: SweepConfig) -> tuple[str, ...]:
    """Return the names of the parameters that only one of them has, or that differ; nested ones dotted."""
    return tuple(_parameter_changes(old, new, ()))


def changes(old: SweepConfig, new: SweepConfig, runs: Sequence[Mapping[str, Any]] = ()) -> list[str]:
    """Return a sentence for every change. A sweep keeps its name and description where the new config has none.

    Args:
        runs: the configurations of the sweep's runs; without any, nothing is said of them.
    """
    return [
        *space_changes(old, new, runs),
        *_place_changes(old, new),
        *_metric_changes(old.metric, new.metric),
        *_hyperband_changes(old.early_terminate, new.early_terminate),
        *_replaced("run_cap", old.run_cap, new.run_cap),
        *_replaced("program", old.program, new.program),
        *_replaced("command", old.command, new.command),
        *(_replaced("name", old.name, new.name) if new.name is not None else ()),
        *(_replaced("description", old.description, new.description) if new.description is not None else ()),
        *_other_changes(old.raw, new.raw),
    ]


def _replaced(name: str, old: Any, new: Any) -> list[str]:
    if value_key(old) == value_key(new):
        return []
    before, after = ("none" if value is None else _shown(value) for value in (old, new))
    return [f"{name}: {before} becomes {after}"]


def _parameter_changes(old: SweepConfig, new: SweepConfig, runs: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return a sentence for every parameter that changes, by its name."""
    before, after = ({".".join(path): leaf for path, leaf in flatten(config.parameters)} for config in (old, new))
    lines: dict[str, str] = {}
    for name, leaf in before.items():
        values = [value for run in runs if (value := look_up(run, name, MISSING)) is not MISSING]
        if name not in after:
            had = f"; {counted(len(values), 'run')} had a value" if runs else ""
            lines[name] = f"{name} is dropped: it was {describe(leaf)}{had}"
        elif _key(leaf) != _key(after[name]):
            lines[name] = f"{name}: {_leaf_change(leaf, after[name], values)}"
    return lines | {name: f"{name} is new: {describe(leaf)}" for name, leaf in after.items() if name not in before}


def _place_changes(old: SweepConfig, new: SweepConfig) -> Iterable[str]:
    """Yield a sentence for every parameter whose dot becomes nesting, or the other way round: b in a, or a.b."""
    before, after = ({".".join(path): path for path, _ in flatten(config.parameters)} for config in (old, new))
    for name, path in before.items():
        if after.get(name, path) != path:
            places = [" > ".join(place) for place in (path, after[name])]
            yield f"{name}: its place in a run's config moves from {places[0]} to {places[1]}"


def _key(leaf: Leaf) -> str:
    return value_key([type(leaf).__name__, asdict(leaf)])


def _leaf_change(old: Leaf, new: Leaf, values: Sequence[Any]) -> str:
    if not (isinstance(old, Choice) and isinstance(new, Choice)):
        outside = sum(not allows(new, value) for value in values)
        other = "a value outside of it" if isinstance(new, Range) else "another value"
        had = f"; {outside} of {counted(len(values), 'run')} had {other}" if values else ""
        verb = "become" if isinstance(old, Choice) else "becomes"
        return f"{describe(old)} {verb} {describe(new)}{had}"
    keys_before, keys_after = [{value_key(value) for value in leaf.values} for leaf in (old, new)]
    dropped = [value for value in distinct(old.values) if value_key(value) not in keys_after]
    added = [value for value in distinct(new.values) if value_key(value) not in keys_before]
    parts = []
    if dropped:
        keys = [value_key(value) for value in values]
        counts = [f" ({counted(keys.count(value_key(value)), 'run')})" if values else "" for value in dropped]
        words = [f"{_shown(value)}{runs}" for value, runs in zip(dropped, counts, strict=True)]
        parts.append(f"{listed(words)} {_are(dropped)} dropped")
    if added:
        parts.append(f"{listed([_shown(value) for value in added])} {_are(added)} new")
    return "; ".join(parts) or "the values stay, with another order or other probabilities"


def _are(values: Sequence[Any]) -> str:
    return "is" if len(values) == 1 else "are"


def describe(leaf: Leaf) -> str:
    """Return a parameter's values in a few words."""
    if isinstance(leaf, Constant):
        return _shown(leaf.value)
    if isinstance(leaf, Choice):
        return f"values {listed([_shown(value) for value in leaf.values])}"
    keys = DISTRIBUTIONS[leaf.distribution]
    rest = [f"{key} {getattr(leaf, key):g}" for key in keys if key not in ("min", "max")]
    ends = [f"{leaf.min:g} to {leaf.max:g}"] if "min" in keys else []
    return f"{leaf.distribution} {', '.join(ends + rest)}"


def _metric_changes(old: Metric | None, new: Metric | None) -> list[str]:
    if old is None or new is None:
        return _replaced("metric", old and old.name, new and new.name)
    names = ("name", "goal", "target", "impute", "impute_while_running")
    return [line for name in names for line in _replaced(f"metric.{name}", getattr(old, name), getattr(new, name))]


def _hyperband_changes(old: HyperbandConfig | None, new: HyperbandConfig | None) -> list[str]:
    if old == new:
        return []
    if old is None or new is None:
        if new is None:
            return ["early_terminate is dropped: Hyperband stops no more runs"]
        return [f"early_terminate is new: Hyperband's bands are {_bands(new)}"]
    moved = _bands(old) != _bands(new)
    lines = [f"early_terminate: Hyperband's bands move from {_bands(old)} to {_bands(new)}"] if moved else []
    lines += _replaced("early_terminate.eta", old.eta, new.eta) + _replaced(
        "early_terminate.strict", old.strict, new.strict
    )
    return lines or ["early_terminate is written in another way, and the bands stay"]


def _bands(config: HyperbandConfig) -> str:
    return listed([str(band) for band in bands(config)], most=MOST_BANDS)


def _other_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterable[str]:
    known = {"method", "parameters", "metric", "early_terminate", "run_cap", "program", "command", "name"}
    names = [name for name in {**old, **new} if name not in (*known, "description", *_PLACE)]
    for name in names:
        yield from _replaced(str(name), old.get(name), new.get(name))


def _shown(value: Any) -> str:
    """Return a value as a reader knows it; a text that looks like a number, true or null is in quotes."""
    text = value if isinstance(value, str) and not _looks_like_json(value) else json.dumps(value, default=str)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def _looks_like_json(text: str) -> bool:
    try:
        json.loads(text[:LONGEST_SHOWN])
    except ValueError:
        return False
    return True
