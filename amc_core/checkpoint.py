"""Checkpoints: written whole or not at all, and readable without running code from the file."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ["Checkpoint", "CheckpointError", "load_checkpoint", "save_checkpoint"]

_FORMAT = 1


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message says which file, why, and what to do next."""


@dataclass(frozen=True)
class Checkpoint:
    """What a trial leaves of itself."""

    config: Mapping[str, Any]  # TrialConfig.to_mapping()
    epoch: int  # complete epochs
    split_fingerprint: str
    metrics: Mapping[str, float]  # of that epoch; empty before the first one is complete
    model: Mapping[str, Tensor]
    criterion: Mapping[str, Tensor]  # the learned task weights


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
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself must survive, too
    finally:
        os.close(folder)


def load_checkpoint(path: Path, *, device: torch.device | str = "cpu") -> Checkpoint:
    """Read a checkpoint; nothing but tensors and plain values is unpickled.

    Raises:
        CheckpointError: missing, truncated, or not a checkpoint of this program.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint; a trial writes best.pt and last.pt into its run folder")
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile, OSError) as error:
        cause = f"{type(error).__name__} {error}".splitlines()[0]
        raise CheckpointError(
            f"{path}: {path.stat().st_size} bytes that are not a complete checkpoint ({cause}); it was cut off, "
            "damaged in copying, or written by another program: take another one"
        ) from error
    if not isinstance(content, dict) or content.pop("format", None) != _FORMAT:
        raise CheckpointError(f"{path}: a torch file, but no checkpoint of format {_FORMAT} of this program")
    return Checkpoint(**content)
