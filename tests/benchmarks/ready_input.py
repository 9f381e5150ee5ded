"""A trial whose feed gives model input instead of frames: its representation was computed before."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from amc_core.data.feed import Batch, Feed
from amc_core.training.state import TrainingContext
from amc_core.training.step.frame_step import FrameStep


class AsItIs(nn.Module):
    """Takes the place of a representation."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("bad_frames", torch.zeros((), dtype=torch.int64), persistent=False)

    def forward(self, input_BX: Tensor, is_counted_B: Tensor | None = None) -> Tensor:
        """Return the input."""
        return input_BX


def with_ready_input(context: TrainingContext, feed: Feed) -> TrainingContext:
    """Return a context with this feed, whose batches hold the model's input as frames."""
    training, evaluation = (
        FrameStep(
            augmentation=None,
            representation=AsItIs(),  # type: ignore[arg-type]
            model=context.model,
            criterion=context.criterion,
            precision=context.training_step.precision,
            selection=context.selection,
        )
        for _ in range(2)
    )
    return replace(context, feed=feed, training_step=training, evaluation_step=evaluation)


def ready(context: TrainingContext, batch: Batch) -> Batch:
    """Return a batch that holds its model input as frames."""
    return replace(batch, frames=context.evaluation_step.model_input(batch))
