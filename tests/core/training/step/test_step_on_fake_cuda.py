"""No pass waits for the GPU, and a step has few operators: shown on a fake GPU, which reads no value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_devices import BlockingCopyError, Operators, fake_device
from tiny_files import synthetic_file, tiny_trial
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode

from amc_core.config import FIELDS, REGRESSION_LOSSES
from amc_core.training.state import TrainingState
from amc_core.training.step.counts import Counts
from amc_core.training.steps import evaluate, renew_batch_statistics, train_epoch

REPRESENTATIONS = FIELDS["representation"].choices
LOSSES_AND_HEADS = [
    (loss, head)
    for loss in FIELDS["snr_loss"].choices
    for head in FIELDS["snr_layer"].choices
    if head != "regression" or loss in REGRESSION_LOSSES
]
NETWORK_OF = {"iq": "iq_convnet", "amplitude_phase": "lstm2"}
FRAMES = np.arange(128)

# Operators of a training step with cross-entropy and learned task weights, from frames to the optimiser, with views.
# Each one costs the CPU a few microseconds, and most of them a kernel of the GPU. Lower these numbers where you can.
MOST_OPERATORS = {"constellation": 210, "constellation_psd": 229, "synced": 406, "iq": 174, "amplitude_phase": 178}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return synthetic_file(tmp_path_factory.mktemp("data"), levels_db=(0, 20), frames_per_cell=10)


@pytest.fixture(autouse=True)
def _the_reads_that_are_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answer the check for NaN, which is made in every 50th step, and the reading of the counts after a pass."""
    monkeypatch.setattr(Counts, "is_finite", lambda counts: True)
    monkeypatch.setattr(Counts, "evaluation", lambda counts: None)


def trial(data: Path, representation: str, **changes: Any) -> Any:
    given = {"representation": representation, "model_type": NETWORK_OF.get(representation, "amc_convnet")}
    return tiny_trial(data, **given, **changes)


def train_two_steps(state: TrainingState, operators: Operators) -> int:
    """Train two steps, and return the number of operators of the second one."""
    done = list[int]()
    train_epoch(state, FRAMES, should_stop=lambda: None, show=lambda _: done.append(len(operators.names)))
    assert len(done) == 2
    return done[1] - done[0]


def run_every_pass(data: Path, device: str, representation: str, loss: str, head: str) -> None:
    everything = {"augment": True, "ema_decay": 0.9, "grad_clip_norm": 1.0, "micro_batch_size": 32}
    config = trial(data, representation, snr_loss=loss, snr_layer=head, **everything)
    with fake_device(config, device) as (state, operators):
        train_two_steps(state, operators)
        with state.validated_weights():
            renew_batch_statistics(state, FRAMES, should_stop=lambda: None)
            evaluate(state, FRAMES, should_stop=lambda: None)
    assert len(operators.names) > 200


@pytest.mark.parametrize("representation", REPRESENTATIONS)
def test_no_representation_waits_for_the_gpu(data: Path, representation: str) -> None:
    run_every_pass(data, "cuda", representation, "cross_entropy", "standard")


@pytest.mark.parametrize(("loss", "head"), LOSSES_AND_HEADS)
def test_no_loss_and_no_head_waits_for_the_gpu(data: Path, loss: str, head: str) -> None:
    run_every_pass(data, "cuda", "iq", loss, head)


@pytest.mark.parametrize("representation", REPRESENTATIONS)
def test_a_step_has_few_operators(data: Path, representation: str) -> None:
    with fake_device(trial(data, representation), "cpu") as (state, operators):
        assert train_two_steps(state, operators) <= MOST_OPERATORS[representation]


def test_what_waits_for_a_gpu_raises_here() -> None:
    with FakeTensorMode(), Operators():
        on_gpu = torch.empty(3, device="cuda")
        with pytest.raises(DataDependentOutputException):
            float(on_gpu[0])
        with pytest.raises(DynamicOutputShapeException):
            on_gpu[on_gpu > 0]
        with pytest.raises(BlockingCopyError):
            on_gpu.cpu()
        with pytest.raises(BlockingCopyError):
            on_gpu.copy_(torch.empty(3))
        on_gpu.copy_(torch.empty(3), non_blocking=True)
