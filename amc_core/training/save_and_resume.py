"""Write last.pt, beside the training or at once, and continue a trial from it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from torch import Tensor

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

_WRITTEN_AT_ONCE = 32 * 2**20  # bytes of tensors that take less than 0.1 s


class EpochWriter:
    """Writes the checkpoints of complete epochs, large ones in a thread while the next epoch trains.

    On two CPU cores a checkpoint of ResNet50 (269 MiB) took 0.8 s, one of ViT-B (982 MiB) 6 s. The copy of the state
    that a thread needs took 0.1 s and 1.7 s, and as much memory as the checkpoint.
    """

    def __init__(self, run_dir: Path, threads: ThreadPoolExecutor) -> None:
        self._run_dir = run_dir
        self._threads = threads
        self._writing: tuple[Future[None], Callable[[], None]] | None = None

    def write(self, state: TrainingState, then: Callable[[], None]) -> None:
        """Write ``last.pt`` and call ``then`` in this thread when it is on the disk.

        Raises:
            Diverged: a weight is not finite; nothing is written.
            OSError: the folder cannot be written or the disk is full; the old checkpoint stays.
        """
        self.finish()
        content = _content(state, self._run_dir)
        path = self._run_dir / LAST
        if _n_bytes(content) <= _WRITTEN_AT_ONCE:
            save_checkpoint(path, Checkpoint(**content))
            then()
            return
        copy = Checkpoint(**{name: _on_host(value) for name, value in content.items()})
        self._writing = self._threads.submit(save_checkpoint, path, copy), then

    def proceed(self) -> None:
        """Call ``then`` if the checkpoint has come to the disk in the meantime."""
        if self._writing is not None and self._writing[0].done():
            self.finish()

    def finish(self) -> None:
        """Wait for the checkpoint that is being written, and call its ``then``.

        Raises:
            OSError: it could not be written; the old checkpoint stays, and ``then`` is not called.
        """
        if self._writing is not None:
            (written, then), self._writing = self._writing, None
            written.result()
            then()


@contextlib.contextmanager
def epoch_writer(run_dir: Path) -> Iterator[EpochWriter]:
    """Lend a writer; at the end, an error's too, the epoch that is being written is finished."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint") as threads:
        writer = EpochWriter(run_dir, threads)
        try:
            yield writer
        finally:
            writer.finish()


def save_last(state: TrainingState, run_dir: Path) -> None:
    """Write ``last.pt`` at once.

    Raises:
        Diverged: a weight is not finite; nothing is written.
        OSError: the folder cannot be written or the disk is full; the old checkpoint stays.
    """
    save_checkpoint(run_dir / LAST, Checkpoint(**_content(state, run_dir)))


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


def _content(state: TrainingState, run_dir: Path) -> dict[str, Any]:
    """Return the fields of a checkpoint, with the tensors of the training itself."""
    state.require_finite()
    return {"run": run_dir.name, **state.state_dict()}


def _on_host(value: Any) -> Any:
    """Return a copy in the host's memory, which later steps of the training do not change."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: _on_host(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_on_host(part) for part in value)
    return value


def _n_bytes(value: Any) -> int:
    """Return the size of all tensors in it."""
    if isinstance(value, Tensor):
        return value.nbytes
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return sum(_n_bytes(part) for part in parts)


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
