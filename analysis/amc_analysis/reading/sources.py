"""What a place that runs can be read from gives: heads first, then rows, and of rows only those that are not known."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from amc_analysis.runs.history import History
from amc_sweeps.runs.records import RunRecord

MOST_FILE_BYTES = 4 * 1024**2  # of a file that is read into memory


@dataclass(frozen=True)
class Selection:
    """Which runs are meant: of a sweep, named ones of a project, or without either those of no sweep."""

    entity: str | None = None
    project: str | None = None
    sweep_id: str | None = None
    run_ids: tuple[str, ...] | None = None

    @property
    def key(self) -> str:
        """Name it among the selections of one project."""
        if self.sweep_id is not None:
            return f"sweep/{self.sweep_id}"
        return "project" if self.run_ids is None else "runs/" + " ".join(self.run_ids)

    @property
    def path(self) -> str:
        """Name it as a person would."""
        last = self.sweep_id or (" ".join(self.run_ids) if self.run_ids else None)
        return "/".join(piece for piece in (self.entity, self.project, last) if piece)


@dataclass(frozen=True)
class SweepHead:
    """What is said of a sweep, its runs apart; of runs without a sweep only where they are."""

    entity: str
    project: str
    sweep_id: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    state: str = ""
    name: str = ""
    url: str | None = None
    description: str = ""
    updated_at: datetime | None = None


@dataclass(frozen=True)
class Mark:
    """How much of a run's history is known."""

    token: str  # the same as long as the known rows are still the run's first ones
    lines: int  # rows that the source counted when they were read
    last_step: int | None = None  # the highest `_step` among them


@dataclass(frozen=True)
class Part:
    """One run: its head, and the rows that are new."""

    head: RunRecord  # without history
    mark: Mark
    rows: History | None = None  # None: nothing new; else they follow on what is known, unless they are `whole`
    whole: bool = True


@dataclass(frozen=True)
class Reading:
    """What a source answers: the head at once, runs one by one in the order of their creation."""

    head: SweepHead
    total: int
    parts: Generator[Part]

    def close(self) -> None:
        """End the reading, whether all of it was taken or not."""
        self.parts.close()


Progress = Callable[[int, int], None]  # runs read, runs in all


class NotFoundError(LookupError):
    """The source has no such sweep or project."""


class Source(Protocol):
    """A place that runs can be read from."""

    def read(self, wanted: Selection, known: Mapping[str, Mark]) -> Reading:
        """Read what is wanted.

        Args:
            wanted: which runs.
            known: run id -> what is known of its history; it may have other runs than are wanted.

        Raises:
            NotFoundError: when there is no such sweep or project.
            SweepUnreadableError: when the server does not answer.
        """
        ...


class FileSource(Protocol):
    """A place that has files of runs; it is asked by several threads at once."""

    def file(self, project: str, run_id: str, names: Sequence[str]) -> bytes | None:
        """Return the first of these files that the run has, if it has at most MOST_FILE_BYTES; None without any.

        Args:
            project: ENTITY/PROJECT.
            run_id: whose files.
            names: in the order of preference.

        Raises:
            Exception: of whatever kind, when the server does not answer as it should.
        """
        ...
