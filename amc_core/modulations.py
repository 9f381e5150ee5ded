"""The 24 classes of RadioML 2018.01A, in the order of the columns of ``Y``, and the subsets that trials use.

The order is the corrected one ("classes-fixed"). The ``classes.txt`` in the archive names the columns wrongly. A loader
that uses it permutes every per-class score without any visible error.

Source: T. O'Shea, T. Roy, T. C. Clancy, "Over-the-Air Deep Learning Based Radio Signal Classification",
IEEE Journal of Selected Topics in Signal Processing 12(1), 2018.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

CLASSES: tuple[str, ...] = (
    *("OOK", "4ASK", "8ASK", "BPSK", "QPSK", "8PSK", "16PSK", "32PSK", "16APSK", "32APSK", "64APSK", "128APSK"),
    *("16QAM", "32QAM", "64QAM", "128QAM", "256QAM", "AM-SSB-WC", "AM-SSB-SC", "AM-DSB-WC", "AM-DSB-SC", "FM"),
    *("GMSK", "OQPSK"),
)

FAMILIES: Mapping[str, tuple[str, ...]] = {
    "ASK": ("OOK", "4ASK", "8ASK"),
    "PSK": ("BPSK", "QPSK", "8PSK", "16PSK", "32PSK", "OQPSK"),
    "APSK": ("16APSK", "32APSK", "64APSK", "128APSK"),
    "QAM": ("16QAM", "32QAM", "64QAM", "128QAM", "256QAM"),
    "analog": ("AM-SSB-WC", "AM-SSB-SC", "AM-DSB-WC", "AM-DSB-SC", "FM"),
    "FSK": ("GMSK",),
}

# Linear digital modulations without OOK: columns 1-16 and 23.
DIGITAL17: tuple[int, ...] = (*range(1, 17), 23)

# A label set is a tuple of columns of Y; a model's class index is a position in it.
LABEL_SETS: Mapping[str, tuple[int, ...]] = {
    "digital17": DIGITAL17,
    "all24": tuple(range(len(CLASSES))),
}


def complete_label_sets(names: Iterable[str]) -> list[str]:
    """Return the label sets whose classes are all among these modulations."""
    columns = {CLASSES.index(name) for name in names}
    return [name for name, members in LABEL_SETS.items() if columns.issuperset(members)]
