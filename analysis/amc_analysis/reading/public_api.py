"""W&B's public API, which the cloud and every W&B server have: it is read run by run.

``history()`` returns 500 sampled rows and can miss the peak, so ``scan_history`` reads every row. The public API has no
exit codes and no stop flags. One more query has them for all runs; on a server that does not answer it they stay None,
which means unknown.

An answer may come short: rows or runs are missing, and no error says so (wandb#12067). So rows are counted against
``historyLineCount`` and the last step, and runs against their number. What is short is read again. A history that stays
short is marked as unread, so that it is not cached.

The wandb client waits by itself when a server answers 429 with ``Retry-After``. The caller passes the ``api`` in, so
that importing this module does not import wandb.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from amc_analysis.reading.sources import (
    MAX_FILE_BYTES,
    HistoryPosition,
    NotFoundError,
    RunUpdate,
    Selection,
    SourceReply,
    SweepMetadata,
    band_decision,
)
from amc_analysis.reading.wandb_private import attributes, scan_history, send_query
from amc_analysis.runs.history import History
from amc_analysis.runs.records import SweepUnreadableError
from amc_sweeps.number_formats import counted
from amc_sweeps.runs.causes import EndReason
from amc_sweeps.runs.records import RunRecord, parse_time
from amc_sweeps.runs.run_states import RunState
from amc_sweeps.values import is_whole

PARALLEL_READS = 6  # requests at a time; W&B limits the rate
RUNS_A_PAGE = 100
LOG_LINES = 100  # last lines of the console, read only for runs whose end is unclear
ENDED = frozenset(state for state in RunState if state.is_terminal)
TRIES = 3  # of an answer that comes short
FIRST_WAIT_S = 0.5  # between two tries; it doubles
NOT_COUNTED = " not counted"  # in the token of a run that has not ended, on a server that counts no rows

Flags = Mapping[str, Any]  # of one run: exit code, stop, agent and host, as far as the server gives them


class PublicApiSource:
    """A W&B server, read through a ``wandb.Api``."""

    def __init__(self, api: Any, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._api = api
        self._sleep = sleep

    def read(self, selection: Selection, positions: Mapping[str, HistoryPosition]) -> SourceReply:
        """Start reading the selected runs, see RunSource; the selection has its entity and project."""
        import wandb

        entity, project = selection.entity or "", selection.project or ""
        try:
            sweep = self._sweep(selection) if selection.sweep_id is not None else SweepMetadata(entity, project)
            runs = self._runs(selection)
        except (ValueError, wandb.Error) as error:
            if "could not find" in str(error).lower():
                raise NotFoundError(selection.path) from error
            raise SweepUnreadableError(f"{selection.path} cannot be read: {error}") from error
        return SourceReply(sweep, len(runs), self._updates(runs, self._flags(selection), positions, project))

    def file(self, project: str, run_id: str, names: Sequence[str]) -> bytes | None:
        """Return the first of these files that the run has, see FileSource."""
        files = {file.name: file for file in self._api.run(f"{project}/{run_id}").files(names=list(names))}
        file = next((files[name] for name in names if name in files), None)
        if file is None or file.size > MAX_FILE_BYTES:
            return None
        with tempfile.TemporaryDirectory() as folder:
            file.download(root=folder).close()
            content: bytes = (Path(folder) / file.name).read_bytes()
        return content

    def _sweep(self, selection: Selection) -> SweepMetadata:
        sweep = self._api.sweep(f"{selection.entity}/{selection.project}/{selection.sweep_id}")
        sent = attributes(sweep)
        return SweepMetadata(
            entity=selection.entity or "",
            project=selection.project or "",
            sweep_id=selection.sweep_id or "",
            config=dict(sweep.config),
            state=str(getattr(sweep, "state", None) or "").upper(),
            name=str(sweep.name),
            url=getattr(sweep, "url", None),
            description=sent.get("description") or "",
            updated_at=parse_time(sent.get("updatedAt")),
        )

    def _runs(self, selection: Selection) -> list[Any]:
        path = f"{selection.entity}/{selection.project}"
        query = {"order": "+created_at", "per_page": RUNS_A_PAGE, "lazy": False}
        for attempt in range(TRIES):
            found = self._api.runs(path, filters=_filters(selection), **query)
            runs = list(found)
            if len(runs) >= len(found):
                break
            self._sleep(FIRST_WAIT_S * 2.0**attempt)
        else:
            raise SweepUnreadableError(
                f"only {len(runs)} of the {counted(len(found), 'run')} of {selection.path} came, in {TRIES} tries: try "
                "again later"
            )
        if selection.sweep_id is not None or selection.run_ids is not None:
            return runs
        return [run for run in runs if run.sweep_name is None]

    def _flags(self, selection: Selection) -> dict[str, dict[str, Any]]:
        """Return the flags of all runs by run id; empty where server and client have no operation for them."""
        flags: dict[str, dict[str, Any]] = {}
        for alternatives in ((_embedded_flags, _wandb_flags), (_agents,)):
            for operation in alternatives:
                try:
                    for node in operation(self._api, selection):
                        flags.setdefault(node["name"], {}).update(node)
                    break
                except Exception:  # noqa: BLE001 - private operations: without them the flags are unknown
                    continue
        return flags

    def _updates(
        self, runs: list[Any], flags: Mapping[str, Flags], positions: Mapping[str, HistoryPosition], project: str
    ) -> Generator[RunUpdate]:
        pool = ThreadPoolExecutor(max_workers=PARALLEL_READS)
        try:
            reads = [
                pool.submit(_update, run, flags.get(run.id, {}), positions.get(run.id), project, self._sleep)
                for run in runs
            ]
            for read in reads:
                yield read.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # Ctrl-C does not wait for open requests


_EMBEDDED_FLAGS_QUERY = """
query RunFlags($entity: String, $project: String, $filters: JSONString) {
  project(name: $project, entityName: $entity) { runs(filters: $filters) { edges { node {
    name exitcode heartbeatAt shouldStop stopped host stopReason stopBand stopValue stopThreshold
    stateWhenExported unknownFacts
  } } } }
}
"""
# The wandb client asks every W&B server for these fields, too.
_FLAGS_QUERY = """
query SweepFlags($entity: String, $project: String, $sweep: String!) {
  project(name: $project, entityName: $entity) { sweep(sweepName: $sweep) {
    runs { edges { node { name exitcode heartbeatAt shouldStop stopped } } }
  } }
}
"""
_AGENTS_QUERY = """
query SweepAgents($entity: String, $project: String, $sweep: String!) {
  project(name: $project, entityName: $entity) { sweep(sweepName: $sweep) {
    agents { edges { node { name host runs { edges { node { name } } } } } }
  } }
}
"""


def _embedded_flags(api: Any, selection: Selection) -> list[Flags]:
    where = {"entity": selection.entity, "project": selection.project, "filters": json.dumps(_filters(selection))}
    return _nodes(send_query(api, _EMBEDDED_FLAGS_QUERY, **where)["project"]["runs"])


def _wandb_flags(api: Any, selection: Selection) -> list[Flags]:
    where = {"entity": selection.entity, "project": selection.project, "sweep": selection.sweep_id or ""}
    return _nodes(send_query(api, _FLAGS_QUERY, **where)["project"]["sweep"]["runs"])


def _agents(api: Any, selection: Selection) -> list[Flags]:
    where = {"entity": selection.entity, "project": selection.project, "sweep": selection.sweep_id}
    return [
        {"name": run["name"], "agent": agent["name"], "agentHost": agent["host"]}
        for agent in _nodes(send_query(api, _AGENTS_QUERY, **where)["project"]["sweep"]["agents"])
        for run in _nodes(agent["runs"])
    ]


def _nodes(connection: Mapping[str, Any]) -> list[Flags]:
    return [edge["node"] for edge in connection["edges"]]


def _filters(selection: Selection) -> dict[str, Any]:
    if selection.sweep_id is not None:
        return {"$and": [{"sweep": selection.sweep_id}]}
    return {} if selection.run_ids is None else {"name": {"$in": list(selection.run_ids)}}


def _update(
    run: Any, flags: Flags, position: HistoryPosition | None, project: str, sleep: Callable[[float], None]
) -> RunUpdate:
    record = _run_record(run, flags, project)
    lines = attributes(run).get("historyLineCount")
    token = str(run.created_at)
    if not isinstance(lines, int):  # no row counts: only a run that has ended keeps its rows
        lines = 0
        token += f" {record.state} {record.heartbeat_at}" if record.state in ENDED else NOT_COUNTED
    try:
        if position is not None and position.token == token and not token.endswith(NOT_COUNTED):
            if position.lines == lines:
                return RunUpdate(record, position, History(), is_whole=False)
            later = _later_rows(run, position, lines)
            if later is not None:
                reached = HistoryPosition(token, lines, _last_step(later, position))
                return RunUpdate(record, reached, later, is_whole=False)
        rows, missing = _all_rows(run, sleep)
    except Exception as error:  # noqa: BLE001 - one unreadable run must not hide the others
        unread = f"{type(error).__name__}: {error}"
        return RunUpdate(replace(record, unread=unread), HistoryPosition("", 0), History())
    if missing is not None:
        return RunUpdate(replace(record, unread=missing), HistoryPosition("", 0), rows)
    return RunUpdate(record, HistoryPosition(token, lines, _last_step(rows, None)), rows)


def _all_rows(run: Any, sleep: Callable[[float], None]) -> tuple[History, str | None]:
    """Return the rows of a run, and what is missing if each try came short."""
    rows, missing = History(), None
    for attempt in range(TRIES):
        if attempt:
            sleep(FIRST_WAIT_S * 2.0 ** (attempt - 1))
        read = History.from_rows(scan_history(run, fresh=attempt > 0))
        rows = max(rows, read, key=lambda history: history.length)
        missing = _missing(rows, attributes(run))
        if missing is None:
            break
    return rows, missing


def _missing(rows: History, sent: Mapping[str, Any]) -> str | None:
    """Return which rows an answer lacks, by what the server sent of the run; None if it is whole, or cannot be known.

    The server counts two lines of one step twice, and answers them as one row: rows of every step are all rows.
    """
    lines, keys = sent.get("historyLineCount"), sent.get("historyKeys")
    last_step = keys.get("lastStep") if isinstance(keys, Mapping) else None
    steps = set(rows.column("_step").values.tolist())
    if is_whole(lines):
        has_every_step = is_whole(last_step) and steps.issuperset(range(last_step + 1))
        return None if rows.length >= lines or has_every_step else f"only {rows.length:,} of {lines:,} rows came"
    if is_whole(last_step) and last_step > max(steps, default=-1):
        return f"its rows end before its last step, {last_step:,}"
    return None


def _later_rows(run: Any, position: HistoryPosition, lines: int) -> History | None:
    """Return the rows after a position; None where they are not all of the new ones.

    Rows are selected by `_step`, which restarts at 0 when a script starts a run a second time without resuming it.
    """
    if position.last_step is None or lines < position.lines:
        return None
    later = History.from_rows(run.scan_history(min_step=position.last_step + 1))
    return later if later.length == lines - position.lines else None


def _last_step(history: History, position: HistoryPosition | None) -> int | None:
    """Return the highest step so far; None where a row has none."""
    steps = history.column("_step").values
    if len(steps) != history.length or not all(map(math.isfinite, steps)):
        return None
    earlier = [] if position is None or position.last_step is None else [position.last_step]
    return max([*earlier, *map(int, steps)], default=None)


def _run_record(run: Any, flags: Flags, project: str) -> RunRecord:
    summary = dict(run.summary_metrics)
    state = str(run.state)
    end_is_unclear = state != RunState.FINISHED and summary.get("end_reason") not in set(EndReason)
    exit_code = flags.get("exitcode")
    return RunRecord(
        run_id=run.id,
        name=run.name or run.id,
        state=state,
        config=dict(run.config),
        summary=summary,
        exit_code=exit_code if isinstance(exit_code, int) else None,
        stop_recorded=_stop_recorded(flags),
        stop_reason=flags.get("stopReason"),
        stop_decision=band_decision(flags.get("stopBand"), flags.get("stopValue"), flags.get("stopThreshold")),
        host=flags.get("host") or _host(run) or flags.get("agentHost"),
        agent=flags.get("agent"),
        created_at=None if "created_at" in (flags.get("unknownFacts") or ()) else parse_time(run.created_at),
        heartbeat_at=parse_time(flags.get("heartbeatAt") or getattr(run, "heartbeat_at", None)),
        log_tail=_log_tail(run) if end_is_unclear else None,
        alive_when_exported=flags.get("stateWhenExported") is not None or None,
        project=project,
        sweep_id=getattr(run, "sweep_name", None),
        notes=getattr(run, "notes", None) or "",
    )


def _stop_recorded(flags: Flags) -> bool | None:
    requests = [flags.get("shouldStop"), flags.get("stopped")]
    if any(requests):
        return True
    is_unknown = requests == [None, None] or "stop_recorded" in (flags.get("unknownFacts") or ())
    return None if is_unknown else False


def _log_tail(run: Any) -> str | None:
    try:
        return "\n".join(line.content.rstrip("\n") for line in run.console_logs(last=LOG_LINES))
    except Exception:  # noqa: BLE001 - a W&B server without this operation: the log is unknown
        return None


def _host(run: Any) -> str | None:
    """Return the host from the run's raw configuration, where the client lists the environments it ran in."""
    environments = (run.rawconfig.get("_wandb") or {}).get("e")
    values = environments.values() if isinstance(environments, Mapping) else ()
    hosts = (environment.get("host") for environment in values if isinstance(environment, Mapping))
    return next((host for host in hosts if isinstance(host, str)), None)
