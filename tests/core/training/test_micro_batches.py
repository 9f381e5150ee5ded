"""The batch that fits into a GPU, and errors that mean a lack of memory."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from amc_core.config import TrialConfig
from amc_core.machine.memory import is_out_of_memory
from amc_core.models.classifier import build_model
from amc_core.training.micro_batches import largest_that_fits, micro_batch_frames

CUBLAS = "CUDA error: {} when calling `cublasCreate(handle)`"


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError(CUBLAS.format("CUBLAS_STATUS_ALLOC_FAILED")),
        RuntimeError(CUBLAS.format("CUBLAS_STATUS_NOT_INITIALIZED")),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"),
        RuntimeError("CUDA error: out of memory"),
    ],
)
def test_a_batch_is_halved_until_it_fits(error: RuntimeError) -> None:
    tried = []

    def attempt(size: int) -> None:
        tried.append(size)
        if size > 100:
            raise error

    assert largest_that_fits(500, attempt, lambda: tried.append(0)) == 63
    assert tried == [500, 0, 250, 0, 125, 0, 63]


def test_a_failed_attempts_tensors_are_gone_before_memory_is_released() -> None:
    held: list[weakref.ref[torch.Tensor]] = []
    alive = []

    def attempt(size: int) -> None:
        activation = torch.zeros(size)
        held.append(weakref.ref(activation))
        if size > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    gc.disable()  # a GPU's allocator does not wait for it
    try:
        largest_that_fits(4, attempt, lambda: alive.append(held[-1]() is not None))
    finally:
        gc.enable()
    assert alive == [False]


def test_a_frame_that_does_not_fit_is_out_of_memory() -> None:
    def attempt(size: int) -> None:
        raise torch.OutOfMemoryError(str(size))

    with pytest.raises(torch.OutOfMemoryError, match="1"):
        largest_that_fits(5, attempt, lambda: None)


@pytest.mark.parametrize(
    "text", ["shape", "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED", "CUDA error: device-side assert"]
)
def test_another_error_is_not_taken_for_memory(text: str) -> None:
    def attempt(size: int) -> None:
        raise RuntimeError(text)

    with pytest.raises(RuntimeError, match=text):
        largest_that_fits(5, attempt, lambda: None)
    assert not is_out_of_memory(RuntimeError(text))


def test_a_library_that_could_not_start_is_not_called_out_of_memory() -> None:
    assert not is_out_of_memory(RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"))  # a wrong driver says it too


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("room_gib", [1, 2])
def test_the_probe_on_cuda_finds_a_batch_that_fits_and_leaves_the_model_as_it_was(room_gib: int) -> None:
    device = torch.device("cuda")
    config = TrialConfig(model_type="test_byobnet", image_size=32, batch_size=65536)
    model = build_model(config, n_modulations=17, n_levels=16).to(device)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.cuda.get_rng_state(device)
    limit = torch.cuda.memory_allocated(device) + room_gib * 2**30
    torch.cuda.set_per_process_memory_fraction(limit / torch.cuda.get_device_properties(device).total_memory)
    try:
        frames = micro_batch_frames(config, device, model, torch.zeros(1, 1, 32, 32, device=device))
        taken = torch.cuda.max_memory_allocated(device)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert 1 < frames < 65536
    assert taken < limit
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.cuda.get_rng_state(device), random)
