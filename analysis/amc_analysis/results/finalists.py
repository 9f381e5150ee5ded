"""Configurations that ran with several seeds, ranked by their means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from amc_analysis.results.effects import SIGNIFICANT


@dataclass(frozen=True)
class Finalist:
    """One configuration that ran with several seeds."""

    run: str  # the run that stands for it: the one that was chosen, else the one with the best peak
    runs: tuple[str, ...]  # all of them
    settings: Mapping[str, Any]  # the searched parameters in which the finalists differ
    n: int  # runs of the mean, one a seed, without the chosen one
    mean: float  # of their peaks
    interval: tuple[float, float] | None  # of the mean, 95%; None where the noise between seeds is unknown
    peak: float  # the best of all its runs, the chosen one included


@dataclass(frozen=True)
class Lead:
    """The lead of the first finalist over the second one."""

    first: str
    second: str
    difference: float  # of the means, 0 or more: by how much the first one is better
    interval: tuple[float, float]  # 95%
    p: float  # two-sided t-test
    more_seeds: int | None  # of each of the two, until a test would tell with 80% power; None: more than MOST_SEEDS

    @property
    def is_clear(self) -> bool:
        """Whether the first one is better than every other finalist, at 5%."""
        return self.p < SIGNIFICANT


@dataclass(frozen=True)
class Finalists:
    """All of them; empty where no configuration ran with several seeds."""

    ranked: tuple[Finalist, ...] = ()  # best mean first
    sd: float | None = None  # between the seeds of one configuration, pooled over all finalists
    degrees: int = 0  # of freedom, behind ``sd``
    lead: Lead | None = field(default=None)  # None for fewer than two, or where ``sd`` is unknown
