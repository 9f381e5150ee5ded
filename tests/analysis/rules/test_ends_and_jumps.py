"""Runs that end in one epoch for an unknown reason, and jumps after a resume, on small sweeps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sweep_records import run, sweep

from amc_analysis.analyse import rank_runs
from amc_analysis.results.finding import Finding
from amc_analysis.rules.ends import impute_worst, same_end_epoch
from amc_analysis.rules.lineage import resume_jump
from amc_sweeps.runs.records import RunRecord

CUDA_ERROR = "Traceback (most recent call last):\nRuntimeError: CUDA error: an illegal memory access was encountered\n"


def _rising(epochs: int) -> list[float]:
    return [0.5 * epoch / 12 for epoch in range(1, epochs + 1)]


def _same_end(*ended: RunRecord) -> list[Finding]:
    """Return the findings among 33 complete runs of 12 epochs, of which no run's configuration tells the number."""
    whole = [run(f"whole{index}", _rising(12), exit_code=0) for index in range(33)]
    return list(same_end_epoch(rank_runs(sweep(*whole, *ended))))


def _eight(epochs: int, state: str = "crashed", **fields: Any) -> list[RunRecord]:
    return [run(f"ended{index}", _rising(epochs), state, **fields) for index in range(8)]


def test_eight_runs_lost_in_one_epoch_are_reported() -> None:
    (finding,) = _same_end(*_eight(4))
    assert (finding.numbers["epoch"], finding.numbers["runs"]) == (4, 8)
    assert len(_same_end(*_eight(4, "failed", exit_code=255))) == 1, "the client's own code for a stop"


@pytest.mark.parametrize(
    "known",
    [
        {"log_tail": CUDA_ERROR},
        {"not_finite": ("train/loss",)},
        {"exit_code": 1},
        {"exit_code": 139},
        {"summary": {"end_reason": "diverged"}},
    ],
)
def test_runs_whose_cause_is_known_are_no_riddle(known: dict[str, Any]) -> None:
    assert not _same_end(*_eight(4, "failed", **known))


def test_runs_lost_in_the_last_epoch_of_complete_runs_did_all_their_epochs() -> None:
    assert not _same_end(*_eight(12))
    longer = [run(f"longer{index}", _rising(30), exit_code=0) for index in range(3)]
    assert not _same_end(*_eight(12), *longer), "33 others completed in that epoch"


def test_runs_lost_in_the_last_epoch_of_their_own_configuration_did_all_their_epochs() -> None:
    assert not _same_end(*_eight(9, config={"epochs": 9})), "no other run completed in that epoch"
    assert _same_end(*_eight(9, config={"epochs": 12}))


@pytest.mark.parametrize("fall", [0.0, 0.4])
def test_a_parent_that_collapsed_does_not_hide_the_jump_of_its_child(fall: float) -> None:
    rng = np.random.default_rng(3)
    curve = 0.5 + rng.normal(0, 0.003, 40)
    best = int(curve[:20].argmax())
    curve[25:] -= fall
    parent = run("parent", curve.tolist(), exit_code=0, summary={"checkpoint_epoch": best + 1})
    child = run("child", (curve[best] + 0.02 + rng.normal(0, 0.003, 8)).tolist(), config={"parent_run": "parent"})
    (finding,) = resume_jump(rank_runs(sweep(parent, child)))
    assert finding.numbers["noise_sd"] == pytest.approx(0.003, rel=0.3)


@pytest.mark.parametrize(
    ("impute", "recorded", "setting"),
    [
        (None, None, "no impute, which means worst"),
        ("worst", None, "impute: worst"),
        ("worst", "worst", "impute: worst"),
        ("best", "worst", "--crashed-runs worst"),
        (None, "worst", "--crashed-runs worst"),
        ("worst", "auto", None),
        ("best", None, None),
    ],
)
def test_a_search_that_took_crashed_runs_for_the_worst_is_reported_with_what_set_it(
    impute: str | None, recorded: str | None, setting: str | None
) -> None:
    metric = {"name": "val/combined_acc", "goal": "maximize", **({"impute": impute} if impute else {})}
    config = {"method": "bayes", "metric": metric}
    record = sweep(run("lost", [0.1], "crashed"), config=config, crashed_runs=recorded)
    found = [finding.evidence for finding in impute_worst(rank_runs(record))]
    assert [text.partition(";")[0] for text in found] == ([f"The method is bayes with {setting}"] if setting else [])
