"""An exponential average of a network's weights over its optimiser steps."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


class AveragedWeights:
    """The average of a model's parameters; it begins with the present ones.

    After ``updates`` steps the average keeps min(decay, (1 + updates) / (10 + updates)) of itself, so that it forgets
    the random weights of the start (TensorFlow's ``ExponentialMovingAverage`` with ``num_updates``). Batch norm's
    statistics are not averaged: those of averaged weights are others, see batch_statistics.py.
    """

    def __init__(self, model: nn.Module, decay: float, *, updates: int = 0) -> None:
        self.updates = updates
        self._decay = decay
        self._parameters = dict(model.named_parameters())
        self._average = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take the weights of one more optimiser step into the average."""
        self.updates += 1
        decay = min(self._decay, (1 + self.updates) / (10 + self.updates))
        # One kernel for all tensors, as torch.optim.swa_utils does it.
        torch._foreach_lerp_(list(self._average.values()), list(self._parameters.values()), 1 - decay)

    @contextlib.contextmanager
    def in_model(self) -> Iterator[None]:
        """Put the average into the model, and the weights that are trained back at the end."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def state_dict(self) -> dict[str, Tensor]:
        """Return the average by the names of the model's parameters."""
        return dict(self._average)

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self._parameters.items():
            trained = parameter.clone()
            parameter.copy_(self._average[name])
            self._average[name].copy_(trained)
