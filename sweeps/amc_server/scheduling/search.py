"""The next configuration of a sweep: grid, random, or bayes by Optuna's TPE.

Pure in what it answers: the same runs and the same seed give the same configuration.

In a finite space no configuration comes twice before all have come once: an engine by itself repeats itself (of the
first 12 draws in a space of 12, TPE's hold 7 or 8 different ones), and a repeated training is a wasted one.
"""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from amc_sweeps.grammar.configurations import count_configurations, grid, sample, value_key
from amc_sweeps.grammar.distributions import Range, ends, steps
from amc_sweeps.grammar.parse import parse
from amc_sweeps.grammar.sweep_config import Choice, Constant, SweepConfig, flatten

if TYPE_CHECKING:
    import optuna

Configuration = dict[str, Any]
Path = tuple[str, ...]

DRAWS = 200  # of a sampler for something new, before the rest of a finite space is enumerated
TPE_DRAWS = 16  # the same of TPE, of which one costs milliseconds
LARGEST_ENUMERATION = 100_000  # configurations; a larger space is as good as infinite to a sweep
STARTUP_TRIALS = 10  # ended runs that TPE wants before it stops drawing at random; Optuna's default


@dataclass(frozen=True)
class Observation:
    """A run of the sweep, as far as the search cares."""

    configuration: Mapping[str, Any]
    state: str  # RunState
    curve: Sequence[float]  # logged finite values of the metric
    key: str = field(default="", compare=False)  # of the configuration: equal ones have equal keys

    def __post_init__(self) -> None:
        if not self.key:
            object.__setattr__(self, "key", value_key(self.configuration))

    @classmethod
    def of(cls, parameters: str | None, state: str, curve: Sequence[float]) -> Observation:
        """Return the observation of a stored run, whose parameters are a JSON text or None."""
        configuration, key = _configuration(parameters or "{}")
        return cls(configuration, state, curve, key)


@lru_cache(maxsize=10_000)
def _configuration(text: str) -> tuple[Configuration, str]:
    """Return a stored configuration and its key; the search asks for the same thousands again at every suggestion."""
    configuration = dict(json.loads(text))
    return configuration, value_key(configuration)


class Seen:
    """Which configurations a sweep has had, and how far along its grid that is."""

    def __init__(self, config: SweepConfig) -> None:
        self.config = config
        self.newest = 0  # key of the newest run that is counted in
        self.keys: set[str] = set()
        self._walk = grid(config) if config.method == "grid" else iter(())
        self._ahead = next(self._walk, None)

    def add(self, run: int, parameters: str | None) -> None:
        """Count a run in, whose parameters are a JSON text or None; runs come in the order of their keys."""
        self.newest = run
        self.keys.add(value_key(json.loads(parameters or "{}")))

    def next_of_grid(self) -> Configuration | None:
        """Return the grid's first configuration that the sweep has not had; None for any other search."""
        while self._ahead is not None and value_key(self._ahead) in self.keys:
            self._ahead = next(self._walk, None)
        return self._ahead

    def is_exhausted(self) -> bool:
        """Return whether the search has proposed all that it ever will; only a grid comes to an end."""
        return self.config.method == "grid" and self.next_of_grid() is None


def suggest(
    config: SweepConfig, runs: Sequence[Observation], *, seed: int, number: int, seen: Seen | None = None
) -> Configuration | None:
    """Return the configuration of the sweep's run ``number``, or None when a grid is exhausted.

    Args:
        runs: every run of the sweep, those that are alive too, in the order of their beginning. Only bayes looks at
            them where ``seen`` is given.
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
    left = _unseen(config, seen.keys, size)
    return rng.choice(left) if left else first


def _unseen(config: SweepConfig, seen: set[str], size: int | None) -> list[Configuration]:
    """Return what is left of a small finite space."""
    if size is None or size > LARGEST_ENUMERATION:
        return []
    leaves = flatten(config.parameters)
    axes = [[(path, value) for value in possible_values(leaf)] for path, leaf in leaves]
    points = (_nest(dict(point)) for point in itertools.product(*axes))
    return [point for point in points if value_key(point) not in seen]


def possible_values(leaf: Constant | Choice | Range) -> list[Any]:
    """Return every value of a parameter that has finitely many."""
    if isinstance(leaf, Constant):
        return [leaf.value]
    if isinstance(leaf, Choice):
        weights = leaf.probabilities or (1.0,) * len(leaf.values)
        return [value for value, weight in zip(leaf.values, weights, strict=True) if weight > 0]
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
    """One searched parameter as an Optuna distribution, and the way there and back."""

    def __init__(self, path: Path, leaf: Choice | Range) -> None:
        from optuna import distributions

        self.path = path
        self.name = ".".join(path)
        self._leaf = leaf
        self._keys: list[str] = []
        self.distribution: optuna.distributions.BaseDistribution
        if isinstance(leaf, Choice):
            # By index: Optuna warns of choices that are no plain scalars, and takes 1, 1.0 and True as one.
            self._keys = [value_key(value) for value in leaf.values]
            self.distribution = distributions.CategoricalDistribution(list(range(len(leaf.values))))
        elif leaf.distribution == "q_uniform":
            self.distribution = distributions.IntDistribution(0, (steps(leaf) or 1) - 1)
        elif leaf.distribution == "int_uniform":
            self.distribution = distributions.IntDistribution(int(leaf.low), int(leaf.high))
        elif leaf.distribution == "uniform":
            self.distribution = distributions.FloatDistribution(leaf.low, leaf.high)
        else:  # log_uniform_values, q_log_uniform_values: the grammar lets bayes have no others
            self.distribution = distributions.FloatDistribution(leaf.low, leaf.high, log=True)

    def to_engine(self, value: Any) -> Any:
        """Return the value in Optuna's terms.

        Raises:
            ValueError: when the sweep as it is now does not have the value.
        """
        if self._keys:
            return self._keys.index(value_key(value))
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(value)  # noqa: TRY004 - the value is what does not fit
        assert isinstance(self._leaf, Range)
        if self._leaf.distribution == "q_uniform":
            low, _ = ends(self._leaf)
            value = round((value - low) / (self._leaf.q or 1))
        if not self.distribution._contains(self.distribution.to_internal_repr(value)):
            raise ValueError(value)
        return value

    def from_engine(self, value: Any) -> Any:
        """Return Optuna's value in the sweep's terms."""
        leaf = self._leaf
        if isinstance(leaf, Choice):
            return leaf.values[value]
        if leaf.distribution == "q_uniform":
            return _step_value(leaf, value)
        if leaf.distribution == "q_log_uniform_values":
            low, high = ends(leaf)
            nearest = round((value - low) / (leaf.q or 1))
            return _step_value(leaf, max(0, min(nearest, round((high - low) / (leaf.q or 1)))))
        return value


class _Space:
    """A sweep's parameters in Optuna's terms, and its runs as Optuna's trials.

    What is kept between suggestions follows from the runs alone: it saves the making of a thousand trials anew and
    changes no answer.
    """

    def __init__(self, config: SweepConfig) -> None:
        leaves = flatten(config.parameters)
        self.axes = [_Axis(path, leaf) for path, leaf in leaves if not isinstance(leaf, Constant)]
        self.constants = {path: leaf.value for path, leaf in leaves if isinstance(leaf, Constant)}
        self.distributions = {axis.name: axis.distribution for axis in self.axes}
        self._known: dict[int, tuple[str, float | None, optuna.trial.FrozenTrial | None]] = {}

    def trials(self, config: SweepConfig, runs: Sequence[Observation]) -> list[optuna.trial.FrozenTrial]:
        """Return the runs that lie in the space, numbered from 1 as they began."""
        found = []
        for number, (run, value) in enumerate(zip(runs, believed_values(config, runs), strict=True), start=1):
            known = self._known.get(number)
            if known is None or known[0] != run.key or known[1] != value:
                known = self._known[number] = (run.key, value, self._trial(number, run, value))
            if known[2] is not None:
                found.append(known[2])
        return found

    def _trial(self, number: int, run: Observation, value: float | None) -> optuna.trial.FrozenTrial | None:
        from optuna.trial import TrialState, create_trial

        try:
            params = {axis.name: axis.to_engine(_at(run.configuration, axis.path)) for axis in self.axes}
        except (ValueError, KeyError):
            return None  # a prior run, or one from before an update of the sweep, outside today's space
        trial = create_trial(
            state=TrialState.RUNNING if value is None else TrialState.COMPLETE,
            params=params,
            distributions=self.distributions,
            value=value,
        )
        trial.number = number
        return trial

    def configuration(self, params: Mapping[str, Any]) -> Configuration:
        """Return what Optuna suggests in the sweep's terms."""
        return _nest({**self.constants, **{axis.path: axis.from_engine(params[axis.name]) for axis in self.axes}})


_SPACES_KEPT = 64
_spaces: dict[int, tuple[SweepConfig, _Space]] = {}  # by id; the config is held so that its id stays its own


def _space(config: SweepConfig) -> _Space:
    known = _spaces.get(id(config))
    if known is None:
        while len(_spaces) >= _SPACES_KEPT:
            _spaces.pop(next(iter(_spaces)), None)
        known = _spaces[id(config)] = (config, _Space(config))
    return known[1]


def _bayes(config: SweepConfig, runs: Sequence[Observation], rng: random.Random) -> Iterator[Configuration]:
    """Yield one TPE suggestion after another, all from the same evidence."""
    import optuna
    from optuna.study import StudyDirection

    from amc_server.scheduling.preset_storage import Evidence, TreeParzen

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    assert config.metric is not None, "the grammar wants a metric for bayes"
    space = _space(config)
    trials = space.trials(config, runs)
    direction = StudyDirection.MAXIMIZE if config.metric.goal == "maximize" else StudyDirection.MINIMIZE
    while True:
        sampler = TreeParzen(space.distributions, startup_trials=STARTUP_TRIALS, seed=rng.getrandbits(32))
        study = optuna.create_study(storage=Evidence(trials), sampler=sampler, direction=direction)
        yield space.configuration(study.ask(space.distributions).params)


def believed_values(config: SweepConfig, runs: Sequence[Observation]) -> list[float | None]:
    """Return what the search believes each run is worth; None where that is not known yet.

    W&B's semantics: a finished run is worth its peak; one that failed, crashed or was killed what ``metric.impute``
    says: its own peak (best), its own last value (latest), or the worst value of any ended run (worst). One that
    logged nothing is worth the worst as well. Living runs are unknown, unless ``impute_while_running`` says otherwise.
    """
    assert config.metric is not None
    metric = config.metric
    better, worse = (max, min) if metric.goal == "maximize" else (min, max)
    ended = ("finished", "failed", "crashed", "killed")
    worst = worse((worse(run.curve) for run in runs if run.state in ended and run.curve), default=math.nan)

    def worth(run: Observation) -> float | None:
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

    return [worth(run) for run in runs]


def _at(configuration: Mapping[str, Any], path: Path) -> Any:
    value: Any = configuration
    for name in path:
        value = value[name]
    return value


def _nest(values: Mapping[Path, Any]) -> Configuration:
    nested: Configuration = {}
    for path, value in values.items():
        inner = nested
        for name in path[:-1]:
            inner = inner.setdefault(name, {})
        inner[path[-1]] = value
    return nested


def warm_up() -> None:
    """Load Optuna now, so that the first agent does not wait seconds for its first configuration."""
    config = parse({"method": "bayes", "metric": {"name": "warm"}, "parameters": {"a": {"min": 0.0, "max": 1.0}}})
    runs = [Observation({"a": index / 32}, "finished", [index / 32]) for index in range(STARTUP_TRIALS + 1)]
    suggest(config, runs, seed=0, number=0)
