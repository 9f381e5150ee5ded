"""The rows of the database as frozen records. JSON and YAML columns are parsed when a method asks for them.

A damaged cell costs its own value, and the rows beside it stay readable. The writer puts nothing odd into a cell, but
an older server, a hand edit or a bad disk may have. The value is then empty, and ``server.log`` says so once.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from functools import cache, cached_property, lru_cache
from typing import Any, ClassVar, Self, TypeVar

import yaml

from amc_sweeps.bounded_texts import TextError, json_object, json_texts, read_yaml
from amc_sweeps.grammar.parse import parse
from amc_sweeps.grammar.sweep_config import UNREADABLE, SweepConfig, SweepConfigError
from amc_sweeps.runs.crashed_runs import Policy, policy_of
from amc_sweeps.runs.run_states import RunState, SweepState

ENTITY = "local"  # the only one
LATEST = "latest"  # the alias that every committed artifact version takes over


logger = logging.getLogger(__name__)

_EMPTY: dict[str, Any] = {"int": 0, "float": 0.0, "str": "", "RunState": "", "SweepState": ""}
_TYPES: dict[str, type] = {"int": int, "float": float, "str": str, "RunState": str, "SweepState": str}

W = TypeVar("W", bound=StrEnum)
J = TypeVar("J")


def read_config(text: str) -> SweepConfig | str:
    """Return a stored sweep's config, or why it cannot be read.

    A cache keeps a heartbeat from parsing it again; few large ones are kept.
    """
    return _small(text) if len(text) <= _MOST_SMALL else _large(text)


def _parse(text: str) -> SweepConfig | str:
    try:
        return parse(text, is_new=False)
    except SweepConfigError as error:
        return f"{UNREADABLE}{'; '.join(error.problems)[:500]}"


_MOST_SMALL = 10_000  # characters; a parsed config takes about 40 times as many bytes
_small, _large = lru_cache(maxsize=256)(_parse), lru_cache(maxsize=4)(_parse)


@lru_cache(maxsize=64)
def _is_mapping(text: str) -> bool:
    try:
        return isinstance(read_yaml(text)[0], Mapping)
    except (TextError, yaml.YAMLError):
        return False


@lru_cache(maxsize=4096)
def _wrong_types(declared: tuple[str, ...], given: tuple[type, ...]) -> dict[int, Any]:
    """Return which cells of a row have another type than declared, each with an empty value in its place.

    Args:
        declared: the annotation of each column, such as ``int | None``.
        given: the type of each value.
    """
    wrong: dict[int, Any] = {}
    for index, (annotation, kind) in enumerate(zip(declared, given, strict=True)):
        name, _, optional = annotation.partition(" | ")
        if kind is not _TYPES[name] and not (optional and kind is type(None)):
            wrong[index] = None if optional else _EMPTY[name]
    return wrong


@lru_cache(maxsize=4096)
def warn(place: str, reason: str) -> None:
    """Write to the log that a cell is unreadable: once for every cell, however often it is read."""
    logger.warning("%s is unreadable: %s", place, reason)


class Record:
    """A row of one table."""

    table: ClassVar[str]
    damaged: ClassVar[tuple[str, ...]] = ()  # of a record with damaged cells: their columns, which have empty values

    @classmethod
    def of(cls, row: sqlite3.Row | tuple[Any, ...]) -> Self:
        """Build the record from a row of ``columns()``."""
        wrong = _wrong_types(cls._annotations(), tuple(map(type, row)))
        if not wrong:
            return cls(*row)
        record = cls(*(wrong.get(index, value) if index in wrong else value for index, value in enumerate(row)))
        for index in wrong:
            record._is_damaged(fields(cls)[index].name, row[index])  # type: ignore[arg-type]
        return record

    def _is_damaged(self, column: str, value: Any) -> None:
        object.__setattr__(self, "damaged", (*self.damaged, column))
        key = getattr(self, "id", None) or getattr(self, "pk", "")
        warn(f"{column} in {self.table}, {key},", f"it holds {value!r:.60}")

    def _word(self, words: type[W], column: str, otherwise: W) -> None:
        """Replace a column's text by the word that it names."""
        given = getattr(self, column)
        try:
            word = words(given)
        except ValueError:
            word = otherwise
            self._is_damaged(column, given)
        object.__setattr__(self, column, word)

    @classmethod
    @cache
    def columns(cls) -> str:
        return ", ".join(field.name for field in fields(cls))  # type: ignore[arg-type]

    @classmethod
    @cache
    def _annotations(cls) -> tuple[str, ...]:
        return tuple(str(field.type) for field in fields(cls))  # type: ignore[arg-type]


class _Imported:
    unknown: str  # JSON list
    created_at: float
    damaged: ClassVar[tuple[str, ...]]

    @property
    def unknown_facts(self) -> list[str]:
        """The fields that the imported file lacked."""
        return json_texts(self.unknown)[0]

    @property
    def began_at(self) -> float | None:
        """The time of creation; None for an import that lacked it, whose ``created_at`` is the time of the import."""
        return None if "created_at" in (*self.unknown_facts, *self.damaged) else self.created_at


@dataclass(frozen=True)
class Project(Record):
    """A namespace of runs and sweeps."""

    table = "projects"

    pk: int
    entity: str
    name: str
    description: str | None
    created_at: float


@dataclass(frozen=True)
class Sweep(_Imported, Record):
    """A sweep as it was registered, and its state."""

    table = "sweeps"

    pk: int
    project: int
    id: str
    state: SweepState
    config: str  # YAML
    seed: int
    search_end: str | None
    display_name: str | None
    description: str | None
    controller: str | None
    scheduler: str | None
    created_at: float
    updated_at: float
    heartbeat_at: float | None
    unknown: str
    shuffle: int
    crashed_runs: str | None

    def __post_init__(self) -> None:
        self._word(SweepState, "state", SweepState.PAUSED)  # hands out nothing until a user sets the state

    @property
    def known_seed(self) -> int | None:
        """The seed; None for an import that lacked it, whose earlier configurations do not follow from ``seed``."""
        return None if "seed" in self.unknown_facts else self.seed

    @property
    def policy(self) -> Policy:
        """What its search learns from runs that did not finish."""
        config = self.readable_config
        metric = config.metric if config else None
        option = self.crashed_runs if self.crashed_runs in list(Policy) else None
        return policy_of(option, metric.impute if metric else None)

    @property
    def known_policy(self) -> str | None:
        """The policy of bayes; None for an import that lacked it, because another server may have searched."""
        config = self.readable_config
        is_known = config is not None and config.method == "bayes" and "crashed_runs" not in self.unknown_facts
        return self.policy.value if is_known else None

    @property
    def is_closed(self) -> bool:
        """Whether it is finished or cancelled."""
        return self.state in (SweepState.FINISHED, SweepState.CANCELED)

    @property
    def readable_config(self) -> SweepConfig | None:
        """The config, the same object for the same text; None if it cannot be read."""
        config = read_config(self.config)
        return None if isinstance(config, str) else config

    @property
    def problem(self) -> str | None:
        """Why the config cannot be read, None if it can."""
        config = read_config(self.config)
        return config if isinstance(config, str) else None

    @property
    def shown_config(self) -> str:
        """The config as clients get it: always a mapping in YAML, which says so if the text is none."""
        if self.problem is None or _is_mapping(self.config):
            return self.config
        return json.dumps({"description": self.problem})

    @property
    def shown_description(self) -> str | None:
        """The description, after what is wrong with the config."""
        return "\n".join(filter(None, (self.problem, self.description))) or self.description


@dataclass(frozen=True)
class SweepUpdate(Record):
    """A change of a sweep's config."""

    table = "sweep_updates"

    pk: int
    sweep: int
    at: float
    author: str | None
    config: str  # YAML, before this change

    @property
    def shown_config(self) -> str:
        """The config as clients get it: always a mapping in YAML."""
        return self.config if _is_mapping(self.config) else json.dumps({"description": UNREADABLE.rstrip(": ")})


@dataclass(frozen=True)
class Agent(Record):
    """A ``wandb agent`` that has registered with a sweep."""

    table = "agents"

    pk: int
    sweep: int
    name: str
    host: str
    created_at: float
    heartbeat_at: float | None


@dataclass(frozen=True)
class Member(Record):
    """The part of a run that its sweep needs: the parameters, and the facts that the state follows from."""

    table = "runs"

    pk: int
    id: str
    origin: str
    number: int | None
    parameters: str | None  # JSON
    state: RunState
    agent: int | None
    hand_outs: int
    started: int
    exit_code: int | None
    preempting: int
    given_up: int
    stop_reason: str | None

    def __post_init__(self) -> None:
        self._word(RunState, "state", RunState.CRASHED)  # until it is inferred again

    @property
    def stop_recorded(self) -> bool:
        """Whether a user, Hyperband or a cancellation has asked the run to end."""
        return self.stop_reason is not None

    @property
    def is_judged(self) -> bool:
        """Whether Hyperband may stop the run. A queued one repeats a chosen one and trains to its own end."""
        return self.state is RunState.RUNNING and self.origin != "queue" and not self.stop_recorded

    @property
    def is_waiting(self) -> bool:
        """Whether the run may be handed out to the next agent that asks."""
        if self.stop_recorded or self.given_up:
            return False
        return self.state is RunState.PREEMPTED or (self.state is RunState.PENDING and self.agent is None)

    def swept_values(self) -> dict[str, Any]:
        """Return the parameter values that the sweep chose for the run; nested parameters stay nested."""
        return json_object(self.parameters or "{}")[0]


@dataclass(frozen=True)
class Run(_Imported, Member):
    """A run with everything that its trial reported."""

    project: int
    sweep: int | None
    stop_at: float | None
    stop_band: int | None
    stop_value: float | None
    stop_threshold: float | None
    config: str  # JSON
    summary: str  # JSON
    display_name: str | None
    group_name: str | None
    job_type: str | None
    description: str | None
    notes: str | None
    tags: str  # JSON
    host: str | None
    program: str | None
    repo: str | None
    git_commit: str | None
    history_lines: int
    event_lines: int
    console_lines: int
    created_at: float
    heartbeat_at: float | None
    ended_at: float | None
    state_when_exported: str | None
    unknown: str
    leased_until: float | None

    @cached_property
    def wrapped_config(self) -> dict[str, Any]:
        """The config as the client sent it."""
        return self._json("config", json_object)

    @cached_property
    def summary_values(self) -> dict[str, Any]:
        return self._json("summary", json_object)

    @cached_property
    def tag_names(self) -> list[str]:
        return self._json("tags", json_texts)

    def config_values(self) -> dict[str, Any]:
        """Return the trial's own config without W&B's wrapping of every value."""
        return unwrap_config(self.wrapped_config)

    @property
    def problems(self) -> dict[str, str]:
        """Why values of the run cannot be read, by column."""
        found = dict.fromkeys(self.damaged, "another type, or a word that is not known")
        for column, read in _JSON_CELLS.items():
            text = getattr(self, column)
            problem = None if column in found or text is None else read(text)[1]
            if problem is not None:
                found[column] = problem
        return found

    def _json(self, column: str, read: Callable[[str], tuple[J, str | None]]) -> J:
        value, problem = read(getattr(self, column))
        if problem is not None:
            warn(f"{column} of run {self.id}", problem)
        return value


_JSON_CELLS: dict[str, Callable[[str], tuple[Any, str | None]]] = {
    "config": json_object,
    "summary": json_object,
    "parameters": json_object,
    "tags": json_texts,
    "unknown": json_texts,
}


def unwrap_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``{name: value}`` of W&B's ``{name: {"value": value, "desc": ...}}``, without W&B's own entries."""
    return {
        name: entry["value"] if isinstance(entry, Mapping) and "value" in entry else entry
        for name, entry in config.items()
        if name not in ("_wandb", "wandb_version")
    }


@dataclass(frozen=True)
class PriorRun:
    """A run of another sweep from which a sweep's search learns."""

    run: Member
    sweep: int | None  # its own
    parameters: str  # JSON, as the learning sweep would have chosen them
    values: tuple[float, ...]  # of the learning sweep's metric: the lowest, the highest, the last; or none


@dataclass(frozen=True)
class StoredFile(Record):
    """A file of a run; ``blob`` names its bytes."""

    table = "files"

    pk: int
    run: int
    name: str
    blob: str
    size: int
    md5: str
    updated_at: float


@dataclass(frozen=True)
class Artifact(Record):
    """A version of a named collection of files."""

    table = "artifacts"

    pk: int
    project: int
    run: int | None
    type: str
    collection: str
    version: int | None
    state: str
    digest: str
    client_id: str | None
    description: str | None
    metadata: str | None
    history_step: int | None
    size: int
    manifest: str | None
    created_at: float
    updated_at: float

    @property
    def is_committed(self) -> bool:
        return self.state == "COMMITTED"


@dataclass(frozen=True)
class ArtifactFile(Record):
    """A file of an artifact; ``blob`` is None until its bytes have arrived."""

    table = "artifact_files"

    pk: int
    artifact: int
    name: str
    md5: str
    blob: str | None
    size: int
    updated_at: float


@dataclass(frozen=True)
class Line:
    """One line of a stream: its number, its text, and for history the ``_step`` in it."""

    number: int
    body: str
    step: int | None = None
