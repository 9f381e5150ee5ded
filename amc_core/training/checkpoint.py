"""Checkpoints: written whole or not at all, and readable without running code from the file.

A run's folder keeps:

- ``last.pt``: written after every epoch, and in the middle of one where a stop was asked for
- ``best_combined_acc.pt``, ``best_loss.pt``: the epoch of the highest val/combined_acc, and of the lowest val/loss; of
  equal epochs the earliest
- ``best.pt``: the one of these two that ``select_by`` names; the test is computed from it
- ``before_N/``: the checkpoints of an earlier trial in the same folder; a new trial never overwrites them

``init_from`` takes the weights of any of them. ``resume_from`` continues ``last.pt`` and ``best.pt``. It continues the
best one by the other criterion only if the best one by ``select_by`` of that time is still beside it, because the test
needs it. An epoch is written once; the best checkpoints are further names of that file.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from amc_core.files import is_file, link_whole, whole_file

BEST, LAST = "best.pt", "last.pt"
_FORMAT = 3


def best_by(criterion: str) -> str:
    """Return the name of the best checkpoint by ``combined_acc`` or ``loss``."""
    return f"best_{criterion}.pt"


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message says which file, why, and what to do next."""


@dataclass(frozen=True)
class Checkpoint:
    """One file's content: weights, and everything that a continued trial needs."""

    run: str  # name of the run's folder, which is W&B's run id where there is one
    config: Mapping[str, Any]  # TrialConfig.to_mapping()
    epoch: int  # complete epochs
    steps_done: int  # optimiser steps of the next epoch
    split_fingerprint: str
    trained_on: Sequence[Mapping[str, Any]]  # every split whose training part shaped these weights: lineage.SplitFacts
    metrics: Mapping[str, float]  # of the last complete epoch; empty before the first one
    model: Mapping[str, Tensor]  # weights and statistics as they were validated: with ema_decay the averaged weights
    criterion: Mapping[str, Tensor]  # the learned task weights
    training: Mapping[str, Any]  # everything else that later steps depend on: TrainingState.state_dict


_KINDS: Mapping[str, Any] = {
    **dict.fromkeys(("run", "split_fingerprint"), str),
    **dict.fromkeys(("epoch", "steps_done"), int),
    **dict.fromkeys(("config", "metrics", "model", "criterion", "training"), Mapping),
    "trained_on": Sequence,
}


_PROBE_BYTES = 1 << 20


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Replace ``path`` in one step: a reader finds the old checkpoint or the new one, also after a power cut.

    Raises:
        OSError: the folder cannot be written or the disk is full; the old checkpoint stays.
    """
    with whole_file(path, durable=True) as partial:
        try:
            torch.save({"format": _FORMAT, **vars(checkpoint)}, partial)
        except RuntimeError:  # torch does not say why a write failed; where the disk is full, the next one fails, too
            with partial.open("ab") as file:
                file.write(bytes(_PROBE_BYTES))
            raise


def keep_as(path: Path, name: str) -> None:
    """Give a checkpoint a second name in its folder; a later checkpoint under the first name leaves the second."""
    link_whole(path, path.with_name(name))


def set_aside(run_dir: Path) -> Path | None:
    """Move an earlier trial's checkpoints into before_1, before_2, ...; return the folder, None if there are none."""
    checkpoints = sorted(run_dir.glob("*.pt"))
    if not checkpoints:
        return None
    number = next(number for number in range(1, 10_000) if not (run_dir / f"before_{number}").exists())
    folder = run_dir / f"before_{number}"
    folder.mkdir()
    for path in checkpoints:
        path.rename(folder / path.name)
    return folder


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint into the host's memory; only tensors and plain values are unpickled.

    Raises:
        CheckpointError: the file is missing, truncated, damaged, or not a checkpoint of this program.
    """
    if not is_file(path):
        raise CheckpointError(f"{path}: no such checkpoint; a trial writes {BEST} and {LAST} into its run folder")
    try:
        _check_sums(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file may raise anything
        cause = type(error).__name__
        if not isinstance(error, pickle.UnpicklingError):  # its text advises to run code from the file
            cause += f" {error}".splitlines()[0]
        raise CheckpointError(
            f"{path}: {path.stat().st_size} bytes that are not a complete checkpoint ({cause}); it was cut off, "
            "damaged in copying, or written by another program: use another checkpoint"
        ) from error
    if not isinstance(content, dict) or content.pop("format", None) != _FORMAT:
        raise CheckpointError(f"{path}: a torch file, but not a checkpoint of format {_FORMAT} of this program")
    if content.keys() != _KINDS.keys() or not all(isinstance(content[name], kind) for name, kind in _KINDS.items()):
        raise CheckpointError(f"{path}: its content does not fit a checkpoint of this program: use another checkpoint")
    return Checkpoint(**content)


def _check_sums(path: Path) -> None:
    """Compare the file's parts with their check sums; torch does not, and would take damaged weights for good ones.

    Raises:
        zipfile.BadZipFile: a part is damaged.
        OSError: the file cannot be read.
    """
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"{damaged} is damaged")
