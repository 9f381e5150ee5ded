"""Batch norm's running means and variances, computed anew for the weights as they are.

In training they are an average over the last steps, so they lag behind weights that change quickly. A validation in the
middle of a learning-rate cycle then measures the lag, not the weights.

Source: Y. Wu and J. Johnson, "Rethinking 'Batch' in BatchNorm", arXiv:2105.07576, section 3 ("PreciseBN").

In names: B frames, C channels, X the other dimensions of a layer's input.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class Moments:
    """Sums over the inputs of one batch-norm layer, in float64 because a variance is a small difference of them."""

    def __init__(self, layer: _BatchNorm) -> None:
        self.layer = layer
        self.n_values = 0  # of each channel
        self.sum = torch.zeros_like(_statistics(layer)[0], dtype=torch.float64)  # (C,)
        self.sum_of_squares = torch.zeros_like(self.sum)  # (C,)

    def add(self, input_BCX: Tensor) -> None:
        """Count the batch from which the layer has just computed its running statistics, with a momentum of 1."""
        n_values = input_BCX.numel() // input_BCX.shape[1]
        mean_C, variance_C = (part.double() for part in _statistics(self.layer))
        self.n_values += n_values
        self.sum += n_values * mean_C
        self.sum_of_squares += (n_values - 1) * variance_C + n_values * mean_C**2


def keeps_statistics(model: nn.Module) -> bool:
    """Whether the model has a batch-norm layer with running statistics."""
    return bool(_layers(model))


@contextlib.contextmanager
def measured_moments(model: nn.Module) -> Iterator[list[Moments]]:
    """Lend the moments of every batch-norm layer, to which each forward pass inside adds its batch.

    Inside, batch norm normalises by the batch as in training, so that no layer sees the lag of an earlier one. All
    other layers are in evaluation mode: nothing draws random numbers. Running statistics stay as they are.
    """
    moments = [Moments(layer) for layer in _layers(model)]
    model.eval()
    with contextlib.ExitStack() as on_exit:
        on_exit.callback(model.eval)
        for part in moments:
            layer = part.layer
            for name in ("running_mean", "running_var", "num_batches_tracked", "momentum"):
                on_exit.callback(setattr, layer, name, getattr(layer, name))
            for name, buffer in list(layer.named_buffers(recurse=False)):
                setattr(layer, name, buffer.clone())
            layer.training, layer.momentum = True, 1.0
            hook = layer.register_forward_hook(lambda _, inputs, __, part=part: part.add(inputs[0]))
            on_exit.callback(hook.remove)
        yield moments


@torch.no_grad()
def replace_statistics(moments: list[Moments]) -> None:
    """Replace every layer's running mean and variance by those of all counted frames together.

    The variance has the factor n / (n - 1), as torch's. A layer that saw no frame keeps its own.
    """
    for part in moments:
        if part.n_values > 1:
            mean_C = part.sum / part.n_values
            variance_C = (part.sum_of_squares / part.n_values - mean_C**2).clamp(min=0)
            running_mean_C, running_var_C = _statistics(part.layer)
            running_mean_C.copy_(mean_C)
            running_var_C.copy_(variance_C * (part.n_values / (part.n_values - 1)))


def _layers(model: nn.Module) -> list[_BatchNorm]:
    return [module for module in model.modules() if isinstance(module, _BatchNorm) and module.running_mean is not None]


def _statistics(layer: _BatchNorm) -> tuple[Tensor, Tensor]:
    assert layer.running_mean is not None
    assert layer.running_var is not None
    return layer.running_mean, layer.running_var
