"""A batch from frames to counts: layout, frames that only fill a batch, and their absence from every count."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from tiny_files import synthetic_file, tiny_trial

from amc_core.data.radioml import RadioMLFile
from amc_core.training.evaluation import Evaluation
from amc_core.training.preparation import prepare
from amc_core.training.state import TrainingState
from amc_core.training.steps import evaluate


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    path = synthetic_file(tmp_path_factory.mktemp("data"), levels_db=(0, 20), frames_per_cell=10)
    with h5py.File(path, "r+") as raw:
        raw["X"][::5, 100, 1] = np.inf
    return path


@contextmanager
def prepared(data: Path, **changes: Any) -> Iterator[TrainingState]:
    config = tiny_trial(data, **changes)
    with RadioMLFile(config.data, storage=config.storage) as file:
        yield TrainingState(prepare(config, file)[0])


@pytest.mark.parametrize("representation", ["constellation", "synced"])
def test_images_have_their_channels_last(data: Path, representation: str) -> None:
    with prepared(data, model_type="amc_convnet", representation=representation) as state:
        batch = next(state.context.feed.batches([np.arange(3)]))
        image_BCHW = state.context.training_step.model_input(batch)
    assert image_BCHW.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("representation", ["constellation", "constellation_psd"])  # by numba, by torch
def test_an_evaluation_is_the_same_in_batches_of_any_size(data: Path, representation: str) -> None:
    evaluations, bad = list[Evaluation](), list[int]()
    with prepared(data, model_type="amc_convnet", representation=representation) as state:
        positions = np.arange(50)
        for size in (50, 64, 13):
            sized = TrainingState(replace(state.context, evaluation_frames=size))
            found = evaluate(sized, positions, should_stop=lambda: None)
            assert isinstance(found, Evaluation)
            evaluations.append(found)
            bad.append(sized.bad_frames.finish("val"))
    whole = evaluations[0]
    assert whole.n_frames == 50
    assert bad == [10, 10, 10]
    for other in evaluations[1:]:
        assert np.array_equal(other.joint, whole.joint)
        for name in ("loss", "loss_mod", "loss_snr"):
            assert getattr(other, name) == pytest.approx(getattr(whole, name), rel=1e-5)
