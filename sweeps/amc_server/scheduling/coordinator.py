"""Carries out what scheduler, search and states conclude. Every method runs within the caller's transaction."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import secrets
import string
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from amc_server.clock import Clock
from amc_server.errors import Refused
from amc_server.scheduling import scheduler, search
from amc_server.scheduling.presence import Presence
from amc_server.scheduling.states import Facts, Limits, infer, is_abandoned
from amc_server.store.reader import Reader
from amc_server.store.records import Agent, Project, Run, Sweep
from amc_server.store.writer import Writer
from amc_sweeps.grammar.parse import parse
from amc_sweeps.grammar.sweep_config import SweepConfig, SweepConfigError, flatten
from amc_sweeps.runs.run_states import RunState, SweepState

logger = logging.getLogger(__name__)

ENTITY = "local"  # there is one, and nobody to share it with
_ALPHABET = string.ascii_lowercase + string.digits
_ADJECTIVES = ("brisk", "calm", "clear", "eager", "fair", "fleet", "keen", "lucid", "quiet", "steady", "vivid", "warm")

Command = dict[str, Any]


@lru_cache(maxsize=256)
def read_config(text: str) -> SweepConfig:
    """Return a stored sweep's config; parsing it at every heartbeat would cost more than the rest."""
    return parse(text)


class Coordinator:
    """Sweeps, agents and runs, and what one does to the other."""

    def __init__(self, clock: Clock, *, limits: Limits | None = None, seed: int | None = None) -> None:
        self.clock = clock
        self.limits = limits or Limits()
        self.presence = Presence(clock)
        self._seed = seed
        self._searches: dict[int, search.Seen] = {}  # by sweep: which configurations it has had
        self._generation = 0  # of the writer, when these were read

    # --- sweeps -----------------------------------------------------------------------------------------------------

    def project(self, store: Writer, name: str | None) -> Project:
        """Return the project of that name, beginning it where there is none."""
        name = name or "uncategorized"
        found = store.project(ENTITY, name)
        if found is not None:
            return found
        if "/" in name or not name.strip() or len(name) > 128 or not name.isprintable():
            raise Refused(f"{name!r} cannot be a project: 1 to 128 printable characters without a slash")
        return store.project_by_key(
            store.insert("projects", entity=ENTITY, name=name, created_at=self.clock.wall()),
        )

    def create_sweep(self, store: Writer, project: Project, config: str, **columns: Any) -> Sweep:
        """Register a sweep.

        Raises:
            Refused: with every violation of the grammar, and nothing is registered.
        """
        parsed = checked(config)
        now = self.clock.wall()
        pk = store.insert(
            "sweeps",
            project=project.pk,
            id=new_id(),
            state=SweepState.PENDING.value,
            config=config,
            seed=self.sweep_seed(store),
            created_at=now,
            updated_at=now,
            **{"display_name": parsed.name, "description": parsed.description}
            | {name: value for name, value in columns.items() if value is not None},
        )
        return _sweep(store, pk)

    def sweep_seed(self, store: Reader) -> int:
        """Return the seed of the next sweep's search."""
        if self._seed is None:
            return secrets.randbits(32)
        text = f"{self._seed}/{store.count_sweeps()}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])

    def update_sweep(
        self, store: Writer, sweep: Sweep, *, config: str | None, state: str | None, **columns: Any
    ) -> Sweep:
        """Change what is given; None leaves as it is."""
        now = self.clock.wall()
        changes = {name: value for name, value in columns.items() if value is not None}
        if config is not None and config != sweep.config:
            parsed = checked(config)
            before = read_config(sweep.config)
            changes |= {"config": config, "search_end": None}
            store.update("sweeps", sweep.pk, updated_at=now, **changes)
            if parsed.metric != before.metric:
                for run in store.runs_of_sweep(sweep.pk):
                    redraw_points(store, sweep.pk, run, parsed)
                self.look_for_target(store, _sweep(store, sweep.pk))
        else:
            store.update("sweeps", sweep.pk, updated_at=now, **changes)
        if state is not None:
            self.set_sweep_state(store, _sweep(store, sweep.pk), state)
        return _sweep(store, sweep.pk)

    def set_sweep_state(self, store: Writer, sweep: Sweep, state: str) -> None:
        """Pause, resume, stop or cancel. Stopping lets living runs end by themselves, cancelling ends them."""
        try:
            wanted = SweepState(state.upper())
        except ValueError:
            allowed = ", ".join(SweepState)
            raise Refused(f"a sweep cannot be {state!r}; its states are {allowed}") from None
        if wanted is SweepState.RUNNING and not store.agents(sweep.pk):
            wanted = SweepState.PENDING
        search_end = None if wanted.hands_out_runs else sweep.search_end
        store.update("sweeps", sweep.pk, state=wanted.value, search_end=search_end, updated_at=self.clock.wall())
        if wanted is SweepState.CANCELED:
            for run in store.runs_of_sweep(sweep.pk):
                if run.where.is_alive or run.is_waiting:
                    self.stop(store, run, "cancelled")
        self.settle(store, _sweep(store, sweep.pk))

    def adopt(self, store: Writer, sweep: Sweep, runs: Sequence[Run]) -> None:
        """Make earlier runs part of the sweep: its search learns from them."""
        config = read_config(sweep.config)
        for run in runs:
            if run.sweep is not None:
                continue
            parameters = chosen_from(run.config_values(), config)
            store.update("runs", run.pk, sweep=sweep.pk, origin="prior", parameters=json.dumps(parameters))
            redraw_points(store, sweep.pk, run, config)
        self._searches.pop(sweep.pk, None)
        self.look_for_target(store, _sweep(store, sweep.pk))

    def enqueue(self, store: Writer, sweep: Sweep, config: Mapping[str, Any], display_name: str | None) -> Run:
        """Put a configuration before everything that the search proposes."""
        if sweep.where in (SweepState.FINISHED, SweepState.CANCELED):
            raise Refused(f"sweep {sweep.id} is {sweep.state.lower()}: resume it before a run is queued")
        values = {
            name: entry["value"] if isinstance(entry, Mapping) and set(entry) <= {"value", "desc"} else entry
            for name, entry in config.items()
        }
        begun = store.count_runs_begun(sweep.pk)
        return self._begin(store, sweep, values, begun, origin="queue", display_name=display_name)

    def settle(self, store: Writer, sweep: Sweep) -> None:
        """Finish a sweep whose search has ended and whose runs have all ended; give up what nobody will take up."""
        if sweep.where in (SweepState.FINISHED, SweepState.CANCELED):
            for run in store.living_runs_of_sweep(sweep.pk):
                if run.where is RunState.PENDING and run.agent is None and not run.stop_recorded:
                    self.conclude(store, self._changed(store, run, given_up=1))
            return
        if sweep.search_end is None:
            return
        if sweep.search_end == scheduler.SearchEnd.TARGET or store.is_over(sweep.pk):
            store.update("sweeps", sweep.pk, state=SweepState.FINISHED.value, updated_at=self.clock.wall())
            logger.info("sweep %s finished: %s", sweep.id, sweep.search_end)
            self.settle(store, _sweep(store, sweep.pk))

    # --- agents -----------------------------------------------------------------------------------------------------

    def create_agent(self, store: Writer, sweep: Sweep, host: str) -> Agent:
        """Register an agent; the first one sets a pending sweep running."""
        pk = store.insert("agents", sweep=sweep.pk, name=new_id(), host=host, created_at=self.clock.wall())
        if sweep.where is SweepState.PENDING:
            store.update("sweeps", sweep.pk, state=SweepState.RUNNING.value, updated_at=self.clock.wall())
        agent = store.agent_by_key(pk)
        assert agent is not None
        return agent

    def heartbeat(self, store: Writer, agent: Agent, listed: Collection[str]) -> list[Command]:
        """Take an agent's word for which of its runs live, and return what it should do.

        The command that matters most comes first: agents of a python function read no other.
        """
        now = self.clock.wall()
        store.update("agents", agent.pk, heartbeat_at=now)
        store.update("sweeps", agent.sweep, heartbeat_at=now)
        runs = store.living_runs_of_sweep(agent.sweep)
        mine = [run for run in runs if run.agent == agent.pk]
        self.presence.agent_heard(
            agent.pk,
            listed=[run.pk for run in mine if run.id in listed],
            unlisted=[run.pk for run in mine if run.id not in listed],
        )
        for run in mine:
            self.conclude(store, run)
        commands: list[Command] = [
            {"type": "stop", "run_id": run.id} for run in runs if run.id in listed and self._agent_must_stop(run)
        ]
        sweep = _sweep(store, agent.sweep)
        self.settle(store, sweep)
        return commands or ([] if listed else self._next(store, agent))

    def _agent_must_stop(self, run: Run) -> bool:
        if not run.stop_recorded:
            return False
        presence = self.presence
        return scheduler.agent_must_stop(
            stop_s=presence.stop_s(run.pk), told_s=presence.told_s(run.pk), limits=self.limits
        )

    def _next(self, store: Writer, agent: Agent) -> list[Command]:
        sweep = _sweep(store, agent.sweep)
        config = read_config(sweep.config)
        decision = scheduler.decide(
            sweep.where,
            config,
            search_ended=sweep.search_end is not None,
            waiting=store.waiting_run(sweep.pk),
            begun=store.count_runs_begun(sweep.pk),
            is_over=store.is_over(sweep.pk),
        )
        if isinstance(decision, scheduler.Leave):
            return [{"type": "exit"}]
        if isinstance(decision, scheduler.HandOut):
            return [self._hand_out(store, decision.run, agent, config)]
        if isinstance(decision, scheduler.Begin):
            seen = self._seen(store, sweep, config)
            observations = self._observations(store, sweep, config) if config.method == "bayes" else []
            parameters = search.suggest(config, observations, seed=sweep.seed, number=decision.number, seen=seen)
            if parameters is None:
                self._end_search(store, sweep, scheduler.SearchEnd.EXHAUSTED)
                return [{"type": "exit"}] if store.is_over(sweep.pk) else []
            run = self._begin(store, sweep, parameters, decision.number, origin="search")
            if self._seen(store, sweep, config).is_exhausted():
                self._end_search(store, sweep, scheduler.SearchEnd.EXHAUSTED)
            return [self._hand_out(store, run, agent, config)]
        return []

    def remember(self, store: Writer) -> None:
        """Read what the next suggestion of every open sweep needs: after a start, it is all in the database only."""
        for sweep in store.open_sweeps():
            config = read_config(sweep.config)
            seen = self._seen(store, sweep, config)
            if config.method == "bayes":
                search.suggest(config, self._observations(store, sweep, config), seed=0, number=0, seen=seen)

    def _seen(self, store: Writer, sweep: Sweep, config: SweepConfig) -> search.Seen:
        """Return which configurations the sweep has had. Only the runs since the last call are read."""
        if self._generation != store.generation:
            self._searches.clear()
            self._generation = store.generation
        seen = self._searches.get(sweep.pk)
        if seen is None or seen.config is not config:
            seen = self._searches[sweep.pk] = search.Seen(config)
        for pk, parameters in store.members_since(sweep.pk, seen.newest):
            seen.add(pk, parameters)
        return seen

    @staticmethod
    def _observations(store: Reader, sweep: Sweep, config: SweepConfig) -> list[search.Observation]:
        curves = store.curves(sweep.pk)
        members = store.members(sweep.pk)
        return [search.Observation.of(run.parameters, run.state, curves.get(run.pk, [])) for run in members]

    def _begin(
        self,
        store: Writer,
        sweep: Sweep,
        parameters: Mapping[str, Any],
        number: int,
        *,
        origin: str,
        display_name: str | None = None,
    ) -> Run:
        pk = store.insert(
            "runs",
            project=sweep.project,
            id=new_id(),
            sweep=sweep.pk,
            origin=origin,
            number=number,
            parameters=json.dumps(parameters),
            config=json.dumps({name: {"value": value} for name, value in parameters.items()}),
            state=RunState.PENDING.value,
            display_name=display_name or f"{_ADJECTIVES[number % len(_ADJECTIVES)]}-sweep-{number + 1}",
            created_at=self.clock.wall(),
        )
        config = read_config(sweep.config)
        if config.run_cap is not None and number + 1 >= config.run_cap:
            self._end_search(store, sweep, scheduler.SearchEnd.RUN_CAP)
        return _run(store, pk)

    def _hand_out(self, store: Writer, run: Run, agent: Agent, config: SweepConfig) -> Command:
        resumed = run.where is RunState.PREEMPTED
        run = self._changed(
            store,
            run,
            agent=agent.pk,
            hand_outs=1 if resumed else run.hand_outs + 1,
            started=0,
            exit_code=None,
            preempting=0,
            ended_at=None,
        )
        self.presence.handed_out(run.pk)
        self.conclude(store, run)
        logger.info("run %s handed out to agent %s, time %d", run.id, agent.name, run.hand_outs)
        return {
            "type": "resume" if resumed else "run",
            "run_id": run.id,
            "program": config.program,
            "args": {name: {"value": value} for name, value in run.chosen().items()},
        }

    def _end_search(self, store: Writer, sweep: Sweep, end: scheduler.SearchEnd) -> None:
        store.update("sweeps", sweep.pk, search_end=end.value)
        self.settle(store, _sweep(store, sweep.pk))

    # --- runs -------------------------------------------------------------------------------------------------------

    def heard(self, store: Writer, run: Run, **changes: Any) -> Run:
        """Take a sign of life from a run's trial, with what it changes."""
        self.presence.run_heard(run.pk)
        return self._changed(store, run, heartbeat_at=self.clock.wall(), **changes)

    def conclude(self, store: Writer, run: Run) -> Run:
        """Work out the run's state anew and record it if it has changed."""
        state = infer(self._facts(run), self.limits)
        if state is run.where:
            return run
        ended_at = self.clock.wall() if state.is_terminal else None
        logger.info("run %s is %s (was %s)", run.id, state, run.state)
        # From here on it is this server that knows how the run goes, whatever its import could not say.
        unknown = json.dumps([fact for fact in run.unknown_facts if fact == "created_at"])
        return self._changed(
            store, run, state=state.value, ended_at=ended_at, state_when_exported=None, unknown=unknown
        )

    def _facts(self, run: Run) -> Facts:
        return Facts(
            started=bool(run.started),
            exit_code=run.exit_code,
            preempting=bool(run.preempting),
            stop_recorded=run.stop_recorded,
            given_up=bool(run.given_up),
            handed_out=run.agent is not None,
            silent_s=self.presence.silent_s(run.pk),
            listed_s=self.presence.listed_s(run.pk),
            unlisted_s=self.presence.unlisted_s(run.pk),
        )

    def stop(
        self,
        store: Writer,
        run: Run,
        reason: str,
        *,
        band: int | None = None,
        value: float | None = None,
        threshold: float | None = None,
    ) -> Run:
        """Record that a run should end; the first reason stays."""
        if run.stop_recorded or (run.where.is_terminal and not run.is_waiting):
            return run
        self.presence.stop_recorded(run.pk)
        logger.info("run %s should stop: %s", run.id, reason)
        run = self._changed(
            store,
            run,
            stop_reason=reason,
            stop_at=self.clock.wall(),
            stop_band=band,
            stop_value=value,
            stop_threshold=threshold,
        )
        if run.where.is_terminal:  # preempted: it will not be handed out again
            return self._changed(store, run, state=RunState.KILLED.value)
        return self.conclude(store, run)

    def metric_logged(self, store: Writer, sweep: Sweep, values: Sequence[float]) -> None:
        """See what new values of the metric mean for the sweep: runs to stop, a target reached."""
        if sweep.where in (SweepState.FINISHED, SweepState.CANCELED):
            return
        config = read_config(sweep.config)
        if config.early_terminate is not None:
            # A run that its agent no longer lists has died by itself: a stop recorded now would hide a crash.
            alive = store.living_runs_of_sweep(sweep.pk)
            runs = [run for run in alive if self.presence.unlisted_s(run.pk) is None]
            by_key = {run.pk: run for run in runs}
            for stop in scheduler.early_stops(config, runs, store.curves(sweep.pk)):
                self.stop(
                    store,
                    by_key[int(stop.run)],
                    "hyperband",
                    band=stop.band,
                    value=stop.value,
                    threshold=stop.threshold,
                )
        if scheduler.reaches_target(config, values) and sweep.search_end != scheduler.SearchEnd.TARGET:
            self._end_search(store, sweep, scheduler.SearchEnd.TARGET)

    def look_for_target(self, store: Writer, sweep: Sweep) -> None:
        """End the sweep if a run that it has now, or a metric that it has now, is as good as was wanted."""
        values = [value for curve in store.curves(sweep.pk).values() for value in curve]
        if sweep.where not in (SweepState.FINISHED, SweepState.CANCELED) and scheduler.reaches_target(
            read_config(sweep.config), values
        ):
            self._end_search(store, sweep, scheduler.SearchEnd.TARGET)

    def look_around(self, store: Writer) -> None:
        """Conclude what silence means: runs that are lost, hand-outs that nobody took up, sweeps that are over."""
        for run in store.living_runs():
            if run.where is RunState.PENDING and run.sweep is not None and is_abandoned(self._facts(run), self.limits):
                self._reissue(store, run)
            else:
                self.conclude(store, run)
        for sweep in store.open_sweeps():
            self.settle(store, sweep)

    def has_something_to_conclude(self, store: Reader) -> bool:
        """Return whether ``look_around`` would change anything, without holding up the writer."""
        for run in store.living_runs():
            facts = self._facts(run)
            if infer(facts, self.limits) is not run.where or (
                run.sweep is not None and is_abandoned(facts, self.limits)
            ):
                return True
        return any(sweep.search_end is not None for sweep in store.open_sweeps())

    def _reissue(self, store: Writer, run: Run) -> None:
        logger.info("run %s was handed out %d times and never began", run.id, run.hand_outs)
        if run.stop_recorded:
            self.conclude(store, run)
        elif run.hand_outs >= self.limits.hand_outs:
            self.conclude(store, self._changed(store, run, given_up=1))
        else:
            self._changed(store, run, agent=None)

    def _changed(self, store: Writer, run: Run, **changes: Any) -> Run:
        store.update("runs", run.pk, **changes)
        return replace(run, **changes)


def checked(config: str) -> SweepConfig:
    """Return a sweep's config.

    Raises:
        Refused: with all its problems. As HTTP 400: at a GraphQL error the client sends the mutation four more times.
    """
    try:
        return parse(config)
    except SweepConfigError as error:
        raise Refused("the sweep was not taken: " + "; ".join(error.problems), status=400) from error


def new_id() -> str:
    """Return an id like the client's own: eight letters and digits."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(8))


def metric_value(row: Mapping[str, Any], name: str) -> float | None:
    """Return a history row's finite value of a metric; a dot in the name may also stand for nesting."""
    value: Any = row.get(name)
    if value is None and "." in name:
        value = row
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def redraw_points(store: Writer, sweep: int, run: Run, config: SweepConfig) -> None:
    """Draw the metric's values from the run's whole history again: the metric, or the run's sweep, has changed."""
    points = []
    if config.metric is not None:
        for line in store.numbered_history(run.pk):
            value = metric_value(json.loads(line.body), config.metric.name)
            if value is not None:
                points.append((line.number, value))
    store.put_points(sweep, run.pk, 0, run.history_lines, points)


def chosen_from(values: Mapping[str, Any], config: SweepConfig) -> dict[str, Any]:
    """Return of a trial's config what the sweep would have chosen."""
    chosen: dict[str, Any] = {}
    for path, _ in flatten(config.parameters):
        source: Any = values
        for name in path:
            source = source.get(name) if isinstance(source, Mapping) else None
        if source is None:
            continue
        inner = chosen
        for name in path[:-1]:
            inner = inner.setdefault(name, {})
        inner[path[-1]] = source
    return chosen


def _sweep(store: Reader, pk: int) -> Sweep:
    sweep = store.sweep_by_key(pk)
    assert sweep is not None, "a record points to a sweep that is not there"
    return sweep


def _run(store: Reader, pk: int) -> Run:
    run = store.run_by_key(pk)
    assert run is not None, "a record points to a run that is not there"
    return run
