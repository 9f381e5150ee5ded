"""A sweep as W&B's grammar describes it, once it has been read and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from amc_sweeps.grammar.distributions import Range
from amc_sweeps.grammar.hyperband import HyperbandConfig
from amc_sweeps.values import is_whole

MOST_SEED = 2**32 - 1
SEEDS = f"a whole number from 0 to {MOST_SEED:,}"


def is_seed(value: Any) -> TypeGuard[int]:
    """Return whether a value may be the seed of a search."""
    return is_whole(value) and 0 <= value <= MOST_SEED


UNREADABLE = "configuration unreadable: "  # begins the description of a stored sweep whose YAML cannot be read


class SweepConfigError(ValueError):
    """A sweep that cannot be started; ``problems`` holds one sentence for every violation."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class Metric:
    """The metric that the search optimises."""

    name: str
    goal: str = "minimize"  # or maximize
    target: float | None = None  # the sweep ends once a run reaches it
    impute: str | None = None  # what bayes assumes of a run that failed, crashed or was killed: worst, best, latest
    impute_while_running: str = "false"  # what bayes assumes of a run that has not ended; W&B needs the text "false"


@dataclass(frozen=True)
class Constant:
    """A parameter with one value."""

    value: Any


@dataclass(frozen=True)
class Choice:
    """A parameter with listed values; without ``probabilities`` all are equally likely."""

    values: tuple[Any, ...]
    probabilities: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Nested:
    """A parameter that is a mapping of parameters."""

    parameters: Mapping[str, Parameter]


Leaf = Constant | Choice | Range
Parameter = Leaf | Nested
Path = tuple[str, ...]


@dataclass(frozen=True)
class SweepConfig:
    """A sweep that has been checked: all its keys are known and all its values are allowed."""

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
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)  # the sweep file's mapping


def leaves_by_name(config: SweepConfig) -> list[tuple[Path, Leaf]]:
    """Return (path, parameter) of everything that has a value, by name: the order of a file changes no search."""
    return sorted(flatten(config.parameters), key=lambda leaf: leaf[0])


def flatten(parameters: Mapping[str, Parameter], prefix: Path = ()) -> list[tuple[Path, Leaf]]:
    """Return (path, parameter) of every parameter that has values, in the order of the file."""
    leaves: list[tuple[Path, Leaf]] = []
    for name, parameter in parameters.items():
        path = (*prefix, name)
        if isinstance(parameter, Nested):
            leaves.extend(flatten(parameter.parameters, path))
        else:
            leaves.append((path, parameter))
    return leaves
