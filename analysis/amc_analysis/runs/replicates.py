"""Runs that train one configuration with several seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from amc_analysis.runs.parameters import flat_config, leaves_of
from amc_core.config import FIELDS
from amc_sweeps.grammar.configurations import value_key
from amc_sweeps.grammar.searched_parameters import searched_parameters
from amc_sweeps.runs.causes import Cause
from amc_sweeps.runs.commands import RESUMABLE, is_trial_run
from amc_sweeps.runs.ranked_run import RankedRun
from amc_sweeps.runs.records import SweepRecord
from amc_sweeps.values import look_up, names_seed

SEED_NAMES = ("seed", "random_seed", "rng_seed")
CHOSEN = "repeat_of"  # the entry of a run's config that names the run that it repeats
_PLACES = frozenset({"data", "storage"})  # where a machine keeps the frames: the same frames, so the same configuration
_GO_ON = frozenset({Cause.RUNNING, Cause.PREEMPTED})  # a preempted run is handed out again
_UNFINISHED = RESUMABLE | {Cause.RUNNING, Cause.UNKNOWN}  # a run that ended so has no final value


@dataclass(frozen=True)
class Replicates:
    """The runs of one configuration, whatever their seeds."""

    entries: tuple[RankedRun, ...]  # in the order of the ranking
    seeds: tuple[str, ...]  # one a run; runs of equal seeds have equal texts

    @cached_property
    def chosen(self) -> tuple[RankedRun, ...]:
        """The runs that others of the configuration were started to repeat."""
        repeated = {str(entry.run.config.get(CHOSEN)) for entry in self.entries}
        return tuple(entry for entry in self.entries if entry.run.run_id in repeated)

    @cached_property
    def counted(self) -> tuple[RankedRun, ...]:
        """The runs of the mean, one a seed.

        A chosen run is left out: it was chosen for its peak, so its peak flatters. So is a run that was cut short or
        lost with its machine. A run that failed by itself counts with its peak.
        """
        chosen = {entry.run.run_id for entry in self.chosen}
        by_seed: dict[str, RankedRun] = {}
        for entry, seed in zip(self.entries, self.seeds, strict=True):
            is_final = entry.cause not in _UNFINISHED and entry.peak is not None and entry.excluded_by is None
            if is_final and entry.run.run_id not in chosen:
                by_seed.setdefault(seed, entry)
        return tuple(by_seed.values())

    @property
    def first(self) -> RankedRun:
        """The run that stands for the configuration: the chosen one, else the one with the best peak."""
        return (self.chosen or self.entries)[0]

    def started_besides(self, run: RankedRun) -> set[str]:
        """Return the seeds of the runs besides ``run`` that have a final value, or are going to have one."""
        own = self.seeds[self.entries.index(run)]
        return {
            seed
            for entry, seed in zip(self.entries, self.seeds, strict=True)
            if seed != own and (entry.cause in _GO_ON or entry.cause not in _UNFINISHED)
        }


def replicates_of(record: SweepRecord, ranked: Sequence[RankedRun]) -> tuple[Replicates, ...]:
    """Return the runs by configuration, that of the best peak first.

    Runs without a seed in their config are left out, and so are runs of another program that belong to no sweep: only
    a sweep's file, or the fields of a trial, say what a configuration is.

    Args:
        record: the sweep.
        ranked: its runs, best peak first.
    """
    parameters = dict.fromkeys((*leaves_of(record.config), *searched_parameters(flat_config(record.config))))
    names = [name for name in {**parameters, **FIELDS} if not names_seed(name) and name not in _PLACES]
    seeds = [name for name in dict.fromkeys((*SEED_NAMES, *parameters)) if names_seed(name)]
    groups: dict[str, list[tuple[RankedRun, str]]] = {}
    for entry in ranked:
        config = entry.run.config
        values = {name: value for name in seeds if (value := look_up(config, name)) is not None}
        if values and (record.kind == "sweep" or is_trial_run(record, entry.run)):
            key = value_key([look_up(config, name) for name in names])
            groups.setdefault(key, []).append((entry, value_key(values)))
    return tuple(Replicates(*map(tuple, zip(*group, strict=True))) for group in groups.values())
