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
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from types import FrameType

from amc_sweeps.causes import EndReason

SIGTERM_MEANING = "AMC_SIGTERM"  # set to "preemption" by a launcher whose SIGTERM says that the machine goes away


class StopRequests:
    """The first request to end this trial; callable, as the training loop wants it."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._sigterm = EndReason.PREEMPTED if environ.get(SIGTERM_MEANING) == "preemption" else EndReason.STOPPED
        self._reason: EndReason | None = None

    def __call__(self) -> str | None:
        """Return the reason to end, or None to go on."""
        return self._reason

    def by_wandb(self) -> None:
        """Note W&B's own stop; the client calls this from a thread of its own."""
        self._note(EndReason.STOPPED)

    def listen(self) -> None:
        """Take over SIGTERM, SIGUSR1 and SIGINT; to be called from the main thread."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGUSR1, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            if self._reason is EndReason.INTERRUPTED:
                raise KeyboardInterrupt  # asked twice: no more patience
            self._note(EndReason.INTERRUPTED)
        else:
            self._note(EndReason.PREEMPTED if number == signal.SIGUSR1 else self._sigterm)

    def _note(self, reason: EndReason) -> None:
        if self._reason is None:
            self._reason = reason
