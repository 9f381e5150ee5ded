"""Curves extrapolated to full length: the prediction, its uncertainty, and how far both can be trusted."""

from __future__ import annotations

import numpy as np
import pytest
import training_surface as training
from numpy.typing import NDArray

from amc_server.bayes.extrapolation import FinishedCurves


def curves(count: int, seed: int) -> list[NDArray[np.float64]]:
    """Return whole curves of random configurations."""
    rng = np.random.default_rng(seed)
    return [training.noisy(training.clean_curve(training.draw_config(rng)), rng) for _ in range(count)]


@pytest.mark.parametrize("length", [20, 60, 120])
def test_an_extrapolated_outcome_is_closer_than_the_peak_so_far_and_its_error_is_known(length: int) -> None:
    finished = FinishedCurves([curve.tolist() for curve in curves(40, seed=1)])
    errors, of_peaks, shares = [], [], []
    for curve in curves(300, seed=2):
        outcome, sd = finished.predict(curve[:length].tolist())
        errors.append(outcome - curve.max())
        of_peaks.append(curve[:length].max() - curve.max())
        shares.append(abs(errors[-1]) / sd)
    assert np.sqrt(np.mean(np.square(errors))) < 0.5 * np.sqrt(np.mean(np.square(of_peaks)))
    assert abs(np.mean(errors)) < 0.35 * np.std(errors) + 0.1
    assert 0.85 < np.mean(np.array(shares) < 2) <= 1.0


def test_the_longer_the_curve_the_surer_the_outcome() -> None:
    finished = FinishedCurves([curve.tolist() for curve in curves(30, seed=1)])
    (curve,) = curves(1, seed=3)
    sds = [finished.predict(curve[:length].tolist())[1] for length in (15, 40, 100)]
    assert sds[0] > sds[1] > sds[2] > 0


def test_a_curve_unlike_all_others_is_less_certain() -> None:
    finished = FinishedCurves([[value, value + 1, value + 2] for value in (1.0, 1.1, 0.9, 1.05)])
    near, far = finished.predict([1.0]), finished.predict([9.0])
    assert near[0] == pytest.approx(3.0, abs=0.2)
    assert far[1] > 3 * near[1]


@pytest.mark.parametrize("known", [[], [[1.0, 2.0]], [[]]])
def test_without_a_longer_finished_run_the_best_value_stands(known: list[list[float]]) -> None:
    assert FinishedCurves(known).predict([0.3, 0.7, 0.5]) == (0.7, 0.0)


def test_one_longer_run_gives_its_gain_and_a_wide_uncertainty() -> None:
    outcome, sd = FinishedCurves([[1.0, 2.0, 5.0]]).predict([2.0])
    assert outcome == pytest.approx(6.0)
    assert sd >= 2.0


def test_an_outcome_is_never_below_the_best_value_so_far() -> None:
    falling = FinishedCurves([[5.0, 1.0, 1.0], [6.0, 2.0, 2.0], [7.0, 2.0, 2.0]])
    assert falling.predict([9.0, 3.0])[0] >= 9.0
