"""What the training loop says: into the run's folder first, then to W&B.

An epoch has ``_step`` = epoch - 1 in W&B's history, so that a continued run neither doubles nor skips one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from amc_agents.trial.best_evaluation import BestEvaluation
from amc_agents.trial.reopen import log_missing_rows
from amc_agents.trial.run_folder import Row, append_row, keep_rows, write_rows

_OF_A_PARENT = ("parent_run", "parent_split_fingerprint")


class ClientLostError(RuntimeError):
    """The wandb client's side process is gone: W&B can be told nothing more by this trial."""


@contextlib.contextmanager
def telling_wandb() -> Iterator[None]:
    """Raise ClientLostError where the client finds its side process dead."""
    try:
        yield
    except ConnectionError as error:
        raise ClientLostError(f"W&B's client process (wandb-core) is gone: {error}") from error


class RunRecorder:
    """Writes and passes on one run's facts and rows."""

    def __init__(self, run: Any, folder: Path) -> None:
        """Take a ``wandb.Run`` and the folder of that run."""
        self._run = run
        self._folder = folder
        self.epoch: int | None = None  # the last one that was logged
        self.facts: dict[str, Any] = {}  # of the summary
        self._best = BestEvaluation(run, folder)

    def begin(self) -> None:
        """Start the folder's history anew."""
        write_rows(self._folder, [])

    def go_on(self, *, epochs: int, last: Row) -> None:
        """Go on after so many epochs of a checkpoint, whose last row is given, and log what W&B lacks of them."""
        rows = keep_rows(self._folder, epochs=epochs, last=last)
        self.epoch = epochs or None
        with telling_wandb():
            log_missing_rows(self._run, rows)
            if "end_reason" in self._run.summary.keys():  # noqa: SIM118 - no mapping; its ``in`` would ask for numbers
                del self._run.summary["end_reason"]  # how an earlier attempt ended is not how this one will
        self._best.go_on(rows)

    def config(self, facts: Mapping[str, Any]) -> None:
        """Take what holds for the whole run; a run that continues itself keeps the parent that it began with."""
        itself = facts.get("parent_run") == self._run.id
        told = {name: value for name, value in facts.items() if not (itself and name in _OF_A_PARENT)}
        with telling_wandb():
            self._run.config.update(told, allow_val_change=True)

    def log(self, metrics: Mapping[str, float]) -> None:
        """Take an epoch; one that W&B has from an earlier attempt, beyond the checkpoint, is not logged twice."""
        append_row(self._folder, metrics)
        self.epoch = int(metrics["epoch"])
        with telling_wandb():
            log_missing_rows(self._run, [dict(metrics)])
        self._best.follow(metrics)

    def summary(self, facts: Mapping[str, Any]) -> None:
        """Take what is known at the end. A lost client is no reason to end otherwise: the caller tells W&B next."""
        self.facts.update(facts)
        with contextlib.suppress(ClientLostError), telling_wandb():
            self._run.summary.update(dict(facts))
