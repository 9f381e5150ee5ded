"""Which runs a promotion adds: the best configurations of a sweep again, with seeds that they have not had."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import TYPE_CHECKING, Any

from amc_core.config import FIELDS, variant_text
from amc_sweeps.grammar.configurations import value_key
from amc_sweeps.values import is_whole

if TYPE_CHECKING:
    from amc_analysis.results.analysed_sweep import AnalysedSweep
    from amc_analysis.runs.replicates import Replicates
    from amc_sweeps.runs.ranked_run import RankedRun

_SETTINGS = tuple(name for name in FIELDS if name not in {"seed", "data", "storage"})
TRIAL_COMMAND = ("${env}", "${program}", "${args}")


@dataclass(frozen=True)
class Promotion:
    """One finalist: the run that stands for the configuration, and the seeds that it has and gets."""

    entry: RankedRun
    seed_name: str  # of its config
    present: tuple[int, ...]  # seeds besides the run's own that have a final value, or are going to have one
    missing: tuple[int, ...]  # new seeds

    @property
    def run_id(self) -> str:
        return self.entry.run.run_id


class PromotionError(ValueError):
    """The finalists cannot be found; the message says why."""


def promotions(
    analysed: AnalysedSweep,
    *,
    top: int,
    runs: Collection[str],
    seeds: int,
    planned: Collection[tuple[str, int]] = (),
) -> list[Promotion]:
    """Return the finalists, best peak first, each with the seeds that it still lacks.

    Finalists are ordered by their best peak, whatever their means are: more seeds can only raise it, so the same
    configurations come first when the command is repeated.

    Args:
        analysed: the sweep.
        top: how many configurations are finalists.
        runs: the ids of runs whose configurations are the finalists instead; empty: none are named.
        seeds: how many seeds each finalist gets besides that of the run that was chosen.
        planned: settings_key and seed of the trials that another sweep has.

    Raises:
        PromotionError: a named run is not in the sweep, or no run has a seed in its config.
    """
    from amc_analysis.runs.replicates import replicates_of

    groups = [group for group in replicates_of(analysed.record, analysed.ranked) if group.first.peak is not None]
    if not groups:
        raise PromotionError("no run of this sweep has both a value of its metric and a seed in its config")
    chosen = [group for group in groups if group.first.excluded_by is None][:top]
    if runs:
        names = [{entry.run.run_id for entry in group.entries} for group in groups]
        missing = [run for run in runs if not any(run in group for group in names)]
        if missing:
            raise PromotionError(f"this sweep has no run {', '.join(missing)} with a value of its metric and a seed")
        chosen = [group for group, ids in zip(groups, names, strict=True) if ids & set(runs)]
    return [_promotion(group, seeds, planned) for group in chosen]


def _promotion(group: Replicates, seeds: int, planned: Collection[tuple[str, int]]) -> Promotion:
    run = group.first
    name = _seed_name(run.run.config)
    key = settings_key(run.run.config)
    by_text = {text: entry.run.config.get(name) for entry, text in zip(group.entries, group.seeds, strict=True)}
    had = {seed for seed in by_text.values() if is_whole(seed)}
    started = {seed for text in group.started_besides(run) if is_whole(seed := by_text[text])}
    elsewhere = {seed for other, seed in planned if other == key}
    present = tuple(sorted(started | elsewhere))
    own = int(run.run.config.get(name) or 0)
    free = (seed for seed in count(own + 1) if seed not in had | elsewhere)
    return Promotion(run, name, present, tuple(islice(free, max(0, seeds - len(present)))))


def _seed_name(config: Mapping[str, Any]) -> str:
    from amc_analysis.runs.replicates import SEED_NAMES

    return next((name for name in SEED_NAMES if is_whole(config.get(name))), SEED_NAMES[0])


def settings_key(config: Mapping[str, Any]) -> str:
    """Return a text that is the same for trials of the same settings, whatever their seeds and machines."""
    return value_key([config.get(name, FIELDS[name].default) for name in _SETTINGS])


def finalists_sweep(analysed: AnalysedSweep, finalists: Sequence[Promotion]) -> dict[str, Any]:
    """Return a sweep of amc-train that runs the missing seeds of the finalists, each once.

    A server that queues no runs gets them as a grid over ``variant``: a variant names every setting in which the
    finalists differ, and the seed.
    """
    config = analysed.config
    names = [*_SETTINGS, *(name for name in ("data", "storage") if name in config.get("parameters", {}))]
    wanted = [promotion for promotion in finalists if promotion.missing]
    settings = [
        {name: promotion.entry.run.config.get(name, spec.default) for name, spec in FIELDS.items()}
        for promotion in wanted
    ]
    differing = [name for name in names if len({value_key(each[name]) for each in settings}) > 1]
    common = {
        name: {"value": settings[0][name]}
        for name in names
        if name not in differing and value_key(settings[0][name]) != value_key(FIELDS[name].default)
    }
    variants = [
        variant_text({**{name: each[name] for name in differing}, "seed": seed})
        for promotion, each in zip(wanted, settings, strict=True)
        for seed in promotion.missing
    ]
    return {
        "name": finalists_name(analysed.record.sweep_id),
        "description": f"the best configurations of sweep {analysed.record.sweep_id} with other seeds",
        "program": config.get("program"),
        "command": list(config.get("command") or TRIAL_COMMAND),
        "method": "grid",
        "metric": {"name": analysed.metric.name, "goal": analysed.metric.goal},
        "run_cap": len(variants),
        "parameters": {"variant": {"values": variants}, **common},
    }


def finalists_name(sweep_id: str) -> str:
    """Return the name of a sweep that runs the finalists of another one."""
    return f"finalists of {sweep_id}"
