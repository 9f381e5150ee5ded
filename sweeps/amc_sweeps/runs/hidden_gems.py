"""Mark the hidden gems: good runs that a look at the finished runs alone would miss.

A hidden gem is a run with a peak that did not end as it was meant to: it neither completed nor ran out of patience, and
it is not running. Its peak beats every run that ended well, or it is among the best 3 of all runs. Of fewer than four
runs, "among the best" leaves out the last place. Excluded runs are no gems and take no place.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace

from amc_sweeps.runs.causes import ENDED_WELL, Cause
from amc_sweeps.runs.ranked_run import RankedRun, best_ended_well, is_better
from amc_sweeps.runs.records import Goal

GEM_TOP_RANKS = 3  # a run that did not end well is a gem if it is among the best k of all runs


def mark_gems(ranked: Sequence[RankedRun], goal: Goal) -> tuple[RankedRun, ...]:
    """Return the ranked runs in their order, each with ``is_gem`` as the module defines it."""
    best = best_ended_well(ranked)
    # The last place does not count: otherwise each of three runs would be among the best three.
    top = min(GEM_TOP_RANKS, sum(entry.peak is not None and not entry.excluded_by for entry in ranked) - 1)

    excluded_ranks = sorted(entry.rank for entry in ranked if entry.excluded_by and entry.rank)

    def is_gem(entry: RankedRun) -> bool:
        if entry.peak is None or entry.rank is None or entry.excluded_by:
            return False
        if entry.cause in ENDED_WELL or entry.cause is Cause.RUNNING:
            return False
        beats_best = best is not None and best.peak is not None and is_better(entry.peak, best.peak, goal)
        return beats_best or entry.rank - bisect_left(excluded_ranks, entry.rank) <= top

    marked = ((entry, is_gem(entry)) for entry in ranked)
    return tuple(entry if entry.is_gem == mark else replace(entry, is_gem=mark) for entry, mark in marked)
