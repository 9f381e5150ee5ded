"""W&B's public API: what the cloud and every W&B server answer, run by run.

``history()`` is sampled at 500 points and can miss the peak, so every row is scanned. The public API lacks exit codes
and stop flags; one more query has them for all runs. Where a server does not answer it, they are None, which stands
for unknown throughout.

A server that answers 429 says with ``Retry-After`` when to come back, and the wandb client waits for it.

The wandb client is imported by whoever passes the ``api`` in, never here at import time.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from amc_analysis.reading.sources import MOST_FILE_BYTES, Mark, NotFoundError, Part, Reading, Selection, SweepHead
from amc_analysis.reading.wandb_private import attributes, send_query
from amc_analysis.runs.history import History
from amc_analysis.runs.records import SweepUnreadableError
from amc_sweeps.runs.causes import BandDecision, EndReason
from amc_sweeps.runs.records import RunRecord, parse_time
from amc_sweeps.runs.run_states import RunState

PARALLEL_READS = 6  # requests in flight; W&B limits the rate
RUNS_A_PAGE = 100
LOG_LINES = 100  # of the console's end, read only for runs whose end needs explaining


class PublicApiSource:
    """A ``wandb.Api``."""

    def __init__(self, api: Any) -> None:
        self._api = api

    def read(self, wanted: Selection, known: Mapping[str, Mark]) -> Reading:
        """Read what is wanted, see Source; the selection's entity and project are known here."""
        import wandb

        entity, project = wanted.entity or "", wanted.project or ""
        try:
            head = self._sweep(wanted) if wanted.sweep_id is not None else SweepHead(entity, project)
            listed = self._listed(wanted)
        except (ValueError, wandb.Error) as error:
            if "could not find" in str(error).lower():
                raise NotFoundError(wanted.path) from error
            raise SweepUnreadableError(f"{wanted.path} cannot be read: {error}") from error
        return Reading(head, len(listed), self._parts(listed, self._flags(wanted), known, head))

    def file(self, project: str, run_id: str, names: Sequence[str]) -> bytes | None:
        """Return the first of these files that the run has, see FileSource."""
        there = {file.name: file for file in self._api.run(f"{project}/{run_id}").files(names=list(names))}
        found = next((there[name] for name in names if name in there), None)
        if found is None or found.size > MOST_FILE_BYTES:
            return None
        with tempfile.TemporaryDirectory() as folder:
            found.download(root=folder).close()
            content: bytes = (Path(folder) / found.name).read_bytes()
        return content

    def _sweep(self, wanted: Selection) -> SweepHead:
        sweep = self._api.sweep(f"{wanted.entity}/{wanted.project}/{wanted.sweep_id}")
        sent = attributes(sweep)
        return SweepHead(
            entity=wanted.entity or "",
            project=wanted.project or "",
            sweep_id=wanted.sweep_id or "",
            config=dict(sweep.config),
            state=str(getattr(sweep, "state", None) or "").upper(),
            name=str(sweep.name),
            url=getattr(sweep, "url", None),
            description=sent.get("description") or "",
            updated_at=parse_time(sent.get("updatedAt")),
        )

    def _listed(self, wanted: Selection) -> list[Any]:
        path = f"{wanted.entity}/{wanted.project}"
        query = {"order": "+created_at", "per_page": RUNS_A_PAGE, "lazy": False}
        runs = list(self._api.runs(path, filters=_filters(wanted), **query))
        if wanted.sweep_id is not None or wanted.run_ids is not None:
            return runs
        return [run for run in runs if run.sweep_name is None]

    def _flags(self, wanted: Selection) -> dict[str, dict[str, Any]]:
        """Ask for the flags of all runs at once; empty where neither server nor client knows how."""
        found: dict[str, dict[str, Any]] = {}
        for asks in ((_ask_embedded, _ask_any), (_ask_agents,)):
            for ask in asks:
                try:
                    for node in ask(self._api, wanted):
                        found.setdefault(node["name"], {}).update(node)
                    break
                except Exception:  # noqa: BLE001 - private operations: without them the flags are unknown
                    continue
        return found

    def _parts(
        self, listed: list[Any], flags: Mapping[str, Mapping[str, Any]], known: Mapping[str, Mark], head: SweepHead
    ) -> Generator[Part]:
        pool = ThreadPoolExecutor(max_workers=PARALLEL_READS)
        try:
            reads: list[Future[Part]] = [
                pool.submit(_part, run, flags.get(run.id, {}), known.get(run.id), head.project) for run in listed
            ]
            for read in reads:
                yield read.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # after Ctrl-C no request is waited for


# What an embedded server knows of runs, and what every W&B server does: the wandb client asks for the latter, too.
_EMBEDDED_FLAGS_QUERY = """
query RunFlags($entity: String, $project: String, $filters: JSONString) {
  project(name: $project, entityName: $entity) { runs(filters: $filters) { edges { node {
    name exitcode heartbeatAt shouldStop stopped host stopReason stopBand stopValue stopThreshold
    stateWhenExported unknownFacts
  } } } }
}
"""
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


def _ask_embedded(api: Any, wanted: Selection) -> list[dict[str, Any]]:
    filters = json.dumps(_filters(wanted))
    answer = send_query(api, _EMBEDDED_FLAGS_QUERY, entity=wanted.entity, project=wanted.project, filters=filters)
    return [edge["node"] for edge in answer["project"]["runs"]["edges"]]


def _ask_any(api: Any, wanted: Selection) -> list[dict[str, Any]]:
    answer = send_query(api, _FLAGS_QUERY, entity=wanted.entity, project=wanted.project, sweep=wanted.sweep_id or "")
    return [edge["node"] for edge in answer["project"]["sweep"]["runs"]["edges"]]


def _ask_agents(api: Any, wanted: Selection) -> list[dict[str, Any]]:
    answer = send_query(api, _AGENTS_QUERY, entity=wanted.entity, project=wanted.project, sweep=wanted.sweep_id)
    return [
        {"name": run["node"]["name"], "agent": edge["node"]["name"], "agentHost": edge["node"]["host"]}
        for edge in answer["project"]["sweep"]["agents"]["edges"]
        for run in edge["node"]["runs"]["edges"]
    ]


def _filters(wanted: Selection) -> dict[str, Any]:
    if wanted.sweep_id is not None:
        return {"$and": [{"sweep": wanted.sweep_id}]}
    return {} if wanted.run_ids is None else {"name": {"$in": list(wanted.run_ids)}}


def _part(run: Any, flags: Mapping[str, Any], mark: Mark | None, project: str) -> Part:
    head = _head(run, flags, project)
    lines = attributes(run).get("historyLineCount")
    token = str(run.created_at)
    if not isinstance(lines, int):  # a server that does not count: what is over stays as it is, the rest is read again
        lines = 0
        token += f" {head.state} {head.heartbeat_at}" if _is_over(head.state) else " not counted"
    try:
        if mark is not None and mark.token == token and not token.endswith("not counted"):
            if mark.lines == lines:
                return Part(head, mark, rows=None, whole=False)
            later = _later_rows(run, mark, lines)
            if later is not None:
                return Part(head, Mark(token, lines, _last_step(later, mark)), rows=later, whole=False)
        rows = History.from_rows(run.scan_history())
    except Exception as error:  # noqa: BLE001 - one unreadable run must not hide the others
        unread = f"{type(error).__name__}: {error}"
        return Part(replace(head, unread=unread), Mark("", 0), rows=History())
    return Part(head, Mark(token, lines, _last_step(rows, None)), rows=rows)


def _later_rows(run: Any, mark: Mark, lines: int) -> History | None:
    """Read the rows after those that are known; None where they are not all of the new ones.

    Rows are asked for by `_step`, which begins anew when a script starts a run a second time without resuming it.
    """
    if mark.last_step is None or lines < mark.lines:
        return None
    later = History.from_rows(run.scan_history(min_step=mark.last_step + 1))
    return later if later.length == lines - mark.lines else None


def _last_step(history: History, before: Mark | None) -> int | None:
    steps = history.column("_step").values
    known = [] if before is None or before.last_step is None else [before.last_step]
    if len(steps) != history.length:
        return None
    return max([*known, *map(int, steps)], default=None) if all(map(math.isfinite, steps)) else None


def _is_over(state: str) -> bool:
    try:
        return RunState(state).is_terminal
    except ValueError:
        return False


def _head(run: Any, flags: Mapping[str, Any], project: str) -> RunRecord:
    summary = dict(run.summary_metrics)
    state = str(run.state)
    puzzling = state != RunState.FINISHED and summary.get("end_reason") not in set(EndReason)
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
        stop_decision=_stop_decision(flags),
        host=flags.get("host") or _host(run) or flags.get("agentHost"),
        agent=flags.get("agent"),
        created_at=None if "created_at" in (flags.get("unknownFacts") or ()) else parse_time(run.created_at),
        heartbeat_at=parse_time(flags.get("heartbeatAt") or getattr(run, "heartbeat_at", None)),
        log_tail=_log_tail(run) if puzzling else None,
        alive_when_exported=flags.get("stateWhenExported") is not None or None,
        project=project,
        sweep_id=getattr(run, "sweep_name", None),
        notes=getattr(run, "notes", None) or "",
    )


def _stop_recorded(flags: Mapping[str, Any]) -> bool | None:
    asked = [flags.get("shouldStop"), flags.get("stopped")]
    if all(value is None for value in asked):
        return None
    return None if "stop_recorded" in (flags.get("unknownFacts") or ()) and not any(asked) else any(asked)


def _stop_decision(flags: Mapping[str, Any]) -> BandDecision | None:
    band, value, threshold = flags.get("stopBand"), flags.get("stopValue"), flags.get("stopThreshold")
    if band is None or value is None or threshold is None:
        return None
    return BandDecision(band=int(band), value=float(value), threshold=float(threshold))


def _log_tail(run: Any) -> str | None:
    try:
        return "\n".join(line.content.rstrip("\n") for line in run.console_logs(last=LOG_LINES))
    except Exception:  # noqa: BLE001 - servers older than the operation: the log is unknown
        return None


def _host(run: Any) -> str | None:
    """Find the host where the client leaves it: among the environments in the run's raw configuration."""
    environments = (run.rawconfig.get("_wandb") or {}).get("e")
    found = environments.values() if isinstance(environments, Mapping) else ()
    return next((one["host"] for one in found if isinstance(one, Mapping) and isinstance(one.get("host"), str)), None)
