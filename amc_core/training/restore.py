"""What a continued trial takes over from its checkpoint besides the weights, and how it is found again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from amc_core.config import TrialConfig
from amc_core.training.checkpoint import (
    BEST,
    LAST,
    Checkpoint,
    CheckpointError,
    best_by,
    keep_as,
    load_checkpoint,
    save_checkpoint,
    set_aside,
)
from amc_core.training.progress import Standing
from amc_core.training.steps import Precision, Trial

__all__ = ["inherit_best", "random_state", "restore"]


def restore(trial: Trial, optimiser: torch.optim.Optimizer, precision: Precision, resumed: Checkpoint) -> Standing:
    """Put everything but the model's weights back as it was when the checkpoint was written."""
    state = resumed.training
    trial.criterion.load_state_dict(resumed.criterion)
    optimiser.load_state_dict(state["optimiser"])
    precision.scaler.load_state_dict(state["scaler"])
    torch.set_rng_state(state["random"]["cpu"])
    if trial.device.type == "cuda" and state["random"]["cuda"] is not None:
        torch.cuda.set_rng_state(state["random"]["cuda"], trial.device)
    return Standing.from_mapping(state["standing"])


def random_state(device: torch.device) -> dict[str, Any]:
    """Return torch's random numbers to come: dropout draws from them. Shuffling has a stream of its own an epoch."""
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def inherit_best(path: Path, resumed: Checkpoint, config: TrialConfig, run_dir: Path) -> None:
    """Bring the best checkpoints so far into the run's folder: the continued trial may never beat them.

    Raises:
        CheckpointError: the one that select_by names is not beside the checkpoint that is continued.
    """
    standing = Standing.from_mapping(resumed.training["standing"])
    best = {name: getattr(standing, name).epoch for name in ("combined_acc", "loss")}
    inherited: dict[str, Checkpoint] = {}
    for criterion, epoch in best.items():
        candidates = (path, path.with_name(best_by(criterion)))
        for candidate in candidates if epoch else ():
            loaded = resumed if candidate == path else load_checkpoint(candidate) if candidate.is_file() else None
            if loaded is not None and (loaded.epoch, loaded.steps_done) == (epoch, 0):
                inherited[criterion] = loaded
                break
    if best[config.select_by] and config.select_by not in inherited:
        name = best_by(config.select_by)
        raise CheckpointError(
            f"{path}: its best checkpoint by {config.select_by}, of epoch {best[config.select_by]}, is not beside it "
            f"as {path.with_name(name)}; the test would need it: copy the whole folder, or resume from {LAST}"
        )
    if run_dir.resolve() != path.parent.resolve():
        set_aside(run_dir)
    for criterion, checkpoint in inherited.items():
        save_checkpoint(run_dir / best_by(criterion), checkpoint)
        if criterion == config.select_by:
            keep_as(run_dir / best_by(criterion), BEST)
