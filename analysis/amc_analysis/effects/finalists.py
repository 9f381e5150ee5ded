"""Whether the best of several configurations is really the best, from its runs with several seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from amc_analysis.results.finalists import Finalist, Finalists, Lead
from amc_analysis.runs.parameters import flat_config
from amc_analysis.runs.replicates import Replicates, replicates_of
from amc_sweeps.grammar.configurations import value_key
from amc_sweeps.grammar.searched_parameters import searched_parameters
from amc_sweeps.runs.ranked_run import RankedRun
from amc_sweeps.runs.records import SweepRecord
from amc_sweeps.values import look_up, names_seed

LEAST_DEGREES = 2  # of freedom, for an interval and a test
POWER = 0.8
MOST_SEEDS = 100


def finalists_of(record: SweepRecord, ranked: Sequence[RankedRun]) -> Finalists:
    """Return the configurations that ran with several seeds, ranked by the mean peak of their seeds.

    The noise between seeds is taken as the same for all finalists, and pooled over them: 3 seeds of one configuration
    say too little about its own noise.

    Args:
        record: the sweep.
        ranked: its runs, best peak first.
    """
    groups = [group for group in replicates_of(record, ranked) if _is_repeated(group)]
    if not groups:
        return Finalists()
    values = [[entry.peak for entry in group.counted if entry.peak is not None] for group in groups]
    degrees = sum(len(peaks) - 1 for peaks in values)
    squares = math.fsum((peak - fmean(peaks)) ** 2 for peaks in values for peak in peaks)
    sd = math.sqrt(squares / degrees) if degrees >= LEAST_DEGREES else None
    names = _differing(groups, searched_parameters(flat_config(record.config)))
    entries = [_finalist(group, peaks, names, sd, degrees) for group, peaks in zip(groups, values, strict=True)]
    sign = 1 if record.metric.goal == "maximize" else -1
    entries.sort(key=lambda entry: -sign * entry.mean)
    lead = _lead(entries[0], entries[1], sd, degrees) if sd is not None and len(entries) > 1 else None
    return Finalists(tuple(entries), sd, degrees, lead)


def _is_repeated(group: Replicates) -> bool:
    return bool(group.counted) and len(group.counted) + len(group.chosen) > 1


def _differing(groups: Sequence[Replicates], parameters: Sequence[str]) -> list[str]:
    """Return the searched parameters in which the configurations differ."""
    configs = [group.first.run.config for group in groups]
    return [
        name
        for name in parameters
        if not names_seed(name) and len({value_key(look_up(config, name)) for config in configs}) > 1
    ]


def _finalist(
    group: Replicates, peaks: Sequence[float], names: Sequence[str], sd: float | None, degrees: int
) -> Finalist:
    mean = fmean(peaks)
    half = None if sd is None else _t(0.975, degrees) * sd / math.sqrt(len(peaks))
    best = next(entry.peak for entry in group.entries if entry.peak is not None)
    return Finalist(
        run=group.first.run.run_id,
        runs=tuple(entry.run.run_id for entry in group.entries),
        settings={name: look_up(group.first.run.config, name) for name in names},
        n=len(peaks),
        mean=mean,
        interval=None if half is None else (mean - half, mean + half),
        peak=best,
    )


def _lead(first: Finalist, second: Finalist, sd: float, degrees: int) -> Lead:
    """Test the first finalist against the second one.

    The two-sided test of the best two needs no correction for having chosen them among several: at level 5% it calls a
    configuration the best of all wrongly in at most 5% of cases, at equal numbers of seeds.
    Source: Gutmann & Maymin, Annals of Statistics 15 (1987); Hung & Fithian, Annals of Statistics 47 (2019).
    """
    from scipy.special import stdtr

    difference = abs(first.mean - second.mean)
    error = sd * math.sqrt(1 / first.n + 1 / second.n)
    half = _t(0.975, degrees) * error
    p = 2 * float(stdtr(degrees, -difference / error)) if error else float(difference == 0)
    more = _more_seeds(difference, sd, min(first.n, second.n))
    return Lead(first.run, second.run, difference, (difference - half, difference + half), p, more)


def _more_seeds(difference: float, sd: float, n: int) -> int | None:
    """Return how many more seeds of each of two configurations would tell them apart; None above MOST_SEEDS.

    With m seeds each, a t-test at 5% finds a true difference d with a power of 80% if
    d >= (t(0.975) + t(0.8)) sd √(2/m), with 2(m - 1) degrees of freedom. The difference and the noise that were seen
    stand for the true ones.
    Source: Colas, Sigaud & Oudeyer, "How Many Random Seeds?", arXiv:1806.08295 (2018); Cohen, Statistical Power
    Analysis for the Behavioral Sciences (1988).
    """
    for seeds in range(max(n, 2), MOST_SEEDS + n + 1):
        freedom = 2 * (seeds - 1)
        if difference >= (_t(0.975, freedom) + _t(POWER, freedom)) * sd * math.sqrt(2 / seeds):
            return seeds - n
    return None


def _t(share: float, degrees: int) -> float:
    """Return the quantile of Student's t."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, share))
