"""Configurations with several seeds: ranked by means, and whether the winner is clear."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from sweep_records import completed, run, sweep

from amc_analysis.analyse import add_findings, rank_runs
from amc_analysis.effects.finalists import finalists_of
from amc_analysis.report.blocks import Command, Table
from amc_analysis.report.finalists_section import finalists_section
from amc_analysis.results.finalists import Finalists
from amc_sweeps.runs.records import Metric, RunRecord

PARAMETERS = {"max_lr": {"values": [0.001, 0.002, 0.003]}}


def runs_of(max_lr: float, peaks: Mapping[int, float], chosen: float | None = None) -> list[RunRecord]:
    """Return one run a seed; ``chosen`` is the peak of a run with seed 0 that the others repeat."""
    origin = f"lr{max_lr:g}-0"
    notes = {} if chosen is None else {"repeat_of": origin}
    first = [] if chosen is None else [completed(origin, [chosen], config={"max_lr": max_lr, "seed": 0})]
    return first + [
        completed(f"lr{max_lr:g}-{seed}", [peak], config={"max_lr": max_lr, "seed": seed, **notes})
        for seed, peak in peaks.items()
    ]


def finalists(*runs: RunRecord, **fields: Any) -> Finalists:
    record = sweep(*runs, config={"method": "random", "program": "amc-train", "parameters": PARAMETERS}, **fields)
    return add_findings(rank_runs(record)).finalists


def test_the_mean_leaves_out_the_run_that_was_chosen_for_its_peak() -> None:
    lucky = runs_of(0.001, {1: 0.40, 2: 0.42, 3: 0.41}, chosen=0.60)
    steady = runs_of(0.002, {1: 0.50, 2: 0.52, 3: 0.51}, chosen=0.55)
    found = finalists(*lucky, *steady, *runs_of(0.003, {0: 0.58}))
    assert [(each.run, each.n, each.settings) for each in found.ranked] == [
        ("lr0.002-0", 3, {"max_lr": 0.002}),
        ("lr0.001-0", 3, {"max_lr": 0.001}),
    ]
    assert [each.mean for each in found.ranked] == pytest.approx([0.51, 0.41])
    assert [each.peak for each in found.ranked] == [0.55, 0.60]
    assert found.lead is not None
    assert found.lead.is_clear


def test_seeds_that_the_sweep_searches_all_count() -> None:
    found = finalists(*runs_of(0.001, {0: 0.4, 1: 0.5}), *runs_of(0.002, {0: 0.6, 1: 0.3}))
    assert [(each.n, each.mean) for each in found.ranked] == [(2, pytest.approx(0.45)), (2, pytest.approx(0.45))]


def test_the_interval_is_that_of_an_analysis_of_variance() -> None:
    # Montgomery, Design and Analysis of Experiments: s² = Σ(n - 1)s²/Σ(n - 1); t(0.975, 4) = 2.7764.
    found = finalists(*runs_of(0.001, {0: 0.40, 1: 0.42, 2: 0.44}), *runs_of(0.002, {0: 0.41, 1: 0.45, 2: 0.49}))
    sd = ((0.02**2 + 0.04**2) / 2) ** 0.5
    assert (found.sd, found.degrees) == (pytest.approx(sd), 4)
    half = 2.7764 * sd / 3**0.5
    assert found.ranked[0].interval == pytest.approx((0.45 - half, 0.45 + half), abs=1e-5)
    assert found.lead is not None
    assert found.lead.p == pytest.approx(0.311, abs=2e-3)  # two-sided, t = 0.03 / (sd √(2/3)) = 1.162, 4 degrees
    assert not found.lead.is_clear


@pytest.mark.parametrize(("in_sd", "seeds"), [(1.0, 17), (0.8, 26), (2.0, 6)])
def test_the_number_of_seeds_is_that_of_cohens_tables(in_sd: float, seeds: int) -> None:
    # Cohen (1988), table 2.4.1: runs a group for a two-sided test at 5% with a power of 80%.
    noise, difference = 0.01, 0.01 * in_sd
    first = {seed: 0.5 + noise * sign for seed, sign in enumerate((-1, 0, 1))}
    second = {seed: peak - difference for seed, peak in first.items()}
    lead = finalists(*runs_of(0.001, first), *runs_of(0.002, second)).lead
    assert lead is not None
    assert (lead.first, lead.more_seeds) == ("lr0.001-2", seeds - 3)


def test_equal_means_cannot_be_told_by_any_number_of_seeds() -> None:
    lead = finalists(*runs_of(0.001, {0: 0.4, 1: 0.5}), *runs_of(0.002, {0: 0.5, 1: 0.4})).lead
    assert lead is not None
    assert (lead.p, lead.more_seeds, lead.is_clear) == (1.0, None, False)


def test_runs_without_a_final_value_do_not_count_but_own_failures_do() -> None:
    ended = runs_of(0.001, {1: 0.5, 2: 0.52}, chosen=0.6)
    config = {"max_lr": 0.001, "repeat_of": "lr0.001-0"}
    lost = run("lost", [0.3], "crashed", config={**config, "seed": 3})
    running = run("running", [0.3], "running", config={**config, "seed": 4})
    diverged = run(
        "nan", [0.2], "failed", exit_code=80, summary={"end_reason": "diverged"}, config={**config, "seed": 5}
    )
    (only,) = finalists(*ended, lost, running, diverged).ranked
    assert (only.n, only.mean) == (3, pytest.approx((0.5 + 0.52 + 0.2) / 3))
    assert set(only.runs) >= {"lost", "running", "nan"}


def test_one_seed_twice_counts_once() -> None:
    again = completed("again", [0.9], config={"max_lr": 0.001, "seed": 1})
    assert finalists(*runs_of(0.001, {0: 0.4, 1: 0.5}), again).ranked[0].n == 2


def test_a_lower_mean_wins_where_the_metric_is_minimised() -> None:
    runs = [*runs_of(0.001, {0: 0.4, 1: 0.5}), *runs_of(0.002, {0: 0.2, 1: 0.3})]
    found = finalists(*runs, metric=Metric("val/loss", "minimize"))
    assert [each.mean for each in found.ranked] == pytest.approx([0.25, 0.45])
    assert found.lead is not None
    assert (found.lead.difference, found.ranked[0].peak) == (pytest.approx(0.2), 0.2)


def test_a_sweep_without_repeats_has_no_finalists() -> None:
    assert finalists(*runs_of(0.001, {0: 0.4}), *runs_of(0.002, {0: 0.5})) == Finalists()


def test_repeats_of_a_chosen_run_are_left_out_of_the_tests_of_parameters() -> None:
    drawn = [*runs_of(0.001, {0: 0.4}), *runs_of(0.002, {0: 0.5}), *runs_of(0.003, {0: 0.6})]
    repeats = runs_of(0.003, {1: 0.61, 2: 0.62}, chosen=None)
    for each in repeats:
        each.config["repeat_of"] = "lr0.003-0"  # type: ignore[index]
    config = {"method": "random", "program": "amc-train", "parameters": PARAMETERS}
    (effect,) = add_findings(rank_runs(sweep(*drawn, *repeats, config=config))).effects
    assert [value.runs for value in effect.values] == [1, 1, 1]


def test_the_winner_of_equals_is_called_clear_in_at_most_5_percent_of_sweeps() -> None:
    # Five configurations that are equal, 3 seeds each: 400 sweeps, binomial standard error 1.1%.
    rng, rates, calls = np.random.default_rng(0), [0.001 * n for n in range(1, 6)], 0
    for _ in range(400):
        peaks = 0.5 + rng.normal(0, 0.01, (5, 3))
        runs = [
            each
            for rate, row in zip(rates, peaks, strict=True)
            for each in runs_of(rate, dict(enumerate(row.tolist())))
        ]
        record = sweep(*runs, config={"program": "amc-train", "parameters": {"max_lr": {"values": rates}}})
        lead = finalists_of(record, rank_runs(record).ranked).lead
        calls += lead is not None and lead.is_clear
    assert calls / 400 <= 0.05 + 2 * 0.011


def test_the_report_says_how_many_seeds_would_tell_and_how_to_start_them() -> None:
    first, second = {0: 0.49, 1: 0.50, 2: 0.51}, {0: 0.48, 1: 0.49, 2: 0.50}
    runs = [*runs_of(0.001, first), *runs_of(0.002, second)]
    record = sweep(*runs, config={"method": "grid", "program": "amc-train", "parameters": PARAMETERS})
    section = finalists_section(add_findings(rank_runs(record)))
    assert section is not None
    table, verdict, seeds, command = section.blocks
    assert isinstance(table, Table)
    assert table.rows[0][:4] == ["1", "lr0.001-2", "3", "50.00%"]
    assert "leads lr0.002-2 by 1.00 points" in str(verdict)
    assert str(verdict).endswith("the two cannot be told apart.")
    assert str(seeds).startswith("14 more seeds of each would tell in 4 of 5 cases")
    assert command == Command("amc-sweep promote local/amc-sweeps/94fqx0gz --run lr0.001-2 --run lr0.002-2 --seeds 17")
