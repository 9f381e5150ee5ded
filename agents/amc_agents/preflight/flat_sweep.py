"""A sweep as the checks read it: its parameters in one list, and the values that a trial may get."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from amc_core.config import FIELDS, VARIANT, ConfigError, check_value, read_variant, variant_text
from amc_sweeps.grammar.configurations import value_key
from amc_sweeps.grammar.distributions import Range, ends
from amc_sweeps.grammar.sweep_config import Choice, Constant, Leaf, Path, SweepConfig, flatten
from amc_sweeps.grammar.trial_program import is_trial_program
from amc_sweeps.values import is_number

_MOST_VALUES = 8  # of one numeric field; if more are listed, only the lowest and the highest are checked


@dataclass(frozen=True)
class FlatSweep:
    """A sweep, its number of configurations and its parameters in one list."""

    config: SweepConfig
    configurations: int | None  # different ones; None: infinitely many, or unknown
    variant: str | None = None  # of ``trials``: the variant whose fields are among the parameters, as text
    crashed_runs: str | None = None  # --crashed-runs of its creation, if it is given

    @cached_property
    def parameters(self) -> list[tuple[Path, Leaf]]:
        """Every parameter that has values, in the order of the file."""
        return flatten(self.config.parameters)

    @property
    def runs_trial(self) -> bool:
        """Whether the sweep starts amc-train."""
        return is_trial_program(self.config.program)

    @cached_property
    def trials(self) -> list[FlatSweep]:
        """The sweep of each variant, with the variant's fields as constants; the sweep itself where it has none."""
        variants = [(text, fields) for text, fields in self._variants if fields]
        return [
            self._with({name: Constant(value) for name, value in fields.items()}, variant=text)
            for text, fields in variants
        ] or [self]

    @cached_property
    def merged(self) -> FlatSweep:
        """The sweep with every field of its variants as a list of the values that it may have."""
        variants = [fields for _, fields in self._variants]
        names = [name for name in FIELDS if name in self.varied_by_variant]
        choices = {name: Choice(tuple(fields.get(name, FIELDS[name].default) for fields in variants)) for name in names}
        return self._with(choices) if names else self

    @cached_property
    def unreadable_variants(self) -> list[str]:
        """The problems of the variants that cannot be read."""
        problems = []
        for value in self._variant_values:
            try:
                read_variant(value)
            except ConfigError as error:
                problems += error.problems
        return problems

    @cached_property
    def _variant_values(self) -> list[Any]:
        leaf = self.config.parameters.get(VARIANT)
        return possible_values(leaf) if isinstance(leaf, Constant | Choice) and self.runs_trial else []

    @cached_property
    def _variants(self) -> list[tuple[str, dict[str, Any]]]:
        """Each variant as text and as its fields; without any for one that cannot be read."""
        variants = []
        for value in self._variant_values:
            try:
                fields = read_variant(value)
            except ConfigError:
                fields = {}
            variants.append((value if isinstance(value, str) else variant_text(fields), fields))
        return variants

    @property
    def varied_by_variant(self) -> set[str]:
        """The fields that some variant names."""
        return {name for _, fields in self._variants for name in fields}

    def _with(self, fields: Mapping[str, Leaf], variant: str | None = None) -> FlatSweep:
        others = {name: leaf for name, leaf in self.config.parameters.items() if name != VARIANT}
        return FlatSweep(replace(self.config, parameters={**others, **fields}), self.configurations, variant)

    @cached_property
    def fields(self) -> dict[str, Leaf]:
        """The parameters that are fields of a trial."""
        return {path[0]: leaf for path, leaf in self.parameters if len(path) == 1 and path[0] in FIELDS}

    @cached_property
    def values(self) -> Mapping[str, list[Any]]:
        """The values that each field of a trial may get: its default where the sweep does not set it."""
        defaults = {name: [spec.default] for name, spec in FIELDS.items()}
        return {**defaults, **{name: _allowed_values(name, leaf) for name, leaf in self.fields.items()}}

    def numbers(self, name: str) -> list[float]:
        return [value for value in self.values[name] if is_number(value)]


# A check returns one sentence for each problem or warning.
Check = Callable[[FlatSweep], Iterable[str]]


def possible_values(leaf: Leaf) -> list[Any]:
    """Return the constant, the different listed values, or the finite ends of a range.

    The upper end of log_normal is infinite: its median is returned. beta excludes its ends: the values next to them are
    returned.
    """
    if isinstance(leaf, Constant):
        return [leaf.value]
    if not isinstance(leaf, Range):
        return list({value_key(value): value for value in leaf.values}.values())
    if leaf.distribution == "beta":
        return [1e-9, 1 - 1e-9]
    if leaf.distribution == "log_normal":
        return [math.exp(leaf.mu)]
    return [end for end in ends(leaf) if math.isfinite(end)]


def _allowed_values(name: str, leaf: Leaf) -> list[Any]:
    """Return the values that a trial accepts, of many numbers two: the lowest and the highest; else the default."""
    results = (check_value(name, value) for value in possible_values(leaf))
    values = [value for value, problem in results if problem is None] or [FIELDS[name].default]
    if len(values) > _MOST_VALUES and FIELDS[name].kind in {"int", "float"}:
        numbers = [value for value in values if is_number(value)]
        return [min(numbers), max(numbers)]
    return values
