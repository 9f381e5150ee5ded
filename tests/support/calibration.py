"""Counts of right conclusions over simulated sweeps, where the truth is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from planted_defects import PLANTED, SUBJECTS, continued
from simulated_sweeps import (
    EPOCH_SD,
    EPOCHS,
    HYPERBAND,
    PARAMETERS,
    RUN_SD,
    Setting,
    curve,
    random_setting,
    simulate,
    simulated_sweep,
)

from amc_analysis.analyse import add_effects
from amc_analysis.dynamics.modes import modes_of
from amc_analysis.effects.importance import LEAST_RUNS, importance_of
from amc_analysis.results.analysed_sweep import AnalysedSweep
from amc_analysis.results.finding import Rule
from amc_analysis.rules.groups import MUCH_MORE
from amc_analysis.rules.registry import RULES
from amc_analysis.runs.failure_rates import SMALL_GROUP
from amc_sweeps.runs.claims import Claim, ClaimKind
from amc_sweeps.runs.statistics import wilson_interval

POPULATION = 40_000  # curves from which the truth of a mean is taken
# The sd of outcomes between runs of one configuration: the unit of planted effects.
NOISE_SD = math.hypot(RUN_SD, EPOCH_SD / 2)


@dataclass
class Rate:
    """k of n."""

    k: int = 0
    n: int = 0

    def count(self, happened: bool) -> None:
        """Count one case."""
        self.k += happened
        self.n += 1

    @property
    def share(self) -> float:
        """k / n; NaN for n = 0."""
        return self.k / self.n if self.n else math.nan

    def se(self, of: float) -> float:
        """Return the standard error of the share, if the true share is ``of``."""
        return math.sqrt(of * (1 - of) / self.n)


@dataclass
class NullCounts:
    """False positives in sweeps without effects or defects."""

    clear: Rate = field(default_factory=Rate)  # sweeps with any clear effect, on performance or failures
    clear_uncorrected: Rate = field(default_factory=Rate)  # parameters with p < 0.05 before the correction
    covered: dict[str, Rate] = field(default_factory=dict)  # intervals of means that hold the truth, by outcome
    findings: dict[Rule, Rate] = field(default_factory=dict)  # over the sweeps without the rule's condition
    bimodal: Rate = field(default_factory=Rate)
    importance: Rate = field(default_factory=Rate)  # forests that were not refused


def null_counts(count: int, *, forests: int = 0) -> NullCounts:
    """Simulate null sweeps of 8 to 60 runs with noise, crashes, early stops and cancellations.

    Args:
        count: sweeps.
        forests: how many of these a forest is grown for.
    """
    counts = NullCounts(findings={rule: Rate() for rule in RULES})
    truth = _expected_best_so_far()
    for index in range(count):
        rng = np.random.default_rng([7, index])
        analysed = add_effects(_clean_sweep(random_setting(rng), rng), seed=index)
        counts.clear.count(any(effect.is_clear or effect.is_clear_for_failures for effect in analysed.effects))
        for effect in analysed.effects:
            if effect.p is not None:
                counts.clear_uncorrected.count(effect.p < 0.05)
        _count_coverage(analysed, truth, counts.covered)
        for rule, judge in RULES.items():
            if IS_CLEAN.get(rule, lambda _analysed: True)(analysed):
                counts.findings[rule].count(any(True for _ in judge(analysed)))
        reached = analysed.outcomes.reached[np.isfinite(analysed.outcomes.reached)].tolist()
        modes = modes_of(reached, rng) if analysed.outcomes.is_comparable else None
        if modes is not None:
            counts.bimodal.count(modes.bimodal)
        if index < forests and analysed.outcomes.n >= LEAST_RUNS:
            counts.importance.count(importance_of(analysed.outcomes, analysed.parameters, index).refused is None)
    for index in range(count):
        analysed = continued(np.random.default_rng([8, index]))
        for rule in (Rule.SPLIT_CHANGED_ON_RESUME, Rule.HELDOUT_OVERLAP_BOUND, Rule.RESUME_JUMP):
            counts.findings[rule].count(any(True for _ in RULES[rule](analysed)))
    return counts


def _clean_sweep(setting: Setting, rng: np.random.Generator) -> Any:
    """Return a sweep without defects and with true claims."""
    runs = simulate(setting, rng)
    config = runs[0].config
    claims = (
        Claim(ClaimKind.RECOMMENDATION, "use this", parameter="snr_layer", values=(config["snr_layer"],)),
        Claim(ClaimKind.RECOMMENDATION, "use this", parameter="max_lr", values=(config["max_lr"],)),
        Claim(ClaimKind.COUNT, "so many runs", numbers={"n": float(len(runs))}),
        Claim(ClaimKind.COMPARISON, "better", parameter="curriculum", statistic="mean", metric="val/combined_acc"),
        Claim(ClaimKind.GROUP, "so good", parameter="curriculum", values=(True,), numbers={"n": 8.0, "mean": 0.5}),
    )
    metric = {"name": "val/combined_acc", "goal": "maximize", "impute": "best"}
    sweep_config: dict[str, Any] = {"method": "bayes", "metric": metric}
    if setting.hyperband:
        sweep_config["early_terminate"] = HYPERBAND
    return simulated_sweep(runs, sweep_config, claims=claims, runs_total=len(runs))


def _expected_best_so_far() -> np.ndarray:
    """Return the mean over all runs of the best of the first e epochs, e from 1."""
    rng = np.random.default_rng(99)
    total = np.zeros(EPOCHS)
    for _ in range(POPULATION):
        total += np.maximum.accumulate(curve(rng))
    return np.asarray(total / POPULATION)


def _count_coverage(analysed: AnalysedSweep, truth: np.ndarray, covered: dict[str, Rate]) -> None:
    for effect in analysed.effects:
        at = effect.equal_epochs
        outcome = "peaks of whole runs" if at is None else "best of the first epochs, runs cut short"
        for value in effect.values:
            if value.interval is not None:
                low, high = value.interval
                covered.setdefault(outcome, Rate()).count(bool(low <= truth[(at or EPOCHS) - 1] <= high))


def _all_sampled(analysed: AnalysedSweep) -> bool:
    return all(
        len(parameter.levels) == len(PARAMETERS[parameter.name]["values"])
        for parameter in analysed.parameters
        if "values" in PARAMETERS[parameter.name]
    )


def _all_vary(analysed: AnalysedSweep) -> bool:
    return all(len(parameter.levels) > 1 for parameter in analysed.parameters)


def _equal_groups(analysed: AnalysedSweep) -> bool:
    sizes = [[value.runs for value in effect.values] for effect in analysed.effects]
    return all(max(runs) < MUCH_MORE * min(runs) for runs in sizes)


def _no_small_value(analysed: AnalysedSweep) -> bool:
    return all(
        value.n >= SMALL_GROUP or value.low is not None for effect in analysed.effects for value in effect.values
    )


# Null sweeps may have the condition of these rules by chance: how to recognise a sweep without it. No null sweep has
# the conditions of the other rules.
IS_CLEAN: Mapping[Rule, Callable[[AnalysedSweep], bool]] = {
    Rule.NEVER_SAMPLED_VALUE: _all_sampled,
    Rule.ZERO_VARIANCE_PARAM: _all_vary,
    Rule.GROUP_N_TOO_SMALL: _no_small_value,
    Rule.MAX_OF_UNEQUAL_N: _equal_groups,
}


# The rules that need effects or confounded pairs; the others are checked without permutations, to save time.
READ_EFFECTS = {
    Rule.GROUP_N_TOO_SMALL,
    Rule.MAX_OF_UNEQUAL_N,
    Rule.CONFOUNDED_PAIR,
    Rule.BEST_AT_BOUNDARY,
    Rule.INFEASIBLE_REGION,
}


def power_of_rules(count: int) -> dict[Rule, Rate]:
    """Return how often each rule names its planted defect."""
    rates = {}
    for rule, plant in PLANTED.items():
        rate = rates[rule] = Rate()
        for index in range(count):
            analysed = plant(np.random.default_rng([3, index]))
            analysed = add_effects(analysed, seed=index) if rule in READ_EFFECTS else analysed
            rate.count(any(SUBJECTS[rule] in finding.subjects for finding in RULES[rule](analysed)))
    return rates


_STEP = 2 * NOISE_SD

# Planted effects of two noise sd between the better and the other runs.
EFFECTS: Mapping[str, tuple[str, Callable[[Mapping[str, Any]], float]]] = {
    "one of two values": ("curriculum", lambda config: _STEP * config["curriculum"]),
    "one of three values": ("snr_layer", lambda config: _STEP * (config["snr_layer"] == "standard")),
    "two of five ordered values": ("dropout", lambda config: _STEP * (config["dropout"] >= 0.4)),
    "the upper half of a range": ("max_lr", lambda config: _STEP * (config["max_lr"] >= 10**-3.5)),
}


def power_of_effects(count: int, n: int = 30) -> dict[str, Rate]:
    """Return how often a planted effect is clear in sweeps of n runs with crashes, half under Hyperband."""
    rates = {}
    for name, (parameter, shift) in EFFECTS.items():
        rate = rates[name] = Rate()
        for index in range(count):
            setting = replace(Setting(n, crash=0.15, shift=shift), hyperband=index % 2 == 0)
            analysed = add_effects(simulated_sweep(simulate(setting, np.random.default_rng([5, index]))), seed=index)
            rate.count(any(effect.is_clear and effect.parameter == parameter for effect in analysed.effects))
    return rates


def power_of_modes(count: int, n: int = 12) -> Rate:
    """Return how often two groups like those of o7pjrbw1 are found: a third near 46%, the others near 5.5%."""
    rate = Rate()
    for index in range(count):
        rng = np.random.default_rng([6, index])
        high = n // 3
        values = np.concatenate([rng.normal(0.465, 0.005, high), rng.normal(0.055, 0.005, n - high)])
        modes = modes_of(values.tolist(), rng)
        rate.count(modes is not None and modes.bimodal and modes.above == high)
    return rate


def wilson_coverage() -> tuple[float, float, float]:
    """Return the lowest, mean and highest exact coverage of Wilson's interval over n 8..60 and rates 0.02..0.98."""
    covered = []
    for n in range(8, 61):
        bounds = [wilson_interval(k, n) for k in range(n + 1)]
        for percent in range(2, 99):
            rate = percent / 100
            weights = (math.comb(n, k) * rate**k * (1 - rate) ** (n - k) for k in range(n + 1))
            inside = (weight for (low, high), weight in zip(bounds, weights, strict=True) if low <= rate <= high)
            covered.append(math.fsum(inside))
    return min(covered), math.fsum(covered) / len(covered), max(covered)
