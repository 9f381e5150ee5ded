"""What the database holds, as frozen records; JSON columns are read when they are asked for."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, Self

from amc_sweeps.runs.run_states import RunState, SweepState


class _Record:
    @classmethod
    def of(cls, row: sqlite3.Row) -> Self:
        """Build the record from a row of ``columns()``."""
        return cls(*row)

    @classmethod
    @cache
    def columns(cls) -> str:
        """Return what to select for it."""
        return ", ".join(field.name for field in fields(cls))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Project(_Record):
    """A namespace of runs and sweeps."""

    pk: int
    entity: str
    name: str
    description: str | None
    created_at: float


@dataclass(frozen=True)
class Sweep(_Record):
    """A sweep as it was registered and where it is."""

    pk: int
    project: int
    id: str
    state: str
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
    unknown: str  # JSON list

    @property
    def unknown_facts(self) -> list[str]:
        """The fields that its import could not tell."""
        return list(json.loads(self.unknown))

    @property
    def began_at(self) -> float | None:
        """When it was created, if that is known: an import may not say, and its own time is another."""
        return None if "created_at" in self.unknown_facts else self.created_at

    @property
    def where(self) -> SweepState:
        """The state as a word that can be asked things."""
        return SweepState(self.state)


@dataclass(frozen=True)
class Agent(_Record):
    """A ``wandb agent`` that has registered with a sweep."""

    pk: int
    sweep: int
    name: str
    host: str
    created_at: float
    heartbeat_at: float | None


@dataclass(frozen=True)
class Member(_Record):
    """A run as its sweep sees it: what was chosen, and what its state follows from."""

    pk: int
    id: str
    origin: str
    number: int | None
    parameters: str | None  # JSON
    state: str
    agent: int | None
    hand_outs: int
    started: int
    exit_code: int | None
    preempting: int
    given_up: int
    stop_reason: str | None

    @property
    def where(self) -> RunState:
        """The state as a word that can be asked things."""
        return RunState(self.state)

    @property
    def stop_recorded(self) -> bool:
        """Whether somebody has asked the run to end."""
        return self.stop_reason is not None

    @property
    def is_waiting(self) -> bool:
        """Whether the run may be handed out to the next agent that asks."""
        if self.stop_recorded or self.given_up:
            return False
        return self.where is RunState.PREEMPTED or (self.where is RunState.PENDING and self.agent is None)

    def chosen(self) -> dict[str, Any]:
        """Return what the sweep chose for the run; nested parameters stay nested."""
        return dict(json.loads(self.parameters)) if self.parameters else {}


@dataclass(frozen=True)
class Run(Member):
    """A run with what its trial says of itself."""

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
    unknown: str  # JSON list

    @property
    def unknown_facts(self) -> list[str]:
        """The fields that its import could not tell."""
        return list(json.loads(self.unknown))

    @property
    def began_at(self) -> float | None:
        """When it was created, if that is known: an import may not say, and its own time is another."""
        return None if "created_at" in self.unknown_facts else self.created_at

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
class StoredFile(_Record):
    """A file of a run; its bytes lie apart."""

    pk: int
    run: int
    name: str
    blob: str
    size: int
    md5: str
    updated_at: float


@dataclass(frozen=True)
class Artifact(_Record):
    """A version of a named collection of files."""

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
        """Whether all of it is here."""
        return self.state == "COMMITTED"


@dataclass(frozen=True)
class ArtifactFile(_Record):
    """A file of an artifact; ``blob`` is None until its bytes are here."""

    pk: int
    artifact: int
    name: str
    md5: str
    blob: str | None
    size: int
    updated_at: float


@dataclass(frozen=True)
class Line:
    """One line of a stream, to be written: its number, its text, and of history the ``_step`` in it."""

    number: int
    body: str
    step: int | None = None
