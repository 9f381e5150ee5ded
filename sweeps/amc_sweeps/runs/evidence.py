"""From records to the evidence that the classifier of causes weighs: bands, cancellation, neighbours, silence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from amc_sweeps.grammar.hyperband import HyperbandConfig
from amc_sweeps.runs.bands import HyperbandDecisions
from amc_sweeps.runs.causes import EndReason, Evidence
from amc_sweeps.runs.records import Goal, RunRecord, SweepRecord
from amc_sweeps.runs.run_states import RunState, SweepState
from amc_sweeps.values import as_number

# Names that training scripts give to the same thing; the first that a run's configuration has is taken.
EPOCH_NAMES = ("epochs", "num_epochs", "n_epochs", "max_epochs", "num_train_epochs", "total_epochs")
PATIENCE_NAMES = ("patience", "early_stopping_patience", "es_patience")

HEARTBEAT_SLACK_S = 60.0  # heartbeats come every 15 to 30 s: an end is known no better than that
TOGETHER_S = 120.0
FEWEST_TOGETHER = 3


def evidence_of(sweep: SweepRecord) -> dict[str, Evidence]:
    """Return run id -> evidence, for every run of the sweep."""
    early = hyperband_of(sweep.config)
    decisions = None if early is None else HyperbandDecisions(early, sweep.metric.goal, sweep.runs)
    cancelled = sweep.state in {SweepState.CANCELED, "CANCELLED"}
    last_heartbeat = max((run.heartbeat_at for run in sweep.runs if run.heartbeat_at), default=None)
    neighbours = _lost_together(sweep.runs)
    found = {}
    for run in sweep.runs:
        curve = run.curve
        best = _index_of_best(curve, sweep.metric.goal)
        found[run.run_id] = Evidence(
            state=run.state,
            exit_code=run.exit_code,
            end_reason=_text(run.summary.get("end_reason")),
            stop_recorded=run.stop_recorded,
            stop_reason=run.stop_reason,
            sweep_cancelled=cancelled,
            alive_at_cancel=_alive_at_cancel(run, sweep.updated_at, last_heartbeat) if cancelled else None,
            heartbeat_age_s=_age_s(run, sweep.read_at),
            points=len(curve),
            epochs=epochs_done(run) or None,
            epochs_planned=epochs_planned(run.config),
            epochs_since_best=None if best is None else _epochs_since(run, curve[best], len(curve) - 1 - best),
            patience=_whole_number(run.config, PATIENCE_NAMES),
            not_finite=run.not_finite[:3],
            log_tail=run.log_tail,
            alive_when_exported=bool(run.alive_when_exported),
            hyperband=early is not None,
            band=run.stop_decision or (decisions.decision(run, asked=_was_asked(run)) if decisions else None),
            neighbours_lost=neighbours.get(run.run_id),
        )
    return found


def hyperband_of(config: Mapping[str, Any]) -> HyperbandConfig | None:
    """Read a sweep's ``early_terminate``; leniently, since other people's sweeps are read too."""
    section = config.get("early_terminate")
    if not isinstance(section, Mapping) or section.get("type", "hyperband") != "hyperband":
        return None
    known = ("min_iter", "max_iter", "s", "eta", "strict")
    return HyperbandConfig(**{name: section[name] for name in known if section.get(name) is not None})


def epochs_planned(config: Mapping[str, Any]) -> int | None:
    """Return how many epochs a run was to take, if its configuration says so under one of the usual names."""
    return _whole_number(config, EPOCH_NAMES)


def epochs_done(run: RunRecord) -> int:
    """Return how many epochs a run got through: its count of points, or its `epoch` metric where that says more.

    That is looked for in the points and in the summary, which some records have alone; 0 where nothing says.
    """
    named = [point.epoch for point in run.points if point.epoch is not None and math.isfinite(point.epoch)]
    from_zero = 1 if named and named[0] == 0 else 0
    told = as_number(run.summary.get("epoch"))
    if told is not None and math.isfinite(told):
        named.append(told)
    return max(len(run.points), int(max(named)) + from_zero) if named else len(run.points)


def _whole_number(config: Mapping[str, Any], names: Sequence[str]) -> int | None:
    for name in names:
        value = config.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 and value == int(value):
            return int(value)
    return None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _index_of_best(curve: Sequence[float], goal: Goal) -> int | None:
    if not curve:
        return None
    return curve.index(max(curve) if goal == "maximize" else min(curve))


def _epochs_since(run: RunRecord, value: float, points: int) -> int:
    """Return how many epochs came after the first one with a value: by the `epoch` metric, else by count of points."""
    epoch = next((point.epoch for point in run.points if point.value == value), None)
    last = max((point.epoch for point in run.points if point.epoch is not None), default=None)
    if epoch is None or last is None or not math.isfinite(last - epoch):
        return points
    return max(points, int(last - epoch))


def _age_s(run: RunRecord, now: datetime) -> float | None:
    seen = run.heartbeat_at or run.created_at
    return None if seen is None else (now - seen).total_seconds()


def _alive_at_cancel(run: RunRecord, updated_at: datetime | None, last_heartbeat: datetime | None) -> bool | None:
    """Tell whether a run still reported when its sweep was cancelled; the sweep's last update stands for that time."""
    if run.heartbeat_at is None or last_heartbeat is None:
        return None
    if updated_at is not None and abs((updated_at - run.heartbeat_at).total_seconds()) <= HEARTBEAT_SLACK_S:
        return True
    if updated_at is not None and run.heartbeat_at > updated_at:
        return True
    # The update may be a later one (a new description): then only runs that were outlived by others are known dead.
    return False if (last_heartbeat - run.heartbeat_at).total_seconds() > HEARTBEAT_SLACK_S else None


def _was_asked(run: RunRecord) -> bool:
    """Tell whether the run is known to have been asked to stop, or says so itself."""
    return bool(run.stop_recorded) or run.state == RunState.KILLED or run.summary.get("end_reason") == EndReason.STOPPED


def _lost_together(runs: Sequence[RunRecord]) -> dict[str, str]:
    """Find hosts on which several runs fell silent at about one time: the machine, not the runs, is to blame.

    They must have been alive at one time, and no run may have been alive with them that went on.
    """
    by_host: dict[str, list[RunRecord]] = {}
    for run in runs:
        if run.host and run.heartbeat_at:
            by_host.setdefault(run.host, []).append(run)
    found = {}
    for host, members in by_host.items():
        silent = [run for run in members if run.state == RunState.CRASHED]
        for run in silent:
            together = [other for other in silent if _apart_s(run, other) <= TOGETHER_S and _overlap(run, other)]
            if len(together) >= FEWEST_TOGETHER and not any(_went_on(other, together) for other in members):
                found[run.run_id] = f"{len(together)} runs on {host} fell silent within {TOGETHER_S:.0f} s"
    return found


def _overlap(one: RunRecord, other: RunRecord) -> bool:
    """Tell whether two runs were alive at one time, as far as their times are known."""
    times = [(run.created_at, run.heartbeat_at) for run in (one, other)]
    (begun, seen), (other_begun, other_seen) = times
    if begun is None or seen is None or other_begun is None or other_seen is None:
        return True
    return begun <= other_seen and other_begun <= seen


def _went_on(run: RunRecord, silent: Sequence[RunRecord]) -> bool:
    """Tell whether a run that was alive with others went on when they fell silent."""
    last = max(other.heartbeat_at for other in silent if other.heartbeat_at)
    if run.heartbeat_at is None or run.created_at is None or run.created_at > last:
        return False
    return (run.heartbeat_at - last).total_seconds() > HEARTBEAT_SLACK_S


def _apart_s(one: RunRecord, other: RunRecord) -> float:
    if one.heartbeat_at is None or other.heartbeat_at is None:
        return math.inf
    return abs((one.heartbeat_at - other.heartbeat_at).total_seconds())
