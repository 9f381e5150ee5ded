"""What people have written about a sweep or a run, kept beside its records so that it can be checked against them.

Claims are in the texts that W&B keeps: the description of a sweep and the notes of a run. There they are YAML with one
key, ``recorded``::

    recorded:
      source: the document with the claims
      runs_total: 12                       # as the document says; it may describe fewer
      claims:
      - kind: group
        parameter: snr_layer
        values: [standard]
        metric: val/combined_acc
        numbers: {n: 1, failures: 0, mean: 0.4176, max: 0.4176}
        derived: [n, failures]             # not in the document, but its other figures determine them
        statement: "standard: 41.76% avg, 41.76% max (0% crash rate) - MOST STABLE"
        source: "Sweep: bapdavm5, SNR Layer Architecture Rankings"

Any other text is an ordinary description without claims. Accuracies and rates are fractions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import Any

import yaml

from amc_sweeps.bounded_texts import read_yaml
from amc_sweeps.values import printable


class ClaimKind(StrEnum):
    """What a claim is about; the comment lists the names that ``numbers`` may have."""

    # The runs with one value of a parameter: n, failures, failure_rate, mean, max.
    GROUP = "group"
    # Two values of a parameter, the better one first: first, second, difference, n_first, n_second; `statistic` says
    # whether they are max or mean.
    COMPARISON = "comparison"
    # What to use next: `values`, or low and high for a range.
    RECOMMENDATION = "recommendation"
    # The best value so far: value. `runs` has the run.
    RECORD = "record"
    # How many runs the text describes or rests on: n.
    COUNT = "count"
    # The share of failed runs: rate, failures, n.
    FAILURE_RATE = "failure_rate"
    # Two clusters of values with nothing in between: low_from, low_to, high_from, high_to.
    DISTRIBUTION = "distribution"
    # Words about a run's curve or figures; the statement, and numbers if given.
    READING = "reading"


@dataclass(frozen=True)
class Claim:
    """One statement and the numbers in it."""

    kind: ClaimKind
    statement: str  # in the words of the source
    source: str = ""  # where the statement is
    parameter: str | None = None
    values: tuple[Any, ...] = ()  # of the parameter
    metric: str | None = None
    statistic: str | None = None  # in a comparison: max or mean
    numbers: Mapping[str, float] = field(default_factory=dict)
    derived: tuple[str, ...] = ()  # names in `numbers` that follow from other figures of the text
    runs: tuple[str, ...] = ()  # ids of the runs that the claim is about


@dataclass(frozen=True)
class RecordedClaims:
    """The claims in a description or in notes."""

    claims: tuple[Claim, ...] = ()
    runs_total: int | None = None
    source: str = ""


class ClaimError(ValueError):
    """A text begins like a record, but cannot be read; the message says where."""


def read_recorded(text: str | None, *, run_id: str | None = None) -> RecordedClaims | None:
    """Return the claims in a text; None for an ordinary text.

    Args:
        text: the description of a sweep or the notes of a run.
        run_id: the run of the notes; claims without runs are about it.

    Raises:
        ClaimError: the record in the text has a fault.
    """
    if not text or not text.lstrip().startswith("recorded:"):
        return None
    try:
        content = printable(read_yaml(text)[0]["recorded"])
        claims = tuple(_claim(entry) for entry in content.get("claims") or ())
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ClaimError(f"the record cannot be read: {error}") from error
    if run_id is not None:
        claims = tuple(claim if claim.runs else replace(claim, runs=(run_id,)) for claim in claims)
    return RecordedClaims(claims=claims, runs_total=content.get("runs_total"), source=str(content.get("source") or ""))


def _claim(entry: Mapping[str, Any]) -> Claim:
    numbers = {name: float(value) for name, value in (entry.get("numbers") or {}).items()}
    derived = tuple(entry.get("derived") or ())
    if unknown_names := [name for name in derived if name not in numbers]:
        raise ValueError(f"derived names {', '.join(unknown_names)}, but numbers has no such name")
    names = [field.name for field in fields(Claim)]
    if unknown_names := [name for name in entry if name not in names]:
        raise ValueError(f"unknown in a claim: {', '.join(unknown_names)}; known are {', '.join(sorted(names))}")
    texts = {name: entry.get(name) for name in ("parameter", "metric", "statistic")}
    return Claim(
        kind=ClaimKind(entry["kind"]),
        statement=str(entry["statement"]),
        source=str(entry.get("source") or ""),
        values=tuple(entry.get("values") or ()),
        numbers=numbers,
        derived=derived,
        runs=tuple(entry.get("runs") or ()),
        **texts,
    )
