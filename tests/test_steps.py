"""The batch that fits into a GPU, and what a pass counts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from amc_core.radioml import Selection
from amc_core.steps import Pass, largest_that_fits


def test_a_batch_is_halved_until_it_fits() -> None:
    tried = []

    def attempt(size: int) -> None:
        tried.append(size)
        if size > 100:
            raise torch.OutOfMemoryError("CUDA out of memory")

    assert largest_that_fits(500, attempt) == 63
    assert tried == [500, 250, 125, 63]


def test_a_frame_that_does_not_fit_is_out_of_memory() -> None:
    def attempt(size: int) -> None:
        raise torch.OutOfMemoryError(str(size))

    with pytest.raises(torch.OutOfMemoryError, match="1"):
        largest_that_fits(5, attempt)


def test_another_error_is_not_taken_for_memory() -> None:
    def attempt(size: int) -> None:
        raise RuntimeError("shape")

    with pytest.raises(RuntimeError, match="shape"):
        largest_that_fits(5, attempt)


def test_a_pass_counts_every_frame_in_its_cell_and_survives_its_state() -> None:
    rows = np.arange(4)
    selection = Selection("digital17", (3, 4, 5), (0, 10), rows, np.array([0, 1, 2, 2]), np.array([0, 1, 1, 0]))
    done = Pass(selection, torch.device("cpu"))
    modulation, snr = torch.from_numpy(selection.modulation), torch.from_numpy(selection.snr)
    guess = (torch.tensor([0, 1, 2, 0]), torch.tensor([0, 1, 0, 0]))
    done.add(torch.tensor(1.5), guess, modulation, snr)

    again = Pass(selection, torch.device("cpu"))
    again.load_state_dict(done.state_dict())
    for counted in (done, again):
        counted.add(torch.tensor(0.5), (guess[0][:2], guess[1][:2]), modulation[:2], snr[:2])
        found = counted.evaluation()
        assert found.modulations == ("BPSK", "QPSK", "8PSK")
        assert found.n_frames == 6
        assert found.loss == pytest.approx((4 * 1.5 + 2 * 0.5) / 6)
        assert found.joint[2, 1, 2, 0] == found.joint[2, 0, 0, 0] == 1
        assert found.joint[0, 0, 0, 0] == found.joint[1, 1, 1, 1] == 2
        assert found.combined_acc == pytest.approx(4 / 6)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_the_probe_on_cuda_finds_a_batch_that_fits_and_leaves_the_model_as_it_was() -> None:
    from amc_core.config import TrialConfig
    from amc_core.models import build_model
    from amc_core.steps import micro_batch_frames

    device = torch.device("cuda")
    config = TrialConfig(model_type="test_byobnet", image_size=32, batch_size=65536)
    model = build_model(config, n_modulations=17, n_levels=16).to(device)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.cuda.get_rng_state(device)
    limit = torch.cuda.memory_allocated(device) + 2**30
    torch.cuda.set_per_process_memory_fraction(limit / torch.cuda.get_device_properties(device).total_memory)
    try:
        frames = micro_batch_frames(config, device, model, model, torch.zeros(1, 1, 32, 32, device=device))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert 1 <= frames < 65536
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.cuda.get_rng_state(device), random)
