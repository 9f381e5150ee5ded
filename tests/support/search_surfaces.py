"""Surfaces with a known best value, on which searches are compared: simulated training, and test functions.

A run of a surface gives what a server would have of it: state, curve, and the evidence about its end, of which a share
is wrong. The truth stays beside it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import training_surface as training
from training_surface import BATCH_GAIN, EPOCHS, LAYER_GAIN, Crashes

from amc_sweeps.runs.causes import Diagnosis, EndReason, Evidence, classify

MISLABELLED = 0.15  # share of crashes whose evidence points to the other cause
METRIC = {"name": "acc", "goal": "maximize"}

# What the server has of a crash, and how often: exit code, reason, log.
_CRASHED = Evidence("crashed")
_EVIDENCE: Mapping[str, Sequence[tuple[float, Evidence]]] = {
    "configuration": (
        (0.5, Evidence("failed", exit_code=80, end_reason=EndReason.DIVERGED.value)),
        (0.3, Evidence("failed", exit_code=1, log_tail="RuntimeError: CUDA out of memory. Tried to allocate 2 GiB")),
        (0.2, Evidence("failed", exit_code=1, log_tail="RuntimeError: shapes cannot be multiplied")),
    ),
    "machine": (
        (0.5, _CRASHED),
        (0.2, Evidence("failed", exit_code=137)),
        (0.2, Evidence("failed", exit_code=1, log_tail="OSError: [Errno 28] No space left on device")),
        (0.1, Evidence("failed", exit_code=1, log_tail="RuntimeError: stream closed")),
    ),
}


@dataclass(frozen=True)
class Outcome:
    """One run: what a server has of it, and the truth."""

    state: str
    curve: tuple[float, ...]
    diagnosis: Diagnosis | None  # what the server concludes of a crash
    attained: float  # the noise-free value at the end
    crashed_by: str | None = None  # the truth: configuration, machine
    clean: tuple[float, ...] = ()

    @property
    def true_diagnosis(self) -> Diagnosis | None:
        """What a server that knows the truth would conclude."""
        return None if self.crashed_by is None else classify(_EVIDENCE[self.crashed_by][0][1])

    def stopped_at(self, band: int) -> Outcome:
        """Return the run as it is after a stop by Hyperband at a band."""
        diagnosis = classify(Evidence("killed", stop_recorded=True, stop_reason="hyperband"))
        return replace(
            self, state="killed", curve=self.curve[:band], diagnosis=diagnosis, attained=self.clean[band - 1]
        )


@dataclass(frozen=True)
class Surface:
    """A search problem; higher values are better."""

    name: str
    parameters: Mapping[str, Any]  # as in a sweep file
    best: float
    run: Callable[[Mapping[str, Any], np.random.Generator], Outcome]

    def sweep(self, method: str = "bayes") -> dict[str, Any]:
        """Return the sweep file's mapping."""
        return {"method": method, "metric": dict(METRIC), "parameters": dict(self.parameters)}


def train(config: Mapping[str, Any], rng: np.random.Generator, crashes: Crashes) -> Outcome:
    """Simulate one training; the draws of the random numbers do not depend on the configuration."""
    clean = training.clean_curve(config)
    curve = training.noisy(clean, rng)
    by_config, by_machine, is_mislabelled, which = rng.uniform(size=4)
    end = int(rng.integers(15, EPOCHS))
    cause = None
    if by_config < training.crash_probability(config, crashes):
        cause = "configuration"
    elif by_machine < crashes.machine:
        cause = "machine"
    if cause is None:
        return Outcome("finished", tuple(curve.tolist()), None, float(clean[-1]), clean=tuple(clean.tolist()))
    other = "machine" if cause == "configuration" else "configuration"
    evidence = _pick(_EVIDENCE[other if is_mislabelled < MISLABELLED else cause], float(which))
    shown = tuple(curve[:end].tolist())
    return Outcome(evidence.state, shown, classify(evidence), float(clean[end - 1]), cause, tuple(clean.tolist()))


def _pick(choices: Sequence[tuple[float, Evidence]], at: float) -> Evidence:
    for share, evidence in choices:
        if at < share:
            return evidence
        at -= share
    return choices[-1][1]


def training_surface(name: str, crashes: Crashes) -> Surface:
    """Return the simulated training with its crashes."""
    parameters = {key: value for key, value in training.SWEEP["parameters"].items() if key != "epochs"}
    best = max(
        training.final_accuracy({**config, "max_lr": 10 ** training.best_log_lr(config)})
        for layer, batch, curriculum in itertools.product(LAYER_GAIN, BATCH_GAIN, (True, False))
        if (config := {"snr_layer": layer, "batch": batch, "curriculum": curriculum})
    )
    return Surface(name, parameters, best, lambda config, rng: train(config, rng, crashes))


def _function(name: str, parameters: Mapping[str, Any], best: float, value: Callable[..., float]) -> Surface:
    def run(config: Mapping[str, Any], rng: np.random.Generator) -> Outcome:
        result = value(*(config[key] for key in parameters))
        return Outcome("finished", (result,), None, result, clean=(result,))

    return Surface(name, parameters, best, run)


def smooth(seed: int) -> Surface:
    """Return a bowl in four dimensions with weak interactions; its centre follows from the seed."""
    centre = np.random.default_rng(seed).uniform(0.15, 0.85, 4)

    def value(*x: float) -> float:
        away = np.array(x) - centre
        bowl = -float((np.array([6, 4, 2, 1]) * away**2).sum()) - 2 * away[0] * away[1]
        return float(bowl + 0.3 * math.sin(5 * away[2]) * away[3])

    parameters = {f"x{axis}": {"min": 0.0, "max": 1.0} for axis in range(4)}
    return _function("smooth 4-d", parameters, 0.0, value)


_ALPHA = np.array([1.0, 1.2, 3.0, 3.2])
_A = np.array(
    [[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14]]
)
_P = 1e-4 * np.array(
    [
        [1312, 1696, 5569, 124, 8283, 5886],
        [2329, 4135, 8307, 3736, 1004, 9991],
        [2348, 1451, 3522, 2883, 3047, 6650],
        [4047, 8828, 8732, 5743, 1091, 381],
    ]
)


def hartmann6() -> Surface:
    """Return Hartmann's function of six variables, negated. Source: Dixon & Szegö (1978)."""

    def value(*x: float) -> float:
        return float(_ALPHA @ np.exp(-(_A * (np.array(x) - _P) ** 2).sum(axis=1)))

    return _function("Hartmann6", {f"x{axis}": {"min": 0.0, "max": 1.0} for axis in range(6)}, 3.32237, value)


def branin() -> Surface:
    """Return Branin's function, negated. Source: Dixon & Szegö (1978)."""

    def value(a: float, b: float) -> float:
        inner = b - 5.1 / (4 * math.pi**2) * a**2 + 5 / math.pi * a - 6
        return -(inner**2) - 10 * (1 - 1 / (8 * math.pi)) * math.cos(a) - 10

    return _function("Branin", {"a": {"min": -5.0, "max": 10.0}, "b": {"min": 0.0, "max": 15.0}}, -0.397887, value)


def discrete() -> Surface:
    """Return a space of 12 configurations with noise between equal runs."""
    values = {"a": [64, 128, 256, 512], "b": ["adam", "sgd", "lion"]}

    def run(config: Mapping[str, Any], rng: np.random.Generator) -> Outcome:
        place = values["a"].index(config["a"]), values["b"].index(config["b"])
        clean = 70 - 0.8 * (place[0] - 2) ** 2 - 0.7 * (place[1] - 1) ** 2 + 0.5 * (place == (2, 1))
        return Outcome("finished", (clean + float(rng.normal(0, 0.3)),), None, clean, clean=(clean,))

    parameters = {name: {"values": listed} for name, listed in values.items()}
    return Surface("12 configurations", parameters, 70.5, run)


COLUMNS = {
    "no crashes": Crashes(0.0, 0.0),
    "crashes by the learning rate": Crashes(0.0, 0.9),
    "learning rate and machines": Crashes(0.35, 0.9),
    "machines only": Crashes(0.7, 0.0),
}


def surfaces(seed: int) -> list[Surface]:
    """Return every surface; one of them depends on the seed."""
    trainings = [training_surface(name, crashes) for name, crashes in COLUMNS.items()]
    return [*trainings, smooth(seed), hartmann6(), branin(), discrete()]
