"""The evaluation of a run's best epoch so far, with W&B while the trial goes on: a run that is killed later has it.

It is one small file of the run's (``evaluation/best.json``), overwritten in every better epoch. The client gathers for
some seconds what it is to upload, so that fast epochs cost no upload each. The file lies in the client's own folder and
not behind a link to ours: an offline run is often carried to another machine before it is synchronised.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from amc_agents.trial.run_folder import Row
from amc_core.training.evaluation_files import BEST_FILE, epoch_file

SO_FAR = "best/combined_acc"  # in every row: the running maximum of val/combined_acc


class BestEvaluation:
    """Follows one run's rows; whatever goes wrong is said once, and is no reason for a trial to end."""

    def __init__(self, run: Any, folder: Path) -> None:
        """Take a ``wandb.Run`` and the folder of that run."""
        self._run = run
        self._folder = folder
        self._best: float | None = None
        self._has_complained = False

    def go_on(self, rows: Sequence[Row]) -> None:
        """Go on after these rows, and upload their best evaluation again: an earlier attempt may not have got to it."""
        if rows:
            self._best = rows[-1].get(SO_FAR)
        epoch = best_epoch(rows)
        if epoch is not None and (self._folder / epoch_file(epoch)).is_file():  # else it is on another machine
            self._keep(epoch)

    def follow(self, row: Row) -> None:
        """Take the next epoch, whose evaluation is in the folder."""
        if is_better(row, self._best):
            self._best = row[SO_FAR]
            self._keep(int(row["epoch"]))

    def _keep(self, epoch: int) -> None:
        try:
            upload(self._run, self._folder / epoch_file(epoch))
        except Exception as error:  # noqa: BLE001 - also a client that is gone, which the next row finds out
            if not self._has_complained:
                sys.stderr.write(f"amc-train: the evaluation of epoch {epoch} is not with W&B: {error}\n")
            self._has_complained = True


def is_better(row: Row, best: float | None) -> bool:
    """Tell whether an epoch is the best so far; of equal ones the first is, as in the ranking."""
    return SO_FAR in row and (best is None or row[SO_FAR] > best)


def best_epoch(rows: Sequence[Row]) -> int | None:
    """Return the best epoch of some rows in their order; None without any."""
    best: Row | None = None
    for row in rows:
        if is_better(row, None if best is None else best[SO_FAR]):
            best = row
    return None if best is None else int(best["epoch"])


def upload(run: Any, path: Path) -> None:
    """Hand an evaluation to the client as the best one; about 2 ms, whatever the network is like.

    Raises:
        OSError: it cannot be read, or the client's folder not be written; or the client is gone.
        ValueError: it is no JSON.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    target = Path(run.dir) / BEST_FILE
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}")  # an upload that is under way reads a whole one
    partial.write_text(json.dumps(content, separators=(",", ":")), encoding="utf-8")
    partial.replace(target)
    # "now" uploads at every call what has changed; "live" would also poll a file that changes in no other way.
    run.save(str(target), base_path=run.dir, policy="now", glob=False)
