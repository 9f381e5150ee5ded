"""The forward pass of a batch, from its frames to its loss and its counts.

In names: B frames of a batch, X the shape of one frame's model input.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator

import torch
from torch import Tensor, nn

from amc_core.data.feed import Batch
from amc_core.data.radioml import Selection
from amc_core.inputs.augmentation import Augmentation
from amc_core.inputs.representations import Representation, laid_out
from amc_core.training.evaluation import Evaluation
from amc_core.training.losses import MultiTaskLoss
from amc_core.training.precision import Precision
from amc_core.training.step.counts import Counts


class FrameStep(nn.Module):
    """Augmentation, representation, network, heads, losses and counting of one batch.

    It reads nothing from the device, and no value in a tensor decides what is computed. So torch.compile makes one
    graph of it for each size of a batch.

    Args:
        augmentation: of frames that come with random numbers.
        representation: frames to the model's input; it counts bad frames.
        model: to the outputs of both tasks.
        criterion: the losses and the guesses.
        precision: of the model.
        selection: the classes and levels that are counted.
    """

    def __init__(
        self,
        *,
        augmentation: Augmentation | None,
        representation: Representation,
        model: nn.Module,
        criterion: MultiTaskLoss,
        precision: Precision,
        selection: Selection,
    ) -> None:
        super().__init__()
        self.augmentation = augmentation
        self.representation = representation
        self.model = model
        self.criterion = criterion
        self.precision = precision
        self.counts = Counts(selection)
        self.has_cuda_graphs = False

    def forward(self, batch: Batch) -> Tensor:
        """Count the batch, and return the scalar that training minimises."""
        input_BX = self.model_input(batch)
        with self.precision.autocast():
            outputs: tuple[Tensor, Tensor] = self.model(input_BX)
        criterion, targets = self.criterion, (batch.modulation, batch.snr)
        task_losses = criterion.task_losses(*outputs, *targets, batch.is_counted)
        loss = criterion.weighted(task_losses)
        measured = criterion.measured(task_losses.detach())
        self.counts.add(loss.detach(), measured, criterion.guess(*outputs), *targets, batch.is_counted)
        return loss

    def model_input(self, batch: Batch) -> Tensor:
        """Return the model's input (B, *X)."""
        frames_BTC = batch.frames
        if self.augmentation is not None and batch.draws is not None:
            frames_BTC = self.augmentation(frames_BTC, batch.draws, batch.modulation)
        return laid_out(self.representation(frames_BTC, batch.is_counted))

    def begin(self) -> None:
        """Let torch's CUDA graphs use the memory of the former optimiser step, or batch of an evaluation, again."""
        if self.has_cuda_graphs:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def classify(
        self, batches: Generator[Batch, None, None], *, should_stop: Callable[[], str | None]
    ) -> Evaluation | str:
        """Return the evaluation of all batches, or a reason to stop."""
        self.model.eval()
        self.counts.reset()
        with contextlib.closing(batches):
            for batch in batches:
                if reason := should_stop():
                    return reason
                self.begin()
                self(batch)
        return self.counts.evaluation()
