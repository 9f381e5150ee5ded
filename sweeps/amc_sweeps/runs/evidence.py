"""The evidence about the end of every run of a sweep: bands, cancellation, neighbours, heartbeats."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from amc_sweeps.grammar.hyperband import HyperbandConfig
from amc_sweeps.number_formats import counted
from amc_sweeps.runs.bands import HyperbandDecisions
from amc_sweeps.runs.causes import EndReason, Evidence
from amc_sweeps.runs.records import Goal, RunRecord, SweepRecord
from amc_sweeps.runs.run_states import RunState, SweepState
from amc_sweeps.values import as_finite, as_number, is_number

# Names that training scripts use for the same setting; the first one in a run's configuration counts.
EPOCH_NAMES = ("epochs", "num_epochs", "n_epochs", "max_epochs", "num_train_epochs", "total_epochs")
PATIENCE_NAMES = ("patience", "early_stopping_patience", "es_patience")

HEARTBEAT_SLACK_S = 60.0  # heartbeats come every 15 to 30 s, so the time of an end is that uncertain
TOGETHER_S = 120.0
FEWEST_TOGETHER = 3


def evidence_of(sweep: SweepRecord) -> dict[str, Evidence]:
    """Return run id -> evidence, for every run of the sweep."""
    hyperband = hyperband_of(sweep.config)
    band_runs = [run for run in sweep.runs if hyperband is not None and needs_bands(run)]
    # The thresholds follow from the curves of all runs, which takes long.
    decisions = HyperbandDecisions(hyperband, sweep.metric.goal, sweep.runs) if hyperband and band_runs else None
    inferred = {run.run_id: decisions.decision(run, has_stop=_has_stop(run)) for run in band_runs} if decisions else {}
    cancelled = sweep.state in {SweepState.CANCELED, "CANCELLED"}
    last_heartbeat = max((run.heartbeat_at for run in sweep.runs if run.heartbeat_at), default=None)
    neighbours = lost_together(sweep.runs)
    return {
        run.run_id: Evidence(
            state=run.state,
            exit_code=run.exit_code,
            end_reason=end_reason if isinstance(end_reason := run.summary.get("end_reason"), str) else None,
            stop_recorded=run.stop_recorded,
            stop_reason=run.stop_reason,
            sweep_cancelled=cancelled,
            alive_at_cancel=_alive_at_cancel(run, sweep.updated_at, last_heartbeat) if cancelled else None,
            heartbeat_age_s=_heartbeat_age_s(run, sweep.read_at),
            points=len(run.curve),
            epochs=epochs_done(run) or None,
            epochs_planned=epochs_planned(run.config),
            epochs_since_best=_epochs_since_best(run, sweep.metric.goal),
            patience=_whole_number(run.config, PATIENCE_NAMES),
            not_finite=run.not_finite[:3],
            log_tail=run.log_tail,
            alive_when_exported=bool(run.alive_when_exported),
            hyperband=hyperband is not None,
            band=run.stop_decision or inferred.get(run.run_id),
            neighbours_lost=neighbours.get(run.run_id),
            job=run.job,
        )
        for run in sweep.runs
    }


def needs_bands(run: RunRecord) -> bool:
    """Return whether a Hyperband decision has to be inferred for a run: it may have been stopped, and none is known."""
    return run.stop_decision is None and (run.stop_recorded is None or _has_stop(run))


def hyperband_of(config: Mapping[str, Any]) -> HyperbandConfig | None:
    """Read a sweep's ``early_terminate`` without checks, because sweeps of other tools are read too."""
    section = config.get("early_terminate")
    if not isinstance(section, Mapping) or section.get("type", "hyperband") != "hyperband":
        return None
    keys = ("min_iter", "max_iter", "s", "eta", "strict")
    return HyperbandConfig(**{key: section[key] for key in keys if section.get(key) is not None})


def epochs_planned(config: Mapping[str, Any]) -> int | None:
    """Return the number of epochs that a run's configuration asks for under one of the usual names."""
    return _whole_number(config, EPOCH_NAMES)


def epochs_done(run: RunRecord) -> int | None:
    """Return how many epochs a run completed: its number of points, or its `epoch` metric where that is larger.

    The metric is read from the points and from the summary, because some records have only a summary. None if neither
    is there, but the run logged other numbers or could not be read; 0 if it logged nothing.
    """
    epochs = list(run.finite_epochs)
    from_zero = 1 if epochs and epochs[0] == 0 else 0
    in_summary = as_finite(run.summary.get("epoch"))
    if in_summary is not None:
        epochs.append(in_summary)
    if epochs:
        return max(len(run.points), int(max(epochs)) + from_zero)
    has_values = any(not name.startswith("_") and as_number(value) is not None for name, value in run.summary.items())
    return len(run.points) or (None if has_values or run.unread else 0)


def _whole_number(config: Mapping[str, Any], names: Sequence[str]) -> int | None:
    values = (config.get(name) for name in names)
    return next((int(value) for value in values if is_number(value) and value > 0 and value == int(value)), None)


def _epochs_since_best(run: RunRecord, goal: Goal) -> int | None:
    """Return how many epochs came after the first one with the best value: by the `epoch` metric, else by points."""
    curve = run.curve
    if not curve:
        return None
    best = max(curve) if goal == "maximize" else min(curve)
    points = len(curve) - 1 - curve.index(best)
    epoch = next((point.epoch for point in run.points if point.value == best), None)
    if epoch is None or not math.isfinite(epoch):
        return points
    return max(points, int(max(run.finite_epochs) - epoch))


def _heartbeat_age_s(run: RunRecord, now: datetime) -> float | None:
    if run.state == RunState.PENDING and run.heartbeat_at is None and run.agent is None:
        return None  # no agent has it yet: a queued run waits as long as it takes
    heard_at = run.heartbeat_at or run.created_at
    return None if heard_at is None else (now - heard_at).total_seconds()


def _alive_at_cancel(run: RunRecord, updated_at: datetime | None, last_heartbeat: datetime | None) -> bool | None:
    """Return whether a run still reported when its sweep was cancelled, taken to be the sweep's last update."""
    if run.heartbeat_at is None or last_heartbeat is None:
        return None
    if updated_at is not None and (updated_at - run.heartbeat_at).total_seconds() <= HEARTBEAT_SLACK_S:
        return True
    # The last update may be a later one (a new description): then a run had surely ended only if others outlived it.
    return False if (last_heartbeat - run.heartbeat_at).total_seconds() > HEARTBEAT_SLACK_S else None


def _has_stop(run: RunRecord) -> bool:
    return bool(run.stop_recorded) or run.state == RunState.KILLED or run.summary.get("end_reason") == EndReason.STOPPED


def lost_together(runs: Sequence[RunRecord]) -> dict[str, str]:
    """Return run id -> a sentence for runs of one host that lost contact together, which points to the host.

    They were alive at the same time, and no run that was alive with them continued.
    """
    by_host: dict[str, list[RunRecord]] = {}
    for run in runs:
        if run.host and run.heartbeat_at:
            by_host.setdefault(run.host, []).append(run)
    sentences = {}
    for host, members in by_host.items():
        lost = [run for run in members if run.state == RunState.CRASHED]
        for run in lost:
            group = [other for other in lost if _ended_together(run, other) and _overlap(run, other)]
            if len(group) >= FEWEST_TOGETHER and not any(_went_on(other, group) for other in members):
                sentences[run.run_id] = f"{counted(len(group), 'run')} on {host} lost contact within {TOGETHER_S:.0f} s"
    return sentences


def _overlap(run: RunRecord, other: RunRecord) -> bool:
    """Return whether two runs were alive at the same time; unknown times count as yes."""
    if run.created_at is None or run.heartbeat_at is None or other.created_at is None or other.heartbeat_at is None:
        return True
    return run.created_at <= other.heartbeat_at and other.created_at <= run.heartbeat_at


def _went_on(run: RunRecord, lost: Sequence[RunRecord]) -> bool:
    """Return whether a run that was alive with the lost ones reported after they had ended."""
    last = max(other.heartbeat_at for other in lost if other.heartbeat_at)
    if run.heartbeat_at is None or run.created_at is None or run.created_at > last:
        return False
    return (run.heartbeat_at - last).total_seconds() > HEARTBEAT_SLACK_S


def _ended_together(run: RunRecord, other: RunRecord) -> bool:
    if run.heartbeat_at is None or other.heartbeat_at is None:
        return False
    return abs((run.heartbeat_at - other.heartbeat_at).total_seconds()) <= TOGETHER_S
