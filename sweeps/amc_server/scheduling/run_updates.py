"""The state of single runs: infers it from the recorded facts, records it, and records that a run should stop.

Every method runs within the caller's transaction.
"""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from typing import Any

from amc_server.clock import Clock
from amc_server.errors import Refused
from amc_server.scheduling.last_heard import LastHeard
from amc_server.scheduling.state_inference import Facts, Limits, infer, is_abandoned
from amc_server.store.records import Run
from amc_server.store.writer import Writer
from amc_sweeps.runs.run_states import RunState

logger = logging.getLogger(__name__)


class RunUpdates:
    """Changes of a run's state."""

    def __init__(self, clock: Clock, last_heard: LastHeard, limits: Limits) -> None:
        self._clock = clock
        self._last_heard = last_heard
        self._limits = limits
        self._last_posts: dict[int, bytes] = {}  # by run that was preempted: the digest of its trial's last post

    def update(self, store: Writer, run: Run, **changes: Any) -> Run:
        """Change columns of a run and return the run as it is then."""
        store.update("runs", run.pk, **changes)
        return replace(run, **changes)

    def trial_reported(self, store: Writer, run: Run, **changes: Any) -> Run:
        """Record that the run's trial is alive, with the columns that it changes, and update the state."""
        self._last_heard.run_heard(run.pk)
        if run.agent is not None and not run.started:
            self._last_heard.agent_received(run.agent)
        run = self.update(store, run, heartbeat_at=self._clock.wall(), **changes)
        return self.update_state(store, run)

    def trial_ended(self, run: Run, post: bytes) -> None:
        """Store the digest of the last post of a preempted run's trial: the client may send that post again."""
        if run.state is RunState.PREEMPTED and post:
            self._last_posts[run.pk] = post
        else:
            self._last_posts.pop(run.pk, None)

    def is_repeated_end(self, run: Run, post: bytes) -> bool:
        """Return whether a post is an earlier trial's last one, sent again after the run was handed out again."""
        return run.state is not RunState.PREEMPTED and self._last_posts.get(run.pk) == post

    def update_state(self, store: Writer, run: Run) -> Run:
        """Infer the run's state again, and record it if it has changed."""
        state = infer(self._facts(run), self._limits)
        if state is run.state:
            return run
        ended_at = self._clock.wall() if state.is_terminal else None
        logger.info("run %s is %s (was %s)", run.id, state, run.state)
        # The run continues on this server. Of the facts that the import lacked, only its creation stays unknown.
        unknown = json.dumps([fact for fact in run.unknown_facts if fact == "created_at"])
        return self.update(store, run, state=state.value, ended_at=ended_at, state_when_exported=None, unknown=unknown)

    def stop(
        self,
        store: Writer,
        run: Run,
        reason: str,
        *,
        band: int | None = None,
        value: float | None = None,
        threshold: float | None = None,
    ) -> Run:
        """Record that a run should end; the first reason stays."""
        if run.stop_recorded or (run.state.is_terminal and not run.is_waiting):
            return run
        self._last_heard.stop_recorded(run.pk)
        logger.info("run %s should stop: %s", run.id, reason)
        run = self.update(
            store,
            run,
            stop_reason=reason,
            stop_at=self._clock.wall(),
            stop_band=band,
            stop_value=value,
            stop_threshold=threshold,
        )
        if run.state.is_terminal:  # it was preempted, and is not handed out again
            return self.update(store, run, state=RunState.KILLED.value)
        return self.update_state(store, run)

    def lease(self, store: Writer, run: Run, seconds: float) -> Run:
        """Hold a run that was handed out until its trial begins, for so long at most.

        Raises:
            Refused: it waits for no trial.
        """
        if run.state is not RunState.PENDING or run.agent is None:
            raise Refused(f"run {run.id} is {run.state}: only a run that was just handed out can be held", status=400)
        return self.update(store, run, leased_until=self._clock.wall() + seconds)

    def give_back(self, store: Writer, run: Run) -> Run:
        """Let a run that was handed out, and that no trial has begun, be handed out again at once.

        Raises:
            Refused: its trial has begun, or it is no run of a sweep.
        """
        if run.sweep is None or run.state is not RunState.PENDING:
            raise Refused(
                f"run {run.id} is {run.state}: only a run of a sweep that has not begun can be given back", status=400
            )
        if run.agent is None:
            return run
        logger.info("run %s was given back", run.id)
        self._last_heard.forget(run.pk)
        return self.update(store, run, agent=None, leased_until=None, hand_outs=max(run.hand_outs - 1, 0))

    def check_timeout(self, store: Writer, run: Run) -> None:
        """Reissue the run if nobody started it after its hand-out, else update its state."""
        if not self._needs_reissue(run):
            self.update_state(store, run)
            return
        logger.info("run %s was handed out and never began (hand-outs: %d)", run.id, run.hand_outs)
        if run.stop_recorded:
            self.update_state(store, run)
        elif run.hand_outs >= self._limits.hand_outs and self.hand_out_failed(run):
            self.update_state(store, self.update(store, run, given_up=1))
        else:
            self.update(store, run, agent=None)

    def hand_out_failed(self, run: Run) -> bool:
        """Return whether an agent got the run, although no trial of it began; a lost reply is no failure."""
        return self._last_heard.hand_out_failed(run.pk, self._limits.lost_replies_s)

    def has_timeout(self, run: Run) -> bool:
        """Return whether ``check_timeout`` would change the run."""
        return infer(self._facts(run), self._limits) is not run.state or self._needs_reissue(run)

    def _needs_reissue(self, run: Run) -> bool:
        is_pending = run.state is RunState.PENDING and run.sweep is not None
        return is_pending and is_abandoned(self._facts(run), self._limits)

    def _facts(self, run: Run) -> Facts:
        return Facts(
            started=bool(run.started),
            exit_code=run.exit_code,
            preempting=bool(run.preempting),
            stop_recorded=run.stop_recorded,
            given_up=bool(run.given_up),
            handed_out=run.agent is not None,
            silent_s=self._last_heard.silent_s(run.pk),
            listed_s=self._last_heard.listed_s(run.pk),
            unlisted_s=self._last_heard.unlisted_s(run.pk),
            leased=run.leased_until is not None and self._clock.wall() < run.leased_until,
        )
