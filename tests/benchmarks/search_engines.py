"""The search engines that bench_search.py compares, behind one interface: ask for a configuration, tell its outcome."""

from __future__ import annotations

import json
import subprocess
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import optuna
from search_surfaces import Outcome, Surface

from amc_server.bayes.observations import Observation
from amc_server.bayes.space import Axis, Space
from amc_server.scheduling.search import suggest
from amc_sweeps.grammar.parse import parse
from amc_sweeps.runs.crashed_runs import Policy

optuna.logging.set_verbosity(optuna.logging.ERROR)

Configuration = Mapping[str, Any]


class Engine(Protocol):
    """A search."""

    def ask(self) -> Configuration:
        """Return the next configuration."""

    def tell(self, config: Configuration, outcome: Outcome) -> None:
        """Take the outcome of a configuration that was asked for."""


class Ours:
    """The embedded server's search."""

    def __init__(
        self, surface: Surface, seed: int, *, policy: str = "auto", knows_causes: bool = False, method: str = "bayes"
    ) -> None:
        self._config = parse(surface.sweep(method))
        self._seed, self._policy, self._knows_causes = seed, Policy(policy), knows_causes
        self._runs: list[Observation] = []

    def ask(self) -> Configuration:
        number = len(self._runs)
        config = suggest(self._config, self._runs, seed=self._seed, number=number, policy=self._policy)
        assert config is not None
        return config

    def tell(self, config: Configuration, outcome: Outcome) -> None:
        is_true = self._knows_causes and outcome.crashed_by is not None and outcome.state != "killed"
        diagnosis = outcome.true_diagnosis if is_true else outcome.diagnosis
        self._runs.append(Observation(config, outcome.state, outcome.curve, diagnosis=diagnosis))


class Optuna:
    """Optuna's samplers; ``told`` says what they learn of a crash: nothing, its peak, or its curve as pruned."""

    def __init__(self, surface: Surface, seed: int, *, told: str = "ignored", sampler: str = "tpe") -> None:
        self._told = told
        self._space = Space(parse(surface.sweep()))
        self._axes = {".".join(axis.path): axis for axis in self._space.axes}
        self._distributions = {name: _distribution(axis) for name, axis in self._axes.items()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            chosen = (
                optuna.samplers.GPSampler(seed=seed, deterministic_objective=False)
                if sampler == "gp"
                else optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)
            )
        self._study = optuna.create_study(direction="maximize", sampler=chosen)

    def ask(self) -> Configuration:
        trial = self._study.ask(self._distributions)
        # The outcome comes as a trial of its own, as in a replay; a trial that is left running would count as pending.
        self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        params = trial.params
        place = [axis.places[params[name]] if axis.is_listed else params[name] for name, axis in self._axes.items()]
        return self._space.configuration(np.array(place))

    def tell(self, config: Configuration, outcome: Outcome) -> None:
        state = optuna.trial.TrialState.FAIL
        if outcome.state == "finished" or (self._told == "peak" and outcome.curve):
            state = optuna.trial.TrialState.COMPLETE
        elif (self._told == "pruned" or outcome.state == "killed") and outcome.curve:
            state = optuna.trial.TrialState.PRUNED
        place = self._space.place(config)
        if place is None:
            return
        values = zip(self._axes.items(), place.tolist(), strict=True)
        self._study.add_trial(
            optuna.trial.create_trial(
                state=state,
                params={name: axis.places.tolist().index(at) if axis.is_listed else at for (name, axis), at in values},
                distributions=self._distributions,
                value=max(outcome.curve) if state is optuna.trial.TrialState.COMPLETE else None,
                intermediate_values=dict(enumerate(outcome.curve if state is optuna.trial.TrialState.PRUNED else ())),
            )
        )


def _distribution(axis: Axis) -> optuna.distributions.BaseDistribution:
    """Return an axis as W&B itself maps it to Optuna: listed values are categories, ranges are numbers."""
    if not axis.is_listed:
        return optuna.distributions.FloatDistribution(0.0, 1.0)
    if axis.is_range:
        return optuna.distributions.IntDistribution(0, len(axis.places) - 1)
    return optuna.distributions.CategoricalDistribution(list(range(len(axis.places))))


class WandbSweeps:
    """W&B's own engine, which needs an environment of its own (numpy < 2)."""

    def __init__(self, surface: Surface, seed: int, *, python: str, impute: str | None = None) -> None:
        metric = {"name": "acc", "goal": "maximize", **({"impute": impute} if impute else {})}
        self._process = subprocess.Popen(
            [python, str(Path(__file__).parent / "wandb_sweeps_engine.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._send({"config": {**surface.sweep(), "metric": metric}, "seed": seed})

    def ask(self) -> Configuration:
        self._send({"ask": True})
        assert self._process.stdout is not None
        config: dict[str, Any] = json.loads(self._process.stdout.readline())
        return config

    def tell(self, config: Configuration, outcome: Outcome) -> None:
        self._send({"tell": dict(config), "state": outcome.state, "curve": outcome.curve})

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _send(self, message: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()


def engines(sweeps_python: str | None) -> dict[str, Callable[[Surface, int], Any]]:
    """Return every engine by name; W&B's own needs the Python of an environment with ``sweeps`` 0.3.0."""
    found: dict[str, Callable[[Surface, int], Any]] = {
        "ours (auto)": Ours,
        "ours: true causes": lambda surface, seed: Ours(surface, seed, knows_causes=True),
    }
    for policy in ("worst", "best", "latest", "ignore", "extrapolate"):
        found[f"ours: {policy}"] = lambda surface, seed, policy=policy: Ours(surface, seed, policy=policy)
    for told, name in (("ignored", "TPE: ignoring"), ("peak", "TPE: told the peak"), ("pruned", "TPE: told as pruned")):
        found[name] = lambda surface, seed, told=told: Optuna(surface, seed, told=told)
    found["Optuna GP"] = lambda surface, seed: Optuna(surface, seed, sampler="gp")
    if sweeps_python is not None:
        for impute, name in ((None, "W&B sweeps: default"), ("best", "W&B sweeps: best")):
            found[name] = lambda surface, seed, impute=impute: WandbSweeps(
                surface, seed, python=sweeps_python, impute=impute
            )
    found["random"] = lambda surface, seed: Ours(surface, seed, method="random")
    return found
