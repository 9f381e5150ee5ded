"""Writes what the training loop reports: into the run's folder first, then to W&B.

An epoch has ``_step`` = epoch - 1 in W&B's history, so that a continued run repeats no epoch and skips none.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from amc_agents.trial.end_and_history import Row, append_row, truncate_rows, write_rows
from amc_agents.trial.evaluations import BestEvaluation
from amc_core.config import is_same

_PARENT_FIELDS = ("parent_run", "parent_split_fingerprint")


class ClientLostError(RuntimeError):
    """The wandb client's own process is gone, so this trial can send nothing more to W&B."""


@contextlib.contextmanager
def detect_lost_client() -> Iterator[None]:
    """Raise ClientLostError where the client finds its own process dead."""
    try:
        yield
    except ConnectionError as error:
        raise ClientLostError(f"W&B's client process (wandb-core) is gone: {error}") from error


class RunRecorder:
    """The Recorder of a trial with W&B."""

    def __init__(self, run: Any, folder: Path) -> None:
        """Take a ``wandb.Run`` and the folder of that run."""
        self._run = run
        self._folder = folder
        self.epoch: int | None = None  # the last logged one
        self.facts: dict[str, Any] = {}  # of the summary
        self._best = BestEvaluation(run, folder)

    def begin(self) -> None:
        """Start with an empty history in the folder."""
        write_rows(self._folder, [])

    def resume(self, *, epochs: int, last: Row) -> None:
        """Continue after a checkpoint: cut the folder's history back to its epochs, and log those that W&B lacks.

        Args:
            epochs: how many complete epochs the checkpoint has.
            last: the metrics of the last of these epochs.
        """
        rows = truncate_rows(self._folder, epochs=epochs, last=last)
        self.epoch = epochs or None
        with detect_lost_client():
            log_missing_rows(self._run, rows)
            if "end_reason" in self._run.summary.keys():  # noqa: SIM118 - not a mapping: its ``in`` takes numbers
                del self._run.summary["end_reason"]  # of an earlier attempt
        self._best.resume(rows)

    def config(self, facts: Mapping[str, Any]) -> None:
        """Record facts of the whole run. A run that continues itself keeps the parent of its first trial."""
        is_own_parent = facts.get("parent_run") == self._run.id
        own_facts = {name: value for name, value in facts.items() if not (is_own_parent and name in _PARENT_FIELDS)}
        with detect_lost_client():
            config = self._run.config
            new = {name: fact for name, fact in own_facts.items() if not is_same(name, config.get(name), fact)}
            config.update(new, allow_val_change=True)

    def log(self, metrics: Mapping[str, float]) -> None:
        """Record an epoch. W&B may have it already: an earlier attempt may have logged epochs after the checkpoint."""
        append_row(self._folder, metrics)
        self.epoch = int(metrics["epoch"])
        with detect_lost_client():
            log_missing_rows(self._run, [dict(metrics)])
        self._best.update(metrics)

    def summary(self, facts: Mapping[str, Any]) -> None:
        """Record final values. A lost client raises nothing here: the next call to W&B finds it."""
        self.facts.update(facts)
        with contextlib.suppress(ClientLostError), detect_lost_client():
            self._run.summary.update(dict(facts))


def log_missing_rows(run: Any, rows: list[dict[str, Any]]) -> None:
    """Log those epochs of a resumed run that W&B lacks."""
    for row in rows:
        if int(row["epoch"]) > run.starting_step:
            run.log(row, step=int(row["epoch"]) - 1, commit=True)
