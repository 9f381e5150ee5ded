"""Who asked a trial to end, and what follows: the one place that reads signals.

=====================  ==============================================  ==================================
what arrives           what it means                                   how the trial ends
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

The first request wins: an agent that follows W&B's stop with SIGTERM does not turn it into something else. A request
only leaves a note, which the training loop reads between two optimiser steps, so that a checkpoint is never cut short.

A machine that is taken away does not wait for a step of a minute, or for a file that is still being loaded: where
nobody has read the note of a preemption for PREEMPTION_LIMIT_S, the trial goes with the checkpoint that it has.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Mapping
from types import FrameType

from amc_sweeps.runs.causes import EndReason

SIGTERM_MEANING = "AMC_SIGTERM"  # set to "preemption" by a launcher whose SIGTERM says that the machine goes away
PREEMPTION_LIMIT_S = 8.0  # of the ten seconds that a doomed machine is sure to grant


class StopRequests:
    """The first request to end this trial; callable, as the training loop wants it."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._sigterm = EndReason.PREEMPTED if environ.get(SIGTERM_MEANING) == "preemption" else EndReason.STOPPED
        self._reason: EndReason | None = None
        self._lock = threading.RLock()  # a handler may interrupt a handler
        self._overdue: threading.Timer | None = None
        self._when_overdue: Callable[[], None] | None = None
        self._limit_s = PREEMPTION_LIMIT_S

    def __call__(self) -> str | None:
        """Return the reason to end, or None to go on."""
        self._call_off()  # it is read: whoever does may take the time that a checkpoint takes
        return self._reason

    def when_overdue(self, act: Callable[[], None] | None, *, limit_s: float = PREEMPTION_LIMIT_S) -> None:
        """Let this be done, in a thread of its own, where a preemption has been noted and is not read in time.

        None: the training is over, there is nothing left to be late for.
        """
        self._call_off()
        self._when_overdue = act
        self._limit_s = limit_s

    def _call_off(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()

    def by_wandb(self) -> None:
        """Note W&B's own stop; the client calls this from a thread of its own."""
        self._note(EndReason.STOPPED)

    def listen(self) -> None:
        """Take over SIGTERM, SIGUSR1 and SIGINT; to be called from the main thread."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGUSR1, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)
        # Python calls a handler between two lines of its own, and a backward pass is one line, of seconds or minutes.
        # The number of the signal comes through this pipe at once.
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(reading,), name="signals", daemon=True).start()

    def _watch(self, pipe: int) -> None:
        while numbers := os.read(pipe, 64):
            for number in numbers:
                if number in (signal.SIGTERM, signal.SIGUSR1):  # to count interrupts is the handler's
                    self._on_signal(number, None)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            if self._reason is EndReason.INTERRUPTED:
                raise KeyboardInterrupt  # asked twice: no more patience
            self._note(EndReason.INTERRUPTED)
        else:
            self._note(EndReason.PREEMPTED if number == signal.SIGUSR1 else self._sigterm)

    def _note(self, reason: EndReason) -> None:
        with self._lock:  # handler and watcher both come here
            if self._reason is not None:
                return
            self._reason = reason
            if reason is EndReason.PREEMPTED and self._when_overdue is not None:
                self._overdue = threading.Timer(self._limit_s, self._when_overdue)
                self._overdue.daemon = True
                self._overdue.start()
