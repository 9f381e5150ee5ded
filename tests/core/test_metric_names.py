"""Which names a search may steer by."""

from __future__ import annotations

import pytest

from amc_core.metric_names import EPOCH_METRICS, FINAL_METRICS, detail_metrics, is_epoch_metric, level_of


@pytest.mark.parametrize("name", [*sorted(EPOCH_METRICS), "f1/mod/QPSK", "f1/family/APSK", "f1/snr/-20", "acc/snr/30"])
def test_what_is_logged_every_epoch_is_known(name: str) -> None:
    assert is_epoch_metric(name)


@pytest.mark.parametrize(
    "name", [*sorted(FINAL_METRICS), "attractor/snr_db", "f1/mod/QPSK2", "f1/family/QPSK", "f1/snr/high", "val/acc"]
)
def test_what_is_not_is_not(name: str) -> None:
    assert not is_epoch_metric(name)


def test_the_detail_is_of_the_classes_families_and_levels_that_a_trial_has() -> None:
    assert detail_metrics(["BPSK", "OQPSK"], [-2, 0]) == {
        *("f1/mod/BPSK", "f1/mod/OQPSK", "f1/family/PSK"),
        *("f1/snr/-2", "f1/snr/0", "acc/snr/-2", "acc/snr/0"),
    }


def test_a_metric_of_one_level_says_which() -> None:
    assert [level_of(name) for name in ("f1/snr/-4", "acc/snr/12", "f1/mod/BPSK")] == [-4, 12, None]
