"""One W&B server as a source of runs: by the bulk operation where the server has it, else by the public API."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from amc_analysis.reading.public_api import PublicApiSource
from amc_analysis.reading.sources import (
    SEVERAL_PROJECTS,
    FileSource,
    HistoryPosition,
    NotFoundError,
    Selection,
    SourceReply,
)
from amc_analysis.reading.wandb_api import open_api
from amc_analysis.reading.whole_histories import BulkSource, NoBulkError
from amc_analysis.runs.records import SweepUnreadableError
from amc_sweeps.backend.choose import Backend
from amc_sweeps.backend.errors import BackendError
from amc_sweeps.backend.references import Reference, find_sweep, find_target


class ServerSource:
    """A W&B server."""

    def __init__(self, backend: Backend, *, public_api: bool = False) -> None:
        """Take a server; ``public_api`` leaves the bulk operation unused."""
        self._backend = backend
        self._has_bulk = backend.kind == "embedded" and not public_api

    def read(self, selection: Selection, positions: Mapping[str, HistoryPosition]) -> SourceReply:
        """Start reading the selected runs, see RunSource; a sweep or runs of an unknown project are looked for.

        Raises:
            BackendError: when nothing, or more than one, has the id, or the runs are of several projects; the message
                lists the sweeps that exist.
            wandb.Error: when the server does not answer as it should.
        """
        if selection.run_ids and selection.project is None:
            selection = self._completed(selection)
        if self._has_bulk:
            try:
                return self._bulk.read(selection, positions)
            except NoBulkError:
                self._has_bulk = False
            except NotFoundError:
                pass  # the public API can list other sweeps
        complete = self._completed(selection)
        try:
            return PublicApiSource(self._api).read(complete, positions)
        except (NotFoundError, SweepUnreadableError) as error:
            reason = f"{complete.path} cannot be found" if isinstance(error, NotFoundError) else str(error)
            raise SweepUnreadableError(f"{reason}\n{self._other_sweeps(complete)}".rstrip()) from error

    def files(self) -> FileSource:
        return self._bulk if self._has_bulk else PublicApiSource(self._api)

    @cached_property
    def _bulk(self) -> BulkSource:
        return BulkSource(self._backend.base_url, self._backend.api_key or "")

    @cached_property
    def _api(self) -> Any:
        return open_api(self._backend)

    def _completed(self, selection: Selection) -> Selection:
        if selection.run_ids and selection.project is None:
            references = [Reference(run_id, None, selection.entity, kinds=("run",)) for run_id in selection.run_ids]
            places = {find_target(reference, self._api).path.rpartition("/")[0] for reference in references}
            if len(places) > 1:
                raise BackendError(f"{SEVERAL_PROJECTS}: {', '.join(sorted(places))}")
            entity, project = places.pop().split("/")
            return Selection(entity, project, run_ids=selection.run_ids)
        if selection.sweep_id is None:
            entity = selection.entity or self._api.default_entity
            if not entity:
                raise BackendError("no entity is known here: give --entity")
            return Selection(entity, selection.project, run_ids=selection.run_ids)
        reference = Reference(selection.sweep_id, selection.project, selection.entity)
        entity, project, sweep_id = find_sweep(reference, self._api).split("/")
        return Selection(entity, project, sweep_id)

    def _other_sweeps(self, selection: Selection) -> str:
        """Return where else a sweep with this id is; an empty text without one."""
        import wandb

        if selection.sweep_id is None:
            return ""
        try:
            path = find_sweep(Reference(selection.sweep_id), self._api, entity=selection.entity, environ={})
        except BackendError as error:
            return str(error)
        except (wandb.Error, ValueError):
            return ""
        return f"there is a sweep of this id elsewhere:\n  {path}" if path != selection.path else ""
