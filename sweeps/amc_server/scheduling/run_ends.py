"""Why the runs of a sweep ended, from what the server has recorded; ``amc_sweeps.runs.causes`` decides."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from amc_server.store.logged_values import log_line
from amc_server.store.reader import Reader
from amc_server.store.records import Member, Run
from amc_sweeps.bounded_texts import json_object
from amc_sweeps.grammar.hyperband import BandDecision
from amc_sweeps.runs.causes import Diagnosis, Evidence, classify
from amc_sweeps.runs.evidence import lost_together
from amc_sweeps.runs.records import RunRecord
from amc_sweeps.runs.run_states import RunState
from amc_sweeps.values import as_number

LOG_LINES = 100  # as many as a report reads
ENDED_BADLY = (RunState.FAILED, RunState.CRASHED, RunState.KILLED)

_Facts = tuple[object, ...]


class RunEnds:
    """Diagnoses of runs that failed, crashed or were killed. Each is made once, and again when its facts change."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[_Facts, Diagnosis]] = {}

    def diagnoses(
        self, store: Reader, runs: Sequence[Member], curves: Mapping[int, Sequence[float]]
    ) -> dict[int, Diagnosis]:
        """Return by key why runs ended; finished and living runs have no entry.

        Args:
            store: has the runs.
            runs: of a sweep, and the prior runs of its search, which are of others.
            curves: their values of the metric, by key.
        """
        ended = [run for run in runs if run.state in ENDED_BADLY]
        crashed = sum(run.state is RunState.CRASHED for run in ended)
        lost: dict[int, Mapping[str, str]] = {}  # by sweep: the runs that were lost together with others
        found = {}
        for run in ended:
            points = len(curves.get(run.pk, ()))
            # A run that was lost may have been lost together with one that is found to be lost later.
            facts: _Facts = (run.state, run.exit_code, run.stop_reason, run.hand_outs, points)
            facts += (crashed,) if run.state is RunState.CRASHED else ()
            known = self._known.get(run.pk)
            if known is None or known[0] != facts:
                whole = store.run_by_key(run.pk)
                assert whole is not None
                sweep = whole.sweep or 0
                if run.state is RunState.CRASHED and sweep not in lost:
                    lost[sweep] = _lost_together(store, sweep)
                known = self._known[run.pk] = facts, _diagnose(store, whole, points, lost.get(sweep, {}).get(run.id))
            found[run.pk] = known[1]
        return found


def _lost_together(store: Reader, sweep: int) -> Mapping[str, str]:
    return lost_together(
        [
            RunRecord(run_id, run_id, state, host=host, created_at=_time(created), heartbeat_at=_time(heartbeat))
            for run_id, state, host, created, heartbeat in store.contacts(sweep)
        ]
    )


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _diagnose(store: Reader, run: Run, points: int, neighbours_lost: str | None) -> Diagnosis:
    reason = run.summary_values.get("end_reason")
    decision = (run.stop_band, run.stop_value, run.stop_threshold)
    log = [log_line(line)["line"] for line in store.console_tail(run.pk, LOG_LINES)]
    last_row = json_object(store.history_tail(run.pk) or "{}")[0]
    return classify(
        Evidence(
            state=run.state,
            exit_code=run.exit_code,
            end_reason=reason if isinstance(reason, str) else None,
            stop_recorded=run.stop_recorded or (None if "stop_recorded" in run.unknown_facts else False),
            stop_reason=run.stop_reason,
            points=points,
            not_finite=_not_finite(last_row),
            log_tail="\n".join(map(str.rstrip, log)) or None,
            band=None if None in decision else BandDecision(*decision),  # type: ignore[arg-type]
            alive_when_exported=run.state_when_exported is not None,
            neighbours_lost=neighbours_lost,
        )
    )


def _not_finite(row: Mapping[str, object]) -> tuple[str, ...]:
    numbers = {name: as_number(value) for name, value in row.items() if not name.startswith("_")}
    return tuple(name for name, number in numbers.items() if number is not None and not math.isfinite(number))
