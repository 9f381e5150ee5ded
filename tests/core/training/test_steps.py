"""Counts of a pass, and the division of batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from amc_core.data.radioml import Selection
from amc_core.training.micro_batches import divide_batch
from amc_core.training.state import EpochTally
from amc_core.training.step.counts import Counts


@pytest.mark.parametrize(
    ("n_frames", "micro_frames", "sizes"),
    [
        (8, 8, [8]),
        (9, 4, [3, 3, 3]),
        (13, 4, [4, 3, 3, 3]),
        (3, 2, [3]),  # batch norm cannot take 2 and 1
        (5, 2, [3, 2]),
        (1, 2, [1]),
        (3, 1, [1, 1, 1]),  # asked for
    ],
)
def test_a_batch_is_divided_evenly_without_a_chunk_of_one_frame(
    n_frames: int, micro_frames: int, sizes: list[int]
) -> None:
    chunks = divide_batch(np.arange(n_frames), micro_frames)
    assert [len(chunk) for chunk in chunks] == sizes
    assert np.concatenate(chunks).tolist() == list(range(n_frames))


def test_a_pass_counts_every_frame_in_its_cell_and_survives_its_state() -> None:
    rows = np.arange(4)
    selection = Selection(
        "BPSK,QPSK,8PSK", ("BPSK", "QPSK", "8PSK"), (0, 10), rows, np.array([0, 1, 2, 2]), np.array([0, 1, 1, 0])
    )
    done = EpochTally(Counts(selection))
    modulation, snr = torch.from_numpy(selection.modulation), torch.from_numpy(selection.snr)
    guess = (torch.tensor([0, 1, 2, 0]), torch.tensor([0, 1, 0, 0]))
    done.counts.add(torch.tensor(9.0), torch.tensor([1.5, 1.0, 0.5]), guess, modulation, snr)
    done.add_gradient(torch.tensor(2.0))
    done.add_gradient(torch.tensor(torch.inf))

    again = EpochTally(Counts(selection))
    again.load_state_dict(done.state_dict())
    for counted in (done, again):
        counted.counts.add(
            torch.tensor(9.0), torch.tensor([0.5, 0.1, 0.4]), (guess[0][:2], guess[1][:2]), modulation[:2], snr[:2]
        )
        counted.add_gradient(torch.tensor(4.0))
        result = counted.counts.evaluation()
        assert result.modulations == ("BPSK", "QPSK", "8PSK")
        assert result.n_frames == 6
        assert result.loss == pytest.approx((4 * 1.5 + 2 * 0.5) / 6)
        assert result.loss_mod == pytest.approx((4 * 1.0 + 2 * 0.1) / 6)
        assert result.loss_snr == pytest.approx((4 * 0.5 + 2 * 0.4) / 6)
        assert counted.gradient_norms() == {"grad_norm/mean": pytest.approx(3.0), "grad_norm/max": 4.0}
        assert counted.counts.is_finite()
        assert result.joint[2, 1, 2, 0] == result.joint[2, 0, 0, 0] == 1
        assert result.joint[0, 0, 0, 0] == result.joint[1, 1, 1, 1] == 2
        assert result.combined_acc == pytest.approx(4 / 6)
