"""What somebody has written about a sweep or a run, kept beside its records so that it can be checked against them.

A claim travels where W&B has room for a text: in the description of a sweep, in the notes of a run. There it is YAML
with one key, ``recorded``::

    recorded:
      source: the document that the record was taken from
      runs_total: 12                       # as the document says; those that it describes may be fewer
      claims:
      - kind: group
        parameter: snr_layer
        values: [standard]
        metric: val/combined_acc
        numbers: {n: 1, failures: 0, mean: 0.4176, max: 0.4176}
        derived: [n, failures]             # what the document does not say but its other figures determine
        statement: "standard: 41.76% avg, 41.76% max (0% crash rate) - MOST STABLE"
        source: "Sweep: bapdavm5, SNR Layer Architecture Rankings"

Any other text is an ordinary description: no claims. Accuracies and rates are fractions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import yaml


class ClaimKind(StrEnum):
    """What a claim is about, and what its fields hold. ``numbers`` has those of the names that are known."""

    # The runs with one value of a parameter: n, failures, failure_rate, mean, max.
    GROUP = "group"
    # Two values of a parameter, the first said to be the better one: first, second, difference, n_first, n_second;
    # `statistic` says of what: max or mean.
    COMPARISON = "comparison"
    # What to use next: the values, or numbers low and high for a range.
    RECOMMENDATION = "recommendation"
    # The best of its kind: value. `runs` has the one run.
    RECORD = "record"
    # How many runs the text speaks of or rests on: n.
    COUNT = "count"
    # A share of failed runs among all: rate, failures, n.
    FAILURE_RATE = "failure_rate"
    # Where the runs' values lie: low_from, low_to, high_from, high_to, with nothing in between.
    DISTRIBUTION = "distribution"
    # An adjective or a reading of one run's own curve or numbers; the statement is all there is, numbers where given.
    READING = "reading"


@dataclass(frozen=True)
class Claim:
    """One statement with the numbers in it."""

    kind: ClaimKind
    statement: str  # the words
    source: str = ""  # where they stand
    parameter: str | None = None
    values: tuple[Any, ...] = ()  # of the parameter
    metric: str | None = None
    statistic: str | None = None  # of a comparison: max or mean
    numbers: Mapping[str, float] = field(default_factory=dict)
    derived: tuple[str, ...] = ()  # names in numbers that follow from other figures of the text
    runs: tuple[str, ...] = ()  # ids of the runs that it is about or rests on


@dataclass(frozen=True)
class RecordedClaims:
    """What a description or notes hold."""

    claims: tuple[Claim, ...] = ()
    runs_total: int | None = None
    source: str = ""


class ClaimError(ValueError):
    """A text that begins like a record and is none; the message says where."""


def read_recorded(text: str | None, *, run_id: str | None = None) -> RecordedClaims | None:
    """Read a description or notes; None for an ordinary text.

    Args:
        text: the description of a sweep or the notes of a run.
        run_id: the run whose notes they are; it is added to its claims.

    Raises:
        ClaimError: when the text holds a record with a fault in it.
    """
    if not text or not text.lstrip().startswith("recorded:"):
        return None
    try:
        content = yaml.safe_load(text)["recorded"]
        claims = tuple(_claim(entry) for entry in content.get("claims") or ())
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ClaimError(f"the record cannot be read: {error}") from error
    if run_id is not None:
        claims = tuple(claim if claim.runs else replace(claim, runs=(run_id,)) for claim in claims)
    return RecordedClaims(claims=claims, runs_total=content.get("runs_total"), source=str(content.get("source") or ""))


def _claim(entry: Mapping[str, Any]) -> Claim:
    numbers = {name: float(value) for name, value in (entry.get("numbers") or {}).items()}
    derived = tuple(entry.get("derived") or ())
    if strangers := [name for name in derived if name not in numbers]:
        raise ValueError(f"derived names {', '.join(strangers)}, which numbers does not have")
    known = {"kind", "statement", "source", "parameter", "values", "metric", "statistic", "numbers", "derived", "runs"}
    if strangers := [name for name in entry if name not in known]:
        raise ValueError(f"unknown in a claim: {', '.join(strangers)}; known are {', '.join(sorted(known))}")
    return Claim(
        kind=ClaimKind(entry["kind"]),
        statement=str(entry["statement"]),
        source=str(entry.get("source") or ""),
        parameter=entry.get("parameter"),
        values=tuple(entry.get("values") or ()),
        metric=entry.get("metric"),
        statistic=entry.get("statistic"),
        numbers=numbers,
        derived=derived,
        runs=tuple(entry.get("runs") or ()),
    )
