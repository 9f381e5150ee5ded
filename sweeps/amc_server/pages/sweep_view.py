"""Sweeps as their pages show them, kept in memory while somebody looks.

A page asks every second or two. Where nothing was committed since, the answer costs no query. Otherwise the runs that
have changed are read and ranked again, once for all pages of a sweep, and only their rows are sent.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from amc_server.clock import Clock
from amc_server.errors import Refused
from amc_server.pages.run_records import metric_of, run_record, time_of
from amc_server.pages.sentences import where_it_stands
from amc_server.store.reader import Reader
from amc_server.store.records import Agent, Run, Sweep
from amc_server.store.storage import Storage
from amc_sweeps.browser.run_rows import run_row, sweep_facts
from amc_sweeps.grammar.configurations import expected_runs
from amc_sweeps.grammar.searched_parameters import searched_parameters
from amc_sweeps.runs.causes import classify
from amc_sweeps.runs.evidence import evidence_of, needs_bands
from amc_sweeps.runs.metric_scale import metric_scale
from amc_sweeps.runs.ranked_run import RankedRun, with_treatment
from amc_sweeps.runs.ranking import in_order, measure
from amc_sweeps.runs.records import Metric, Point, RunRecord, SweepRecord
from amc_sweeps.runs.run_states import RunState, SweepState, state_word
from amc_sweeps.values import as_finite, printable

LEAST_S = 0.9  # between two looks at the database for one sweep
MOST_S = 15.0  # after which a view looks although nothing was committed: agents may have fallen silent
KEEP_S = 60.0  # how long a view that no page asks for stays in memory
FEW = 20  # runs of which the values are read one run at a time
NO_METRIC = Metric("", "minimize")  # of a sweep that names none
FIRST_HEARTBEAT_S = 60.0  # a registration without a heartbeat is a repeated one, whose agent is another record

Json = dict[str, Any]


@dataclass
class _Row:
    """A run of the view."""

    entry: RankedRun  # without what the run logged
    text: str  # its JSON
    version: int  # in which the text last changed
    state: RunState
    agent: int | None
    counts_epochs: bool  # its values are numbered as its epochs are


class SweepView:
    """One sweep, at the last look."""

    def __init__(self, key: int, agent_is_alive: Callable[[int], bool]) -> None:
        self.lock = threading.Lock()
        self.asked_at = 0.0
        self.looked_at = -MOST_S
        self.commits = -1
        self._sweep = key
        self._agent_is_alive = agent_is_alive
        self._begin()

    def _begin(self) -> None:
        self._name = secrets.token_hex(4)  # another one, and pages ask for everything
        self._version = 0
        self._settings: Any = None
        self._facts: Json = {}
        self._rows: dict[int, _Row] = {}  # by key, in the order of creation
        self._head: Json = {}

    @property
    def version(self) -> str:
        """The word by which a page says what it has."""
        return f"{self._name}-{self._version}"

    def look(self, store: Reader, now: float, run_changes: Mapping[int, int]) -> None:
        """Bring the view up to date.

        Args:
            run_changes: by key of a run, the number of the commit that changed it last.

        Raises:
            Refused: the sweep is gone.
        """
        sweep = store.sweep_by_key(self._sweep)
        if sweep is None:
            raise Refused("the sweep does not exist any more", status=404)
        keys = store.run_keys(sweep.pk)
        settings = (sweep.config, sweep.display_name, sweep.description, sweep.state is SweepState.CANCELED)
        if not self._rows.keys() <= set(keys):
            self._begin()  # a run was deleted, and the places of the others change
        changed = [key for key in keys if key not in self._rows or run_changes.get(key, 0) > self.commits]
        if settings != self._settings:
            self._facts = sweep_facts(_raw(sweep), metric_of(sweep) or NO_METRIC)
            self._facts["file"] = hashlib.sha256(repr(settings[:3]).encode()).hexdigest()[:12]
            changed = keys
        if len(changed) == len(keys):
            runs = store.runs_of_sweep(sweep.pk)
        else:
            runs = [run for key in changed if (run := store.run_by_key(key)) is not None]
        agents = {agent.pk: agent for agent in store.agents(sweep.pk)}
        version = self._version + 1
        if changed:
            self._take(store, sweep, runs, agents, version, now, all_runs=len(keys))
        self._settings = settings
        head = self._describe(store, sweep, agents, now)
        if head != self._head or any(row.version == version for row in self._rows.values()):
            self._version, self._head = version, head

    def _take(
        self,
        store: Reader,
        sweep: Sweep,
        runs: Sequence[Run],
        agents: dict[int, Agent],
        version: int,
        now: float,
        *,
        all_runs: int,
    ) -> None:
        """Read and measure some runs again; all of them where the end of one may depend on others."""
        record = _record(store, sweep, runs, agents, now)
        depends = any(needs_bands(run) or run.state == RunState.CRASHED for run in record.runs)
        if depends and len(runs) < all_runs:
            runs = store.runs_of_sweep(sweep.pk)
            record = _record(store, sweep, runs, agents, now)
        evidence, names = evidence_of(record), searched_parameters(record.config)
        policy = sweep.policy if record.config.get("method") == "bayes" else None
        for run, logged in zip(runs, record.runs, strict=True):
            entry = with_treatment(measure(logged, classify(evidence[logged.run_id]), record.metric), policy)
            known = self._rows.get(run.pk)
            content = run_row(entry, names, has_epochs=False) | {"stopping": run.stop_recorded}
            text = json.dumps(content, separators=(",", ":"))
            row_version = known.version if known is not None and known.text == text else version
            curve, peak = logged.curve, entry.peak
            counts_epochs = not curve or peak is None or entry.peak_epoch == curve.index(peak) + 1
            self._rows[run.pk] = _Row(_light(entry), text, row_version, run.state, run.agent, counts_epochs)

    def _describe(self, store: Reader, sweep: Sweep, agents: dict[int, Agent], now: float) -> Json:
        """Return everything that is sent with each change: all but the runs' own rows."""
        rows = list(self._rows.values())
        metric = metric_of(sweep) or NO_METRIC
        ranked = in_order([row.entry for row in rows], metric.goal)
        by_id = {entry.run.run_id: entry for entry in ranked}
        entries = [by_id[row.entry.run.run_id] for row in rows]
        scale = metric_scale(metric.name, ranked)
        hand_outs = Counter(row.agent for row in rows)
        at_work = {row.agent: row.entry.run.run_id for row in rows if row.state.is_alive and row.agent is not None}
        shown = [
            {
                "name": agent.name,
                "host": printable(agent.host),
                "heard": as_finite(agent.heartbeat_at),
                "alive": self._agent_is_alive(agent.pk),
                "runs": hand_outs[agent.pk],
                "run": at_work.get(agent.pk),
            }
            for agent in agents.values()
            if agent.heartbeat_at is not None or now - agent.created_at < FIRST_HEARTBEAT_S
        ]
        config = sweep.readable_config
        expected = expected_runs(config) if config else None
        alive = sum(agent["alive"] for agent in shown)
        counts = Counter(row.state for row in rows)
        return {
            **self._facts,
            "crashedRuns": sweep.policy if config is not None and config.method == "bayes" else None,
            "percentage": scale.percentage,
            "decimals": scale.decimals,
            "xLabel": "epoch" if all(row.counts_epochs for row in rows) else "logged values",
            "state": state_word(sweep.state),
            "problem": sweep.problem,
            "sentence": where_it_stands(sweep, counts, expected, alive, ranked, metric, scale),
            "counts": {state.value: count for state, count in counts.items()},
            "expected": expected,
            "actions": actions_on(sweep),
            "agents": shown,
            "ranks": [entry.rank for entry in entries],
            "gems": [place for place, entry in enumerate(entries) if entry.is_gem],
        }

    def changes(self, since: str | None, now: float) -> bytes | None:
        """Return what has changed since a version as JSON; None if nothing has."""
        if since == self.version:
            return None
        name, _, number = (since or "").partition("-")
        known = int(number) if name == self._name and number.isdecimal() and len(number) < 19 else 0
        rows = ",".join(f"[{place},{row.text}]" for place, row in enumerate(self._rows.values()) if row.version > known)
        head = {"version": self.version, "is_whole": known == 0, "now": now, **self._head}
        return f'{json.dumps(head, separators=(",", ":"))[:-1]},"rows":[{rows}]}}'.encode()


class SweepViews:
    """The sweeps that pages ask for."""

    def __init__(self, storage: Storage, clock: Clock, agent_is_alive: Callable[[int], bool]) -> None:
        self._storage = storage
        self._clock = clock
        self._agent_is_alive = agent_is_alive
        self._lock = threading.Lock()
        self._views: dict[tuple[str, ...], SweepView] = {}

    def is_unchanged(self, path: tuple[str, ...], since: str | None) -> bool:
        """Return whether a page has everything; this asks the database nothing."""
        view, now = self._views.get(path), self._clock.monotonic()
        if view is None or view.version != since:
            return False
        view.asked_at = now
        age = now - view.looked_at
        return age < LEAST_S or (view.commits == self._storage.commits and age < MOST_S)

    def changes(self, path: tuple[str, ...], since: str | None) -> bytes | None:
        """Return what has changed since a version as JSON; None if nothing has.

        Args:
            path: entity, project and sweep.
            since: the version that the page has; None: nothing.

        Raises:
            Refused: there is no such sweep.
        """
        now = self._clock.monotonic()
        with self._storage.read() as store:
            view = self._view(store, path, now)
        with view.lock:
            view.asked_at = now
            if now - view.looked_at >= LEAST_S:
                commits = self._storage.commits
                with self._storage.read() as store:
                    view.look(store, self._clock.wall(), self._storage.run_changes)
                view.commits, view.looked_at = commits, now
            return view.changes(since, self._clock.wall())

    def forget(self) -> None:
        """Drop the views that no page has asked for lately."""
        now = self._clock.monotonic()
        with self._lock:
            self._views = {path: view for path, view in self._views.items() if now - view.asked_at < KEEP_S}

    def _view(self, store: Reader, path: tuple[str, ...], now: float) -> SweepView:
        with self._lock:
            if path not in self._views:
                entity, project_name, sweep_id = path
                project = store.project(entity, project_name)
                sweep = store.sweep(project.pk, sweep_id) if project else None
                if sweep is None:
                    raise Refused(f"there is no sweep {sweep_id} in {entity}/{project_name}", status=404)
                self._views[path] = SweepView(sweep.pk, self._agent_is_alive)
                self._views[path].asked_at = now
            return self._views[path]


def actions_on(sweep: Sweep) -> list[str]:
    """Return what can be done with a sweep in its state."""
    if sweep.state.hands_out_runs:
        return ["pause", "stop", "cancel"]
    if sweep.state is SweepState.PAUSED:
        return ["resume", "stop", "cancel"]
    return ["resume", "cancel"] if sweep.state is SweepState.FINISHED else ["resume"]


def _raw(sweep: Sweep) -> Mapping[str, Any]:
    config = sweep.readable_config
    return config.raw if config else {}


def _record(store: Reader, sweep: Sweep, runs: Sequence[Run], agents: dict[int, Agent], now: float) -> SweepRecord:
    metric = metric_of(sweep)
    points = store.points(sweep.pk) if len(runs) > FEW else {run.pk: store.points_of_run(run.pk) for run in runs}
    return SweepRecord(
        sweep_id=sweep.id,
        entity="",
        project="",
        config=_raw(sweep),
        state=sweep.state.value,
        metric=metric or NO_METRIC,
        runs=tuple(run_record(store, run, points.get(run.pk, ()), metric, agents.get(run.agent or 0)) for run in runs),
        read_at=datetime.fromtimestamp(now, UTC),
        updated_at=time_of(sweep.updated_at),
    )


def _light(entry: RankedRun) -> RankedRun:
    """Return a ranked run without what it logged, but for the extremes, from which the scale follows."""
    run = entry.run
    extremes = (Point(min(run.curve)), Point(max(run.curve))) if run.curve else ()
    return replace(entry, run=RunRecord(run.run_id, run.name, run.state, points=extremes))
