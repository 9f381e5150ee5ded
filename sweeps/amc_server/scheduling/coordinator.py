"""Sweeps and their agents: carries out what scheduler and search decide.

Every method runs within the caller's transaction.
"""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from amc_server.bayes.observations import Observation
from amc_server.bayes.space import space_of
from amc_server.clock import Clock
from amc_server.errors import Refused
from amc_server.ids import new_id
from amc_server.scheduling import points, scheduler, search
from amc_server.scheduling.created_sweeps import REPEATED_S, CreatedSweeps
from amc_server.scheduling.last_heard import LastHeard
from amc_server.scheduling.metric_values import points_of
from amc_server.scheduling.prior_runs import fit, renewed_parameters
from amc_server.scheduling.run_ends import RunEnds
from amc_server.scheduling.run_updates import RunUpdates
from amc_server.scheduling.seen import Seen
from amc_server.scheduling.state_inference import Limits
from amc_server.store.reader import Reader
from amc_server.store.records import Agent, PriorRun, Project, Run, Sweep
from amc_server.store.writer import Writer
from amc_sweeps.grammar.config_changes import same_config
from amc_sweeps.grammar.parse import parse
from amc_sweeps.grammar.sweep_config import SweepConfig, SweepConfigError
from amc_sweeps.number_formats import counted, listed, quoted
from amc_sweeps.runs.crashed_runs import option_problem
from amc_sweeps.runs.run_states import RunState, SweepState

logger = logging.getLogger(__name__)

_ADJECTIVES = ("brisk", "calm", "clear", "eager", "fair", "fleet", "keen", "lucid", "quiet", "steady", "vivid", "warm")

Command = dict[str, Any]


class Coordinator:
    """Sweeps, their agents, and the hand-out of runs; ``runs`` keeps the state of every run."""

    def __init__(self, clock: Clock, *, limits: Limits | None = None, seed: int | None = None) -> None:
        self.clock = clock
        self.last_heard = LastHeard(clock)
        self._limits = limits or Limits()
        self.created_sweeps = CreatedSweeps(clock)
        self.runs = RunUpdates(clock, self.last_heard, self._limits)
        self._seed = seed
        self._searches: dict[int, Seen] = {}  # by sweep: the configurations that it has had
        self._ends = RunEnds()
        self._generation = 0  # of the writer, when ``_searches`` and ``_ends`` were read

    # --- sweeps -----------------------------------------------------------------------------------------------------

    def create_sweep(self, store: Writer, project: Project, config: str, **columns: Any) -> Sweep:
        """Register a sweep.

        Raises:
            Refused: with every violation of the grammar; nothing is registered.
        """
        parsed = _parse_or_refuse(config)
        if columns.get("shuffle") and parsed.method != "grid":
            raise Refused(f"shuffle: only a grid has an order, and {parsed.method} draws at random anyway", status=400)
        problem = option_problem(columns.get("crashed_runs"), parsed.method)
        if problem is not None:
            raise Refused(problem, status=400)
        now = self.clock.wall()
        pk = store.insert(
            "sweeps",
            project=project.pk,
            id=new_id(),
            state=SweepState.PENDING.value,
            config=config,
            created_at=now,
            updated_at=now,
            **{"display_name": parsed.name, "description": parsed.description, "seed": self.sweep_seed(store)}
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
        self,
        store: Writer,
        sweep: Sweep,
        *,
        config: str | None,
        state: str | None,
        expected: str | None = None,
        author: str | None = None,
        **columns: Any,
    ) -> Sweep:
        """Change what is given; None leaves a value as it is.

        Args:
            expected: the config that the new one was made from.
            author: who changes the config.

        Raises:
            Refused: the config is invalid, the present one is not ``expected``, or the sweep was cancelled.
        """
        changes = {name: value for name, value in columns.items() if value is not None}
        if config is not None and config != sweep.config:
            self._change_config(store, sweep, config, expected, author)
        store.update("sweeps", sweep.pk, updated_at=self.clock.wall(), **changes)
        if state is not None:
            self.set_sweep_state(store, _sweep(store, sweep.pk), state)
        return _sweep(store, sweep.pk)

    def _change_config(
        self, store: Writer, sweep: Sweep, config: str, expected: str | None, author: str | None
    ) -> None:
        """Go on with another config: the runs stay, and a note keeps the config that they were drawn from."""
        old, new = sweep.readable_config, _parse_or_refuse(config)
        if old is not None and same_config(old, new):
            return
        problem = scheduler.update_problem(sweep, expected)
        if problem is not None:
            raise Refused(problem, status=400)
        store.insert("sweep_updates", sweep=sweep.pk, at=self.clock.wall(), author=author, config=sweep.config)
        name, description = (old.name, old.description) if old else (None, None)
        renamed = {"display_name": new.name} if new.name not in (None, name) else {}
        described = {"description": new.description} if new.description not in (None, description) else {}
        store.update("sweeps", sweep.pk, config=config, search_end=None, **renamed, **described)
        sweep = _sweep(store, sweep.pk)
        for run in store.runs_of_sweep(sweep.pk):
            store.update("runs", run.pk, parameters=json.dumps(renewed_parameters(run, new)))
            if old is None or new.metric != old.metric:
                points.copy_all(store, sweep, run)
        for run in store.prior_runs(sweep.pk):
            if run.sweep != sweep.pk:
                self._adopt(store, sweep, run)
        self._searches.pop(sweep.pk, None)
        self.check_target(store, sweep)
        seen, sweep = self._seen(store, sweep, scheduler.config_of(sweep)), _sweep(store, sweep.pk)
        if sweep.is_closed:
            return
        if new.run_cap is not None and seen.begun >= new.run_cap:
            self._end_search(store, sweep, scheduler.SearchEnd.RUN_CAP)
        elif seen.is_exhausted():
            self._end_search(store, sweep, scheduler.SearchEnd.EXHAUSTED)

    def set_sweep_state(self, store: Writer, sweep: Sweep, text: str) -> None:
        """Pause, resume, stop or cancel. Stopping lets living runs end by themselves, cancelling ends them."""
        try:
            state = SweepState(text.upper())
        except ValueError:
            allowed = ", ".join(SweepState)
            raise Refused(f"a sweep cannot be {quoted(text)}; its states are {allowed}") from None
        if state is SweepState.RUNNING and not store.agents(sweep.pk):
            state = SweepState.PENDING
        search_end = None if state.hands_out_runs else sweep.search_end
        store.update("sweeps", sweep.pk, state=state.value, search_end=search_end, updated_at=self.clock.wall())
        if state is SweepState.CANCELED:
            for run in store.runs_of_sweep(sweep.pk):
                if run.state.is_alive or run.is_waiting:
                    self.runs.stop(store, run, "cancelled")
        self._finish_if_done(store, _sweep(store, sweep.pk))

    def adopt(self, store: Writer, sweep: Sweep, runs: Sequence[Run]) -> list[str]:
        """Let the sweep's search learn from earlier runs; return a sentence for each run that it cannot use.

        A run without a sweep becomes part of this one. A run of another sweep stays there.
        """
        warnings = []
        for run in runs:
            if run.sweep == sweep.pk:
                continue
            problems, is_used = self._adopt(store, sweep, run)
            if problems:
                use = "bayes counts its result all the same." if is_used else "The search cannot learn from this run."
                warnings.append(f"prior run {run.id}: {' and '.join(problems)}. {use}")
        self._searches.pop(sweep.pk, None)
        self.check_target(store, _sweep(store, sweep.pk))
        return warnings

    def _adopt(self, store: Writer, sweep: Sweep, run: Run) -> tuple[list[str], bool]:
        """Store what the search may learn from a run; return what does not fit, and whether bayes learns from it."""
        config = scheduler.config_of(sweep)
        parameters, problems = fit(run.config_values(), config)
        values = [value for _, value in points_of(store, run, config)]
        if config.metric is not None and not values:
            problems.append(f"it has no finite {config.metric.name}")
        if run.sweep is None and run.project == sweep.project:
            store.update("runs", run.pk, sweep=sweep.pk, origin="prior", parameters=json.dumps(parameters))
            points.copy_all(store, sweep, run)
        else:
            store.put_prior_run(sweep.pk, run.pk, json.dumps(parameters), values)
        return problems, bool(values) and config.method == "bayes" and space_of(config).place(parameters) is not None

    def adopt_sweep(self, store: Writer, sweep: Sweep, prior: Sweep) -> str:
        """Let the sweep's search learn from the runs of another one; return how many it can use, and why not more."""
        runs = store.runs_of_sweep(prior.pk)
        reasons: Counter[str] = Counter()
        for run in runs:
            problems, is_used = self._adopt(store, sweep, run)
            if problems and not is_used:
                reasons[" and ".join(problems)] += 1
        self._searches.pop(sweep.pk, None)
        self.check_target(store, _sweep(store, sweep.pk))
        if not runs:
            return f"prior sweep {prior.id}: it has no runs, so the search learns nothing from it."
        others = listed([f"{reason} ({counted(count, 'run')})" for reason, count in reasons.most_common()])
        used = len(runs) - reasons.total()
        return f"prior sweep {prior.id}: the search uses {used} of {counted(len(runs), 'run')}" + (
            f". Why not the others: {others}." if others else "."
        )

    def enqueue(self, store: Writer, sweep: Sweep, config: Mapping[str, Any], display_name: str | None) -> Run:
        """Queue a configuration; it is handed out before anything that the search proposes.

        A finished sweep goes on until the queued runs have ended; its search stays ended. A request with the name and
        the values of a queued run is the request that queued it, sent again.
        """
        if sweep.state is SweepState.CANCELED:
            raise Refused(f"sweep {sweep.id} is {sweep.state.lower()}: resume it before a run is queued")
        values = {
            name: entry["value"] if isinstance(entry, Mapping) and set(entry) <= {"value", "desc"} else entry
            for name, entry in config.items()
        }
        if display_name is not None:
            since = self.clock.wall() - REPEATED_S[1]
            queued = store.queued_run(sweep.pk, display_name, json.dumps(values), since)
            if queued is not None:
                return queued
        begun = self._seen(store, sweep, scheduler.config_of(sweep)).begun
        if sweep.state is SweepState.FINISHED:
            sweep = self._reopen(store, sweep)
        return self._begin(store, sweep, values, begun, origin="queue", display_name=display_name)

    def _reopen(self, store: Writer, sweep: Sweep) -> Sweep:
        """Let a finished sweep hand out queued runs, but no new configurations."""
        ended_by_search = sweep.search_end in (scheduler.SearchEnd.EXHAUSTED, scheduler.SearchEnd.RUN_CAP)
        store.update(
            "sweeps",
            sweep.pk,
            state=(SweepState.RUNNING if store.agents(sweep.pk) else SweepState.PENDING).value,
            search_end=sweep.search_end if ended_by_search else scheduler.SearchEnd.ENDED.value,
            updated_at=self.clock.wall(),
        )
        return _sweep(store, sweep.pk)

    def _finish_if_done(self, store: Writer, sweep: Sweep) -> None:
        """Finish the sweep if its search and all of its runs have ended; give up runs that no agent will start."""
        if sweep.is_closed:
            for run in store.living_runs_of_sweep(sweep.pk):
                if run.state is RunState.PENDING and run.agent is None and not run.stop_recorded:
                    self.runs.update_state(store, self.runs.update(store, run, given_up=1))
            return
        if sweep.search_end is None:
            return
        if sweep.search_end == scheduler.SearchEnd.TARGET or store.is_over(sweep.pk):
            store.update("sweeps", sweep.pk, state=SweepState.FINISHED.value, updated_at=self.clock.wall())
            logger.info("sweep %s finished: %s", sweep.id, sweep.search_end)
            self._finish_if_done(store, _sweep(store, sweep.pk))

    # --- agents -----------------------------------------------------------------------------------------------------

    def create_agent(self, store: Writer, sweep: Sweep, host: str) -> Agent:
        """Register an agent; the first one sets a pending sweep running.

        Raises:
            Refused: the sweep's config cannot be read.
        """
        scheduler.config_of(sweep)
        pk = store.insert("agents", sweep=sweep.pk, name=new_id(), host=host, created_at=self.clock.wall())
        if sweep.state is SweepState.PENDING:
            store.update("sweeps", sweep.pk, state=SweepState.RUNNING.value, updated_at=self.clock.wall())
        agent = store.agent_by_key(pk)
        assert agent is not None
        return agent

    def agent_is_alive(self, agent: int) -> bool:
        """Return whether the agent has sent a heartbeat recently."""
        age = self.last_heard.agent_silent_s(agent)
        return age is not None and age < self._limits.unlisted_s

    def heartbeat(self, store: Writer, agent: Agent, listed: Collection[str]) -> list[Command]:
        """Record which of its runs an agent lists as alive, and return the commands for it.

        The most important command comes first: agents of a Python function read only one.
        """
        now = self.clock.wall()
        store.update("agents", agent.pk, heartbeat_at=now)
        store.update("sweeps", agent.sweep, heartbeat_at=now)
        runs = store.living_runs_of_agent(agent, listed)
        own_runs = [run for run in runs if run.agent == agent.pk]
        self.last_heard.agent_heard(
            agent.pk,
            listed=[run.pk for run in own_runs if run.id in listed],
            unlisted=[run.pk for run in own_runs if run.id not in listed],
        )
        own_runs = [self.runs.update_state(store, run) for run in own_runs]
        commands: list[Command] = [
            {"type": "stop", "run_id": run.id} for run in runs if run.id in listed and self._agent_must_stop(run)
        ]
        self._finish_if_done(store, _sweep(store, agent.sweep))
        return commands or ([] if listed else self._next_run(store, agent, own_runs))

    def _agent_must_stop(self, run: Run) -> bool:
        if not run.stop_recorded:
            return False
        stop_s, delivered_s = self.last_heard.stop_s(run.pk), self.last_heard.delivered_s(run.pk)
        return scheduler.agent_must_stop(stop_s=stop_s, delivered_s=delivered_s, limits=self._limits)

    def _next_run(self, store: Writer, agent: Agent, own_runs: Sequence[Run]) -> list[Command]:
        """Return the command for an agent that works on no run; none lets it wait.

        An agent whose run never began gets that run again, because the reply may have been lost. If the agent asks at
        the pace of a client that got the reply, the trial may have died before it began. Then another run goes first.
        """
        sweep = _sweep(store, agent.sweep)
        if sweep.is_closed:
            return [{"type": "exit"}]
        if sweep.problem is not None:
            # After "exit" the agent only logs "Run ... not running": the one text of ours that it shows.
            reason = f"of sweep {sweep.id} cannot begin ({sweep.problem}) and is"
            return [{"type": "exit"}, {"type": "stop", "run_id": reason}]
        config = scheduler.config_of(sweep)
        unbegun = next((run for run in own_runs if self._may_be_lost(run)), None)
        is_doubted = unbegun is not None and self.last_heard.count_request(unbegun.pk) > 1
        decision = scheduler.decide(
            sweep.state,
            config,
            search_ended=sweep.search_end is not None,
            repeated=None if is_doubted else unbegun,
            waiting=self._waiting_run(store, sweep),
            begun=self._seen(store, sweep, config).begun,
            is_over=store.is_over(sweep.pk),
        )
        if isinstance(decision, scheduler.Leave):
            if not sweep.is_closed:  # a sweep that had reached its run_cap was resumed, and nothing was queued
                self._end_search(store, sweep, scheduler.SearchEnd.RUN_CAP)
            return [{"type": "exit"}]
        if isinstance(decision, scheduler.Begin):
            seen = self._seen(store, sweep, config)
            observations = self._observations(store, sweep) if config.method == "bayes" else []
            parameters = search.suggest(
                config, observations, seed=sweep.seed, number=decision.number, seen=seen, policy=sweep.policy
            )
            if parameters is None:
                self._end_search(store, sweep, scheduler.SearchEnd.EXHAUSTED)
                return [{"type": "exit"}] if store.is_over(sweep.pk) else []
            run = self._begin(store, sweep, parameters, decision.number, origin="search")
            if self._seen(store, sweep, config).is_exhausted():
                self._end_search(store, sweep, scheduler.SearchEnd.EXHAUSTED)
            decision = scheduler.HandOut(run)
        if isinstance(decision, scheduler.HandOut):
            if unbegun is not None and unbegun.pk != decision.run.pk:
                self.runs.update(store, unbegun, agent=None)
            return [self._hand_out(store, decision.run, agent, config)]
        return []

    def _waiting_run(self, store: Writer, sweep: Sweep) -> Run | None:
        """Return the oldest run that may be handed out; give up those of which the parameters cannot be read."""
        while (run := store.waiting_run(sweep.pk)) is not None and "parameters" in run.problems:
            logger.warning("run %s is given up: its parameters are unreadable: %s", run.id, run.problems["parameters"])
            self.runs.update_state(store, self.runs.update(store, run, given_up=1))
        return run

    def _may_be_lost(self, run: Run) -> bool:
        """Return whether the agent may never have got the reply that gave it the run."""
        if "parameters" in run.problems:
            return False
        return run.state is RunState.PENDING and not run.stop_recorded and self.last_heard.listed_s(run.pk) is None

    def load_searches(self, store: Writer) -> None:
        """Load the data for the next suggestion of every open sweep; after a start they are only in the database."""
        for sweep in store.open_sweeps():
            try:
                config = scheduler.config_of(sweep)
                seen = self._seen(store, sweep, config)
                if config.method == "bayes":
                    runs = self._observations(store, sweep)
                    search.suggest(config, runs, seed=0, number=0, seen=seen, policy=sweep.policy)
            except Exception:  # the other sweeps must not wait for their first suggestion because of this one
                logger.exception("the search of sweep %s could not be prepared", sweep.id)

    def _seen(self, store: Writer, sweep: Sweep, config: SweepConfig) -> Seen:
        """Return which configurations the sweep has had. Only the runs since the last call are read."""
        if self._generation != store.generation:
            self._searches.clear()
            self._ends = RunEnds()
            self._generation = store.generation
        seen = self._searches.get(sweep.pk)
        if seen is None or seen.config is not config:
            shuffle = sweep.seed if sweep.shuffle else None
            seen = self._searches[sweep.pk] = Seen(config, shuffle=shuffle)
            for prior in store.priors_elsewhere(sweep.pk):
                seen.add(0, prior.parameters, is_begun=False)
        for pk, parameters, is_begun in store.members_since(sweep.pk, seen.newest):
            seen.add(pk, parameters, is_begun=is_begun)
        return seen

    def _observations(self, store: Reader, sweep: Sweep) -> list[Observation]:
        """Return what the search may learn from: prior runs of other sweeps, then the sweep's own runs."""
        elsewhere = store.priors_elsewhere(sweep.pk)
        curves = dict(self._prior_curves(store, sweep, elsewhere)) if elsewhere else {}
        members = store.members(sweep.pk)
        curves |= store.curves(sweep.pk)
        runs = [(prior.parameters, prior.run) for prior in elsewhere] + [(run.parameters, run) for run in members]
        ends = self._ends.diagnoses(store, [run for _, run in runs], curves)
        return [
            search.observation(parameters, run.state, curves.get(run.pk, ()), ends.get(run.pk))
            for parameters, run in runs
        ]

    @staticmethod
    def _prior_curves(
        store: Reader, sweep: Sweep, elsewhere: Sequence[PriorRun]
    ) -> Iterator[tuple[int, Sequence[float]]]:
        """Yield the key and the curve of each prior run; without its curve, what was stored of it at its adoption."""
        config = scheduler.config_of(sweep)
        whole: dict[int | None, Mapping[int, Sequence[float]]] = {None: {}}
        for prior in elsewhere:
            if prior.sweep not in whole:
                other = store.sweep_by_key(prior.sweep or 0)
                other_config = other.readable_config if other else None
                is_same = None not in (config.metric, other_config and other_config.metric) and (
                    config.metric.name == other_config.metric.name  # type: ignore[union-attr]
                )
                whole[prior.sweep] = store.curves(prior.sweep or 0) if is_same else {}
            yield prior.run.pk, whole[prior.sweep].get(prior.run.pk, prior.values)

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
        run_cap = scheduler.config_of(sweep).run_cap
        if run_cap is not None and number + 1 >= run_cap:
            self._end_search(store, sweep, scheduler.SearchEnd.RUN_CAP)
        return _run(store, pk)

    def _hand_out(self, store: Writer, run: Run, agent: Agent, config: SweepConfig) -> Command:
        is_first = run.state is RunState.PREEMPTED or run.hand_outs == 0
        is_counted = is_first or self.runs.hand_out_failed(run)
        run = self.runs.update(
            store,
            run,
            agent=agent.pk,
            hand_outs=1 if is_first else run.hand_outs + is_counted,
            started=0,
            exit_code=None,
            preempting=0,
            ended_at=None,
            leased_until=None,
        )
        self.last_heard.handed_out(run.pk, agent.pk, is_counted=is_counted)
        self.runs.update_state(store, run)
        logger.info("run %s handed out to agent %s, time %d", run.id, agent.name, run.hand_outs)
        return {
            "type": "run" if run.heartbeat_at is None else "resume",
            "run_id": run.id,
            "program": config.program,
            "args": {name: {"value": value} for name, value in run.swept_values().items()},
        }

    def _end_search(self, store: Writer, sweep: Sweep, end: scheduler.SearchEnd) -> None:
        store.update("sweeps", sweep.pk, search_end=end.value)
        self._finish_if_done(store, _sweep(store, sweep.pk))

    # --- values and silence -----------------------------------------------------------------------------------------

    def metric_logged(self, store: Writer, sweep: Sweep, values: Sequence[float]) -> None:
        """Act on new values of the metric: stop runs by Hyperband, end a search that reached its target."""
        if sweep.is_closed:
            return
        config = scheduler.config_of(sweep)
        if config.early_terminate is not None:
            # A run that its agent no longer lists has died. A stop recorded for it would hide the crash.
            runs = {run for run in store.judged_runs(sweep.pk) if self.last_heard.unlisted_s(run) is None}
            stops = scheduler.early_stops(config, runs, store.curves(sweep.pk))
            for key, stop in stops.items():
                run = _run(store, key)
                self.runs.stop(store, run, "hyperband", band=stop.band, value=stop.value, threshold=stop.threshold)
        ends = (scheduler.SearchEnd.TARGET, scheduler.SearchEnd.ENDED)
        if scheduler.reaches_target(config, values) and sweep.search_end not in ends:
            self._end_search(store, sweep, scheduler.SearchEnd.TARGET)

    def summary_changed(self, store: Writer, run: Run) -> None:
        """Act on a summary that was changed through the API."""
        sweep = store.sweep_by_key(run.sweep or 0)
        if sweep is None:
            return
        values = points.add_summary(store, sweep, run, run.summary_values, has_new_rows=False)
        if values:
            self.metric_logged(store, sweep, values)

    def check_target(self, store: Writer, sweep: Sweep) -> None:
        """End the sweep if one of its runs has reached the target; after a change of its runs or of its metric."""
        values = [value for curve in store.curves(sweep.pk).values() for value in curve]
        values += [value for prior in store.priors_elsewhere(sweep.pk) for value in prior.values]
        config = sweep.readable_config
        if config is not None and not sweep.is_closed and scheduler.reaches_target(config, values):
            self._end_search(store, sweep, scheduler.SearchEnd.TARGET)

    def check_timeouts(self, store: Writer) -> None:
        """Record lost runs, reissue runs that nobody started, and finish sweeps that are over."""
        for run in store.living_runs():
            self.runs.check_timeout(store, run)
        for sweep in store.open_sweeps():
            self._finish_if_done(store, sweep)

    def has_timeouts(self, store: Reader) -> bool:
        """Return whether ``check_timeouts`` may change anything; this needs no writer."""
        return any(self.runs.has_timeout(run) for run in store.living_runs()) or any(
            sweep.search_end is not None for sweep in store.open_sweeps()
        )


def _parse_or_refuse(config: str) -> SweepConfig:
    """Return the parsed config.

    Raises:
        Refused: with all problems, as HTTP 400: after a GraphQL error the client sends the mutation four more times.
    """
    try:
        return parse(config)
    except SweepConfigError as error:
        raise Refused("the sweep was not taken: " + "; ".join(error.problems), status=400) from error


def _run(store: Reader, pk: int) -> Run:
    run = store.run_by_key(pk)
    assert run is not None
    return run


def _sweep(store: Reader, pk: int) -> Sweep:
    sweep = store.sweep_by_key(pk)
    assert sweep is not None
    return sweep
