"""The steps of a compiled trial: how many graphs, what is in them, and the same numbers as without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from captured_graphs import capture_graphs, input_shapes
from compiled_trials import require_equal_trials, trained
from tiny_files import Memory, synthetic_file, tiny_trial

from amc_core.config import ConfigError
from amc_core.training.loop import train


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return synthetic_file(tmp_path_factory.mktemp("data"), levels_db=(0, 20), frames_per_cell=10)


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "amc_convnet", "representation": "synced", "augment": True, "ema_decay": 0.9},
        {"model_type": "iq_transformer", "representation": "iq", "snr_loss": "d2"},
    ],
)
def test_a_whole_trial_has_one_graph_for_training_and_one_for_evaluation(
    data: Path, tmp_path: Path, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch._dynamo.utils.counters.clear()
    graphs = capture_graphs(monkeypatch)
    # 34 validation and 34 test frames in batches of 9: 9, 9, 9, 7.
    config = tiny_trial(data, compile=True, batch_size=60, micro_batch_size=10, **changes)
    assert train(config, run_dir=tmp_path, record=Memory()).end == "completed"
    assert not torch._dynamo.utils.counters["graph_break"]
    assert len(graphs) == 2
    for graph, n_frames in zip(graphs, (10, 9), strict=True):
        assert (n_frames, 1024, 2) in input_shapes(graph)  # it begins with frames
        assert any(node.target == "scatter_add_" for node in graph.graph.nodes)  # and ends with counts


def test_a_size_of_its_own_has_a_graph_of_its_own(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = capture_graphs(monkeypatch)
    config = tiny_trial(data, model_type="amc_convnet", compile=True, batch_size=65, micro_batch_size=33, epochs=2)
    record = Memory()
    train(config, run_dir=tmp_path, record=record)
    assert len(graphs) == 3  # 33 and 32 frames of a batch, and the evaluation
    assert ["throughput/compile_s" in row for row in record.history] == [True, False]


def test_a_compiled_trial_gives_the_numbers_and_the_checkpoints_of_a_plain_one(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = capture_graphs(monkeypatch, "aot_eager")
    require_equal_trials(data, tmp_path, model_type="amc_convnet")
    assert len(graphs) == 2


def test_compiling_changes_neither_the_random_numbers_nor_the_counts(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    capture_graphs(monkeypatch)
    # iq is computed by torch with and without compiling, so that nothing is rounded differently.
    config: dict[str, Any] = {"model_type": "iq_convnet", "representation": "iq", "dropout": 0.5, "augment": True}
    plain, compiled = (trained(data, tmp_path / str(use), compile=use, **config) for use in (False, True))
    assert plain[0] == compiled[0]
    assert all(torch.equal(plain[1][name], compiled[1][name]) for name in plain[1])


def test_a_batch_of_one_frame_is_refused_as_without_compiling(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    capture_graphs(monkeypatch)
    config = tiny_trial(data, model_type="resnet18", image_size=32, batch_size=1, compile=True)
    with pytest.raises(ConfigError, match="batch norm needs more than one value per channel"):
        train(config, run_dir=tmp_path, record=Memory())


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("amp", [False, True])
@pytest.mark.parametrize("model_type", ["amc_convnet", "resnet18"])
def test_a_compiled_trial_on_cuda_learns_as_a_plain_one(data: Path, tmp_path: Path, model_type: str, amp: bool) -> None:
    rows = {}
    for use in (False, True):
        record = Memory()
        changes = {"model_type": model_type, "amp": amp, "dropout": 0.0, "epochs": 2, "batch_size": 34}
        config = tiny_trial(data, compile=use, **changes)
        assert train(config, run_dir=tmp_path / str(use), record=record).end == "completed"
        rows[use] = record.history
    for plain, compiled in zip(rows[False], rows[True], strict=True):
        for name in ("train/loss", "val/loss"):  # a GPU adds in any order
            assert compiled[name] == pytest.approx(plain[name], rel=0.05)
    assert rows[True][0]["throughput/compile_s"] > 1
