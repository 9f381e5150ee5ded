"""Whether the announced winner of a sweep is the true best, with and without promotion, at equal epochs.

A run is the true accuracy of its configuration on a simulated training surface, plus noise of its seed. Without
promotion all runs of the budget are the search's own, and the best peak wins. With promotion the search has 15 runs
fewer. The 5 configurations with the best peaks run again with 3 other seeds, and the best mean wins. Both begin with
the same runs. All runs have the same number of epochs, so equal runs are equal epochs.

Run by hand:  python tests/benchmarks/study_promotion.py   (about 10 CPU minutes)
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from machine import add_write_options, describe_machine, keep_table, unlike_committed

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / part) for part in ("tests/support", "sweeps", "agents", "analysis", "")]

from sweep_records import completed, sweep  # noqa: E402
from training_surface import BATCH_GAIN, LAYER_GAIN, OPTIMUM, SWEEP, best_log_lr, final_accuracy  # noqa: E402

from amc_agents.repeats.promotion import promotions  # noqa: E402
from amc_analysis.analyse import rank_runs  # noqa: E402
from amc_analysis.effects.finalists import finalists_of  # noqa: E402
from amc_server.bayes.observations import Observation  # noqa: E402
from amc_server.scheduling.search import suggest  # noqa: E402
from amc_server.scheduling.seen import Seen  # noqa: E402
from amc_sweeps.grammar.parse import parse  # noqa: E402
from amc_sweeps.runs.records import RunRecord  # noqa: E402

TOP, SEEDS = 5, 3
SEARCHES = ("random", "bayes", "36 configurations")
LISTED = {
    "max_lr": {"values": [1.0e-3, 3.0e-3, 9.0e-3]},
    "snr_layer": {"values": list(LAYER_GAIN)},
    "batch": {"values": list(BATCH_GAIN)},
    "curriculum": {"value": True},
}


@dataclass(frozen=True)
class Winner:
    """The announced winner of one simulated sweep."""

    is_best: bool  # the true best of the configurations that the sweep tried
    regret: float  # points below the best of the whole surface
    flattery: float  # points by which the announced value is above the true one


@dataclass(frozen=True)
class Outcome:
    """One sweep with and without promotion; the third announces by the mean of all seeds, the chosen run's included."""

    without: Winner
    promoted: Winner
    all_seeds: Winner
    is_clear: bool  # the analysis says that the winner is better than every other finalist
    is_wrong: bool  # it says so, and another finalist is truly better


def main() -> None:
    """Simulate, and print or keep the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sweeps", type=int, default=300, help="simulated sweeps of each row")
    parser.add_argument(
        "--bayes-sweeps", type=int, default=100, help="the same of bayes, whose suggestions take longer"
    )
    parser.add_argument("--runs", type=int, default=45, help="runs of each sweep, the repeated ones included")
    parser.add_argument("--noise", type=float, nargs="+", default=[0.2, 0.5, 1.0], help="sd between seeds, points")
    parser.add_argument("--processes", type=int, default=1)
    add_write_options(parser, "promotion")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    rows = []
    with ProcessPoolExecutor(options.processes) as pool:
        for search, noise in product(SEARCHES, options.noise):
            count = options.bayes_sweeps if search == "bayes" else options.sweeps
            tasks = [(search, noise, options.runs, seed) for seed in range(count)]
            rows.append(_row(search, noise, list(pool.map(_simulate, tasks, chunksize=10))))
            print(rows[-1], flush=True)
    text = "\n".join([introduction(options), "", *HEAD, *rows, "", describe_machine()])
    keep_table("promotion", text, options, worse=unlike_committed(parser, options, {"processes": options.processes}))


def _simulate(task: tuple[str, float, int, int]) -> Outcome:
    search, noise, budget, seed = task
    rng = np.random.default_rng([seed, len(search), round(100 * noise)])
    config = _config(search)
    runs = _search(config, budget, noise, seed, rng)
    repeats = TOP * SEEDS
    if search == "36 configurations":  # without promotion, the runs after the 36 repeat any configuration
        runs = _search(config, 36, noise, seed, rng)
        drawn = rng.permutation(36)[:repeats].tolist()
        extra = [_run(f"extra{place}", dict(runs[place].config), noise, rng, seed=1) for place in drawn]
        begun, everything = runs, [*runs, *extra]
    else:
        begun, everything = runs[: budget - repeats], runs
    record = sweep(*begun, config=config)
    found = promotions(rank_runs(record), top=TOP, runs=(), seeds=SEEDS)
    again = [
        _run(f"{each.run_id}-{new}", {**each.entry.run.config, "repeat_of": each.run_id}, noise, rng, seed=new)
        for each in found
        for new in each.missing
    ]
    whole = sweep(*begun, *again, config=config)
    finalists = finalists_of(whole, rank_runs(whole).ranked)
    by_id = {run.run_id: run for run in (*begun, *again, *everything)}
    means = {each.run: statistics.mean(_peak(by_id[run]) for run in each.runs) for each in finalists.ranked}
    first, most = finalists.ranked[0], max(means, key=lambda run: means[run])
    best = max(everything, key=_peak)
    truths = [_truth(by_id[each.run]) for each in finalists.ranked]
    is_clear = finalists.lead is not None and finalists.lead.is_clear
    return Outcome(
        without=_winner(best, _peak(best), everything),
        promoted=_winner(by_id[first.run], first.mean, begun),
        all_seeds=_winner(by_id[most], means[most], begun),
        is_clear=is_clear,
        is_wrong=is_clear and truths[0] < max(truths),
    )


def _config(search: str) -> dict[str, Any]:
    if search == "36 configurations":
        return {**SWEEP, "method": "random", "parameters": LISTED}
    return {**SWEEP, "method": search}


def _search(config: dict[str, Any], count: int, noise: float, seed: int, rng: np.random.Generator) -> list[RunRecord]:
    """Return the first runs of a sweep; each ends before the next begins."""
    parsed, runs, observations = parse(config), [], []
    seen = Seen(parsed)
    for number in range(count):
        chosen = suggest(parsed, observations, seed=seed, number=number, seen=seen)
        assert chosen is not None
        run = _run(f"run{number:02}", chosen, noise, rng, seed=0)
        runs.append(run)
        observations.append(Observation(chosen, "finished", [_peak(run)]))
        seen.keys.add(observations[-1].key)
    return runs


def _run(run_id: str, config: dict[str, Any], noise: float, rng: np.random.Generator, *, seed: int) -> RunRecord:
    value = final_accuracy(config) + float(rng.normal(0, noise))
    return completed(run_id, [value], config={**config, "seed": seed})


def _peak(run: RunRecord) -> float:
    return run.points[0].value


def _truth(run: RunRecord) -> float:
    return final_accuracy(run.config)


def _winner(run: RunRecord, announced: float, tried: Sequence[RunRecord]) -> Winner:
    top = 76 + LAYER_GAIN["pre"] + BATCH_GAIN[512] + 1.1  # at the best learning rate
    assert math.isclose(top, final_accuracy({**OPTIMUM, "max_lr": 10 ** best_log_lr(OPTIMUM)}))
    return Winner(_truth(run) >= max(map(_truth, tried)), top - _truth(run), announced - _truth(run))


HEAD = [
    "| search | noise | true best: without | with | all seeds | regret: without | with | with - without | "
    "flattery: without | with | called clear | called clear wrongly |",
    "|---|" + "---:|" * 11,
]


def _row(search: str, noise: float, outcomes: Sequence[Outcome]) -> str:
    n = len(outcomes)

    def share(hits: Sequence[bool]) -> str:
        return f"{sum(hits) / n:.0%}"

    changes = [each.promoted.regret - each.without.regret for each in outcomes]
    cells = [
        search,
        f"{noise:g}",
        share([each.without.is_best for each in outcomes]),
        share([each.promoted.is_best for each in outcomes]),
        share([each.all_seeds.is_best for each in outcomes]),
        f"{statistics.mean(each.without.regret for each in outcomes):.2f}",
        f"{statistics.mean(each.promoted.regret for each in outcomes):.2f}",
        f"{statistics.mean(changes):+.2f} ± {statistics.stdev(changes) / n**0.5:.2f}",
        f"{statistics.mean(each.without.flattery for each in outcomes):+.2f}",
        f"{statistics.mean(each.promoted.flattery for each in outcomes):+.2f}",
        share([each.is_clear for each in outcomes]),
        f"{sum(each.is_wrong for each in outcomes) / n:.1%}",
    ]
    return f"| {' | '.join(cells)} |"


def introduction(options: argparse.Namespace) -> str:
    """Return what was done, in Markdown."""
    return (
        f"{options.sweeps} simulated sweeps a row ({options.bayes_sweeps} of bayes), of {options.runs} runs each: "
        "without promotion all of the search, "
        f"with promotion {options.runs - TOP * SEEDS} of the search and the {TOP} best again with {SEEDS} other seeds. "
        "In the rows of 36 configurations, each configuration runs once, and 15 more runs are repeats: of any "
        f"configuration, or of the {TOP} best. A run is the accuracy of `tests/support/training_surface.py` after all "
        "epochs, without crashes, plus normal noise of its seed (sd in points).\n\n"
        "True best: how often the announced winner is the best of the configurations that the sweep tried. It is the "
        "best peak without promotion, and the best mean of the other seeds with it; *all seeds* takes the chosen run "
        "into the mean. Regret: points by which the winner is below the best of the whole surface, with the paired "
        "difference and its standard error. Flattery: points by which the announced value is above the true one. "
        "Called clear: share of sweeps of which the analysis says that the winner is better than every other finalist; "
        "wrongly: another finalist is truly better."
    )


if __name__ == "__main__":
    main()
