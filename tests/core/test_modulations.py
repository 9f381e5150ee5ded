"""Class order, families and label sets."""

from __future__ import annotations

import subprocess
import sys

from amc_core.modulations import CLASSES, FAMILIES, LABEL_SETS


def test_the_order_is_the_corrected_one_and_not_that_of_the_archives_classes_txt() -> None:
    assert len(CLASSES) == len(set(CLASSES)) == 24
    assert (CLASSES[0], CLASSES[4], CLASSES[12], CLASSES[21], CLASSES[23]) == ("OOK", "QPSK", "16QAM", "FM", "OQPSK")
    assert CLASSES[0] != "32PSK"  # what the archive's file claims


def test_digital17_leaves_out_ook_the_analog_classes_and_gmsk() -> None:
    left_out = set(CLASSES) - {CLASSES[column] for column in LABEL_SETS["digital17"]}
    assert left_out == {"OOK", "AM-SSB-WC", "AM-SSB-SC", "AM-DSB-WC", "AM-DSB-SC", "FM", "GMSK"}
    assert list(LABEL_SETS["digital17"]) == sorted(LABEL_SETS["digital17"])


def test_every_class_is_in_exactly_one_family() -> None:
    members = [name for family in FAMILIES.values() for name in family]
    assert sorted(members) == sorted(CLASSES)


def test_modulations_and_metric_names_import_without_torch() -> None:
    code = "import sys, amc_core.modulations, amc_core.metric_names, amc_core.config; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
