"""What W&B holds of the sweep and of the fleet's runs, read now and then by a thread of its own.

A server that is away makes the client wait for a long time; nothing that the fleet decides may wait with it. So what is
read here is shown, and corrects a cause that could not be told on this machine, and nothing else hangs on it.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

from amc_agents.fleet.evidence import Record
from amc_analysis.reading.wandb_private import send_query

LOOK_EVERY_S = 15.0  # the client posts no oftener
PATIENCE_S = 10.0  # the client itself goes on asking a server that is away, and says nothing meanwhile

_SWEEP = """
query FleetSweep($entity: String!, $project: String!, $sweep: String!) {
  project(name: $project, entityName: $entity) { sweep(sweepName: $sweep) { state config } } }
"""
_RUNS = """
query FleetRuns($entity: String!, $project: String!, $filters: JSONString, $first: Int) {
  project(name: $project, entityName: $entity) { runs(filters: $filters, first: $first) { edges { node {
    name state summaryMetrics %s } } } } }
"""
_OWN_FIELDS = "shouldStop stopReason"  # W&B's cloud refuses a query with a field that it does not know


class Sweep:
    """A sweep as W&B knows it."""

    def __init__(self, api: Any, path: str) -> None:
        self._api = api
        self._entity, self._project, self._id = path.split("/")
        self._fields = _OWN_FIELDS

    def look(self) -> Mapping[str, Any] | None:
        """Return the sweep's state and config (YAML text), None where there is no such sweep."""
        answer = self._ask(_SWEEP, sweep=self._id)
        project = answer.get("project")
        return None if project is None else project["sweep"]

    def records(self, runs: Collection[str], metric: str | None, *, minimise: bool) -> dict[str, Record]:
        """Return what W&B holds of runs.

        Args:
            runs: their ids.
            metric: the sweep's.
            minimise: whether less of it is better.
        """
        filters = json.dumps({"name": {"$in": sorted(runs)}})
        try:
            answer = self._ask(_RUNS % self._fields, filters=filters, first=len(runs))
        except Exception:
            if not self._fields:
                raise
            self._fields = ""
            answer = self._ask(_RUNS % self._fields, filters=filters, first=len(runs))
        nodes = [edge["node"] for edge in answer["project"]["runs"]["edges"]]
        return {node["name"]: _record(node, metric, minimise=minimise) for node in nodes}

    def _ask(self, document: str, **variables: Any) -> dict[str, Any]:
        known = {"entity": self._entity, "project": self._project, **variables}
        return send_query(self._api, document, **known)


def _record(node: Mapping[str, Any], metric: str | None, *, minimise: bool) -> Record:
    summary = json.loads(node.get("summaryMetrics") or "{}")
    epoch = _number(summary.get("epoch"))
    return Record(
        state=node["state"],
        end_reason=summary.get("end_reason") if isinstance(summary.get("end_reason"), str) else None,
        stop_recorded=node.get("shouldStop"),
        stop_reason=node.get("stopReason"),
        epoch=None if epoch is None else int(epoch),
        peak=_peak(summary, metric, minimise=minimise),
    )


def _peak(summary: Mapping[str, Any], metric: str | None, *, minimise: bool) -> float | None:
    """Return a run's best value: ours as ``best/...``, W&B's own summary of min or max, else the last one."""
    if metric is None:
        return None
    own = _number(summary.get("best/" + metric.rpartition("/")[2]))
    if own is not None:
        return own
    value = summary.get(metric)
    if isinstance(value, Mapping):
        value = value.get("min" if minimise else "max")
    return _number(value)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


class Watch(threading.Thread):
    """Reads the runs that it is told of; what it has is always there to be looked at, however old."""

    def __init__(
        self,
        sweep: Sweep,
        metric: str | None,
        *,
        minimise: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(name="watch", daemon=True)
        self._sweep, self._metric, self._minimise, self._clock = sweep, metric, minimise, clock
        self._wanted: set[str] = set()
        self._records: dict[str, Record] = {}
        self._wake = threading.Event()
        self._ended = threading.Event()
        self._error: str | None = None  # why the last look failed
        self._asked_at_s: float | None = None  # of the look under way

    @property
    def trouble(self) -> str | None:
        """Why W&B cannot be read now, None where it can."""
        asked_at_s = self._asked_at_s
        if asked_at_s is not None and self._clock() - asked_at_s > PATIENCE_S:
            return f"no answer for {PATIENCE_S:.0f} s"
        return self._error

    def want(self, runs: Collection[str]) -> None:
        """Say which runs matter from now on."""
        self._wanted = set(runs)

    def record(self, run: str | None) -> Record | None:
        """Return the latest that is known of a run."""
        return None if run is None else self._records.get(run)

    def look_soon(self) -> None:
        """Do not wait for the next turn."""
        self._wake.set()

    def end(self) -> None:
        """Look no more."""
        self._ended.set()
        self._wake.set()

    def run(self) -> None:
        """Look until the end."""
        while not self._ended.is_set():
            self._wake.wait(LOOK_EVERY_S)
            self._wake.clear()
            if self._wanted and not self._ended.is_set():
                self.look()

    def look(self) -> None:
        """Look once."""
        self._asked_at_s = self._clock()
        try:
            found = self._sweep.records(self._wanted, self._metric, minimise=self._minimise)
        except Exception as error:  # noqa: BLE001 - whatever it is: it is shown, and the next look may do better
            self._error = str(error) or type(error).__name__
            return
        finally:
            self._asked_at_s = None
        self._error = None
        for run, record in found.items():
            self._records[run] = _with_best(record, self._records.get(run), minimise=self._minimise)


def _with_best(record: Record, before: Record | None, *, minimise: bool) -> Record:
    """Keep the best value that was ever seen: a plain script logs no running maximum."""
    if before is None or before.peak is None:
        return record
    best = before.peak if record.peak is None else (min if minimise else max)(before.peak, record.peak)
    return replace(record, peak=best)
