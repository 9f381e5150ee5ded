"""Suggestions of the Bayesian search: places where a run is expected to beat the best result, and to end well.

Expected improvement is multiplied by a chance that the configuration lets a run end well, which is learned from the
runs that failed because of their configuration. It is squared, because no result corrects a place that only fails.
Source: Gardner et al., "Bayesian Optimization with Inequality Constraints", ICML 2014.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from amc_server.bayes.observations import STARTUP_RUNS, Observation, Told, tell
from amc_server.bayes.space import Array, Configuration, Space
from amc_server.bayes.surrogate import Surrogate, standardised
from amc_sweeps.grammar.sweep_config import Metric
from amc_sweeps.runs.crashed_runs import Policy

DRAWN = 300  # candidates from the whole space
NEAR = 20  # candidates near each of the best places
BEST = 5
MOST_RESULTS = 60  # tried places among which the best mean is looked for
ALL = 600  # configurations of a finite space that are all candidates
REACH = 0.15  # of a failure to other configurations, along an ordered axis
OTHER_VALUE = 0.5  # how far a failure counts for another value of an unordered parameter
MOST_NEAR = 300  # runs that are looked at for failures, the newest
HOPELESS = 0.7  # share of failures from which on a place is left, however good its runs looked before they failed
USUAL_FAILURES = 3.0  # runs' worth of the sweep's own failure rate, where no run is near


def suggestions(
    space: Space, metric: Metric, policy: Policy, runs: Sequence[Observation], rng: np.random.Generator
) -> Iterator[Configuration]:
    """Yield configurations, the best first, all from the same runs; without end, unless the space is finite."""
    places = [space.place_of(run.key, run.configuration) for run in runs]
    known = [(place, told) for place, told in zip(places, tell(metric, policy, runs), strict=True) if place is not None]
    valued = [(place, told) for place, told in known if told is not None and told.value is not None]
    if len(valued) < STARTUP_RUNS:
        yield from _random(space, rng)
    values = np.array([told.value for _, told in valued], np.float64)
    best = np.argsort(-values, kind="stable")[:MOST_RESULTS]
    sds = np.array([told.sd for _, told in valued])
    tried = np.array([place for place, _ in valued])
    columns, ordered = space.matters, space.ordered[space.matters]
    surrogate = Surrogate(standardised(tried[:, columns], ordered, values, sds), rng)
    pending = np.array([place for place, told in known if told is None]).reshape(-1, len(space.axes))
    expected = surrogate.with_pending(pending[:, columns])
    attained = [row for row in best if valued[row][1].attained]
    results = tried[attained or best][:, columns]
    failures = _Failures([(place[columns], told) for place, told in known if told is not None], ordered)

    def score(candidates: Array) -> Array:
        candidates = candidates[:, columns]
        ends_well = np.maximum(1 - failures.probability(candidates) / HOPELESS, 0.0)
        return np.asarray(expected.expected_improvement(candidates, results) * ends_well**2, np.float64)

    candidates = space.all_places(ALL)
    if candidates is None:
        centres = tried[best[np.argsort(-surrogate.mean(tried[best][:, columns]), kind="stable")[:BEST]]]
        near = [space.near(np.repeat(centres, NEAR, axis=0), width, rng) for width in (0.15, 0.03)]
        candidates = np.concatenate([space.draw(DRAWN, rng), *near])
        scores = score(candidates)
        centres = candidates[np.argsort(-scores, kind="stable")[:BEST]]
        near = [space.near(np.repeat(centres, NEAR, axis=0), width, rng) for width in (0.05, 0.01)]
        added = np.concatenate(near)
        candidates, scores = np.concatenate([candidates, added]), np.concatenate([scores, score(added)])
    else:
        scores = score(candidates)
    for row in np.argsort(-scores, kind="stable"):
        yield space.configuration(candidates[row])


def _random(space: Space, rng: np.random.Generator) -> Iterator[Configuration]:
    while True:
        yield from map(space.configuration, space.draw(1, rng))


class _Failures:
    """How likely a configuration makes a run fail: the share of failures among the runs near it."""

    def __init__(self, known: Sequence[tuple[Array, Told]], ordered: NDArray[np.bool_]) -> None:
        known = known[-MOST_NEAR:]
        self._ordered = ordered
        self._places = np.array([place for place, _ in known])
        self._failed = np.array([told.failure for _, told in known])
        self._rate = float(self._failed.mean()) if known else 0.0

    def probability(self, places: Array) -> Array:
        """Return (N,) the probability of a failure at places (N, P)."""
        if not self._failed.any():
            return np.zeros(len(places))
        away = np.zeros((len(places), len(self._places)))
        for column, is_ordered in enumerate(self._ordered):
            difference = places[:, [column]] - self._places[:, column]
            away += (difference / REACH) ** 2 if is_ordered else 2 * np.log(1 / OTHER_VALUE) * (difference != 0)
        near = np.exp(-0.5 * away)
        rate = (near @ self._failed + USUAL_FAILURES * self._rate) / (near.sum(axis=1) + USUAL_FAILURES)
        return np.asarray(rate, np.float64)
