"""A trial's passes on CUDA without a GPU: tensors have a device and a shape, and no values.

The backward pass is left out there, because torch's engine asks the driver for the device. It can be run on a fake CPU,
which has no values either.

Whatever has to read a value (``item``, ``nonzero``, a shape that depends on values) raises here, because there is none.
On a GPU it would wait. A copy between the host and the GPU that blocks raises, too.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from amc_core.config import TrialConfig
from amc_core.data.feed import Batch
from amc_core.data.radioml import RadioMLFile
from amc_core.models.classifier import build_model
from amc_core.training.preparation import prepare
from amc_core.training.state import TrainingState

aten = torch.ops.aten


class BlockingCopyError(AssertionError):
    """A copy that waits for the GPU."""


class Operators(TorchDispatchMode):
    """Notes the name of every operator, also of a backward pass. ``detach`` computes nothing, and fakes add some."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(
        self, operator: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operator."""
        kwargs = kwargs or {}
        if operator.namespace == "aten" and operator is not aten.detach.default:
            self.names.append(str(operator))
        result = operator(*args, **kwargs)
        if operator is aten._to_copy.default:
            _require_no_wait(operator, args[0], result, kwargs.get("non_blocking", False))
        elif operator is aten.copy_.default:
            _require_no_wait(operator, args[1], args[0], kwargs.get("non_blocking", len(args) > 2 and args[2]))
        return result


def _require_no_wait(operator: Any, source: Tensor, target: Tensor, non_blocking: bool) -> None:
    if source.device.type != target.device.type and not non_blocking:
        raise BlockingCopyError(f"{operator}: {source.device} to {target.device}, {tuple(source.shape)}")


class FakeFeed:
    """Batches of the asked sizes on the fake device."""

    def __init__(self, device: str) -> None:
        self._device = device

    def batches(
        self, chunks: Sequence[npt.NDArray[np.int64]], *, draws_MX: Any = None, size: int | None = None
    ) -> Generator[Batch, None, None]:
        """Yield a batch for every chunk."""
        for chunk in chunks:
            n_frames = size or len(chunk)
            yield Batch(
                torch.empty(n_frames, 1024, 2, device=self._device),
                torch.empty(n_frames, dtype=torch.int64, device=self._device),
                torch.empty(n_frames, dtype=torch.int64, device=self._device),
                None if draws_MX is None else torch.empty(n_frames, draws_MX.shape[1], device=self._device),
                torch.empty(n_frames, dtype=torch.bool, device=self._device) if size else None,
            )


@contextmanager
def fake_device(config: TrialConfig, device: str) -> Iterator[tuple[TrainingState, Operators]]:
    """Lend a trial's state on a fake ``cuda`` or ``cpu``, and what it dispatches."""
    with RadioMLFile(config.data, storage="memmap") as data:
        context = prepare(config, data)[0]
    steps = (context.training_step, context.evaluation_step)
    if config.model_type == "lstm2":  # cuDNN's LSTM has no fake: the same heads on another network
        other = replace(config, model_type="iq_convnet", representation="iq")
        n_levels = len(context.selection.levels_db)
        model = build_model(other, n_modulations=len(context.selection.modulations), n_levels=n_levels)
        for step in steps:
            step.model = model
    context.training_step.representation._compiled = False  # numba reads values
    with FakeTensorMode(), pytest.MonkeyPatch.context() as patch:
        for step in steps:
            _move(step, device)
        feed: Any = FakeFeed(device)
        state = TrainingState(replace(context, device=torch.device(device), feed=feed))
        if device == "cuda":
            patch.setattr(Tensor, "backward", lambda loss: _fill_gradients(state))
        with Operators() as operators:
            yield state, operators


def _fill_gradients(state: TrainingState) -> None:
    for parameter in (*state.context.model.parameters(), *state.context.criterion.parameters()):
        parameter.grad = torch.empty_like(parameter)


def _move(module: nn.Module, device: str) -> None:
    """Replace weights and buffers by fake ones on the device."""
    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            for name, tensor in tensors.items():
                if tensor is not None and not isinstance(tensor, FakeTensor):
                    fake = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)
                    is_parameter = isinstance(tensor, nn.Parameter)
                    tensors[name] = nn.Parameter(fake, requires_grad=tensor.requires_grad) if is_parameter else fake
