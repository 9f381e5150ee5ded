"""Reads the sweep and the fleet's runs from W&B, in a thread.

When a server does not answer, the client waits for a long time. The fleet must not wait too. So its decisions do not
depend on these records: they are shown, and they correct causes that this machine could not determine.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

from amc_agents.fleet.trial_evidence import NO_RECORD, WandbRecord
from amc_analysis.reading.wandb_private import has_no_answer, send_query
from amc_sweeps.runs.run_states import SweepState
from amc_sweeps.values import as_finite

POLL_EVERY_S = 15.0  # trials post every 15 s
END_S = 2.0
PATIENCE_S = 10.0  # the client retries silently for longer than this

_SWEEP = """
query FleetSweep($entity: String!, $project: String!, $sweep: String!) {
  project(name: $project, entityName: $entity) { sweep(sweepName: $sweep) { state config } } }
"""
_RUNS = """
query FleetRuns($entity: String!, $project: String!, $filters: JSONString, $first: Int) {
  project(name: $project, entityName: $entity) { runs(filters: $filters, first: $first) { edges { node {
    name state summaryMetrics %s } } } } }
"""
_OWN_FIELDS = "shouldStop stopReason"  # of our embedded server; W&B's cloud rejects a query with unknown fields


class SweepReader:
    def __init__(self, api: Any, path: str) -> None:
        self._api = api
        self._entity, self._project, self._id = path.split("/")
        self._fields = _OWN_FIELDS

    def sweep(self) -> Mapping[str, Any] | None:
        """Return the sweep's state and config (YAML text), None for an unknown sweep."""
        project = self._query(_SWEEP, sweep=self._id).get("project")
        return None if project is None else project["sweep"]

    def records(self, runs: Collection[str], metric: str | None, *, minimise: bool) -> dict[str, WandbRecord]:
        """Return W&B's records of runs by id; the peak is that of the sweep's metric."""
        variables = {"filters": json.dumps({"name": {"$in": sorted(runs)}}), "first": len(runs)}
        try:
            answer = self._query(_RUNS % self._fields, **variables)
        except Exception as error:
            if not self._fields or has_no_answer(error):
                raise
            self._fields = ""
            answer = self._query(_RUNS % self._fields, **variables)
        nodes = [edge["node"] for edge in answer["project"]["runs"]["edges"]]
        return {node["name"]: _record(node, metric, minimise=minimise) for node in nodes}

    def _query(self, document: str, **variables: Any) -> dict[str, Any]:
        path = {"entity": self._entity, "project": self._project}
        return send_query(self._api, document, **path, **variables)


def _record(node: Mapping[str, Any], metric: str | None, *, minimise: bool) -> WandbRecord:
    summary = json.loads(node.get("summaryMetrics") or "{}")
    epoch = as_finite(summary.get("epoch"))
    return WandbRecord(
        state=node["state"],
        end_reason=summary.get("end_reason") if isinstance(summary.get("end_reason"), str) else None,
        stop_recorded=node.get("shouldStop"),
        stop_reason=node.get("stopReason"),
        epoch=None if epoch is None else int(epoch),
        peak=_peak(summary, metric, minimise=minimise),
    )


def _peak(summary: Mapping[str, Any], metric: str | None, *, minimise: bool) -> float | None:
    """Return a run's best value: from ``best/...``, else from W&B's min or max summary, else the last value."""
    if metric is None:
        return None
    best = as_finite(summary.get("best/" + metric.rpartition("/")[2]))
    if best is not None:
        return best
    value = summary.get(metric)
    if isinstance(value, Mapping):
        value = value.get("min" if minimise else "max")
    return as_finite(value)


class Watcher(threading.Thread):
    """Reads the sweep and runs every 15 s, and keeps the latest record of each."""

    def __init__(
        self, reader: SweepReader, metric: str | None, *, minimise: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(name="watcher", daemon=True)
        self._reader, self._metric, self.minimise, self._clock = reader, metric, minimise, clock
        self._runs: set[str] = set()
        self._records: dict[str, WandbRecord] = {}
        self._wake = threading.Event()
        self._ended = threading.Event()
        self._error: str | None = None  # of the last poll
        self.is_paused = False  # the sweep, at the last poll
        self._poll_began_s: float | None = None  # None: no poll runs

    @property
    def error(self) -> str | None:
        """Why W&B cannot be read now; None when it can."""
        poll_began_s = self._poll_began_s
        if poll_began_s is not None and self._clock() - poll_began_s > PATIENCE_S:
            return f"no answer for {PATIENCE_S:.0f} s"
        return self._error

    def follow(self, runs: Collection[str]) -> None:
        self._runs = set(runs)

    def record(self, run: str | None) -> WandbRecord:
        return NO_RECORD if run is None else self._records.get(run, NO_RECORD)

    def poll_soon(self) -> None:
        self._wake.set()

    def end(self) -> None:
        """End the thread, and wait for it if it answers soon."""
        self._ended.set()
        self._wake.set()
        self.join(END_S)

    def run(self) -> None:
        while not self._ended.is_set():
            self._wake.wait(POLL_EVERY_S)
            self._wake.clear()
            if not self._ended.is_set():
                self.poll()

    def poll(self) -> None:
        """Read once; an error is kept for ``error``."""
        self._poll_began_s = self._clock()
        try:
            sweep = self._reader.sweep()
            runs = self._runs
            records = self._reader.records(runs, self._metric, minimise=self.minimise) if runs else {}
        except Exception as error:  # noqa: BLE001 - whatever it is: it is shown, and the next poll may work
            self._error = str(error) or type(error).__name__
            return
        finally:
            self._poll_began_s = None
        self._error = None
        self.is_paused = sweep is not None and sweep["state"] == SweepState.PAUSED
        for run, record in records.items():
            self._records[run] = _with_best(record, self.record(run).peak, minimise=self.minimise)


def _with_best(record: WandbRecord, peak: float | None, *, minimise: bool) -> WandbRecord:
    """Keep the best value of all polls, since a plain script logs no running maximum."""
    if peak is None:
        return record
    best = peak if record.peak is None else (min if minimise else max)(peak, record.peak)
    return replace(record, peak=best)
