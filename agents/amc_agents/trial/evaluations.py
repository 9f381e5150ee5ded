"""Uploads a run's evaluations: during training that of its best epoch, at the end that of the test, and pictures.

``evaluation/best.json`` is replaced at every better epoch, so a run that is killed later still has it. The client
collects uploads for some seconds, so fast epochs do not cost an upload each. The file lies in the client's own folder,
not behind a link: an offline run is often carried to another machine before it is synchronised.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from amc_agents.trial.end_and_history import Row
from amc_core.files import write_whole
from amc_core.training.evaluation_files import BEST_FILE, epoch_stem, read_epoch
from amc_sweeps.values import as_finite, is_number

RUNNING_BEST = "best/combined_acc"  # in every row: the highest val/combined_acc so far
PICTURES = ("modulation_confusion", "snr_confusion", "accuracy_by_snr")


class BestEvaluation:
    """Uploads the evaluation of every new best epoch. A failure is printed once and does not end the trial."""

    def __init__(self, run: Any, folder: Path) -> None:
        """Take a ``wandb.Run`` and the folder of that run."""
        self._run = run
        self._folder = folder
        self._best: float | None = None
        self._has_warned = False

    def resume(self, rows: Sequence[Row]) -> None:
        """Continue after these rows, and upload their best evaluation again: an earlier upload may have failed."""
        if rows:
            self._best = as_finite(rows[-1].get(RUNNING_BEST))
        epoch = best_epoch(rows)
        if epoch is not None and read_epoch(self._folder, epoch) is not None:  # else it is on another machine
            self._upload(epoch)

    def update(self, row: Row) -> None:
        """Upload an epoch's evaluation from the folder, if the epoch is the best so far."""
        if is_better(row, self._best):
            self._best = row[RUNNING_BEST]
            self._upload(int(row["epoch"]))

    def _upload(self, epoch: int) -> None:
        try:
            upload_best(self._run, read_epoch(self._folder, epoch))
        except Exception as error:  # noqa: BLE001 - the client may be dead; the next row reports that
            if not self._has_warned:
                sys.stderr.write(f"amc-train: the evaluation of epoch {epoch} was not uploaded: {error}\n")
            self._has_warned = True


def is_better(row: Row, best: float | None) -> bool:
    """Return whether an epoch is the best so far; of equal epochs the first one is best, as in the ranking."""
    return RUNNING_BEST in row and (best is None or row[RUNNING_BEST] > best)


def best_epoch(rows: Sequence[Row]) -> int | None:
    """Return the best epoch of rows in their order, of equal epochs the first; None without rows."""
    candidates = [row for row in rows if is_number(row.get(RUNNING_BEST))]
    return int(max(candidates, key=lambda row: row[RUNNING_BEST])["epoch"]) if candidates else None


def upload_best(run: Any, text: bytes | None) -> None:
    """Give an evaluation to the client as the best one; about 2 ms, since the upload happens later.

    Raises:
        OSError: the client's folder cannot be written, or the client is gone.
        ValueError: the text is not JSON, or there is none.
    """
    if text is None:
        raise ValueError("its file is missing")
    content = json.loads(text)
    target = Path(run.dir) / BEST_FILE
    target.parent.mkdir(parents=True, exist_ok=True)
    write_whole(target, json.dumps(content, separators=(",", ":")))  # an upload in progress must read a whole file
    # "now" uploads what has changed at every call; "live" would also poll the file.
    run.save(str(target), base_path=run.dir, policy="now", glob=False)


def upload_evaluations(run: Any, folder: Path, epochs: Iterable[int | None], *, pictures: bool) -> None:
    """Upload the evaluations of the test and of these epochs from ``evaluation/``, and the pictures.

    The pictures go into the summary: a history row for them would take the ``_step`` of a later epoch.
    """
    import wandb

    evaluation = folder / "evaluation"
    for name in PICTURES if pictures else ():
        if (path := evaluation / f"{name}.png").is_file():
            run.summary[f"evaluation/{name}"] = wandb.Image(str(path))
    stems = ["test", *(epoch_stem(epoch) for epoch in sorted({epoch for epoch in epochs if epoch}))]
    for stem in stems:
        for path in sorted([*evaluation.glob(f"{stem}.json"), *evaluation.glob(f"{stem}_*.csv")]):
            run.save(str(path), base_path=str(folder), policy="now")
