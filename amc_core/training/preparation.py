"""From a configuration to everything that a trial trains with: frames, parent, model, loss."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from amc_core.config import TrialConfig
from amc_core.data.duplicates import duplicates_across_parts
from amc_core.data.feed import Feed
from amc_core.data.radioml import RadioMLFile, Selection, missing_levels_db, select
from amc_core.data.splits import Split, split_fingerprint, stratified_split
from amc_core.data.storage import Tell, silent
from amc_core.inputs.augmentation import Augmentation
from amc_core.inputs.representations import Representation
from amc_core.machine.memory import keep_freed_memory
from amc_core.machine.provenance import device_name, git_commit
from amc_core.models.classifier import build_model
from amc_core.training.batch_statistics import keeps_statistics
from amc_core.training.checkpoint import Checkpoint
from amc_core.training.lineage import SplitFacts, find_parent, load_weights, require_same_trial, trace_lineage
from amc_core.training.losses import MultiTaskLoss
from amc_core.training.micro_batches import micro_batch_frames
from amc_core.training.precision import Precision, use_fast_kernels
from amc_core.training.state import TrainingContext
from amc_core.training.step.compilation import compile_steps, is_compiled
from amc_core.training.step.frame_step import FrameStep
from amc_sweeps.number_formats import counted

# Frames in which a start looks for duplicates without having read them: 100,000 cost 0.065 s of a start of 9.4 s.
_MOST_COMPARED = 100_000


def prepare(
    config: TrialConfig, data: RadioMLFile, tell: Tell = silent
) -> tuple[TrainingContext, tuple[Path, Checkpoint] | None]:
    """Select and divide the frames, build the model, and load the parent's weights; return the parent, too.

    Args:
        config: the trial's.
        data: its file.
        tell: prints a line while a large file is read.

    Raises:
        DataError: the file lacks frames that the trial needs.
        ConfigError: the model cannot be built, or the checkpoint to start from is of another trial, network or split.
        CheckpointError: that checkpoint is missing or damaged.
    """
    selection, split, split_facts = _divide(config, data)
    parent = find_parent(config)
    lineage = trace_lineage(config, split_facts, parent[1] if parent else None, data, selection, split)
    if parent and config.resume_from:
        require_same_trial(config, parent[1], split_facts)

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        keep_freed_memory()
    use_fast_kernels(config, device)
    frames_in = data.hold(selection.rows, device, tell)
    too_many = frames_in == "memmap" and len(selection.rows) > _MOST_COMPARED
    torch.manual_seed(config.seed)  # before the first weight is drawn
    model = build_model(config, n_modulations=len(selection.modulations), n_levels=len(selection.levels_db))
    if parent:
        load_weights(model, parent[1], parent[0], fresh_heads=lineage.fresh_heads)
    # Convolutions on tensor cores and in oneDNN want channels last.
    model = model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    compiled = is_compiled(config)
    # numba's machine code is no part of a graph.
    representation = Representation(config, compiled=not compiled)
    steps = _steps(config, selection, representation, model, device)
    example_1X = representation(torch.zeros(1, 1024, 2, device=device))
    micro_frames = micro_batch_frames(config, device, model, example_1X)
    if parent and config.resume_from:
        micro_frames = _as_before(config, parent[1], micro_frames)
    has_batch_norm = keeps_statistics(model)
    if config.micro_batch_size == "auto" and has_batch_norm and micro_frames < config.batch_size:
        sys.stderr.write(f"{_divided_batch_norm(config, micro_frames)}\n")
    if compiled:
        compile_steps(steps, device)
    context = TrainingContext(
        config=config,
        device=device,
        selection=selection,
        split=split,
        split_facts=split_facts,
        lineage=lineage,
        frames_in=frames_in,
        file_facts={
            "classes": list(selection.modulations),
            "levels_db": list(selection.levels_db),
            "missing_levels_db": list(missing_levels_db(data, config.snr_min_db, config.snr_max_db)),
            "duplicates_across_parts": None if too_many else duplicates_across_parts(data, selection, split),
        },
        feed=Feed(data, selection, device),
        training_step=steps[0],
        evaluation_step=steps[1],
        is_compiled=compiled,
        micro_batch_frames=micro_frames,
        evaluation_frames=_evaluation_frames(len(split.val), micro_frames),
        has_batch_norm=has_batch_norm,
    )
    return context, parent


def run_facts(context: TrainingContext) -> dict[str, Any]:
    """Return the facts that the run's configuration records besides the trial's parameters."""
    config, split = context.config, context.split
    return {
        "split_fingerprint": context.split_facts.split_fingerprint,
        "data_fingerprint": context.split_facts.data_fingerprint,
        "label_set": config.label_set,
        "n_train": len(split.train),
        "n_val": len(split.val),
        "n_test": len(split.test),
        "n_parameters": sum(parameter.numel() for parameter in context.model.parameters()),
        "micro_batch_frames": context.micro_batch_frames,
        "has_batch_norm": context.has_batch_norm,
        "frames_in": context.frames_in,
        **context.file_facts,
        "seed": config.seed,
        "select_by": config.select_by,
        "device_name": device_name(context.device),
        "git_commit": git_commit(),
        **context.lineage.facts(),
    }


def _divide(config: TrialConfig, data: RadioMLFile) -> tuple[Selection, Split, SplitFacts]:
    selection = select(data, config.label_set, config.snr_min_db, config.snr_max_db)
    split = stratified_split(selection, config.split, config.split_seed)
    facts = SplitFacts(
        split_fingerprint=split_fingerprint(data.fingerprint, selection, config.split, config.split_seed),
        data_fingerprint=data.fingerprint,
        label_set=selection.label_set,
        snr_min_db=config.snr_min_db,
        snr_max_db=config.snr_max_db,
        levels_db=selection.levels_db,
        split=config.split,
        split_seed=config.split_seed,
    )
    return selection, split, facts


def _steps(
    config: TrialConfig, selection: Selection, representation: Representation, model: nn.Module, device: torch.device
) -> tuple[FrameStep, FrameStep]:
    """Return the steps of training and of evaluation, which share everything but their counts."""
    parts: dict[str, Any] = {
        "augmentation": Augmentation(selection.modulations) if config.augment else None,
        "representation": representation,
        "model": model,
        "criterion": MultiTaskLoss(config, selection.levels_db),
        "precision": Precision(config, device),
        "selection": selection,
    }
    training, evaluation = FrameStep(**parts), FrameStep(**parts)
    return training.to(device), evaluation.to(device)


def _evaluation_frames(n_frames: int, most_frames: int) -> int:
    """Return the frames of a forward pass that divides the validation frames as evenly as it can.

    The last batch of an evaluation is filled up to this size, so that no batch has a size of its own.
    """
    return math.ceil(n_frames / math.ceil(n_frames / most_frames)) if n_frames else most_frames


def _divided_batch_norm(config: TrialConfig, micro_frames: int) -> str:
    """Return a warning: gradients add up over the parts of a batch, batch norm's means and variances do not."""
    return (
        f"micro_batch_size: {counted(micro_frames, 'frame')} of a batch of {config.batch_size} fit into this GPU's "
        f"free memory at once. The batch norm of {config.model_type} normalises by these, so the gradient is not that "
        "of the whole batch, and a GPU with other memory would give other results. To compare runs, use "
        f"micro_batch_size: {micro_frames} for all of them, or a batch_size that fits"
    )


def _as_before(config: TrialConfig, resumed: Checkpoint, micro_frames: int) -> int:
    """Return the frames per forward pass of the continued trial, so that batch norm sees batches of the same size.

    If fewer fit into this GPU, it returns fewer and warns.
    """
    if resumed.config["micro_batch_size"] != config.micro_batch_size:
        return micro_frames
    former_frames = int(resumed.training["micro_batch_frames"])
    if micro_frames < former_frames:
        sys.stderr.write(
            f"resume_from: this GPU takes {counted(micro_frames, 'frame')} per forward pass, the trial had "
            f"{former_frames}; with batch norm its numbers will differ from those of an uninterrupted trial\n"
        )
    return min(former_frames, micro_frames)
