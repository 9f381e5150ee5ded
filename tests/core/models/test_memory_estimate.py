"""The estimate of a step's memory, against tensors that a forward and a backward pass on the CPU really hold.

``python tests/core/models/test_memory_estimate.py NAME ...`` counts networks again and writes their rows of the table.
Needs no GPU: tensors of torch's FakeTensorMode have a device and sizes, but no memory.
"""

from __future__ import annotations

import copy
import csv
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from amc_core.config import SIGNAL_NETWORKS, TrialConfig
from amc_core.inputs.representations import input_shape
from amc_core.models import memory_estimate
from amc_core.models.classifier import build_model
from amc_core.models.memory_estimate import COUNTED_SIZES, bytes_of_step, counts

FILE = Path(memory_estimate.__file__).parent / "memory.csv"
TOLERANCE = 0.03


def config_of(name: str, image_size: int) -> TrialConfig:
    representation = SIGNAL_NETWORKS.get(name, "constellation")
    return TrialConfig.from_mapping({"model_type": name, "representation": representation, "image_size": image_size})


def network(config: TrialConfig) -> nn.Module:
    return build_model(config, n_modulations=17, n_levels=16).train()


class SavedTensors(saved_tensors_hooks):
    """Collects the storages that autograd saves, each once; ``known`` are those of weights and inputs."""

    def __init__(self, known: list[torch.Tensor]) -> None:
        self._known = {tensor.untyped_storage()._cdata for tensor in known}
        self._storages: dict[int, torch.UntypedStorage] = {}
        super().__init__(self._keep, lambda tensor: tensor)

    def _keep(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._known:
            self._storages[storage._cdata] = storage
        return tensor

    def n_bytes(self) -> int:
        return sum(storage.nbytes() for storage in self._storages.values())


def saved_on_cpu(config: TrialConfig, n_frames: int, *, amp: bool = False) -> int:
    """Return the bytes that a real forward pass on the CPU saves."""
    model = network(config)
    input_BX = torch.rand(n_frames, *input_shape(config))
    saved = SavedTensors([*model.parameters(), *model.buffers(), input_BX])
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=amp), saved:
        output = model(input_BX)
    count = saved.n_bytes()
    del output
    return count


def saved_on_cuda(model: nn.Module, config: TrialConfig, n_frames: int, *, amp: bool) -> int:
    """Return the bytes that a forward pass on CUDA would save: operators decide on shapes, and nothing is computed."""
    with FakeTensorMode():
        tensors = {
            name: torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda", requires_grad=tensor.requires_grad)
            for name, tensor in [*model.named_parameters(), *model.named_buffers()]
        }
        input_BX = torch.empty(n_frames, *input_shape(config), device="cuda")
        saved = SavedTensors([*tensors.values(), input_BX])
        # torch.autocast switches itself off on a machine without CUDA.
        torch.set_autocast_enabled("cuda", amp)
        torch.set_autocast_dtype("cuda", torch.bfloat16)
        try:
            with saved:
                output = torch.func.functional_call(model, tensors, (input_BX,))
        finally:
            torch.set_autocast_enabled("cuda", False)
            torch.clear_autocast_cache()
        count = saved.n_bytes()
        del output
        return count


def row_of(name: str) -> list[int]:
    """Return the columns of a network: what a third frame adds to two."""
    configs = [config_of(name, size) for size in COUNTED_SIZES]
    models = [network(config) for config in configs]
    n_parameters = sum(parameter.numel() for parameter in models[0].parameters())
    per_frame = [
        saved_on_cuda(model, config, 3, amp=amp) - saved_on_cuda(model, config, 2, amp=amp)
        for amp in (False, True)
        for model, config in zip(models, configs, strict=True)
    ]
    return [n_parameters, *per_frame]


@pytest.mark.parametrize(
    ("name", "image_size"),
    [("resnet18", 32), ("resnet18", 64), ("resnet50", 32), ("resnet50", 96), ("amc_convnet", 64), ("amc_convnet", 224)],
)
def test_the_estimate_of_a_frame_is_what_a_forward_pass_saves(name: str, image_size: int) -> None:
    config = config_of(name, image_size)
    counted = saved_on_cpu(config, 3) - saved_on_cpu(config, 2)
    one, two = (bytes_of_step(name, frames=frames, image_size=image_size, amp=False) for frames in (1, 2))
    assert one is not None
    assert two is not None
    assert two - one == pytest.approx(counted, rel=TOLERANCE)


@pytest.mark.parametrize("name", ["resnet18", "amc_convnet"])
def test_the_estimate_of_mixed_precision_is_what_a_forward_pass_saves_with_its_copies_of_the_weights(name: str) -> None:
    config = config_of(name, 64)
    state = bytes_of_step(name, frames=0, image_size=64, amp=False)
    estimate = bytes_of_step(name, frames=8, image_size=64, amp=True)
    assert state is not None
    assert estimate is not None
    assert estimate - state == pytest.approx(saved_on_cpu(config, 8, amp=True), rel=TOLERANCE)


@pytest.mark.parametrize("name", ["resnet18", "amc_convnet"])
def test_the_estimate_without_frames_is_weights_gradients_and_moments(name: str) -> None:
    config = config_of(name, 32)
    model = network(config)
    optimiser = torch.optim.AdamW(model.parameters())
    average = copy.deepcopy(list(model.parameters()))
    sum(part.sum() for part in model(torch.rand(2, *input_shape(config)))).backward()
    optimiser.step()
    states = [tensor for state in optimiser.state.values() for tensor in state.values()]
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    counted = sum(tensor.nbytes for tensor in [*model.parameters(), *gradients, *states])
    assert bytes_of_step(name, frames=0, image_size=32, amp=False) == pytest.approx(counted, rel=TOLERANCE)
    counted += sum(tensor.nbytes for tensor in average)
    estimate = bytes_of_step(name, frames=0, image_size=32, amp=False, average=True)
    assert estimate == pytest.approx(counted, rel=TOLERANCE)


@pytest.mark.parametrize("name", ["amc_convnet", "iq_resnet"])
def test_the_table_holds_what_was_counted(name: str) -> None:
    count = counts()[name]
    assert row_of(name) == [count.parameters, *count.float32, *count.mixed]


def test_networks_are_found_by_their_names_and_others_are_unknown() -> None:
    def step(name: str) -> int | None:
        return bytes_of_step(name, frames=8, image_size=64, amp=True)

    assert step("vit_b_16") == step("vit_base_patch16_224") == step("vit_base_patch16_224.augreg_in1k")
    assert step("gru2") is None  # cuDNN decides what a recurrent layer keeps


if __name__ == "__main__":
    torch.set_num_threads(1)
    title, *rows = csv.reader(FILE.read_text().splitlines())
    table = {row[0]: row[1:] for row in rows} | {name: list(map(str, row_of(name))) for name in sys.argv[1:]}
    FILE.write_text("".join(",".join(row) + "\n" for row in [title, *([name, *row] for name, row in table.items())]))
