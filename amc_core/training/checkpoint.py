"""Checkpoints: written whole or not at all, and readable without running code from the file.

Which ones a run's folder keeps:

- ``last.pt``: after every epoch, and where a stop was asked for, in the middle of one too
- ``best_combined_acc.pt``, ``best_loss.pt``: of the epoch of the highest val/combined_acc and of the lowest val/loss;
  the earliest where several are equal
- ``best.pt``: that one of the two that ``select_by`` names: the test row is about it
- ``before_N/``: all of these as an earlier trial left them in the same folder; a new trial never overwrites them

Each is whole: ``init_from`` takes the weights of any. ``resume_from`` continues ``last.pt`` and ``best.pt``; the best
one by the criterion that ``select_by`` does not name, only as long as the one that was best by the other at its time is
still beside it, for the test would need that one. An epoch is written once; the best ones are further names of that
file.
"""

from __future__ import annotations

import os
import pickle
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "BEST",
    "LAST",
    "Checkpoint",
    "CheckpointError",
    "best_by",
    "keep_as",
    "load_checkpoint",
    "save_checkpoint",
    "set_aside",
]

BEST, LAST = "best.pt", "last.pt"
_FORMAT = 3


def best_by(criterion: str) -> str:
    """Return the name of the best checkpoint by ``combined_acc`` or ``loss``."""
    return f"best_{criterion}.pt"


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message says which file, why, and what to do next."""


@dataclass(frozen=True)
class Checkpoint:
    """What a trial leaves of itself."""

    run: str  # name of the run's folder, which is W&B's run id where there is one
    config: Mapping[str, Any]  # TrialConfig.to_mapping()
    epoch: int  # complete epochs
    steps_done: int  # optimiser steps of the next epoch
    split_fingerprint: str
    trained_on: Sequence[Mapping[str, Any]]  # every split whose training part shaped these weights: lineage.SplitFacts
    metrics: Mapping[str, float]  # of the last complete epoch; empty before the first one
    model: Mapping[str, Tensor]
    criterion: Mapping[str, Tensor]  # the learned task weights
    training: Mapping[str, Any]  # what else decides the steps that follow: TrainingState.state_dict


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Replace ``path`` in one step: a reader finds the old checkpoint or the new one, also after a power cut.

    Raises:
        OSError: the folder cannot be written or the disk is full; the old checkpoint stays.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("wb") as file:
            torch.save({"format": _FORMAT, **vars(checkpoint)}, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def keep_as(path: Path, name: str) -> None:
    """Give a checkpoint a second name in its folder, replacing what had it; replacing the first leaves the second."""
    partial = path.with_name(f".{name}.{os.getpid()}")
    try:
        try:
            partial.hardlink_to(path)
        except OSError:  # no hard links on this file system
            shutil.copyfile(path, partial)
        partial.replace(path.with_name(name))
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def set_aside(run_dir: Path) -> Path | None:
    """Move an earlier trial's checkpoints into before_1, before_2, ...; return the folder, None without any."""
    earlier = sorted(run_dir.glob("*.pt"))
    if not earlier:
        return None
    number = next(number for number in range(1, 10_000) if not (run_dir / f"before_{number}").exists())
    folder = run_dir / f"before_{number}"
    folder.mkdir()
    for path in earlier:
        path.rename(folder / path.name)
    return folder


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # the rename itself must survive a power cut, too
    finally:
        os.close(descriptor)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint into the host's memory; nothing but tensors and plain values is unpickled.

    Raises:
        CheckpointError: missing, truncated, or not a checkpoint of this program.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint; a trial writes {BEST} and {LAST} into its run folder")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile, OSError) as error:
        cause = type(error).__name__
        if not isinstance(error, pickle.UnpicklingError):  # whose text advises to run code from the file
            cause += f" {error}".splitlines()[0]
        raise CheckpointError(
            f"{path}: {path.stat().st_size} bytes that are not a complete checkpoint ({cause}); it was cut off, "
            "damaged in copying, or written by another program: take another one"
        ) from error
    if not isinstance(content, dict) or content.pop("format", None) != _FORMAT:
        raise CheckpointError(f"{path}: a torch file, but no checkpoint of format {_FORMAT} of this program")
    return Checkpoint(**content)
