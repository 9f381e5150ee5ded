"""The rows of the tables of sweeps: state, best run, how the best value grew, and runs by state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

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
    metric: str | None
    best: str | None  # the best value
    best_run: Run | None
    spark: str  # points of a polyline: the best value so far
    runs: int
    states: str  # such as "3 running, 12 finished"


def sweep_row(store: Reader, sweep: Sweep, counts: Mapping[str, int]) -> SweepRow:
    """Return a sweep's row.

    Args:
        counts: its runs by state.
    """
    config = sweep.readable_config
    metric = config.metric if config else None
    goal = metric.goal if metric else "minimize"
    values = store.best_values(sweep.pk, goal) if metric else []
    better = max if goal == "maximize" else min
    best = better(values, key=lambda value: value[1]) if values else None
    order = [state.value for state in RunState]
    known = sorted(counts.items(), key=lambda count: order.index(count[0]) if count[0] in order else len(order))
    return SweepRow(
        sweep=sweep,
        state=state_word(sweep.state),
        metric=metric.name if metric else None,
        best=scale_of(metric.name, [value for _, value in values]).text(best[1]) if metric and best else None,
        best_run=store.run_by_key(best[0]) if best else None,
        spark=sparkline(list(accumulate((value for _, value in values), better))),
        runs=sum(counts.values()),
        states=", ".join(f"{count:,} {state}" for state, count in known),
    )


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
