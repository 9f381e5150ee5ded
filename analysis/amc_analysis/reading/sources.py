"""Sources of runs: the sweep comes first, then its runs one by one, each with its new rows."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from amc_analysis.runs.history import History
from amc_sweeps.grammar.hyperband import BandDecision
from amc_sweeps.runs.records import RunRecord, SweepUpdate, parse_time

SEVERAL_PROJECTS = "these runs are of several projects: give the runs of one project at a time"
MAX_FILE_BYTES = 4 * 1024**2  # a larger file of a run is not read

Progress = Callable[[int, int], None]  # runs read, runs in all


@dataclass(frozen=True)
class Selection:
    """Which runs to read: those of a sweep, named runs of a project, or the runs of a project without a sweep."""

    entity: str | None = None
    project: str | None = None
    sweep_id: str | None = None
    run_ids: tuple[str, ...] | None = None

    @property
    def key(self) -> str:
        """The selection's name in the cache, unique in its project."""
        if self.sweep_id is not None:
            return f"sweep/{self.sweep_id}"
        return "project" if self.run_ids is None else "runs/" + " ".join(self.run_ids)

    @property
    def path(self) -> str:
        """The selection's name in messages."""
        last = self.sweep_id or " ".join(self.run_ids or ())
        return "/".join(piece for piece in (self.entity, self.project, last) if piece)


@dataclass(frozen=True)
class SweepMetadata:
    """A sweep without its runs; for runs without a sweep only their entity and project are set."""

    entity: str
    project: str
    sweep_id: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    state: str = ""
    name: str = ""
    url: str | None = None
    description: str = ""
    updated_at: datetime | None = None
    updates: tuple[SweepUpdate, ...] = ()
    crashed_runs: str | None = None  # of amc_sweeps.runs.crashed_runs.Policy, where an embedded server tells it


@dataclass(frozen=True)
class HistoryPosition:
    """How far a run's history has been read."""

    token: str  # changes when the rows read before are no longer the run's first rows
    lines: int  # rows that the source counted at that time
    last_step: int | None = None  # the highest `_step` read


@dataclass(frozen=True)
class RunUpdate:
    """One run with the rows that were not read before."""

    run: RunRecord  # without its history
    position: HistoryPosition  # after these rows
    rows: History  # the whole history, or the rows that follow those read before
    is_whole: bool = True


@dataclass(frozen=True)
class SourceReply:
    """A sweep, and its runs in the order of their creation as they arrive."""

    sweep: SweepMetadata
    run_count: int
    updates: Generator[RunUpdate]


class NotFoundError(LookupError):
    """The source has no such sweep or project."""


class RunSource(Protocol):
    """A place to read runs from."""

    def read(self, selection: Selection, positions: Mapping[str, HistoryPosition]) -> SourceReply:
        """Start reading the selected runs; ``positions`` are by run id those of histories that were read before.

        Raises:
            NotFoundError: when there is no such sweep or project.
            SweepUnreadableError: when the server does not answer.
        """
        ...


class FileSource(Protocol):
    """A place with files of runs; several threads may use it at once."""

    def file(self, project: str, run_id: str, names: Sequence[str]) -> bytes | None:
        """Return the first of these files that a run of ENTITY/PROJECT has; None without any, or above MAX_FILE_BYTES.

        Raises:
            Exception: of any kind, when the server does not answer as it should.
        """
        ...


def band_decision(band: int | None, value: float | None, threshold: float | None) -> BandDecision | None:
    """Return Hyperband's decision to stop a run; None where a part of it is unknown."""
    if band is None or value is None or threshold is None:
        return None
    return BandDecision(int(band), float(value), float(threshold))


def run_record(content: Mapping[str, Any], project: str, **more: Any) -> RunRecord:
    """Return a run of a bulk reply or an export file, which have the same names; absent fields are unknown.

    ``more`` are fields that have another form there.
    """
    return RunRecord(
        run_id=content["id"],
        name=content.get("name") or content["id"],
        state=content["state"],
        config=content.get("config") or {},
        summary=content.get("summary") or {},
        exit_code=content.get("exit_code"),
        stop_recorded=content.get("stop_recorded"),
        stop_reason=content.get("stop_reason"),
        stop_decision=band_decision(*(content.get(f"stop_{part}") for part in ("band", "value", "threshold"))),
        host=content.get("host") or content.get("agent_host"),
        agent=content.get("agent"),
        created_at=parse_time(content.get("created_at")),
        heartbeat_at=parse_time(content.get("heartbeat_at")),
        project=project,
        sweep_id=content.get("sweep"),
        notes=content.get("notes") or "",
        **more,
    )
