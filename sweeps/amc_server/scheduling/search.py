"""The next configuration of a sweep: grid, random, or bayes by Optuna's TPE.

The same runs and the same seed give the same configuration.

In a finite space no configuration comes twice before all have come once. A sampler alone repeats itself: of the first
12 draws in a space of 12, TPE's hold 7 or 8 different ones, and a repeated training is wasted.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from amc_server.scheduling.quantiles import SMALLEST_U, quantile, share_below
from amc_server.scheduling.replicates import means_of_replicates
from amc_server.store.logged_values import swept_values
from amc_sweeps.bounded_texts import json_object
from amc_sweeps.grammar.configurations import Grid, count_configurations, distinct, sample, value_key
from amc_sweeps.grammar.distributions import Range, ends, steps
from amc_sweeps.grammar.parse import parse
from amc_sweeps.grammar.sweep_config import Choice, Constant, SweepConfig, leaves_by_name
from amc_sweeps.values import names_seed, nest

if TYPE_CHECKING:
    import optuna

Configuration = dict[str, Any]
Path = tuple[str, ...]

DRAWS = 200  # of a random sampler for a new configuration, before the rest of a finite space is enumerated
TPE_DRAWS = 16  # the same for TPE, whose draws cost milliseconds
LARGEST_ENUMERATION = 100_000  # configurations; no sweep tries a larger space completely
MOST_CACHED = 2000  # characters of a configuration in the cache
STARTUP_TRIALS = 10  # ended runs before TPE stops drawing at random; Optuna's default


@dataclass(frozen=True)
class Observation:
    """The part of a run that the search needs."""

    configuration: Mapping[str, Any]
    state: str  # RunState
    curve: Sequence[float]  # logged finite values of the metric
    key: str = field(default="", compare=False)  # of the configuration; equal configurations have equal keys

    def __post_init__(self) -> None:
        if not self.key:
            object.__setattr__(self, "key", value_key(self.configuration))

    @classmethod
    def of(cls, parameters: str | None, state: str, curve: Sequence[float]) -> Observation:
        """Return the observation of a stored run, whose parameters are a JSON text or None."""
        text = parameters or "{}"
        configuration, key = _cached(text) if len(text) <= MOST_CACHED else _configuration(text)
        return cls(configuration, state, curve, key)


def _configuration(text: str) -> tuple[Configuration, str]:
    """Return a stored configuration and its key."""
    configuration, _ = json_object(text)
    return configuration, value_key(configuration)


_cached = functools.lru_cache(maxsize=10_000)(_configuration)  # every suggestion asks for the same thousands again


class Seen:
    """The configurations that a sweep has had, and its position in the grid.

    Args:
        config: of the sweep.
        shuffle: the seed of the order of a grid; None for W&B's order.
    """

    def __init__(self, config: SweepConfig, *, shuffle: int | None = None) -> None:
        self.config = config
        self.newest = 0  # key of the newest run that was added
        self.begun = 0  # how many runs the sweep itself has begun
        self.keys: set[str] = set()
        self._walk = _walk(config, shuffle)
        self._ahead = next(self._walk, None)

    def add(self, run: int, parameters: str | None, *, is_begun: bool) -> None:
        """Add a run, whose parameters are a JSON text or None. Runs come in the order of their keys."""
        self.newest = run
        self.begun += is_begun
        # By the present parameters: a run from before an update, or a queued one, may have others.
        self.keys.add(value_key(swept_values(json_object(parameters or "{}")[0], self.config)))

    def next_of_grid(self) -> Configuration | None:
        """Return the grid's first configuration that the sweep has not had; None for any other search."""
        while self._ahead is not None and value_key(self._ahead) in self.keys:
            self._ahead = next(self._walk, None)
        return self._ahead

    def is_exhausted(self) -> bool:
        """Return whether the search has proposed everything; only a grid ends."""
        return self.config.method == "grid" and self.next_of_grid() is None


def _walk(config: SweepConfig, shuffle: int | None) -> Iterator[Configuration]:
    if config.method != "grid":
        return iter(())
    return iter(Grid(config)) if shuffle is None else Grid(config).shuffled(shuffle)


def suggest(
    config: SweepConfig, runs: Sequence[Observation], *, seed: int, number: int, seen: Seen | None = None
) -> Configuration | None:
    """Return the configuration of the sweep's run ``number``, or None when a grid is exhausted.

    Args:
        runs: every run of the sweep, living ones included, oldest first. With ``seen`` only bayes uses them.
        seen: every configuration that the sweep has had; by default those of ``runs``.
        seed: of the sweep.
        number: how many runs the sweep has begun before.
    """
    if seen is None:
        seen = Seen(config)
        seen.keys.update(run.key for run in runs)
    if config.method == "grid":
        return seen.next_of_grid()
    rng = random.Random(f"{seed}/{number}")
    draws = _bayes(config, runs, rng) if config.method == "bayes" else (sample(config, rng) for _ in itertools.count())
    first = None
    size = count_configurations(config)
    for point in itertools.islice(draws, TPE_DRAWS if config.method == "bayes" else DRAWS):
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


def possible_values(leaf: Constant | Choice | Range) -> list[Any]:
    """Return every value of a finite parameter."""
    if isinstance(leaf, Constant):
        return [leaf.value]
    if isinstance(leaf, Choice):
        weights = leaf.probabilities or (1.0,) * len(leaf.values)
        return distinct(value for value, weight in zip(leaf.values, weights, strict=True) if weight > 0)
    count = steps(leaf)
    assert count is not None, f"{leaf.distribution} has no list of values"
    return [_step_value(leaf, index) for index in range(count)]


def _step_value(leaf: Range, index: int) -> float:
    low, _ = ends(leaf)
    if leaf.distribution == "int_uniform":
        return int(low) + index
    assert leaf.q is not None
    value = low + index * leaf.q
    return int(value) if isinstance(leaf.q, int) else float(f"{value:.12g}")


# --- bayes ----------------------------------------------------------------------------------------------------------


class _Axis:
    """One searched parameter as an Optuna distribution; converts its values both ways."""

    def __init__(self, path: Path, leaf: Choice | Range) -> None:
        from optuna import distributions

        self.path = path
        self.name = ".".join(path)
        self._leaf = leaf
        self._keys: list[str] = []
        self._is_mapped = False  # Optuna searches a share of the draws instead of the value, see quantiles.py
        self.distribution: optuna.distributions.BaseDistribution
        if isinstance(leaf, Choice):
            # By index: Optuna warns about choices that are not scalars, and treats 1, 1.0 and True as equal.
            self._keys = [value_key(value) for value in leaf.values]
            self.distribution = distributions.CategoricalDistribution(list(range(len(leaf.values))))
        elif leaf.distribution == "q_uniform":
            self.distribution = distributions.IntDistribution(0, (steps(leaf) or 1) - 1)
        elif leaf.distribution == "int_uniform":
            self.distribution = distributions.IntDistribution(int(leaf.min), int(leaf.max))
        elif leaf.distribution == "uniform":
            self.distribution = distributions.FloatDistribution(leaf.min, leaf.max)
        elif leaf.distribution in ("log_uniform_values", "q_log_uniform_values"):
            self.distribution = distributions.FloatDistribution(leaf.min, leaf.max, log=True)
        else:
            self._is_mapped = True
            self.distribution = distributions.FloatDistribution(SMALLEST_U, 1 - SMALLEST_U)

    def to_optuna(self, value: Any) -> Any:
        """Return Optuna's value for a value of the sweep.

        Raises:
            ValueError: the sweep's present config does not allow the value.
        """
        if self._keys:
            return self._keys.index(value_key(value))
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(value)  # noqa: TRY004 - the value is what does not fit
        assert isinstance(self._leaf, Range)
        if self._is_mapped:
            return share_below(self._leaf, value)
        if self._leaf.distribution == "q_uniform":
            low, _ = ends(self._leaf)
            value = round((value - low) / (self._leaf.q or 1))
        if not self.distribution._contains(self.distribution.to_internal_repr(value)):
            raise ValueError(value)
        return value

    def from_optuna(self, value: Any) -> Any:
        """Return the sweep's value for a value of Optuna."""
        leaf = self._leaf
        if isinstance(leaf, Choice):
            return leaf.values[value]
        if self._is_mapped:
            return quantile(leaf, value)
        if leaf.distribution == "q_uniform":
            return _step_value(leaf, value)
        if leaf.distribution == "q_log_uniform_values":
            low, high = ends(leaf)
            nearest = round((value - low) / (leaf.q or 1))
            return _step_value(leaf, max(0, min(nearest, round((high - low) / (leaf.q or 1)))))
        return value


class _Space:
    """A sweep's parameters as Optuna's distributions, and its runs as Optuna's trials.

    Trials are kept between suggestions, so that a thousand need not be made again. They follow from the runs alone, so
    this changes no suggestion.
    """

    def __init__(self, config: SweepConfig) -> None:
        leaves = leaves_by_name(config)
        self.axes = [_Axis(path, leaf) for path, leaf in leaves if not isinstance(leaf, Constant)]
        self.constants = [(path, leaf.value) for path, leaf in leaves if isinstance(leaf, Constant)]
        self.distributions = {axis.name: axis.distribution for axis in self.axes}
        self._cache: dict[int, tuple[str, float | None, optuna.trial.FrozenTrial | None]] = {}
        self._places: dict[str, tuple[Any, ...] | None] = {}  # by the key of a configuration

    def trials(self, config: SweepConfig, runs: Sequence[Observation]) -> list[optuna.trial.FrozenTrial]:
        """Return the runs that lie in the space, numbered from 1, oldest first; replicates are one trial."""
        trials = []
        told = means_of_replicates([self._place(run) for run in runs], objective_values(config, runs))
        for number, (position, value) in enumerate(told, start=1):
            run = runs[position]
            cached = self._cache.get(number)
            if cached is None or cached[:2] != (run.key, value):
                cached = self._cache[number] = (run.key, value, self._trial(number, run, value))
            if cached[2] is not None:
                trials.append(cached[2])
        return trials

    def _place(self, run: Observation) -> tuple[Any, ...] | None:
        """Return Optuna's values without those of seeds, the same for runs that repeat a configuration."""
        if run.key not in self._places:
            params = self.params(run.configuration)
            names = [axis.name for axis in self.axes if not names_seed(axis.name)]
            self._places[run.key] = tuple(params[name] for name in names) if params and names else None
        return self._places[run.key]

    def _trial(self, number: int, run: Observation, value: float | None) -> optuna.trial.FrozenTrial | None:
        from optuna.trial import TrialState, create_trial

        params = self.params(run.configuration)
        if params is None:
            return None
        trial = create_trial(
            state=TrialState.RUNNING if value is None else TrialState.COMPLETE,
            params=params,
            distributions=self.distributions,
            value=value,
        )
        trial.number = number
        return trial

    def params(self, configuration: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return Optuna's values for a configuration; None where it lies outside of the space.

        A prior run may lie there, and one from before an update of the sweep. Constants do not count.
        """
        try:
            values = ((axis, functools.reduce(operator.getitem, axis.path, configuration)) for axis in self.axes)
            return {axis.name: axis.to_optuna(value) for axis, value in values}
        except (ValueError, KeyError, TypeError):  # TypeError: a nested parameter was a plain value before an update
            return None

    def configuration(self, params: Mapping[str, Any]) -> Configuration:
        """Return the configuration for what Optuna suggests."""
        searched = [(axis.path, axis.from_optuna(params[axis.name])) for axis in self.axes]
        return nest([*self.constants, *searched])


_MOST_SPACES = 64
_spaces: dict[int, tuple[SweepConfig, _Space]] = {}  # by the id of the config, which is kept so that the id stays valid


def _space(config: SweepConfig) -> _Space:
    cached = _spaces.get(id(config))
    if cached is None:
        while len(_spaces) >= _MOST_SPACES:
            _spaces.pop(next(iter(_spaces)), None)
        cached = _spaces[id(config)] = (config, _Space(config))
    return cached[1]


def lies_in_space(config: SweepConfig, configuration: Mapping[str, Any]) -> bool:
    """Return whether bayes learns from a run with this configuration."""
    return _space(config).params(configuration) is not None


def _bayes(config: SweepConfig, runs: Sequence[Observation], rng: random.Random) -> Iterator[Configuration]:
    """Yield TPE suggestions, all from the same runs."""
    import optuna
    from optuna.study import StudyDirection

    from amc_server.scheduling.preset_storage import PresetStorage, TreeParzen

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    assert config.metric is not None, "the grammar requires a metric for bayes"
    space = _space(config)
    trials = space.trials(config, runs)
    direction = StudyDirection.MAXIMIZE if config.metric.goal == "maximize" else StudyDirection.MINIMIZE
    while True:
        sampler = TreeParzen(space.distributions, startup_trials=STARTUP_TRIALS, seed=rng.getrandbits(32))
        study = optuna.create_study(storage=PresetStorage(trials), sampler=sampler, direction=direction)
        yield space.configuration(study.ask(space.distributions).params)


def objective_values(config: SweepConfig, runs: Sequence[Observation]) -> list[float | None]:
    """Return the value of each run for the search; None if it is not known yet.

    W&B's semantics: a finished run counts with its peak. For a run that failed, crashed or was killed,
    ``metric.impute`` decides: its own peak (best), its own last value (latest), or the worst value of any ended run
    (worst). A run that logged nothing counts with the worst value, too. Living runs are unknown, unless
    ``impute_while_running`` gives them a value.
    """
    assert config.metric is not None
    metric = config.metric
    better, worse = (max, min) if metric.goal == "maximize" else (min, max)
    ended = ("finished", "failed", "crashed", "killed")
    worst = worse((worse(run.curve) for run in runs if run.state in ended and run.curve), default=math.nan)

    def objective(run: Observation) -> float | None:
        rule = metric.impute
        if run.state == "finished":
            rule = "best"
        elif run.state not in ended:
            if metric.impute_while_running == "false" or not run.curve:
                return None
            rule = metric.impute_while_running
        if rule == "worst" or not run.curve:
            return None if math.isnan(worst) else worst
        return better(run.curve) if rule == "best" else run.curve[-1]

    return [objective(run) for run in runs]


def warm_up() -> None:
    """Load Optuna, so that the first agent does not wait seconds for its first configuration."""
    config = parse({"method": "bayes", "metric": {"name": "warm"}, "parameters": {"a": {"min": 0.0, "max": 1.0}}})
    runs = [Observation({"a": index / 32}, "finished", [index / 32]) for index in range(STARTUP_TRIALS + 1)]
    suggest(config, runs, seed=0, number=0)
