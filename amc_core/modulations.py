"""The 24 classes of RadioML 2018.01A, in the order of the columns of ``Y``, and the label sets that trials use.

A label set is a word of LABEL_SETS, a list of names such as ``BPSK,QPSK``, or ``file``: all classes that have frames in
the data file. Names other than the 24 are classes of a file that names its own columns (see ``amc_core.data.radioml``).

The order is the corrected one ("classes-fixed"). The ``classes.txt`` in the archive names the columns wrongly. A loader
that uses it permutes every per-class score without any visible error.

Source: T. O'Shea, T. Roy, T. C. Clancy, "Over-the-Air Deep Learning Based Radio Signal Classification",
IEEE Journal of Selected Topics in Signal Processing 12(1), 2018.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

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


FILE_CLASSES = "file"  # the label set of all classes that have frames in the data file
MOST_CLASSES = 100  # a joint confusion of 100 classes and 26 levels takes 54 MB
_MOST_SHOWN = 24  # classes of a list in a message
NAME_RULE = "a name has 1 to 40 letters, digits, spaces, _, + or -, and begins with a letter or digit"

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 _+-]{0,38}[A-Za-z0-9_+-])?")
OTHER_FAMILY = "other"  # of classes besides the 24
_SPELLING: Mapping[str, str] = {name.lower(): name for name in CLASSES}


def complete_label_sets(names: Iterable[str]) -> list[str]:
    """Return the words of LABEL_SETS whose classes are all among these names."""
    present = set(names)
    return [label_set for label_set in LABEL_SETS if present.issuperset(class_names(label_set))]


def class_names(label_set: str) -> tuple[str, ...]:
    """Return the names of the classes of a label set other than ``file``, in the order of a model's outputs."""
    if label_set in LABEL_SETS:
        return tuple(CLASSES[column] for column in LABEL_SETS[label_set])
    return tuple(label_set.split(","))


def label_set_text(label_set: str) -> str:
    """Write a label set for a message: a long list by its first classes.

    >>> label_set_text("A,B,C"), label_set_text(",".join(map(str, range(30))))
    ('A,B,C', '0,1,2,3,4,5 and 24 more')
    """
    names = label_set.split(",")
    return label_set if len(names) <= _MOST_SHOWN else f"{','.join(names[:6])} and {len(names) - 6} more"


def read_label_set(text: str) -> str:
    """Return the normal form of a label set: one word or list for the same classes, in whatever order they are given.

    Raises:
        ValueError: fewer than 2 or more than 100 classes, a name that is not allowed, or one that is given twice.
    """
    return text if text in (*LABEL_SETS, FILE_CLASSES) else label_set_of([part.strip() for part in text.split(",")])


def label_set_of(names: Sequence[str]) -> str:
    """Return the label set of these classes: a word of LABEL_SETS, or the list of the names.

    RadioML's classes come first, in the order of its columns; then all other names, in the order of the alphabet. So
    the order does not depend on a file.

    Raises:
        ValueError: see ``read_label_set``.
    """
    checked = checked_names(names)
    if len(checked) < 2:
        raise ValueError("a label set has 2 classes or more: with one there is nothing to tell apart")
    known = [name for name in CLASSES if name in checked]
    ordered = (*known, *sorted(set(checked) - set(known)))
    return next((word for word in LABEL_SETS if class_names(word) == ordered), ",".join(ordered))


def checked_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return names of classes; those that differ from one of the 24 in case only are spelled like it.

    Raises:
        ValueError: with all violations.
    """
    if len(names) > MOST_CLASSES:
        raise ValueError(f"{len(names):,} classes are too many: at most {MOST_CLASSES}")
    spelled = tuple(_SPELLING.get(name.lower(), name) for name in names)
    lower = [name.lower() for name in spelled]
    problems = [f"{name!r:.60} is not allowed: {NAME_RULE}" for name in spelled if not _NAME.fullmatch(name)]
    problems += [
        f"{name} is a label set, not a class" for name in spelled if name.lower() in (*LABEL_SETS, FILE_CLASSES)
    ]
    twice = [name for place, name in enumerate(spelled) if name.lower() in lower[:place]]
    problems += [f"{name!r:.60} is given twice" for name in dict.fromkeys(twice)]
    if problems:
        more = [f"and {len(problems) - 3} more"] if len(problems) > 3 else []
        raise ValueError("; ".join([*problems[:3], *more]))
    return spelled


def families_of(names: Iterable[str]) -> dict[str, str]:
    """Return the family of every class; ``other`` for those of a file, and none at all where no class has a family."""
    family_of = {member: family for family, members in FAMILIES.items() for member in members}
    families = {name: family_of.get(name, OTHER_FAMILY) for name in names}
    return families if set(families.values()) != {OTHER_FAMILY} else {}
