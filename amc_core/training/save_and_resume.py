"""Write last.pt, and continue a trial from it."""

from __future__ import annotations

from pathlib import Path

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
from amc_core.training.state import TrainingState


def save_last(state: TrainingState, run_dir: Path) -> None:
    """Write ``last.pt``.

    Raises:
        Diverged: a weight is not finite; nothing is written.
        OSError: the folder cannot be written or the disk is full; the old checkpoint stays.
    """
    state.require_finite()
    save_checkpoint(run_dir / LAST, Checkpoint(run=run_dir.name, **state.state_dict()))


def resume(state: TrainingState, run_dir: Path, path: Path, checkpoint: Checkpoint) -> None:
    """Restore the state that was written to ``path`` as ``checkpoint``.

    Raises:
        CheckpointError: the best checkpoint by ``select_by`` is not beside it, or its optimiser has other groups.
    """
    try:
        state.load_state_dict(vars(checkpoint))
    except ValueError as error:
        raise CheckpointError(
            f"{path}: the optimiser's state does not fit ({error}): an older version decayed other weights, such as "
            "position embeddings; start a new trial from the weights with init_from"
        ) from error
    if checkpoint.split_fingerprint == state.context.split_facts.split_fingerprint:
        _copy_best(state, run_dir, path, checkpoint)
        return
    # The other split has other frames, so the best epochs and the interrupted epoch's counts mean nothing here.
    set_aside(run_dir)
    state.progress = state.progress.on_another_split()
    state.start_counting()
    save_last(state, run_dir)  # at once: the checkpoints were moved away, and a crash must still be resumable


def _copy_best(state: TrainingState, run_dir: Path, path: Path, checkpoint: Checkpoint) -> None:
    """Copy the best checkpoints so far into the run's folder: the continued trial may never beat them."""
    select_by = state.context.config.select_by
    epochs = {criterion: getattr(state.progress, criterion).epoch for criterion in ("combined_acc", "loss")}
    checkpoints: dict[str, Checkpoint] = {}
    for criterion, epoch in epochs.items():
        candidates = (path, path.with_name(best_by(criterion)))
        for candidate in candidates if epoch else ():
            content = checkpoint if candidate == path else load_checkpoint(candidate) if candidate.is_file() else None
            if content is not None and (content.epoch, content.steps_done) == (epoch, 0):
                checkpoints[criterion] = content
                break
    if epochs[select_by] and select_by not in checkpoints:
        raise CheckpointError(
            f"{path}: its best checkpoint by {select_by}, of epoch {epochs[select_by]}, is not beside it "
            f"as {path.with_name(best_by(select_by))}; the test would need it: copy the whole folder, or resume from "
            f"{LAST}"
        )
    if run_dir.resolve() != path.parent.resolve():
        set_aside(run_dir)
    for criterion, content in checkpoints.items():
        save_checkpoint(run_dir / best_by(criterion), content)
        if criterion == select_by:
            keep_as(run_dir / best_by(criterion), BEST)
