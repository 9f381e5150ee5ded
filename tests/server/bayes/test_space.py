"""A sweep's parameters as coordinates: there and back, and what counts as near."""

from __future__ import annotations

import numpy as np
import pytest

from amc_server.bayes.space import Space
from amc_sweeps.grammar.parse import parse

MIXED = """
method: bayes
metric: {name: acc, goal: maximize}
parameters:
  lr: {distribution: log_uniform_values, min: 0.0001, max: 0.1}
  dropout: {min: 0.0, max: 0.5}
  batch: {values: [64, 1024, 256]}
  depth: {min: 1, max: 8}
  wide: {min: 1, max: 5000}
  width: {distribution: q_uniform, min: 16, max: 64, q: 16}
  fine: {distribution: q_uniform, min: 0.0, max: 100.0, q: 0.01}
  scale: {distribution: normal, mu: 0, sigma: 2}
  layer: {values: [pre, post, none]}
  curriculum: {values: [true, false]}
  only: {values: [7]}
  fixed: {value: 3}
  optimizer: {parameters: {name: {values: [adam, sgd]}, steps: {distribution: q_log_uniform_values, min: 1, max: 100}}}
"""


@pytest.fixture(scope="module")
def space() -> Space:
    return Space(parse(MIXED))


def test_a_configuration_comes_back_from_its_place(space: Space) -> None:
    rng = np.random.default_rng(1)
    for place in space.draw(50, rng):
        configuration = space.configuration(place)
        again = space.place(configuration)
        assert again is not None
        back = space.configuration(again)
        for name in ("lr", "dropout", "scale"):
            assert back.pop(name) == pytest.approx(configuration.pop(name), rel=1e-9)
        assert back == configuration


def test_every_place_near_another_one_has_a_configuration_inside(space: Space) -> None:
    rng = np.random.default_rng(2)
    centres = space.draw(200, rng)
    moved = space.near(centres, 0.05, rng)
    assert all(space.place(space.configuration(place)) is not None for place in moved)
    ordered = space.ordered
    assert ((moved[:, ordered] >= 0) & (moved[:, ordered] <= 1)).all()
    is_free = [len(axis.places) != 1 for axis in space.axes]
    assert (moved != centres).any(axis=0)[is_free].all(), "every parameter is moved"
    assert (moved == centres).mean() > 0.3, "and most stay"


def test_listed_numbers_are_ordered_and_by_factors_if_they_are_listed_by_factors(space: Space) -> None:
    names = [".".join(axis.path) for axis in space.axes]
    batch, layer = space.axes[names.index("batch")], space.axes[names.index("layer")]
    assert (batch.is_ordered, layer.is_ordered) == (True, False)
    assert [batch.place(value) for value in (64, 256, 1024)] == [0.0, pytest.approx(0.5), 1.0]


@pytest.mark.parametrize(
    "change",
    [{"lr": 5.0}, {"batch": 100}, {"depth": 2.5}, {"depth": 9}, {"layer": None}, {"optimizer": 1}, {"lr": "x"}],
)
def test_a_configuration_outside_has_no_place(space: Space, change: dict[str, object]) -> None:
    configuration = space.configuration(space.draw(1, np.random.default_rng(1))[0])
    assert space.place(configuration | {"fixed": 99}) is not None, "constants do not count"
    assert space.place(configuration | change) is None


def test_all_places_of_a_finite_space_are_listed_once() -> None:
    parameters = "{a: {values: [1, 2, 4]}, b: {values: [x, y]}, c: {min: 1, max: 2}}"
    space = Space(parse(f"method: bayes\nmetric: {{name: acc}}\nparameters: {parameters}"))
    places = space.all_places(12)
    assert places is not None
    assert len({str(space.configuration(place)) for place in places}) == 12
    assert space.all_places(11) is None
    assert Space(parse(MIXED)).all_places(10**9) is None
