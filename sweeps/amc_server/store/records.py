"""The rows of the database as frozen records. JSON and YAML columns are parsed when a method asks for them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache, lru_cache
from typing import Any, ClassVar, Self

from amc_sweeps.grammar.parse import parse
from amc_sweeps.grammar.sweep_config import SweepConfig
from amc_sweeps.runs.run_states import RunState, SweepState

ENTITY = "local"  # the only one
LATEST = "latest"  # the alias that every committed artifact version takes over


def read_config(text: str) -> SweepConfig:
    """Return a stored sweep's config. A cache keeps a heartbeat from parsing it again; few large ones are kept."""
    return _small(text) if len(text) <= _MOST_SMALL else _large(text)


def _parse(text: str) -> SweepConfig:
    return parse(text, is_new=False)


_MOST_SMALL = 10_000  # characters; a parsed config takes about 40 times as many bytes
_small, _large = lru_cache(maxsize=256)(_parse), lru_cache(maxsize=4)(_parse)


class Record:
    """A row of one table."""

    table: ClassVar[str]

    @classmethod
    def of(cls, row: sqlite3.Row) -> Self:
        """Build the record from a row of ``columns()``."""
        return cls(*row)

    @classmethod
    @cache
    def columns(cls) -> str:
        return ", ".join(field.name for field in fields(cls))  # type: ignore[arg-type]


class _Imported:
    unknown: str  # JSON list
    created_at: float

    @property
    def unknown_facts(self) -> list[str]:
        """The fields that the imported file lacked."""
        return list(json.loads(self.unknown))

    @property
    def began_at(self) -> float | None:
        """The time of creation; None for an import that lacked it, whose ``created_at`` is the time of the import."""
        return None if "created_at" in self.unknown_facts else self.created_at


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

    def __post_init__(self) -> None:
        object.__setattr__(self, "state", SweepState(self.state))

    @property
    def known_seed(self) -> int | None:
        """The seed; None for an import that lacked it, whose earlier configurations do not follow from ``seed``."""
        return None if "seed" in self.unknown_facts else self.seed

    @property
    def is_closed(self) -> bool:
        """Whether it is finished or cancelled."""
        return self.state in (SweepState.FINISHED, SweepState.CANCELED)

    def parsed_config(self) -> SweepConfig:
        """Return the config; the same object for the same text."""
        return read_config(self.config)


@dataclass(frozen=True)
class SweepUpdate(Record):
    """A change of a sweep's config."""

    table = "sweep_updates"

    pk: int
    sweep: int
    at: float
    author: str | None
    config: str  # YAML, before this change


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
        object.__setattr__(self, "state", RunState(self.state))

    @property
    def stop_recorded(self) -> bool:
        """Whether a user, Hyperband or a cancellation has asked the run to end."""
        return self.stop_reason is not None

    @property
    def is_waiting(self) -> bool:
        """Whether the run may be handed out to the next agent that asks."""
        if self.stop_recorded or self.given_up:
            return False
        return self.state is RunState.PREEMPTED or (self.state is RunState.PENDING and self.agent is None)

    def swept_values(self) -> dict[str, Any]:
        """Return the parameter values that the sweep chose for the run; nested parameters stay nested."""
        return dict(json.loads(self.parameters)) if self.parameters else {}


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

    def config_values(self) -> dict[str, Any]:
        """Return the trial's own config without W&B's wrapping of every value."""
        return unwrap_config(json.loads(self.config))


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

    parameters: str  # JSON, as the sweep would have chosen them
    state: str
    values: tuple[float, ...]  # of the sweep's metric: the lowest, the highest, the last; or none


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
