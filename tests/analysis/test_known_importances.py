"""Importances of earlier analyses: the forest is grown once for the same runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from simulated_sweeps import Setting, simulate, simulated_sweep

from amc_analysis import analyse
from amc_analysis.effects.importance import importance_of, key_of
from amc_analysis.known_importances import MOST_KEPT, known_importances
from amc_analysis.results.effects import Importance


def test_a_forest_is_grown_once_and_again_for_other_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grown: list[int] = []
    monkeypatch.setattr(analyse, "importance_of", lambda *inputs: grown.append(1) or importance_of(*inputs))
    runs = simulate(Setting(30, shift=lambda config: 0.1 * config["curriculum"]), np.random.default_rng(4))
    whole, fewer = simulated_sweep(runs), simulated_sweep(runs[:29])
    results = []
    for sweep in (whole, whole, fewer):
        with known_importances(tmp_path) as known:
            results.append(analyse.add_importance(sweep, known).importance)
    assert len(grown) == 2
    assert results[0] == results[1] != results[2]
    assert results[0] is not None
    assert results[0].shares[0].parameter == "curriculum"


def test_the_key_depends_on_all_that_a_forest_sees() -> None:
    sweep = simulated_sweep(simulate(Setting(30), np.random.default_rng(1)))
    parameters = sweep.parameters
    swapped = replace(parameters[1], values=parameters[1].values[::-1])
    inputs = [
        (parameters, 0),
        (parameters, 1),
        (parameters[1:], 0),
        ((parameters[0], swapped, *parameters[2:]), 0),
        ((replace(parameters[0], name="other"), *parameters[1:]), 0),
    ]
    assert len({key_of(sweep.outcomes, given, seed) for given, seed in inputs}) == len(inputs)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"a": 1}', b'{"a": {"n": 1}}', b"\xff", b"[" * 100_000])
def test_a_damaged_file_is_replaced_and_only_the_latest_are_kept(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "importances.json").write_bytes(content)
    for number in range(MOST_KEPT + 2):
        with known_importances(tmp_path) as known:
            known[str(number)] = Importance(number, None, (), "few")
    with known_importances(tmp_path) as known:
        assert list(known) == [str(number) for number in range(2, MOST_KEPT + 2)]


def test_without_a_folder_nothing_is_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (None, tmp_path / "file"):
        with known_importances(folder) as known:
            known["a"] = Importance(1, None, (), "few")
        with known_importances(folder) as known:
            assert known == {}
