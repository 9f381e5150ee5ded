"""The changes of a sweep's config, with what each of them changed."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple

from amc_sweeps.grammar.config_changes import changed_parameters, changes, space_changes
from amc_sweeps.grammar.parse import parse_leniently
from amc_sweeps.grammar.sweep_config import SweepConfig
from amc_sweeps.runs.records import SweepRecord, SweepUpdate


class SweepChange(NamedTuple):
    """One change of the config."""

    update: SweepUpdate
    changes: list[str]  # sentences
    space_changes: list[str]  # those after which runs were drawn from another space, or by another method
    parameters: tuple[str, ...]  # the names of those that were dropped, added or changed

    @property
    def words(self) -> str:
        """When and by whom."""
        at = f"on {self.update.at:%Y-%m-%d at %H:%M} UTC" if self.update.at else "at an unknown time"
        return f"{at} by {self.update.author}" if self.update.author else at


def sweep_changes(record: SweepRecord) -> list[SweepChange]:
    """Return the changes of a sweep's config, oldest first."""
    if not record.updates:
        return []
    configs = [_config(config) for config in (*(update.config for update in record.updates), record.config)]
    return [
        SweepChange(update, changes(old, new), space_changes(old, new), changed_parameters(old, new))
        for update, (old, new) in zip(record.updates, pairwise(configs), strict=True)
    ]


def _config(content: Mapping[str, Any]) -> SweepConfig:
    config, _ = parse_leniently(content, is_new=False)
    return config or SweepConfig("", {})
