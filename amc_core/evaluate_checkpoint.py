"""The scores of a checkpoint on a data file: its own parts, or any file in RadioML's layout.

In names: M frames of the selection, K modulations, L SNR levels.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from amc_core.config import ConfigError, TrialConfig, former_settings
from amc_core.data.duplicates import copies
from amc_core.data.feed import Batch, Feed
from amc_core.data.radioml import DataError, RadioMLFile, Selection, cell_counts, select, select_labels
from amc_core.data.splits import stratified_split
from amc_core.files import is_folder
from amc_core.inputs.representations import Representation
from amc_core.models.classifier import build_model
from amc_core.modulations import label_set_text
from amc_core.training.checkpoint import BEST, Checkpoint, CheckpointError, load_checkpoint
from amc_core.training.evaluation import Evaluation
from amc_core.training.lineage import SplitFacts, load_weights, trained_rows
from amc_core.training.losses import MultiTaskLoss
from amc_core.training.micro_batches import divide_batch
from amc_core.training.precision import Precision
from amc_core.training.step.frame_step import FrameStep
from amc_sweeps.number_formats import listed

_MOST_FRAMES = 1024  # of a forward pass: a trial on a larger GPU may have had more


class PartError(ValueError):
    """A part of the checkpoint's split was asked for in a file that has no such split."""


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A checkpoint with its settings."""

    path: Path
    content: Checkpoint
    config: TrialConfig
    splits: tuple[SplitFacts, ...]  # whose training parts shaped the weights; the trial's own is the last one

    @property
    def own_split(self) -> SplitFacts:
        return self.splits[-1]


@dataclass(frozen=True)
class CheckpointScores:
    """Scores, and what must be known to read them."""

    part: str  # train, val, test or all
    evaluation: Evaluation
    n_trained_on: int | None  # scored frames that are training frames of the checkpoint, or copies; None: unknown
    n_without: int  # training frames, or copies, that were left out
    n_left_out: int  # frames of classes or levels that the checkpoint does not know
    missing_classes: tuple[str, ...]  # of the checkpoint, without a scored frame
    missing_levels_db: tuple[int, ...]
    n_bad_frames: int  # with NaN or infinite samples

    def facts(self) -> dict[str, Any]:
        """Return everything but the evaluation."""
        return {name: value for name, value in vars(self).items() if name != "evaluation"}


def open_checkpoint(path: Path) -> LoadedCheckpoint:
    """Read a checkpoint, or best.pt of a run's folder.

    Raises:
        CheckpointError: it is missing, damaged, or its settings are not of this version.
    """
    path = path / BEST if is_folder(path) else path
    content = load_checkpoint(path)
    try:
        # The weights come from the checkpoint, so none are fetched.
        settings = {**former_settings(content.config), **content.config}
        config = replace(TrialConfig.from_mapping(settings), pretrained=False, init_from=None, resume_from=None)
        splits = tuple(SplitFacts.from_mapping(facts) for facts in content.trained_on)
    except (ConfigError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: settings of another version of this program: {error}") from error
    if not splits:
        raise CheckpointError(f"{path}: its content does not fit a checkpoint of this program: use another checkpoint")
    return LoadedCheckpoint(path, content, config, splits)


def evaluate_checkpoint(
    checkpoint: LoadedCheckpoint,
    data: RadioMLFile,
    part: str | None = None,
    *,
    without_training_frames: bool = False,
    advance: Callable[[int, int], None] = lambda _by, _all: None,
) -> CheckpointScores:
    """Classify the frames of a part of the file, or of the whole file.

    Args:
        part: train, val or test of the checkpoint's own split, or all. None: test where the file is the one that the
            checkpoint was trained on, all elsewhere.
        without_training_frames: leave out frames that the checkpoint was trained on, and copies of them.
        advance: called with the number of frames that were just done, and the number of all frames.

    Raises:
        PartError: the part is one of the checkpoint's split, and the file is another one.
        DataError: the file has no frame that the checkpoint knows, reading failed, or, without training frames, no
            frame is left or it is unknown which ones these are.
        ConfigError: the weights do not fit the network of the settings.
        CheckpointError: the weights of the loss do not fit.
    """
    own, is_own_file = checkpoint.own_split, data.fingerprint == checkpoint.own_split.data_fingerprint
    part = part or ("test" if is_own_file else "all")
    if part != "all" and not is_own_file:
        raise PartError(
            f"{data.path} is not the file that {checkpoint.path} was trained on (data fingerprint {data.fingerprint}, "
            f"not {own.data_fingerprint}), so it has no part {part} of the checkpoint's split: use part all"
        )
    selection = select_labels(data, own.label_set, own.levels_db)
    positions_M = np.arange(len(selection.rows))
    if part != "all":
        selection = select(data, own.label_set, own.snr_min_db, own.snr_max_db)
        positions_M = getattr(stratified_split(selection, own.split, own.split_seed), part)
    elif not len(positions_M):
        raise DataError(
            f"{data.path}: no frame that the checkpoint knows: it knows label_set {label_set_text(own.label_set)} at "
            f"{', '.join(map(str, own.levels_db))} dB; the file holds {listed(data.present, 24)} at "
            f"{', '.join(map(str, np.unique(data.snr_db_N).tolist()))} dB"
        )
    trained_M, n_without = _trained_on(checkpoint, data, selection.rows[positions_M]), 0
    if without_training_frames:
        positions_M, n_without = _without(checkpoint, data, positions_M, trained_M)
        trained_M = np.zeros(len(positions_M), dtype=np.bool_)
    cells_KL = cell_counts(selection, positions_M)
    evaluation, n_bad = _classify(checkpoint, data, selection, positions_M, advance)
    return CheckpointScores(
        part=part,
        evaluation=evaluation,
        n_trained_on=None if trained_M is None else int(trained_M.sum()),
        n_without=n_without,
        n_left_out=data.n_frames - len(selection.rows) if part == "all" else 0,
        missing_classes=tuple(selection.modulations[place] for place in np.flatnonzero(cells_KL.sum(axis=1) == 0)),
        missing_levels_db=tuple(selection.levels_db[place] for place in np.flatnonzero(cells_KL.sum(axis=0) == 0)),
        n_bad_frames=n_bad,
    )


def _trained_on(
    checkpoint: LoadedCheckpoint, data: RadioMLFile, rows_B: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_] | None:
    """Return which rows are training frames of the checkpoint or copies of one: (B,).

    None for another file, where the file of the training is not on this machine or is compressed.
    """
    trained_R = trained_rows(checkpoint.splits, data)
    if len(trained_R):
        copy_B = copies(data, rows_B, trained_R)
        return np.isin(rows_B, trained_R) if copy_B is None else copy_B
    try:
        with RadioMLFile(checkpoint.config.data) as other:
            trained_R = trained_rows(checkpoint.splits, other)
            return copies(data, rows_B, trained_R, other=other) if len(trained_R) else None
    except DataError:
        return None


def _without(
    checkpoint: LoadedCheckpoint,
    data: RadioMLFile,
    positions_M: npt.NDArray[np.int64],
    trained_M: npt.NDArray[np.bool_] | None,
) -> tuple[npt.NDArray[np.int64], int]:
    """Return the positions that were not trained on, and the number of those that were."""
    if trained_M is None:
        raise DataError(
            f"{data.path}: which of its frames {checkpoint.path} was trained on is unknown: the file of the training, "
            f"{checkpoint.config.data}, is not on this machine, or a file is compressed. Put it there, or score all "
            "frames"
        )
    if trained_M.all():
        raise DataError(f"{data.path}: no frame is left: {checkpoint.path} was trained on all of these")
    return positions_M[~trained_M], int(trained_M.sum())


def _classify(
    checkpoint: LoadedCheckpoint,
    data: RadioMLFile,
    selection: Selection,
    positions_M: npt.NDArray[np.int64],
    advance: Callable[[int, int], None],
) -> tuple[Evaluation, int]:
    """Return the evaluation, and the number of bad frames."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    step = _step(checkpoint, selection, device)
    size = min(int(checkpoint.content.training.get("micro_batch_frames", _MOST_FRAMES)), _MOST_FRAMES)
    batches = Feed(data, selection, device).batches(divide_batch(positions_M, size))
    shown = _shown(batches, len(positions_M), advance)
    evaluation = step.classify(shown, should_stop=lambda: None)
    assert isinstance(evaluation, Evaluation)  # nobody asked it to stop
    return evaluation, int(step.representation.bad_frames)


def _step(checkpoint: LoadedCheckpoint, selection: Selection, device: torch.device) -> FrameStep:
    config, content = checkpoint.config, checkpoint.content
    model = build_model(config, n_modulations=len(selection.modulations), n_levels=len(selection.levels_db))
    load_weights(model, content, checkpoint.path)
    criterion = MultiTaskLoss(config, selection.levels_db)
    try:
        criterion.load_state_dict(content.criterion)
    except RuntimeError as error:
        raise CheckpointError(f"{checkpoint.path}: weights of another loss: {error}; use another checkpoint") from error
    step = FrameStep(
        augmentation=None,
        representation=Representation(config),
        model=model.to(memory_format=torch.channels_last),
        criterion=criterion,
        precision=Precision(config, device),
        selection=selection,
    )
    return step.to(device)


def _shown(
    batches: Generator[Batch, None, None], n_frames: int, advance: Callable[[int, int], None]
) -> Generator[Batch, None, None]:
    advance(0, n_frames)
    with contextlib.closing(batches):
        for batch in batches:
            yield batch
            advance(len(batch.snr), n_frames)
