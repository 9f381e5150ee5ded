"""The sentence at the top of a sweep's page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from amc_server.store.records import Sweep
from amc_sweeps.number_formats import counted
from amc_sweeps.runs.metric_scale import MetricScale
from amc_sweeps.runs.ranked_run import RankedRun
from amc_sweeps.runs.records import Metric
from amc_sweeps.runs.run_states import RunState, SweepState

_ENDS = {
    "exhausted": "every configuration has been handed out",
    "run_cap": "its run_cap is reached",
    "target": "a run has reached the target",
    "ended": "its queued runs have ended",
}


def where_it_stands(
    sweep: Sweep,
    counts: Mapping[RunState, int],
    expected: int | None,
    agents: int,
    ranked: Sequence[RankedRun],
    metric: Metric,
    scale: MetricScale,
) -> str:
    """Say how far a sweep is and which run leads.

    Args:
        counts: runs by state.
        expected: how many runs the sweep will begin; None without an end.
        agents: how many are alive.
        ranked: the runs, best peak first.
    """
    runs = sum(counts.values())
    alive = sum(count for state, count in counts.items() if state.is_alive)
    of = f" of {expected:,}" if expected is not None and expected >= runs else ""
    if not runs:
        begun = "no run has begun" + (f"; {counted(expected, 'run')} will" if expected is not None else "")
    else:
        verb = "has" if runs - alive == 1 and not of else "have"
        begun = f"{runs - alive:,}{of} {'run' if runs - alive == 1 and not of else 'runs'} {verb} ended"
        begun += f" and {counted(alive, 'run')} {'is' if alive == 1 else 'are'} alive" if alive else ""
    return f"{_state(sweep, agents)} {begun}. {_leader(ranked, metric, scale)}".rstrip()


def _state(sweep: Sweep, agents: int) -> str:
    on = f" on {counted(agents, 'agent')}" if agents else " without an agent"
    words = {
        SweepState.PENDING: "Waiting for its first agent:",
        SweepState.RUNNING: f"Running{on}:",
        SweepState.PAUSED: "Paused:",
        SweepState.CANCELED: "Cancelled:",
    }
    if sweep.state is SweepState.FINISHED:
        reason = _ENDS.get(sweep.search_end or "")
        return f"Finished, because {reason}:" if reason else "Stopped:"
    return words[sweep.state]


def _leader(ranked: Sequence[RankedRun], metric: Metric, scale: MetricScale) -> str:
    if not ranked or not metric.name:
        return ""
    best = ranked[0]
    if best.peak is None:
        return f"No run has logged a finite value of {metric.name}."
    at = "" if best.peak_epoch is None else f" at epoch {best.peak_epoch:g}"
    of = f" of {best.epochs_planned}" if at and best.epochs_planned is not None else ""
    gem = ", a hidden gem" if best.is_gem else ""
    cause = str(best.cause).replace("_", " ")
    value = f"{'' if metric.goal == 'maximize' else 'the lowest '}{metric.name} {scale.text(best.peak)}"
    return f"{best.run.name} ({cause}{gem}) leads with {value}{at}{of}."
