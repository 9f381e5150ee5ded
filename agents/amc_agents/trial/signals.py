"""Requests to end a trial: the one place that handles signals.

=====================  ==============================================  ==================================
request                meaning                                         how the trial ends
=====================  ==============================================  ==================================
W&B's own stop         a person or Hyperband stopped the run           stopped, exit 0
SIGTERM                an agent's ``stop`` command, after W&B's own    stopped, exit 0
SIGTERM, declared      the machine is taken away, where the launcher   preempted, exit 75; handed out
                       set AMC_SIGTERM=preemption                      again
SIGUSR1                the machine is taken away                       preempted, exit 75; handed out
                                                                       again
SIGINT (Ctrl-C)        the person at the terminal                      interrupted, exit 130; a second
                                                                       one ends at once
=====================  ==============================================  ==================================

Clients before 0.28 send SIGINT for W&B's own stop. With them, SIGINT means that stop in a sweep. A trial that somebody
ends by Ctrl-C then counts as stopped, too, because the two look the same.

The first request wins: the SIGTERM of an agent after W&B's own stop changes nothing. A request is only recorded. The
training loop reads it between two optimiser steps, so a checkpoint is always complete.

A machine that is taken away does not wait for a long step or for a file to load. If nobody reads a preemption within
PREEMPTION_LIMIT_S, the trial ends with the checkpoint that it has.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Mapping
from types import FrameType
from typing import TYPE_CHECKING

from amc_sweeps.backend.patience import PATIENCE_S
from amc_sweeps.runs.causes import EndReason

if TYPE_CHECKING:
    import wandb

SIGTERM_MEANING = "AMC_SIGTERM"  # a launcher sets it to "preemption" if its SIGTERM means that
PREEMPTION_LIMIT_S = 8.0  # a preempted machine grants at least ten seconds


class StopRequests:
    """The first request to end this trial. Calling it returns the request, as the training loop expects."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._sigterm = EndReason.PREEMPTED if environ.get(SIGTERM_MEANING) == "preemption" else EndReason.STOPPED
        self._sigint = EndReason.INTERRUPTED
        self._is_in_sweep = "WANDB_SWEEP_ID" in environ
        self._reason: EndReason | None = None
        self._lock = threading.RLock()  # a signal handler may interrupt another one
        self._timer: threading.Timer | None = None
        self._when_overdue: Callable[[], None] | None = None
        self._limit_s = PREEMPTION_LIMIT_S

    def __call__(self) -> str | None:
        """Return the reason to end, or None to continue."""
        self._cancel_timer()  # the reader may take as long as its checkpoint needs
        return self._reason

    def when_overdue(self, act: Callable[[], None] | None, *, limit_s: float = PREEMPTION_LIMIT_S) -> None:
        """Set what to call, in its own thread, if a preemption is not read in time; None once training is over."""
        self._cancel_timer()
        self._when_overdue = act
        self._limit_s = limit_s

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def wandb_settings(self) -> wandb.Settings:
        """Return settings for ``wandb.init`` with which W&B's own stop comes here."""
        import wandb

        has_stop = "stop_fn" in wandb.Settings.model_fields
        if not has_stop and self._is_in_sweep:
            self._sigint = EndReason.STOPPED
        settings = wandb.Settings(stop_fn=self.by_wandb) if has_stop else wandb.Settings()
        if "WANDB_INIT_TIMEOUT" not in os.environ:
            settings.init_timeout = PATIENCE_S  # W&B may limit requests for longer than the client's 90 s
        return settings

    def by_wandb(self) -> None:
        """Record W&B's own stop; the client calls this from its own thread."""
        self._record(EndReason.STOPPED)

    def listen(self) -> None:
        """Handle SIGTERM, SIGUSR1 and SIGINT from here on; call it from the main thread."""
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            signal.signal(number, self._on_signal)
        # Python runs a handler between two of its own instructions, and a backward pass is one instruction that takes
        # seconds or minutes. This pipe gets the number of the signal at once.
        read_end, write_end = os.pipe()
        os.set_blocking(write_end, False)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(read_end,), name="signals", daemon=True).start()

    def _watch(self, pipe: int) -> None:
        while numbers := os.read(pipe, 64):
            for number in numbers:
                if number in (signal.SIGTERM, signal.SIGUSR1):  # the handler counts interrupts
                    self._on_signal(number, None)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            if self._reason is EndReason.INTERRUPTED:
                raise KeyboardInterrupt  # the second one
            self._record(self._sigint)
        else:
            self._record(EndReason.PREEMPTED if number == signal.SIGUSR1 else self._sigterm)

    def _record(self, reason: EndReason) -> None:
        with self._lock:  # the handler and the watcher both call this
            if self._reason is not None:
                return
            self._reason = reason
            if reason is EndReason.PREEMPTED and self._when_overdue is not None:
                self._timer = threading.Timer(self._limit_s, self._when_overdue)
                self._timer.daemon = True
                self._timer.start()
