"""Sweeps side by side: every difference that matters is a caveat."""

from __future__ import annotations

from typing import Any

from sweep_records import completed, sweep

from amc_analysis.analyse import rank_runs
from amc_analysis.report.comparison import classes_of, compare
from amc_analysis.results.analysed_sweep import AnalysedSweep
from amc_sweeps.runs.records import Metric

TASK = {"label_set": "digital17", "snr_min_db": 0, "snr_max_db": 30, "n_val": 111_411, "epochs": 3}


def analysed(runs: int = 2, metric: Metric | None = None, **config: Any) -> AnalysedSweep:
    """Return an analysed sweep of runs with one configuration."""
    records = [completed(f"r{number}", [0.1, 0.2, 0.3], config={**TASK, **config}) for number in range(runs)]
    return rank_runs(sweep(*records, **({} if metric is None else {"metric": metric})))


def caveats(*sweeps: AnalysedSweep) -> str:
    """Return the caveats as one text."""
    return "\n".join(compare(sweeps).caveats)


def test_equal_sweeps_have_no_caveats() -> None:
    assert caveats(analysed(), analysed()) == ""


def test_different_label_sets_are_a_caveat() -> None:
    text = caveats(analysed(), analysed(label_set="all24"))
    assert "chance differs" in text
    assert "272" in text
    assert "384" in text
    assert "The label sets differ" in text


def test_label_sets_of_ones_own_are_compared_by_their_classes() -> None:
    text = caveats(analysed(label_set="BPSK,QPSK"), analysed(label_set="BPSK,8PSK"))
    assert "The label sets differ (94fqx0gz: BPSK,QPSK; 94fqx0gz: BPSK,8PSK)" in text
    assert "numbers of classes" not in text
    of_file = analysed(label_set="file", classes=["BPSK", "QPSK"])
    assert caveats(analysed(label_set="BPSK,QPSK"), of_file) == ""
    assert "The label sets differ" in caveats(of_file, analysed(label_set="file", classes=["LoRa", "Wi-Fi"]))


def test_different_snr_ranges_are_a_caveat() -> None:
    text = caveats(analysed(), analysed(snr_min_db=-20))
    assert "The SNR ranges in dB differ (94fqx0gz: 0..30; 94fqx0gz: -20..30)" in text
    assert "442" in text


def test_other_settings_of_validations_are_a_caveat_and_those_off_record_count_as_off() -> None:
    text = caveats(analysed(), analysed(batch_norm_frames=8192, ema_decay=0.999))
    assert "94fqx0gz: batch_norm_frames 0, ema_decay 0; 94fqx0gz: batch_norm_frames 8192, ema_decay 0.999" in text
    assert caveats(analysed(), analysed(batch_norm_frames=0)) == ""


def test_different_metrics_splits_budgets_and_counts_are_caveats() -> None:
    text = caveats(
        analysed(), analysed(5, Metric("val/loss", "minimize"), n_val=222_822, epochs=150, split=[0.7, 0.2, 0.1])
    )
    for part in (
        "The metrics differ",
        "The goals differ",
        "validation frames differ",
        "planned numbers of epochs differ",
    ):
        assert part in text
    assert "better by chance alone (2 in 94fqx0gz, 5 in 94fqx0gz)" in text


def test_an_unknown_property_is_no_caveat() -> None:
    assert "label sets" not in caveats(analysed(), rank_runs(sweep(completed("r", [0.1]), completed("s", [0.2]))))


def test_classes_are_counted_over_modulations_and_snr_levels() -> None:
    assert classes_of(TASK) == 17 * 16
    assert classes_of({**TASK, "n_classes": 442}) == 442
    assert classes_of({"label_set": "own"}) is None
