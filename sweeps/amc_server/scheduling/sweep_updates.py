"""What another config does to a sweep that has runs, said before it is taken.

``Coordinator.update_sweep`` carries it out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from amc_server.bayes.observations import STARTUP_RUNS
from amc_server.bayes.space import space_of
from amc_server.scheduling import scheduler
from amc_server.scheduling.metric_values import points_of
from amc_server.scheduling.prior_runs import fit, renewed_parameters
from amc_server.scheduling.seen import Seen
from amc_server.store.logged_values import swept_values
from amc_server.store.reader import Reader
from amc_server.store.records import Run, Sweep
from amc_sweeps.grammar.config_changes import changes, space_changes
from amc_sweeps.grammar.configurations import Grid, allows, value_key
from amc_sweeps.grammar.parse import parse
from amc_sweeps.grammar.sweep_config import Constant, SweepConfig, SweepConfigError, flatten
from amc_sweeps.number_formats import counted, listed
from amc_sweeps.runs.crashed_runs import policy_of
from amc_sweeps.runs.run_states import RunState
from amc_sweeps.values import MISSING, look_up

ENDED = (RunState.FINISHED, RunState.FAILED, RunState.CRASHED, RunState.KILLED)


class ProposedUpdate(NamedTuple):
    """What another config would change, in sentences."""

    problem: str | None  # why it is refused
    changes: Sequence[str] = ()  # of the config
    effects: Sequence[str] = ()  # on search, Hyperband, runs and the sweep's state


class _Known(NamedTuple):
    """A run that the search knows, under the new config."""

    configuration: Mapping[str, Any]
    state: RunState
    curve: Sequence[float]  # of the new metric


def propose(store: Reader, sweep: Sweep, config: str) -> ProposedUpdate:
    """Return what the sweep's change to another config (YAML) would do."""
    old = sweep.readable_config or SweepConfig("unreadable", {})
    try:
        new = parse(config)
    except SweepConfigError as error:
        return ProposedUpdate(f"the sweep was not taken: {'; '.join(error.problems)}")
    problem = scheduler.update_problem(sweep, None)
    if problem is not None:
        return ProposedUpdate(problem)
    runs = store.runs_of_sweep(sweep.pk)
    found = changes(old, new, [run.swept_values() for run in runs])
    if not found:
        return ProposedUpdate(None)
    curves = store.curves(sweep.pk)
    if new.metric != old.metric:
        curves = {run.pk: [value for _, value in points_of(store, run, new)] for run in runs}
    known = [_Known(renewed_parameters(run, new), run.state, curves.get(run.pk, ())) for run in runs]
    for run in store.prior_runs(sweep.pk):
        if run.sweep != sweep.pk:
            values = [value for _, value in points_of(store, run, new)]
            known.append(_Known(fit(run.config_values(), new)[0], run.state, values))
    effects = [
        *(_search_effects(old, new, known) if space_changes(old, new) else []),
        *_metric_effects(old, new, known),
        *_policy_effects(sweep, old, new),
        *_hyperband_effects(old, new, runs, curves),
        *(_run_effects(new, runs) if space_changes(old, new) else []),
        *_program_effects(old, new),
        *_end_effects(sweep, new, runs, known),
    ]
    return ProposedUpdate(None, found, effects)


def _search_effects(old: SweepConfig, new: SweepConfig, known: Sequence[_Known]) -> list[str]:
    if new.method == "random":
        return ["Search: random draws the next configurations from the new space."]
    if new.method == "grid":
        grid = Grid(new)
        had = len({value_key(swept_values(run.configuration, new)) for run in known if run.configuration in grid})
        return [
            f"Search: the new grid has {counted(grid.size, 'configuration')}. Runs have had {had:,} of them, "
            f"{grid.size - had:,} are to come."
        ]
    ended = [run for run in known if run.state in ENDED]
    inside = [run for run in ended if space_of(new).place(run.configuration) is not None]
    if not ended:
        return ["Search: no run has ended yet, so bayes has nothing to learn from."]
    others = (
        f" The others ({len(ended) - len(inside)}) have a value outside of the new space, or none for a new parameter."
        if len(inside) < len(ended)
        else ""
    )
    lines = [f"Search: bayes learns from {len(inside)} of {counted(len(ended), 'ended run')}.{others}"]
    if len(inside) < STARTUP_RUNS:
        lines.append(f"Search: with fewer than {STARTUP_RUNS} such runs bayes draws at random.")
    other = {name for run in inside for name in _other_constants(old, new, run.configuration)}
    if other:
        lines.append(
            f"Search: bayes still counts runs that had another {' and another '.join(sorted(other))}. If their results "
            "cannot be compared, create a new sweep."
        )
    return lines


def _other_constants(old: SweepConfig, new: SweepConfig, configuration: Mapping[str, Any]) -> list[str]:
    before = dict(flatten(old.parameters))
    constants = [(path, leaf) for path, leaf in flatten(new.parameters) if isinstance(leaf, Constant)]
    names = [".".join(path) for path, leaf in constants if before.get(path) != leaf]
    allowed = {".".join(path): leaf for path, leaf in constants}
    values = [(name, look_up(configuration, name, MISSING)) for name in names]
    return [name for name, value in values if value is not MISSING and not allows(allowed[name], value)]


def _metric_effects(old: SweepConfig, new: SweepConfig, known: Sequence[_Known]) -> list[str]:
    if new.metric is None or old.metric == new.metric:
        return []
    lines = []
    if old.metric is None or old.metric.name != new.metric.name:
        logged = sum(bool(run.curve) for run in known)
        lines.append(
            f"Metric: values of {new.metric.name} are read from what runs have logged. {logged} of "
            f"{counted(len(known), 'run')} logged any."
        )
    if old.metric is not None and old.metric.goal != new.metric.goal:
        better = "higher" if new.metric.goal == "maximize" else "lower"
        lines.append(f"Metric: {better} values are better from now on, for earlier runs, too.")
    return lines


def _policy_effects(sweep: Sweep, old: SweepConfig, new: SweepConfig) -> list[str]:
    """Say what another ``metric.impute`` or method does to what bayes learns from crashed runs."""
    if new.method != "bayes" or new.metric is None:
        return []
    before = policy_of(sweep.crashed_runs, old.metric.impute if old.metric else None)
    after = policy_of(sweep.crashed_runs, new.metric.impute)
    if old.metric is not None and new.metric.impute != old.metric.impute and sweep.crashed_runs is not None:
        return [f"Search: metric.impute has no effect: the sweep was created with --crashed-runs {sweep.crashed_runs}."]
    if before == after:
        return []
    return [f"Search: what bayes learns from crashed runs changes from {before} to {after}, for earlier runs, too."]


def _hyperband_effects(
    old: SweepConfig, new: SweepConfig, runs: Sequence[Run], curves: Mapping[int, Sequence[float]]
) -> list[str]:
    if new.early_terminate is None or (old.early_terminate == new.early_terminate and old.metric == new.metric):
        return []
    lines = [
        "Hyperband: a running run is judged at the highest band that it has passed, as soon as any run logs the metric "
        "again. Runs that were told to stop stay stopped."
    ]
    stops = scheduler.early_stops(new, {run.pk for run in runs if run.is_judged}, curves)
    if stops:
        names = listed([run.id for run in runs if run.pk in stops])
        lines.append(f"Hyperband: by what is logged now it stops {counted(len(stops), 'running run')}: {names}.")
    return lines


def _run_effects(new: SweepConfig, runs: Sequence[Run]) -> list[str]:
    leaves = flatten(new.parameters)
    lines = []
    alive = [run for run in runs if run.state.is_alive and not run.is_waiting]
    if alive:
        other = sum(not all(_fits(leaf, path, run.swept_values()) for path, leaf in leaves) for run in alive)
        lines.append(
            f"Runs: living runs go on with their own values: {counted(len(alive), 'run')}, {other} of them outside of "
            "the new space."
        )
    waiting = sum(run.is_waiting for run in runs)
    if waiting:
        lines.append(
            f"Runs: queued and preempted runs ({waiting}) are handed out before anything new, with their own values."
        )
    return lines


def _fits(leaf: Any, path: tuple[str, ...], values: Mapping[str, Any]) -> bool:
    value = look_up(values, ".".join(path), MISSING)
    return value is not MISSING and allows(leaf, value)


def _program_effects(old: SweepConfig, new: SweepConfig) -> list[str]:
    lines = []
    if old.program != new.program:
        lines.append("Program: the next run that is handed out gets the new program.")
    if old.command != new.command:
        lines.append("Command: an agent reads it when it starts. Restart the agents, or they keep the old one.")
    return lines


def _end_effects(sweep: Sweep, new: SweepConfig, runs: Sequence[Run], known: Sequence[_Known]) -> list[str]:
    if sweep.is_closed:
        return [f"State: the sweep is finished and stays so. To hand out runs again: amc-sweep resume {sweep.id}"]
    if scheduler.reaches_target(new, [value for run in known for value in run.curve]):
        return ["State: a run has reached metric.target, so the sweep finishes at once."]
    begun = sum(run.origin in ("search", "queue") for run in runs)
    alive = sum(run.state.is_alive or run.is_waiting for run in runs)
    after = " when the runs that have begun have ended" if alive else ""
    if new.run_cap is not None and begun >= new.run_cap:
        return [
            f"State: run_cap is {new.run_cap:,}, and the sweep has begun {counted(begun, 'run')}. No new run begins, "
            f"and the sweep finishes{after}."
        ]
    seen = Seen(new)
    for run in known:
        seen.add(0, json.dumps(run.configuration), is_begun=False)
    if seen.is_exhausted():
        return [f"State: the new grid has nothing left to try, so the sweep finishes{after}."]
    return []
