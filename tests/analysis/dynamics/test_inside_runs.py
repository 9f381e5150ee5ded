"""The dynamics inside runs: learning rate, two groups, overfitting, task weights, attractors, classes, noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from simulated_sweeps import Setting, simulate, simulated_sweep
from sweep_records import completed, sweep

from amc_analysis.analyse import add_conclusions, analyse
from amc_analysis.dynamics.modes import excess_mass, modes_of
from amc_analysis.dynamics.overfitting import is_judged, onset_of
from amc_analysis.results.analysed_sweep import AnalysedSweep
from amc_analysis.results.dynamics import Dynamics
from amc_analysis.runs.history import History

METRIC = "val/combined_acc"


def _dynamics(*runs: Mapping[str, Sequence[float]]) -> Dynamics:
    """Return the dynamics of runs that logged these columns, ``val/combined_acc`` among them, one value an epoch."""
    records = []
    for index, columns in enumerate(runs):
        count = len(columns[METRIC])
        rows = [
            {"epoch": epoch + 1, **{name: column[epoch] for name, column in columns.items()}} for epoch in range(count)
        ]
        records.append(completed(f"run{index}", columns[METRIC], history=History.from_rows(rows)))
    return analyse(sweep(*records)).dynamics


def _triangle(epochs: int, cycle: int) -> list[float]:
    return [1e-6 + 1e-3 * (1 - abs(2 * (epoch % cycle) / cycle - 1)) for epoch in range(epochs)]


def _cyclic_run(seed: int) -> dict[str, list[float]]:
    """Return a run whose metric falls in proportion to its learning rate."""
    rng = np.random.default_rng(seed)
    rate = _triangle(60, 20)
    top = 0.5 * (1 - np.exp(-np.arange(1, 61) / 5))
    return {METRIC: (top - 60 * np.array(rate) + rng.normal(0, 0.003, 60)).tolist(), "lr": rate}


def test_cycles_compare_the_metric_while_the_rate_rises_and_falls() -> None:
    summary = _dynamics(*(_cyclic_run(seed) for seed in range(8))).cycles
    assert summary is not None
    assert summary.difference is not None
    assert summary.interval is not None
    # The rate moves by 1e-4 an epoch, the metric by 60 times that, once down and once up.
    assert summary.difference == pytest.approx(0.012, abs=0.002)
    assert summary.interval[0] > 0
    assert (summary.n, summary.runs_better_falling) == (8, 8)
    assert summary.peaks["at the bottom"] >= 6, "others are one epoch away"


def test_the_peak_phase_is_at_the_top_for_the_highest_rate() -> None:
    rate = _triangle(20, 20)
    summary = _dynamics({METRIC: [0.1 + 100 * value for value in rate], "lr": rate}).cycles
    assert summary is not None
    assert summary.runs[0].peak_phase == "at the top"
    assert summary.runs[0].peak_lr_share == pytest.approx(1)


def test_a_constant_rate_gives_no_cycles() -> None:
    assert _dynamics({METRIC: [0.1, 0.2, 0.3], "lr": [1e-3] * 3}).cycles is None


def test_excess_mass_is_twice_the_dip() -> None:
    """Two tight groups of k and n - k: the dip is min(k, n - k) / (2n) in the limit (Hartigan & Hartigan, 1985)."""
    values = np.sort([0.0, 0.001, 0.002, 0.998, 0.999, 1.0, 0.9985, 0.9995])[None]
    assert excess_mass(values)[0] == pytest.approx(3 / 8, abs=0.02)
    even = np.linspace(0, 1, 50)[None]
    assert excess_mass(even)[0] == pytest.approx(1 / 50, abs=0.005), "an even sample has the smallest dip, 1/(2n)"


def test_modes_finds_the_two_groups_of_o7pjrbw1_and_their_gap() -> None:
    values = [0.4725, 0.462, 0.4612, 0.458, 0.05, 0.052, 0.055, 0.057, 0.051, 0.06, 0.058, 0.054]
    modes = modes_of(values, np.random.default_rng(0))
    assert modes is not None
    assert modes.bimodal
    assert modes.gap == (0.06, 0.458)
    assert (modes.below, modes.above) == (8, 4)


def test_few_or_equal_values_have_no_modes() -> None:
    assert modes_of([0.1, 0.5] * 4, np.random.default_rng(0)) is None
    assert modes_of([0.5] * 20, np.random.default_rng(0)) is None


def test_overfitting_starts_where_validation_falls_and_train_rises() -> None:
    rng = np.random.default_rng(0)
    epochs = np.arange(40)
    train = 0.7 * (1 - np.exp(-epochs / 12)) + rng.normal(0, 0.003, 40)
    value = np.where(epochs < 20, 0.5 * (1 - np.exp(-epochs / 6)), 0.48 - 0.004 * (epochs - 20)) + rng.normal(
        0, 0.003, 40
    )
    onset = onset_of(train, value)
    assert onset is not None
    assert 17 <= onset <= 22
    assert onset_of(train, train - 0.05) is None, "validation rises too"
    together = np.where(epochs < 20, train, train[20] - 0.004 * (epochs - 20))
    assert onset_of(together, together - 0.02) is None, "train falls too"
    assert is_judged(train, value)
    assert is_judged(train, train - 0.05), "it has enough epochs to fall"
    assert not is_judged(train[:6], value[:6]), "too few epochs"


def test_the_gap_has_a_mean_for_each_third() -> None:
    summary = _dynamics({METRIC: [0.5] * 9, "train/combined_acc": [0.4] * 3 + [0.6] * 3 + [0.8] * 3}).gap
    assert summary is not None
    assert (summary.early, summary.middle, summary.late) == pytest.approx((-0.1, 0.1, 0.3))
    assert summary.train_metric == "train/combined_acc"


def test_task_weights_and_attractors_have_one_entry_per_run() -> None:
    dynamics = _dynamics(
        {
            METRIC: [0.1, 0.2, 0.3],
            "weight/mod": [0.5, 0.7, 0.766],
            "weight/snr": [0.5, 0.3, 0.234],
            "attractor/share": [0.0, 0.2, 0.4],
            "attractor/snr_db": [float("nan"), 26, 26],
        },
        {METRIC: [0.1, 0.2], "weight/mod": [0.6, 0.6], "weight/snr": [0.4, 0.4], "attractor/share": [0.0, 0.0]},
    )
    by_run = {drift.run_id: drift for drift in dynamics.drifts}
    assert (by_run["run0"].first, by_run["run0"].last) == pytest.approx((0.5, 0.766))
    (attractor,) = dynamics.attractors
    assert (attractor.run_id, attractor.usual_db, attractor.epochs_with, attractor.last_share) == ("run0", 26, 2, 0.4)


def test_classes_are_those_of_the_best_run_in_the_epoch_of_its_peak() -> None:
    summary = _dynamics(
        {METRIC: [0.1, 0.2], "f1/mod/QPSK": [0.1, 0.1]},
        {
            METRIC: [0.3, 0.5, 0.4],
            "f1/mod/QPSK": [0.5, 0.7, 0.2],
            "f1/mod/16APSK": [0.6, 0.3, 0.3],
            "f1/family/PSK": [0.5, 0.7, 0.2],
            "f1/snr/12": [0.8, 0.9, 0.9],
            "f1/snr/-2": [0.1, 0.1, 0.1],
        },
    ).classes
    assert summary is not None
    assert (summary.run_id, summary.epoch) == ("run1", 2)
    assert [(score.name, score.at_peak) for score in summary.modulations] == [("QPSK", 0.7), ("16APSK", 0.3)]
    assert summary.modulations[0].largest_drop == pytest.approx(0.5)
    assert [score.name for score in summary.levels] == ["-2", "12"]
    assert [score.name for score in summary.families] == ["PSK"]


def test_volatility_has_the_epoch_of_the_largest_drop() -> None:
    (run,) = _dynamics({METRIC: [0.1, 0.2, 0.3, 0.05, 0.35, 0.4]}).volatility
    assert (run.drop_epoch, run.largest_drop) == (4, pytest.approx(0.25))
    assert run.peak_inflation > run.noise_sd


def _everything(seed: int) -> AnalysedSweep:
    return add_conclusions(
        simulated_sweep(simulate(Setting(30, crash=0.2, hyperband=True), np.random.default_rng(1))), seed=seed
    )


def test_the_same_seed_gives_the_same_conclusions() -> None:
    first, second = _everything(3), _everything(3)
    for name in ("effects", "confounded", "importance", "dynamics", "findings"):
        assert getattr(first, name) == getattr(second, name)


def test_a_sweep_of_another_task_has_no_classification_summaries() -> None:
    dynamics = _everything(0).dynamics
    assert dynamics.classes is None
    assert dynamics.drifts == dynamics.attractors == ()


EMPTY: list[dict[str, Any]] = [
    {"values": []},
    {"values": [[]] * 3},
    {"values": [[float("nan")] * 4] * 3},
    {"values": [[0.5] * 3] * 25},
    {"values": [[float("inf"), 0.1 * index, float("-inf")] for index in range(12)]},
]


@pytest.mark.parametrize("case", EMPTY)
def test_sweeps_without_usable_values_are_analysed(case: dict[str, Any]) -> None:
    config = {"method": "random", "parameters": {"a": {"values": [1, 2, 3]}, "b": {"values": [[1], [2, 3]]}}}
    runs = [
        completed(f"run{index}", values, config={"a": index % 3 + 1, "b": [1]})
        for index, values in enumerate(case["values"])
    ]
    analysed = analyse(sweep(*runs, config=config))
    assert all(effect.p is None or 0 < effect.p <= 1 for effect in analysed.effects)
