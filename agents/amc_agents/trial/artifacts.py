"""What a run keeps with W&B besides numbers: its checkpoint, for another machine; its evaluation, for a person.

The collection ``checkpoint-RUN_ID`` holds what a trial needs to be continued exactly where no folder is shared.
"""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from amc_agents.trial.run_folder import HISTORY_FILE
from amc_sweeps.backend.references import is_missing

TYPE = "checkpoint"
SETTING = "AMC_CHECKPOINT_ARTIFACT"
PICTURES = ("modulation_confusion", "snr_confusion", "accuracy_by_snr")
UPLOAD_TIMEOUT_S = 600  # for a checkpoint; whoever takes the machine away is less patient


class ArtifactUse(StrEnum):
    """When a trial uploads its checkpoint."""

    PREEMPTION = "preemption"  # only when its machine is taken away: the next one may be another
    END = "end"  # however it ends: a hidden gem can then be continued anywhere
    NEVER = "never"  # the runs' folder is shared by all machines

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> ArtifactUse:
        """Read AMC_CHECKPOINT_ARTIFACT."""
        return cls(environ.get(SETTING) or cls.PREEMPTION)


@dataclass(frozen=True)
class Uploaded:
    """A checkpoint that W&B keeps."""

    artifact: Any  # wandb.Artifact
    epoch: int  # complete ones
    steps_done: int  # optimiser steps of the next one


def log_checkpoint(run: Any, folder: Path) -> None:
    """Upload last.pt and what its continuation needs, and wait until it is there.

    Raises:
        CheckpointError: there is no checkpoint in the folder.
        wandb.Error: it could not be uploaded.
    """
    import wandb

    from amc_core.training.checkpoint import LAST, best_by, load_checkpoint

    checkpoint = load_checkpoint(folder / LAST)
    facts = {
        "epoch": checkpoint.epoch,
        "steps_done": checkpoint.steps_done,
        "split_fingerprint": checkpoint.split_fingerprint,
        "host": socket.gethostname(),
    }
    artifact = wandb.Artifact(f"checkpoint-{run.id}", type=TYPE, metadata=facts)
    names = (LAST, best_by("combined_acc"), best_by("loss"), HISTORY_FILE)
    for path in _without_doubles(folder / name for name in names):
        # Immutable: the client would copy it aside first, and there may be seconds left.
        artifact.add_file(str(path), name=path.name, policy="immutable")
    run.log_artifact(artifact).wait(timeout=UPLOAD_TIMEOUT_S)


def _without_doubles(paths: Iterable[Path]) -> list[Path]:
    """Leave out what is missing, and further names of the same file: a continuation makes them again."""
    kept: list[Path] = []
    for path in paths:
        if path.is_file() and not any(path.samefile(other) for other in kept):
            kept.append(path)
    return kept


def find_uploaded(entity: str, project: str, run_id: str) -> Uploaded | None:
    """Return the run's newest checkpoint that W&B keeps; None without any.

    Raises:
        wandb.Error: W&B does not answer as it should.
    """
    import wandb

    try:
        artifact = wandb.Api().artifact(f"{entity}/{project}/checkpoint-{run_id}:latest", type=TYPE)
    except (wandb.Error, ValueError) as error:
        if is_missing(error):
            return None
        raise
    facts = artifact.metadata
    return Uploaded(artifact, epoch=int(facts.get("epoch", 0)), steps_done=int(facts.get("steps_done", 0)))


def fetch(uploaded: Uploaded, folder: Path) -> Path:
    """Download a checkpoint into a run's folder, where it takes the place of older ones (see ``before_N``)."""
    from amc_core.training.checkpoint import LAST, set_aside

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as scratch:
        uploaded.artifact.download(root=scratch)
        set_aside(folder)
        for path in Path(scratch).iterdir():
            path.replace(folder / path.name)
    return folder / LAST


def log_evaluation(run: Any, folder: Path, epochs: Iterable[int | None], *, pictures: bool) -> None:
    """Upload the pictures, and the evaluation of the test and of some epochs, as they lie in ``evaluation/``.

    The pictures go into the summary: a row of history of their own would take the ``_step`` of an epoch to come.
    """
    import wandb

    evaluation = folder / "evaluation"
    for name in PICTURES if pictures else ():
        if (path := evaluation / f"{name}.png").is_file():
            run.summary[f"evaluation/{name}"] = wandb.Image(str(path))
    stems = ["test", *(f"epoch_{epoch:04d}" for epoch in sorted({epoch for epoch in epochs if epoch}))]
    for stem in stems:
        for path in sorted([*evaluation.glob(f"{stem}.json"), *evaluation.glob(f"{stem}_*.csv")]):
            run.save(str(path), base_path=str(folder), policy="now")
