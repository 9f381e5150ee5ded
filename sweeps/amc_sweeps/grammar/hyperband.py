"""Hyperband as W&B runs it: asynchronous successive halving on the curves that runs have logged so far.

There are no brackets. At every request each running run is compared with all runs of the sweep, at the highest *band*
that it has passed. A band is a number of logged finite values of the metric. It equals a number of epochs if the trial
logs the metric once an epoch.

Source: Li et al., "Hyperband: A Novel Bandit-Based Approach to Hyperparameter Optimization", JMLR 18 (2018), and Li et
al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020, with the semantics of the package ``sweeps``
0.3.0, W&B's own engine.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

Run = TypeVar("Run")

_MAX_BANDS = 100  # as in W&B's engine, which bounds those from min_iter only
_LONGEST_CURVE = 10**9  # values; no run logs more


@dataclass(frozen=True)
class HyperbandConfig:
    """W&B's ``early_terminate`` section: ``max_iter`` with ``s``, or ``min_iter``, in logged values of the metric."""

    min_iter: int | None = None  # lowest band; ignored where max_iter is given
    max_iter: int | None = None  # not a band itself: bands are max_iter / eta, max_iter / eta^2, ...
    s: int | None = None  # number of bands below max_iter
    eta: float = 3  # > 1; about one in eta runs survives a band
    strict: bool = True  # judge by the value at the band (True) or by the best value so far (False)


@dataclass(frozen=True)
class BandDecision:
    """Hyperband's decision to stop a run: after ``band`` logged values its ``value`` was worse than ``threshold``."""

    band: int
    value: float
    threshold: float


def bands(config: HyperbandConfig) -> tuple[int, ...]:
    """Return the bands in rising order, in logged values of the metric; empty if max_iter is too small for one."""
    lengths = set()
    if config.max_iter is not None:
        band = float(config.max_iter)
        for _ in range(min(config.s or 0, _MAX_BANDS)):
            band /= config.eta
            if band < 1:
                break
            lengths.add(int(band))
    elif config.min_iter is not None:
        band = config.min_iter
        for _ in range(_MAX_BANDS):
            if band > _LONGEST_CURVE:
                break
            lengths.add(int(band))
            band *= config.eta
    return tuple(sorted(lengths))


def thresholds(config: HyperbandConfig, curves: Iterable[Sequence[float]], goal: str) -> dict[int, float]:
    """Return the worst value that survives each band, for the bands that at least one run has reached.

    Args:
        curves: the logged finite values of the metric, in the order of logging, of all runs in any state.
        goal: ``minimize`` or ``maximize``.
    """
    curves = list(curves)
    limits = {}
    for band in bands(config):
        values = sorted((curve[band - 1] for curve in curves if len(curve) >= band), reverse=goal == "maximize")
        if not values:
            break
        # W&B's engine rounds 1/eta before the product, which makes a difference for a few (n, eta).
        limits[band] = values[int(1.0 / config.eta * len(values))]
    return limits


def judge(
    config: HyperbandConfig, goal: str, curve: Sequence[float], band: int, threshold: float
) -> BandDecision | None:
    """Return the decision to stop a run at a band that its curve has reached; None if the run survives, as at a tie."""
    better, sign = (max, -1) if goal == "maximize" else (min, 1)
    value = curve[band - 1] if config.strict else better(curve)
    return BandDecision(band, value, threshold) if sign * value > sign * threshold else None


def runs_to_stop(
    config: HyperbandConfig, goal: str, curves: Mapping[Run, Sequence[float]], running: Collection[Run]
) -> dict[Run, BandDecision]:
    """Return the ``running`` runs to stop, in the order of ``curves``, each judged at the highest band it has passed.

    Args:
        goal: ``minimize`` or ``maximize``.
        curves: run -> its logged finite values of the metric, for all runs of the sweep in any state.
    """
    limits = thresholds(config, curves.values(), goal)
    decisions = {}
    for run, curve in curves.items():
        band = max((band for band in limits if band <= len(curve)), default=None)
        if run in running and band is not None:
            decision = judge(config, goal, curve, band, limits[band])
            if decision is not None:
                decisions[run] = decision
    return decisions
