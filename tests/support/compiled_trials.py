"""The same trial with and without compiling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_files import Memory, tiny_trial, without_time

from amc_core.training.checkpoint import load_checkpoint
from amc_core.training.loop import train


def trained(data: Path, folder: Path, **changes: Any) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
    """Train, and return the history without times and the last weights."""
    record = Memory()
    train(tiny_trial(data, **changes), run_dir=folder, record=record)
    return without_time(record.history), dict(load_checkpoint(folder / "last.pt").model)


def require_equal_trials(data: Path, folder: Path, **changes: Any) -> None:
    """Train with and without compiling, and require the same curves and weights up to rounding."""
    config: dict[str, Any] = {"epochs": 1, "dropout": 0.0, "batch_size": 34, **changes}
    (plain, weights), (compiled, other_weights) = (
        trained(data, folder / str(use), compile=use, **config) for use in (False, True)
    )
    assert len(plain) == len(compiled) == 1
    for row, other in zip(plain, compiled, strict=True):
        assert row.keys() == other.keys()
        for name in ("train/loss", "val/loss", "weight/mod"):
            assert other[name] == pytest.approx(row[name], rel=2e-3), name
        assert other["grad_norm/mean"] == pytest.approx(row["grad_norm/mean"], rel=1e-2)
    assert weights.keys() == other_weights.keys()
    for name, tensor in weights.items():
        if tensor.is_floating_point():
            assert float((other_weights[name] - tensor).abs().mean()) < 1e-3 * float(tensor.abs().mean() + 1), name
