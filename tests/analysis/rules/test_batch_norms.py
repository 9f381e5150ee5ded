"""Runs whose batch norm had as many frames as their GPU had memory for."""

from __future__ import annotations

from typing import Any

import pytest
from sweep_records import run, sweep

from amc_analysis.analyse import rank_runs
from amc_analysis.results.finding import Finding
from amc_analysis.rules.held_out import batch_norms_differ

AUTO: dict[str, Any] = {
    "model_type": "resnet18",
    "batch_size": 512,
    "micro_batch_size": "auto",
    "has_batch_norm": True,
    "micro_batch_frames": 512,
}


def findings(*changes: dict[str, Any]) -> list[Finding]:
    runs = [run(f"run{place}", [0.5], exit_code=0, config={**AUTO, **own}) for place, own in enumerate(changes)]
    return list(batch_norms_differ(rank_runs(sweep(*runs))))


def test_runs_that_gpus_divided_differently_are_named() -> None:
    (finding,) = findings({}, {"micro_batch_frames": 128}, {"micro_batch_frames": 128}, {"model_type": "resnet34"})
    assert set(finding.subjects) == {"run0", "run1", "run2"}
    assert (finding.numbers["least_frames"], finding.numbers["most_frames"]) == (128, 512)
    assert "128 frames: run1, run2; 512 frames: run0" in finding.evidence


@pytest.mark.parametrize(
    "other",
    [
        {"micro_batch_frames": 512},
        {"micro_batch_frames": 64, "micro_batch_size": 64},  # a choice, which the settings show
        {"micro_batch_frames": 256, "batch_size": 256},
        {"micro_batch_frames": 128, "model_type": "resnet50"},
        {"micro_batch_frames": 128, "has_batch_norm": False},
        {"micro_batch_frames": 128, "has_batch_norm": None},  # a run of an older version
    ],
)
def test_other_differences_are_left_alone(other: dict[str, Any]) -> None:
    assert findings({}, other) == []
