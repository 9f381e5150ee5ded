"""Where a run that was handed out again goes on: the checkpoint in its folder, or the one that W&B keeps.

A run's folder is named by its id, so that with a shared ``--runs_dir`` the next attempt finds it wherever it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from amc_agents.trial.artifacts import Uploaded, fetch
from amc_core.training.checkpoint import LAST, CheckpointError, load_checkpoint


@dataclass(frozen=True)
class Found:
    """A checkpoint to go on from."""

    path: Path
    source: str  # in words
    epoch: int  # complete ones
    steps_done: int  # optimiser steps of the next one
    metrics: Mapping[str, float]  # of the last complete epoch


def find_checkpoint(run_id: str, folder: Path, uploaded: Callable[[], Uploaded | None]) -> Found | None:
    """Return the checkpoint that is further on: of the run's folder, or of W&B, which is fetched into the folder.

    Args:
        run_id: whose it must be.
        folder: of the run.
        uploaded: asks W&B.

    Raises:
        CheckpointError: it is damaged, or of another run.
        wandb.Error: nothing lies in the folder, and W&B does not answer.
    """
    own = _read(folder / LAST, run_id, "the run's folder") if (folder / LAST).is_file() else None
    try:
        kept = uploaded()
    except Exception:
        if own is None:
            raise
        kept = None  # what lies here will do
    if kept is None or (own is not None and (own.epoch, own.steps_done) >= (kept.epoch, kept.steps_done)):
        return own
    return _read(fetch(kept, folder), run_id, f"W&B's artifact {kept.artifact.name}")


def _read(path: Path, run_id: str, source: str) -> Found:
    checkpoint = load_checkpoint(path)
    if checkpoint.run != run_id:
        raise CheckpointError(
            f"{path}: a checkpoint of run {checkpoint.run}, not of {run_id}: move it away, or start a new "
            f"trial from it with --init_from={path}"
        )
    return Found(path, source, checkpoint.epoch, checkpoint.steps_done, checkpoint.metrics)
