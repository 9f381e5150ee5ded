"""What integrity rules judge: the findings of a sweep, what was concluded from them, and what was claimed of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from amc_analysis.effects.confounding import ConfoundedPair
from amc_analysis.effects.effects import Effect
from amc_analysis.effects.outcomes import Outcomes
from amc_analysis.effects.parameters import Parameter
from amc_analysis.runs.findings import Findings, shown_as_percentage
from amc_sweeps.grammar.configurations import value_key
from amc_sweeps.runs.claims import Claim, ClaimKind
from amc_sweeps.runs.ranking import RankedRun
from amc_sweeps.values import look_up


@dataclass(frozen=True)
class Case:
    """One sweep, or one set of runs, on trial."""

    findings: Findings
    outcomes: Outcomes
    parameters: tuple[Parameter, ...]
    effects: tuple[Effect, ...]
    confounded: tuple[ConfoundedPair, ...]
    seed: int = 0

    @property
    def config(self) -> Mapping[str, Any]:
        """The sweep's own configuration."""
        return self.findings.sweep.config

    @property
    def ranked(self) -> tuple[RankedRun, ...]:
        """All runs, best peak first."""
        return self.findings.ranked

    @cached_property
    def by_name(self) -> dict[str, RankedRun]:
        """Runs by id, and by display name where no two share one."""
        names: dict[str, RankedRun] = {}
        twice: set[str] = set()
        for entry in self.ranked:
            if entry.run.name in names:
                twice.add(entry.run.name)
            names[entry.run.name] = entry
        named = {name: entry for name, entry in names.items() if name not in twice}
        return named | {entry.run.run_id: entry for entry in self.ranked}

    @property
    def is_whole(self) -> bool:
        """Whether the records are all runs that there were: what no record shows may have happened otherwise.

        Records with claims beside them were written down from a text, which may leave out any number of runs.
        """
        sweep = self.findings.sweep
        if sweep.runs_total is None:
            return not sweep.claims
        return sweep.runs_total <= len(self.ranked)

    def claims(self, *kinds: ClaimKind) -> list[Claim]:
        """Return what was claimed, of some kinds."""
        return [claim for claim in self.findings.sweep.claims if claim.kind in kinds]

    @cached_property
    def _is_percentage(self) -> bool:
        return shown_as_percentage(self.findings)

    def text(self, value: float) -> str:
        """Write a value of the metric."""
        return f"{100 * value:.2f} %" if self._is_percentage else f"{value:.4g}"

    def difference(self, value: float) -> str:
        """Write a difference of two values of the metric, without its sign."""
        return f"{100 * abs(value):.2f} points" if self._is_percentage else f"{abs(value):.3g}"

    def value_at(self, entry: RankedRun, epoch: float) -> float | None:
        """Return the metric at an epoch: the `epoch` metric of a row, else the count of logged values from 1."""
        for count, point in enumerate(entry.run.points, start=1):
            at = float(count) if point.epoch is None else point.epoch
            if at == epoch and math.isfinite(point.value):
                return point.value
        return None

    def sampled(self, parameter: str) -> dict[str, Any]:
        """Return the values of a parameter that some run is known to have had, by their key."""
        found = {value_key(value): value for value in self._chosen(parameter)}
        for claim in self.claims(ClaimKind.GROUP):
            if claim.parameter == parameter and claim.numbers.get("n", 1) > 0:
                found |= {value_key(value): value for value in claim.values}
        return found

    def _chosen(self, parameter: str) -> list[Any]:
        """Return the value of every run that has one; a null that is written down is one."""
        configs = [entry.run.config for entry in self.ranked]
        values = [(look_up(config, parameter), parameter in config) for config in configs]
        return [value for value, is_written in values if value is not None or is_written]

    def known_runs(self, parameter: str) -> int | None:
        """Return of how many runs it is known which value they had, when that is all there were; else None.

        Records of some runs alone do, together with what was written of the rest: "all 12 runs used 1e-3".
        """
        if self.is_whole:
            return len(self._chosen(parameter))
        groups = {
            tuple(map(value_key, claim.values)): claim.numbers["n"]
            for claim in self.claims(ClaimKind.GROUP)
            if claim.parameter == parameter and "n" in claim.numbers
        }
        total = self.findings.sweep.runs_total
        return total if total is not None and sum(groups.values()) == total else None


def label(entry: RankedRun) -> str:
    """Name a run so that it can be found."""
    run = entry.run
    return run.run_id if run.name == run.run_id else f"{run.name} ({run.run_id})"


def counted(n: float, noun: str) -> str:
    """Write a number with its noun."""
    return f"{n:.0f} {noun}{'' if n == 1 else 's'}"


def listed(words: Sequence[str], most: int = 4) -> str:
    """Write words with commas; of many the first ones and how many more."""
    shown = ", ".join(words[:most])
    return shown if len(words) <= most else f"{shown} and {len(words) - most} more"


def number_in(mapping: Mapping[str, Any], *names: str) -> float | None:
    """Return the first finite number under these names."""
    for name in names:
        value = mapping.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    return None


def text_in(mapping: Mapping[str, Any], *names: str) -> str | None:
    """Return the first text under these names."""
    return next((value for name in names if isinstance(value := mapping.get(name), str) and value), None)
