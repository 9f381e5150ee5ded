"""Where a continued run starts: the checkpoint in its folder, or the one in its artifact with W&B.

A run's folder has the run's id as its name, so the next attempt finds it wherever ``--runs_dir`` is shared. Where it is
not, the artifact ``checkpoint-RUN_ID`` has what an exact continuation needs. torch is imported only when a checkpoint
is read.
"""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from amc_agents.trial.end_and_history import HISTORY_FILE
from amc_sweeps.backend.references import is_missing
from amc_sweeps.runs.checkpoint_artifacts import ARTIFACT_TYPE, artifact_name, checkpoint_facts, progress

UPLOAD_VARIABLE = "AMC_CHECKPOINT_ARTIFACT"
_UPLOAD_TIMEOUT_S = 600  # a machine that is being taken away ends the upload sooner


class UploadWhen(StrEnum):
    """When a trial uploads its checkpoint."""

    PREEMPTION = "preemption"  # only when its machine is taken away: the next machine may be another one
    END = "end"  # at every end, so that a hidden gem can be continued anywhere
    NEVER = "never"  # all machines share the folder of runs

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> UploadWhen:
        return cls(environ.get(UPLOAD_VARIABLE) or cls.PREEMPTION)


@dataclass(frozen=True)
class ResumePoint:
    """The checkpoint that a trial continues from."""

    path: Path
    source: str  # in words
    epoch: int  # number of complete epochs
    steps_done: int  # optimiser steps of the epoch after them
    metrics: Mapping[str, float]  # of the last complete epoch


def upload_checkpoint(run: Any, folder: Path) -> None:
    """Upload last.pt and what its continuation needs, and wait for the upload to finish.

    Raises:
        CheckpointError: the folder has no readable checkpoint.
        wandb.Error: the upload failed.
    """
    import wandb

    from amc_core.training.checkpoint import LAST, best_by, load_checkpoint

    checkpoint = load_checkpoint(folder / LAST)
    names = (LAST, best_by("combined_acc"), best_by("loss"), HISTORY_FILE)
    paths = [path for name in names if (path := folder / name).is_file()]
    facts = checkpoint_facts(
        epoch=checkpoint.epoch,
        steps_done=checkpoint.steps_done,
        split_fingerprint=checkpoint.split_fingerprint,
        files=(path.name for path in paths),
    )
    metadata = {**facts, "host": socket.gethostname()}
    artifact = wandb.Artifact(artifact_name(run.id), type=ARTIFACT_TYPE, metadata=metadata)
    for path in _distinct_files(paths):
        # With "immutable" the client makes no copy before the upload, and with skip_cache none after it: there may be
        # only seconds left, and nobody reads the copy in the cache.
        artifact.add_file(str(path), name=path.name, policy="immutable", skip_cache=True)
    run.log_artifact(artifact).wait(timeout=_UPLOAD_TIMEOUT_S)


def _distinct_files(paths: Iterable[Path]) -> list[Path]:
    """Leave out further names of the same file; a continuation makes those names again."""
    files: list[Path] = []
    for path in paths:
        if not any(path.samefile(other) for other in files):
            files.append(path)
    return files


def find_artifact(api: Any, run_path: str) -> Any | None:
    """Return the artifact (``wandb.Artifact``) of the run's newest checkpoint, or None.

    Args:
        api: a ``wandb.Api``.
        run_path: ENTITY/PROJECT/RUN_ID.

    Raises:
        wandb.Error: W&B does not answer as it should.
    """
    import wandb

    project, _, run_id = run_path.rpartition("/")
    try:
        return api.artifact(f"{project}/{artifact_name(run_id)}:latest", type=ARTIFACT_TYPE)
    except (wandb.Error, ValueError) as error:
        if is_missing(error):
            return None
        raise


def find_resume_point(run_id: str, folder: Path, read_artifact: Callable[[], Any | None]) -> ResumePoint | None:
    """Return the later checkpoint of the two: in the run's folder, or with W&B, which is then downloaded.

    Args:
        run_id: the run to which the checkpoint must belong.
        folder: the run's.
        read_artifact: asks W&B for the artifact of the run's checkpoint.

    Raises:
        CheckpointError: the checkpoint is damaged, or of another run.
        wandb.Error: the folder has no checkpoint, and W&B does not answer.
    """
    from amc_core.training.checkpoint import LAST

    local = _read(folder / LAST, run_id, "the run's folder") if (folder / LAST).is_file() else None
    try:
        artifact = read_artifact()
    except Exception:
        if local is None:
            raise
        return local
    if artifact is None or (local is not None and (local.epoch, local.steps_done) >= progress(artifact.metadata)):
        return local
    try:
        path = _download(artifact, folder)
    except Exception:
        # A newer version, which another attempt uploaded meanwhile, may have replaced this one.
        newer = read_artifact()
        if newer is None or newer.name == artifact.name:
            raise
        artifact, path = newer, _download(newer, folder)
    return _read(path, run_id, f"W&B's artifact {artifact.name}")


def _read(path: Path, run_id: str, source: str) -> ResumePoint:
    from amc_core.training.checkpoint import CheckpointError, load_checkpoint

    checkpoint = load_checkpoint(path)
    if checkpoint.run != run_id:
        raise CheckpointError(
            f"{path} is a checkpoint of run {checkpoint.run}, not of {run_id}: move it away, or start a new "
            f"trial from it with --init_from={path}"
        )
    return ResumePoint(path, source, checkpoint.epoch, checkpoint.steps_done, checkpoint.metrics)


def _download(artifact: Any, folder: Path) -> Path:
    """Put a checkpoint into the run's folder, after moving older ones into ``before_N``."""
    from amc_core.training.checkpoint import LAST, set_aside

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as scratch:
        artifact.download(root=scratch, skip_cache=True)
        set_aside(folder)
        for path in Path(scratch).iterdir():
            path.replace(folder / path.name)
    return folder / LAST
