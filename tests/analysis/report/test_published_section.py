"""Runs beside the published figures, where they follow the protocol of the publications."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from sweep_records import run, sweep

from amc_analysis.analyse import rank_runs
from amc_analysis.report.blocks import Table
from amc_analysis.report.published_section import FRAMES, published_figures, published_section
from amc_core.metric_names import EPOCH_METRICS, FINAL_METRICS
from amc_sweeps.runs.records import RunRecord

ROOT = Path(__file__).parents[3]
PROTOCOL: dict[str, Any] = {
    "label_set": "all24",
    "snr_min_db": -20,
    "snr_max_db": 30,
    "model_type": "gru2",
    "representation": "iq",
    "split": [0.8, 0.1, 0.1],
    "n_parameters": 155_000,
    "n_train": FRAMES - 2000,
    "n_val": 1000,
    "n_test": 1000,
}


def scored(name: str, peak: float, mean: float | None, **changes: Any) -> RunRecord:
    scores = {} if mean is None else {"test/mod_acc_mean": mean, "test/mod_acc_peak": 0.96}
    summary = {"end_reason": "completed", **scores}
    return run(name, [peak], exit_code=0, config={**PROTOCOL, **changes}, summary=summary)


def test_runs_of_the_protocol_stand_above_the_published_figures_in_the_order_of_the_ranking() -> None:
    runs = [scored("a", 0.4, 0.61), scored("b", 0.5, 0.6), scored("c", 0.6, None), scored("d", 0.1, 0.1)]
    section = published_section(rank_runs(sweep(*runs, scored("e", 0.05, 0.2))))
    assert section is not None
    note, table = section.blocks
    assert isinstance(table, Table)
    assert table.rows[0] == ["gru2", "iq", "155,000", "60.00%", "96.00%", "80/10/10", "run b"]
    assert [row[-1] for row in table.rows[:3]] == ["run b", "run a", "run d"]  # c was not tested, e is the fourth
    assert table.rows[3][:6] == ["LSTM2", "amplitude_phase", "202,776", "62.30%", "97.02%", "50/10/40"]
    assert len(table.rows) == 3 + len(published_figures())
    assert "not the best ones by test" in str(note)


@pytest.mark.parametrize("changes", [{"snr_min_db": 0}, {"label_set": "digital17"}, {"snr_max_db": 18}])
def test_runs_of_another_protocol_stand_beside_no_published_figure(changes: dict[str, Any]) -> None:
    assert published_section(rank_runs(sweep(scored("a", 0.4, 0.61, **changes)))) is None


def test_a_file_of_another_size_is_said_not_to_be_comparable() -> None:
    section = published_section(rank_runs(sweep(scored("a", 0.4, 0.61, n_train=8000))))
    assert section is not None
    assert section.blocks[1] == (
        "a: its file has 10,000 frames, RadioML 2018.01A has 2,555,904, so the figures are not comparable."
    )


def test_every_figure_has_a_source_and_stands_in_the_document() -> None:
    text = (ROOT / "docs" / "analysis.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if re.search(r"\| \d\d\.\d\d% \|", line)]
    for figure, line in zip(published_figures(), rows, strict=True):
        assert line.startswith(f"| {figure['network']} | {figure['input']} |")
        assert f"| {float(figure['mean_acc']):.2f}% |" in line
        assert not figure["peak_acc"] or f"| {float(figure['peak_acc']):.2f}% |" in line
        assert figure["measured"] in {"benchmark", "authors"}
        assert figure["source"] in line or "the same" in line


def test_a_trial_logs_what_publications_report() -> None:
    assert {"val/mod_acc_mean", "val/mod_acc_peak"} <= EPOCH_METRICS
    assert {"test/mod_acc_mean", "test/mod_acc_peak"} <= FINAL_METRICS
