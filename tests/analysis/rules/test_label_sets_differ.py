"""Runs of one ranking with other classes are reported, also where they have equally many."""

from __future__ import annotations

from typing import Any

import pytest
from sweep_records import completed, sweep

from amc_analysis.analyse import rank_runs
from amc_analysis.rules.held_out import label_sets_differ
from amc_core.modulations import CLASSES

RANGE = {"snr_min_db": 0, "snr_max_db": 30}


@pytest.mark.parametrize(
    ("one", "other", "evidence"),
    [
        ({"label_set": "BPSK,QPSK"}, {"label_set": "BPSK,8PSK"}, "32 classes (BPSK,8PSK by SNR): r1"),
        ({"label_set": "file", "classes": ["BPSK", "QPSK"]}, {"label_set": "BPSK,QPSK"}, None),
        ({"label_set": "file", "classes": ["A", "B"]}, {"label_set": "file", "classes": ["A", "C"]}, "A,C by SNR"),
        ({"label_set": "digital17"}, {"label_set": "digital17"}, None),
        ({"label_set": "QPSK, BPSK"}, {"label_set": "BPSK,QPSK"}, None),
        ({"label_set": "file", "classes": ["QPSK ", "BPSK"]}, {"label_set": "bpsk , QPSK"}, None),
        ({"classes": "QPSK, BPSK"}, {"label_set": "BPSK,QPSK"}, None),
        ({"label_set": "a b, c/d"}, {"label_set": "a b,c/d"}, None),
        ({"label_set": ", ".join(CLASSES)}, {"label_set": "all24"}, None),
        ({"label_set": "digital17"}, {"label_set": "BPSK,QPSK"}, "272 classes: r0; 32 classes (BPSK,QPSK by SNR): r1"),
    ],
)
def test_runs_with_other_classes_are_reported(one: dict[str, Any], other: dict[str, Any], evidence: str | None) -> None:
    records = [completed(f"r{number}", [0.1, 0.2], config={**RANGE, **own}) for number, own in enumerate((one, other))]
    findings = list(label_sets_differ(rank_runs(sweep(*records))))
    assert len(findings) == (evidence is not None)
    assert evidence is None or evidence in findings[0].evidence
