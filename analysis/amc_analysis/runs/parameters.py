"""The searched parameters of a sweep with their values in the runs, and the columns that a test of each needs.

In names: N runs, D columns of a parameter's basis.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from amc_core.config import FIELDS, VARIANT, ConfigError, read_variant
from amc_sweeps.grammar.configurations import distinct, value_key
from amc_sweeps.grammar.distributions import Range, is_log_spaced, is_logarithmic
from amc_sweeps.grammar.parse import parse_leniently
from amc_sweeps.grammar.searched_parameters import parameter_sections, searched_parameters
from amc_sweeps.grammar.sweep_config import Choice, Leaf, flatten
from amc_sweeps.grammar.trial_program import is_trial_program
from amc_sweeps.runs.records import SweepRecord
from amc_sweeps.values import is_number, look_up, names_seed

Floats = NDArray[np.float64]

PARTS = 4  # of a range for display
LISTED = 6  # distinct values; more are shown as parts of a range
_RECORDED = re.compile(
    r"^_|^n_(?:train|val|test)$|fingerprint|commit|device|host|^parent|_from$|^data$|^storage$|path|dir$|heldout_trained_on"
    r"|^duplicates_across_parts$"
)
DEGREES = 2  # of the polynomial on ranks: a rise or fall, and an optimum in the middle


@dataclass(frozen=True, eq=False)
class Parameter:
    """One searched parameter and its value in every run."""

    name: str
    values: tuple[Any, ...]  # one a run, in the order given; None where the run lacks it
    spec: Leaf | None  # its section of the sweep's file; None where that cannot be read
    has: NDArray[np.bool_]  # which runs have it

    @cached_property
    def kind(self) -> Literal["nominal", "ordered"]:
        """Numbers are ordered, everything else is nominal."""
        present = [value for value in self.values if value is not None]
        return "ordered" if present and all(is_number(value) for value in present) else "nominal"

    @cached_property
    def scale(self) -> Literal["linear", "log"] | None:
        """The natural scale of an ordered parameter."""
        if self.kind == "nominal":
            return None
        if isinstance(self.spec, Range):
            return "log" if is_logarithmic(self.spec) else "linear"
        listed = [value for value in self.spec.values if is_number(value)] if isinstance(self.spec, Choice) else []
        low, high = float(min(listed or self.levels)), float(max(listed or self.levels))
        return "log" if is_log_spaced(low, high) else "linear"

    @cached_property
    def levels(self) -> tuple[Any, ...]:
        """Distinct values: ordered ones ascending, others in the order of the sweep's file, then of the runs."""
        listed = self.spec.values if isinstance(self.spec, Choice) else ()
        distinct: dict[str, Any] = {}
        for value in (*listed, *self.values):
            if value is not None:
                distinct.setdefault(value_key(value), value)
        present = {value_key(value) for value in self.values if value is not None}
        levels = [value for key, value in distinct.items() if key in present]
        return tuple(sorted(levels)) if self.kind == "ordered" else tuple(levels)

    @cached_property
    def index(self) -> NDArray[np.int64]:
        """Position of every run's value in ``levels``; -1 where it has none."""
        place = {value_key(value): index for index, value in enumerate(self.levels)}
        return np.array([-1 if value is None else place[value_key(value)] for value in self.values], dtype=np.int64)

    @property
    def is_range(self) -> bool:
        """Whether its values are shown in parts of a range: ordered, and too many to list."""
        return self.kind == "ordered" and len(self.levels) > LISTED

    @cached_property
    def parts(self) -> tuple[NDArray[np.int64], ...]:
        """Run positions of every value, or of up to PARTS parts of a range with about equally many runs."""
        if not self.is_range:
            return tuple(np.flatnonzero(self.index == level) for level in range(len(self.levels)))
        runs = np.flatnonzero(self.has)
        # Equal values stay in one part: cut by the rank of the value, not of the run.
        below = np.array([(self.index[runs] < level).sum() for level in range(len(self.levels))])
        part = np.minimum(PARTS * below // len(runs), PARTS - 1)[self.index[runs]]
        return tuple(runs[part == index] for index in range(PARTS) if (part == index).any())

    @cached_property
    def basis(self) -> Floats:
        """Orthonormal columns for a test of dependence on the parameter; zero where a run lacks it.

        Nominal: contrasts between values. Ordered: rank and squared rank, which show a rise, a fall and an optimum in
        the middle on any scale. No columns where a test is impossible: one value, or nearly as many as runs.
        """
        basis_ND = np.zeros((len(self.values), 0))
        n_levels, n = len(self.levels), int(self.has.sum())
        if n_levels < 2 or (self.kind == "nominal" and n_levels > n / 2):
            return basis_ND
        level_n = self.index[self.has]
        if self.kind == "nominal":
            raw_nD = np.eye(n_levels)[level_n][:, 1:]
        else:
            counts = np.bincount(level_n, minlength=n_levels)
            midrank_n = (np.cumsum(counts) - (counts - 1) / 2)[level_n]
            centred_n = (midrank_n - midrank_n.mean()) / n
            raw_nD = np.stack([centred_n**degree for degree in range(1, min(DEGREES, n_levels - 1) + 1)], axis=1)
        centred_nD = raw_nD - raw_nD.mean(axis=0)
        orthonormal_nD, triangle_DD = np.linalg.qr(centred_nD)
        # Keep the direction of each column: the first of an ordered parameter rises with it.
        orthonormal_nD = orthonormal_nD * np.where(np.diag(triangle_DD) < 0, -1.0, 1.0)
        basis_ND = np.zeros((len(self.values), orthonormal_nD.shape[1]))
        basis_ND[self.has] = orthonormal_nD
        return basis_ND

    def against_others(self, level: int) -> Floats:
        """Return the orthonormal column that compares one value with all others; zero where a run lacks it."""
        contrast_N = (self.index == level).astype(np.float64)
        contrast_N[self.has] -= contrast_N[self.has].mean()
        return np.asarray(contrast_N / np.linalg.norm(contrast_N))[:, None]

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """The levels as texts that differ, see ``texts_of``."""
        return texts_of(self.levels)

    def label(self, part: int) -> str:
        """Name a value, or a part of a range."""
        if not self.is_range:
            return self.texts[part]
        levels = self.index[self.parts[part]]
        low, high = self.texts[levels.min()], self.texts[levels.max()]
        return low if low == high else f"{low} to {high}"

    def ends(self, part: int) -> tuple[Any, Any]:
        """Return the lowest and the highest value in a part of a range."""
        levels = self.index[self.parts[part]]
        return self.levels[levels.min()], self.levels[levels.max()]


def parameters_of(record: SweepRecord, configs: Sequence[Mapping[str, Any]]) -> tuple[Parameter, ...]:
    """Return the searched parameters in the order of the sweep's file; seeds are repeats and left out.

    Runs of a project have no sweep's file. Their parameters are the entries that all configurations have and that
    differ, without those that record where a run ran and on what data.

    Args:
        record: the sweep.
        configs: the runs' configurations; the parameters' values get their order.
    """
    leaves = leaves_of(record.config)
    names = searched_parameters(flat_config(record.config)) if record.kind == "sweep" else _differing(configs)
    return tuple(
        parameter(name, [_value(config, name, leaves.get(name)) for config in configs], leaves.get(name))
        for name in names
        if not names_seed(name)
    )


def unreadable_parameters(config: Mapping[str, Any]) -> list[str]:
    """Return the dotted names of the parameters that a sweep's file has and the grammar cannot read."""
    leaves = leaves_of(config)
    return [name for name, _ in parameter_sections(flat_config(config)) if name not in leaves]


def flat_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a sweep's config with the fields of its variants as parameters in place of ``variant``.

    A run of amc-train records these fields, whether it got them from a variant or not.
    """
    variants = variants_of(config)
    if not variants:
        return config
    others = {name: section for name, section in config["parameters"].items() if name != VARIANT}
    fields = {
        name: {"values": distinct(fields.get(name, FIELDS[name].default) for fields in variants)}
        for name in dict.fromkeys(name for fields in variants for name in fields)
        if name in FIELDS
    }
    return {**config, "parameters": {**others, **fields}}


def variants_of(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the fields of every variant of a sweep of amc-train; empty where it has none, or one cannot be read."""
    parameters = config.get("parameters")
    section = parameters.get(VARIANT) if isinstance(parameters, Mapping) else None
    if not isinstance(section, Mapping) or not is_trial_program(config.get("program")):
        return []
    values = section.get("values", [section["value"]] if "value" in section else [])
    try:
        return [read_variant(value) for value in values]
    except (ConfigError, TypeError):
        return []


def _differing(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    common = [name for name in configs[0] if all(name in config for config in configs)] if configs else []
    return [
        name
        for name in common
        if not _RECORDED.search(name)
        and all(isinstance(config[name], str | int | float) for config in configs)
        and len({value_key(config[name]) for config in configs}) > 1
    ]


def parameter(name: str, values: Sequence[Any], spec: Leaf | None = None) -> Parameter:
    """Return a parameter of these values; numbers that are not finite count as absent."""
    finite = tuple(None if isinstance(value, float) and not math.isfinite(value) else value for value in values)
    return Parameter(name, finite, spec, np.array([value is not None for value in finite], dtype=bool))


def leaves_of(config: Mapping[str, Any]) -> dict[str, Leaf]:
    """Return dotted name -> the parameter's section of the sweep's file, as far as the grammar can read it."""
    parsed, _ = parse_leniently(flat_config(config))
    return {} if parsed is None else {".".join(path): leaf for path, leaf in flatten(parsed.parameters)}


def text_of(value: Any) -> str:
    """Write a value as a sweep's file has it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return " ".join(f"{name}={text_of(item)}" for name, item in value.items())
    return str(value)


def texts_of(values: Sequence[Any]) -> tuple[str, ...]:
    """Write different values as different texts: those that would look alike in full, texts in quotes.

    >>> texts_of([True, "true", "adam", 0.123412, 0.123413])
    ('true', '"true"', 'adam', '0.123412', '0.123413')
    """
    counts = Counter(map(text_of, values))
    return tuple(text if counts[text] == 1 else _in_full(value) for value in values for text in [text_of(value)])


def _in_full(value: Any) -> str:
    if isinstance(value, float):
        return repr(value)
    return f'"{value}"' if isinstance(value, str) else text_of(value)


def _value(config: Mapping[str, Any], name: str, spec: Leaf | None) -> Any:
    """Return a run's value; a null counts as a value only where the sweep lists it."""
    value = look_up(config, name)
    if value is None and name in config and isinstance(spec, Choice) and None in spec.values:
        return "null"
    return value
