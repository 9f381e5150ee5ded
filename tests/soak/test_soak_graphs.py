"""Every network that a trial names: one graph for training and one for evaluation, in a whole compiled trial.

And every representation with every loss and head on a fake GPU, which raises where a real one would wait.
"""

from __future__ import annotations

import gc
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from captured_graphs import capture_graphs
from compiled_trials import require_equal_trials
from fake_devices import fake_device
from results_file import keep
from tiny_files import Memory, synthetic_file, tiny_trial

from amc_core.config import FIELDS, MODEL_ALIASES, OWN_NETWORKS, RECURRENT_NETWORKS, REGRESSION_LOSSES, SIGNAL_NETWORKS
from amc_core.training.loop import train
from amc_core.training.step.counts import Counts
from amc_core.training.steps import evaluate, renew_batch_statistics, train_epoch

# Those that configurations and sweep files name: short names, and the names of the sweeps.
NETWORKS = ("resnet18", "resnet34", "resnet50", *dict.fromkeys(MODEL_ALIASES.values()), *OWN_NETWORKS)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_file(tmp_path_factory.mktemp("data"), levels_db=(0, 20), frames_per_cell=10)


@pytest.mark.timeout(3600)
def test_every_network_has_two_graphs_in_a_whole_trial(data: Path, tmp_path: Path) -> None:
    figures = {}
    for model_type in NETWORKS:
        with pytest.MonkeyPatch.context() as patch:
            graphs = capture_graphs(patch)
            torch._dynamo.utils.counters.clear()
            config = tiny_trial(
                data,
                model_type=model_type,
                representation=SIGNAL_NETWORKS.get(model_type, "synced"),
                compile=True,
                epochs=1 if model_type in RECURRENT_NETWORKS else 2,
                snr_max_db=0,
                batch_size=60,
                micro_batch_size=10,  # 17 validation frames in batches of 9, of which the second is filled up
                batch_norm_frames=30,
            )
            began_s = time.monotonic()
            train(config, run_dir=tmp_path / model_type, record=Memory())
            broken = sum(torch._dynamo.utils.counters["graph_break"].values())
            figures[model_type] = f"{len(graphs)} graphs, {broken} breaks, {time.monotonic() - began_s:.0f} s"
            print(model_type, figures[model_type], flush=True)
            assert (len(graphs), broken) == ((0, 0) if model_type in RECURRENT_NETWORKS else (2, 0)), model_type
        for path in (tmp_path / model_type).glob("*.pt"):
            path.unlink()
        gc.collect()
    keep("graphs", full=True, figures=figures)


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("model_type", ["amc_convnet", "resnet18"])
def test_what_the_compiler_makes_of_a_step_gives_the_numbers_of_a_plain_one(
    data: Path, tmp_path: Path, model_type: str
) -> None:
    require_equal_trials(data, tmp_path, model_type=model_type)


@pytest.mark.timeout(1800)
def test_every_representation_loss_and_head_runs_without_waiting(data: Path) -> None:
    combinations = [
        (representation, loss, head)
        for representation in FIELDS["representation"].choices
        for loss in FIELDS["snr_loss"].choices
        for head in FIELDS["snr_layer"].choices
        if head != "regression" or loss in REGRESSION_LOSSES
    ]
    network_of = {"iq": "iq_convnet", "amplitude_phase": "lstm2"}
    frames, operators_of = np.arange(64), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Counts, "is_finite", lambda counts: True)  # the reads that are meant
        patch.setattr(Counts, "evaluation", lambda counts: None)
        for representation, loss, head in combinations:
            changes = {"snr_loss": loss, "snr_layer": head, "augment": True, "ema_decay": 0.9, "grad_clip_norm": 1.0}
            model_type = network_of.get(representation, "amc_convnet")
            config = tiny_trial(data, representation=representation, model_type=model_type, **changes)
            with fake_device(config, "cuda") as (state, operators):
                train_epoch(state, frames, should_stop=lambda: None, show=lambda _: None)
                operators_of[f"{representation}, {loss}, {head}"] = len(operators.names)
                renew_batch_statistics(state, frames, should_stop=lambda: None)
                evaluate(state, frames, should_stop=lambda: None)
    assert len(operators_of) == 105
    keep("fake_cuda", full=True, figures={f"operators of a step: {name}": n for name, n in operators_of.items()})
