"""The rows of the tables of sweeps: state, best run, how the best value grew, and runs by state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from amc_server.store.reader import Reader
from amc_server.store.records import Run, Sweep
from amc_sweeps.runs.metric_scale import scale_of
from amc_sweeps.runs.run_states import RunState, state_word

SPARK_WIDTH, SPARK_HEIGHT = 120, 24  # of a sparkline, in its own units


@dataclass(frozen=True)
class SweepRow:
    """A sweep as a table shows it."""

    sweep: Sweep
    state: str
    problem: str | None  # why its config cannot be read
    metric: str | None
    best: str | None  # the best value
    best_run: Run | None
    spark: str  # points of a polyline: the best value so far
    runs: int
    states: str  # such as "3 running, 12 finished"


@dataclass(frozen=True)
class _Best:
    """What the config and the logged values of a sweep's runs say. To parse a config may take a second."""

    problem: str | None = None
    metric: str | None = None
    text: str | None = None
    run: int = 0  # its key
    spark: str = ""


class SweepRows:
    """The rows of sweeps. The best values are read again only where a run has changed since."""

    def __init__(self, run_changes: Mapping[int, int]) -> None:
        self._run_changes = run_changes  # by key of a run, the number of the commit that changed it last
        self._known: dict[int, tuple[Any, _Best]] = {}  # by key of the sweep: the values, and what they were read after

    def row(self, store: Reader, sweep: Sweep, counts: Mapping[str, int], commits: int) -> SweepRow:
        """Return a sweep's row.

        Args:
            counts: its runs by state.
            commits: how many there had been before ``store`` took its snapshot.
        """
        keys = store.run_keys(sweep.pk)
        newest = max((self._run_changes.get(key, 0) for key in keys), default=0)
        mark = (sweep.config, len(keys), min(newest, commits))
        known, best = self._known.get(sweep.pk, (None, _Best()))
        if known != mark:
            best = _best(store, sweep)
            self._known[sweep.pk] = mark, best
        order = [state.value for state in RunState]
        states = sorted(counts.items(), key=lambda count: order.index(count[0]) if count[0] in order else len(order))
        return SweepRow(
            sweep=sweep,
            state=state_word(sweep.state),
            problem=best.problem,
            metric=best.metric,
            best=best.text,
            best_run=store.run_by_key(best.run) if best.run else None,
            spark=best.spark,
            runs=sum(counts.values()),
            states=", ".join(f"{count:,} {state}" for state, count in states),
        )


def _best(store: Reader, sweep: Sweep) -> _Best:
    config = sweep.readable_config
    if config is None or config.metric is None:
        return _Best(problem=sweep.problem)
    metric = config.metric
    values = store.best_values(sweep.pk, metric.goal)
    if not values:
        return _Best(metric=metric.name)
    better = max if metric.goal == "maximize" else min
    run, value = better(values, key=lambda value: value[1])
    text = scale_of(metric.name, [value for _, value in values]).text(value)
    spark = sparkline(list(accumulate((value for _, value in values), better)))
    return _Best(metric=metric.name, text=text, run=run, spark=spark)


def sparkline(values: Sequence[float]) -> str:
    """Return the points of a polyline through values at equal distances; empty under two values.

    >>> sparkline([1.0, 3.0, 3.0])
    '0.0,24.0 60.0,0.0 120.0,0.0'
    """
    if len(values) < 2:
        return ""
    low, high = min(values), max(values)
    height = (high - low) or 1.0
    step = max(1, len(values) // SPARK_WIDTH)  # a point a unit is enough
    places = [*range(0, len(values) - 1, step), len(values) - 1]
    return " ".join(
        f"{SPARK_WIDTH * place / (len(values) - 1):.1f},{SPARK_HEIGHT * (1 - (values[place] - low) / height):.1f}"
        for place in places
    )
