"""A report in parts that every renderer writes in its own way: titles, sentences, tables, commands."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from amc_analysis.next_sweep.proposal import NextSweep
from amc_analysis.report.conclusions import Conclusions, conclude
from amc_analysis.rules.finding import Rule
from amc_analysis.runs.confusion import Confusion
from amc_analysis.runs.findings import Findings
from amc_sweeps.runs.ranking import exclude

_LEAKS = {Rule.SPLIT_CHANGED_ON_RESUME, Rule.HELDOUT_OVERLAP_BOUND, Rule.RESUME_JUMP}
_NUMBER = re.compile(r"[-+]?[\d.]+(?!\w)|-$|n < \d")


@dataclass(frozen=True)
class Report:
    """Everything that is told of one sweep."""

    findings: Findings
    conclusions: Conclusions
    following: NextSweep | None = None  # where it was asked for
    confusions: tuple[Confusion, ...] = ()  # of the best runs, where their evaluations were asked for


def report_of(findings: Findings, *, seed: int = 0) -> Report:
    """Conclude what there is to conclude, and set aside the runs whose values belong in no comparison by a rule."""
    conclusions = conclude(findings, seed=seed)
    broken = {one.subjects[0]: one.rule.value for one in reversed(conclusions.firings) if one.rule in _LEAKS}
    ranked = exclude(findings.ranked, broken, findings.metric.goal)
    return Report(replace(findings, ranked=ranked), conclusions)


@dataclass(frozen=True)
class Table:
    """Rows of text."""

    titles: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""

    def numeric(self, column: int) -> bool:
        """Whether a column holds numbers, which are aligned to the right."""
        return all(_NUMBER.match(row[column]) for row in self.rows)


@dataclass(frozen=True)
class Command:
    """A line to be copied."""

    text: str


@dataclass(frozen=True)
class Warned:
    """A sentence that must not be overlooked, with the name of what it is about."""

    name: str
    weight: str  # error, warning or note
    text: str


Block = str | Table | Command | Warned


@dataclass(frozen=True)
class Section:
    """One part of a report."""

    key: str
    title: str
    blocks: tuple[Block, ...]


def table(titles: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> Table:
    """Return a table."""
    return Table(tuple(titles), tuple(tuple(row) for row in rows), caption)
