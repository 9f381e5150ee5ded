"""Hyperband over curves that are already known: which runs it would have stopped, and at what cost."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from amc_sweeps.grammar.hyperband import HyperbandConfig, bands, runs_to_stop

AGENTS = 8  # that train side by side


@dataclass
class Replay:
    """What happened to the runs of a sweep; ``started`` is in the order of starting."""

    started: list[int] = field(default_factory=list)
    stopped: set[int] = field(default_factory=set)
    epochs: int = 0  # of all runs

    def top_stopped(self, truth: Mapping[int, float]) -> tuple[int, int]:
        """Return how many of the truly best tenth of the started runs were stopped, and how many these are."""
        best = sorted(self.started, key=lambda run: -truth[run])[: max(len(self.started) // 10, 1)]
        return len(self.stopped.intersection(best)), len(best)

    def regret(self, truth: Mapping[int, float]) -> float:
        """Return how far the best run that was not stopped lies below the best run of all."""
        left = [truth[run] for run in self.started if run not in self.stopped]
        return max(truth.values()) - max(left)


def replay(
    curves: Mapping[int, Sequence[float]], config: HyperbandConfig, order: Sequence[int], *, budget: int | None = None
) -> Replay:
    """Train the runs in this order with AGENTS agents, one epoch at a time, and stop those that Hyperband stops.

    Args:
        curves: run -> the values of the metric that it would log in a whole training, higher is better.
        config: Hyperband's bands.
        order: the runs in the order in which agents ask for them.
        budget: epochs of all runs after which nothing is trained any more; None: no limit.
    """
    result, waiting, running = Replay(), deque(order), set[int]()
    logged: dict[int, list[float]] = {}
    lengths = set(bands(config))
    while (waiting or running) and (budget is None or result.epochs < budget):
        while waiting and len(running) < AGENTS:
            run = waiting.popleft()
            result.started.append(run)
            running.add(run)
            logged[run] = []
        for run in running:
            logged[run].append(curves[run][len(logged[run])])
        result.epochs += len(running)
        # A verdict changes only when a run reaches a band.
        if any(len(logged[run]) in lengths for run in running):
            stopped = runs_to_stop(config, "maximize", logged, running).keys()
            result.stopped |= stopped
            running -= stopped
        running -= {run for run in running if len(logged[run]) == len(curves[run])}
    return result
