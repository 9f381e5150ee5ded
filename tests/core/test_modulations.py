"""Class order, families and label sets."""

from __future__ import annotations

import subprocess
import sys

import pytest

from amc_core.config import ConfigError, TrialConfig
from amc_core.modulations import CLASSES, FAMILIES, LABEL_SETS, class_names, families_of, label_set_of, read_label_set


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


@pytest.mark.parametrize(
    ("text", "label_set"),
    [
        ("digital17", "digital17"),
        ("file", "file"),
        ("8PSK, bpsk ,QPSK", "BPSK,QPSK,8PSK"),
        (",".join(reversed(class_names("digital17"))), "digital17"),
        (",".join(CLASSES), "all24"),
        ("Wi-Fi 6,QPSK,LoRa_7", "QPSK,LoRa_7,Wi-Fi 6"),
        (",".join(f"class {number}" for number in range(100)), None),
    ],
)
def test_the_same_classes_are_the_same_label_set_in_any_order(text: str, label_set: str | None) -> None:
    found = read_label_set(text)
    assert found == label_set or label_set is None
    assert read_label_set(found) == found
    if found != "file":
        assert label_set_of(class_names(found)) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("BPSK", "2 classes or more"),
        ("", "'' is not allowed"),
        ("BPSK,,QPSK", "'' is not allowed"),
        ("BPSK,QPSK,", "'' is not allowed"),
        ("BPSK,bpsk", "'BPSK' is given twice"),
        ("LoRa,lora", "'lora' is given twice"),
        ("digital17,FM", "digital17 is a label set, not a class"),
        ("QPSK,A/B", "'A/B' is not allowed: a name has"),
        ("QPSK,A.B", "'A.B' is not allowed"),
        ("QPSK,\u03c0-QPSK", "not allowed"),
        ("QPSK,a\nb", r"'a\\nb' is not allowed"),
        ("QPSK,-x", "begins with a letter or digit"),
        ("QPSK," + "x" * 100_000, "not allowed"),
        (",".join(map(str, range(100_000))), "100,000 classes are too many: at most 100"),
        (",".join("?" * 50), "and 48 more"),
    ],
)
def test_what_is_no_label_set_is_refused_in_few_words(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read_label_set(text)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("name", ["label_set", "storage", "variant", "max_lr", "split", "x" * 100_000])
def test_a_long_value_is_not_repeated_whole(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TrialConfig.from_mapping({name: "y" * 100_000})
    assert len(str(caught.value)) < 1500


def test_classes_besides_the_24_are_a_family_unless_they_are_alone() -> None:
    assert families_of(["QPSK", "LoRa"]) == {"QPSK": "PSK", "LoRa": "other"}
    assert families_of(["LoRa", "Wi-Fi"]) == {}


def test_modulations_and_metric_names_import_without_torch() -> None:
    code = "import sys, amc_core.modulations, amc_core.metric_names, amc_core.config; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
