"""Names that a search may use as its metric."""

from __future__ import annotations

import pytest

from amc_core.metric_names import EPOCH_METRICS, FINAL_METRICS, detail_metrics, is_epoch_metric, level_of


@pytest.mark.parametrize("name", [*sorted(EPOCH_METRICS), "f1/mod/QPSK", "f1/family/APSK", "f1/snr/-20", "acc/snr/30"])
def test_names_logged_every_epoch_are_epoch_metrics(name: str) -> None:
    assert is_epoch_metric(name)


@pytest.mark.parametrize(
    "name", [*sorted(FINAL_METRICS), "attractor/snr_db", "f1/mod/QPSK2", "f1/family/QPSK", "f1/snr/high", "val/acc"]
)
def test_other_names_are_no_epoch_metrics(name: str) -> None:
    assert not is_epoch_metric(name)


def test_the_detail_has_the_classes_families_and_levels_of_a_trial() -> None:
    assert detail_metrics(["BPSK", "OQPSK"], [-2, 0]) == {
        *("f1/mod/BPSK", "f1/mod/OQPSK", "f1/family/PSK"),
        *("f1/snr/-2", "f1/snr/0", "acc/snr/-2", "acc/snr/0"),
    }


def test_the_level_of_a_metric_is_read_from_its_name() -> None:
    assert [level_of(name) for name in ("f1/snr/-4", "acc/snr/12", "f1/mod/BPSK")] == [-4, 12, None]
