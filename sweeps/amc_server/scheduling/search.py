"""The next configuration of a sweep: grid, random, or bayes, see ``amc_server.bayes``.

The same runs and the same seed give the same configuration.

In a finite space no configuration comes twice before all have come once. Random draws repeat themselves: the first 12
in a space of 12 hold 7 or 8 different ones, and a repeated training is wasted.
"""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from amc_server.bayes.observations import Observation
from amc_server.bayes.space import LARGEST_ENUMERATION, possible_values, space_of
from amc_server.bayes.suggestions import suggestions
from amc_server.scheduling.seen import Seen
from amc_sweeps.bounded_texts import json_object
from amc_sweeps.grammar.configurations import count_configurations, sample, value_key
from amc_sweeps.grammar.sweep_config import SweepConfig, leaves_by_name
from amc_sweeps.runs.causes import Diagnosis
from amc_sweeps.runs.crashed_runs import Policy
from amc_sweeps.values import nest

Configuration = dict[str, Any]

DRAWS = 600  # tried for a new configuration, before the rest of a finite space is enumerated
MOST_CACHED = 2000  # characters of a configuration in the cache


def observation(
    parameters: str | None, state: str, curve: Sequence[float], diagnosis: Diagnosis | None = None
) -> Observation:
    """Return the observation of a stored run, whose parameters are a JSON text or None."""
    text = parameters or "{}"
    configuration, key = _cached(text) if len(text) <= MOST_CACHED else _configuration(text)
    return Observation(configuration, state, curve, key, diagnosis)


def _configuration(text: str) -> tuple[Configuration, str]:
    """Return a stored configuration and its key."""
    configuration, _ = json_object(text)
    return configuration, value_key(configuration)


_cached = functools.lru_cache(maxsize=10_000)(_configuration)  # every suggestion asks for the same thousands again


def suggest(
    config: SweepConfig,
    runs: Sequence[Observation],
    *,
    seed: int,
    number: int,
    seen: Seen | None = None,
    policy: Policy = Policy.AUTO,
) -> Configuration | None:
    """Return the configuration of the sweep's run ``number``, or None when a grid is exhausted.

    Args:
        runs: every run of the sweep, living ones included, oldest first. With ``seen`` only bayes uses them.
        seen: every configuration that the sweep has had; by default those of ``runs``.
        seed: of the sweep.
        number: how many runs the sweep has begun before.
        policy: what bayes learns from runs that did not finish.
    """
    if seen is None:
        seen = Seen(config)
        seen.keys.update(run.key for run in runs)
    if config.method == "grid":
        return seen.next_of_grid()
    rng = random.Random(f"{seed}/{number}")
    is_bayes = config.method == "bayes"
    draws = _bayes(config, policy, runs, rng) if is_bayes else (sample(config, rng) for _ in itertools.count())
    first = None
    size = count_configurations(config)
    for point in itertools.islice(draws, DRAWS):
        if value_key(point) not in seen.keys:
            return point
        first = first or point
        if size is not None and len(seen.keys) >= size:
            break
    remaining = _unseen(config, seen.keys, size)
    return rng.choice(remaining) if remaining else first


def _unseen(config: SweepConfig, seen: set[str], size: int | None) -> list[Configuration]:
    """Return the configurations of a small finite space that the sweep has not had."""
    if size is None or size > LARGEST_ENUMERATION:
        return []
    leaves = leaves_by_name(config)
    axes = [[(path, value) for value in possible_values(leaf)] for path, leaf in leaves]
    points = (nest(point) for point in itertools.product(*axes))
    return [point for point in points if value_key(point) not in seen]


def _bayes(
    config: SweepConfig, policy: Policy, runs: Sequence[Observation], rng: random.Random
) -> Iterator[Configuration]:
    assert config.metric is not None, "the grammar requires a metric for bayes"
    return suggestions(space_of(config), config.metric, policy, runs, np.random.default_rng(rng.getrandbits(64)))
