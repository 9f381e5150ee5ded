"""What changes between two configs of a sweep, in sentences."""

from __future__ import annotations

from typing import Any

import pytest

from amc_sweeps.grammar.config_changes import changes, same_config, space_changes
from amc_sweeps.grammar.configurations import Grid
from amc_sweeps.grammar.parse import parse

BASE: dict[str, Any] = {
    "method": "random",
    "metric": {"name": "acc", "goal": "maximize"},
    "parameters": {"lr": {"min": 0.001, "max": 0.1}, "width": {"values": [1, 2, 3]}, "epochs": {"value": 20}},
    "early_terminate": {"type": "hyperband", "min_iter": 3, "eta": 3},
    "program": "train.py",
    "run_cap": 40,
}
RUNS = [{"lr": 0.002 * number, "width": number % 3 + 1, "epochs": 20} for number in range(1, 11)]


def _parameter(name: str, spec: Any) -> dict[str, Any]:
    parameters = {**BASE["parameters"], name: spec}
    return {"parameters": {key: value for key, value in parameters.items() if value is not None}}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"method": "grid", **_parameter("lr", None)}, ["method: random becomes grid", "lr is dropped"]),
        (_parameter("lr", None), ["lr is dropped: it was uniform 0.001 to 0.1; 10 runs had a value"]),
        (
            _parameter("lr", {"min": 0.001, "max": 0.01}),
            ["lr: uniform 0.001 to 0.1 becomes uniform 0.001 to 0.01; 5 of 10 runs had a value outside of it"],
        ),
        (_parameter("width", {"values": [2, 3, "4"]}), ['width: 1 (3 runs) is dropped; "4" is new']),
        (
            _parameter("width", {"values": [1, "true", "2 "]}),
            ['2 (4 runs), 3 (3 runs) are dropped; "true", "2 " are new'],
        ),
        (_parameter("width", {"values": [3, 2, 1]}), ["width: the values stay, with another order"]),
        (_parameter("width", {"value": 2}), ["width: values 1, 2, 3 become 2; 6 of 10 runs had another value"]),
        (_parameter("epochs", {"value": 30}), ["epochs: 20 becomes 30; 10 of 10 runs had another value"]),
        (_parameter("drop", {"distribution": "q_beta", "a": 2, "q": 0.1}), ["drop is new: q_beta a 2, b 1, q 0.1"]),
        (
            _parameter("width", {"parameters": {"first": {"values": [None, 1]}}}),
            ["width is dropped", "width.first is new: values null, 1"],
        ),
        (
            {"metric": {"name": "loss", "goal": "minimize", "target": 1}},
            [
                "metric.name: acc becomes loss",
                "metric.goal: maximize becomes minimize",
                "metric.target: none becomes 1",
            ],
        ),
        ({"metric": None, "early_terminate": None}, ["metric: acc becomes none", "early_terminate is dropped"]),
        (
            {"early_terminate": {"type": "hyperband", "max_iter": 54, "s": 3, "eta": 3}},
            ["Hyperband's bands move from 3, 9, 27, 81 and 14 more to 2, 6, 18"],
        ),
        (
            {"early_terminate": {"type": "hyperband", "min_iter": 3, "eta": 3, "strict": False}},
            ["early_terminate.strict: true becomes false"],
        ),
        ({"run_cap": None}, ["run_cap: 40 becomes none"]),
        ({"command": ["python", "x.py"]}, ['command: none becomes ["python", "x.py"]']),
        ({"program": "other.py", "name": "b"}, ["program: train.py becomes other.py", "name: none becomes b"]),
        ({"controller": {"type": "local"}}, ['controller: none becomes {"type": "local"}']),
    ],
)
def test_every_change_has_a_sentence(changed: dict[str, Any], expected: list[str]) -> None:
    after = {name: value for name, value in {**BASE, **changed}.items() if value is not None}
    found = changes(parse(BASE), parse(after), RUNS)
    assert len(found) == len(expected), found
    for line, start in zip(found, expected, strict=True):
        assert start in line
    assert not same_config(parse(BASE), parse(after))
    assert bool(space_changes(parse(BASE), parse(after))) == ("parameters" in changed)


def test_the_order_of_keys_the_project_and_1_as_a_float_do_not_count() -> None:
    parameters = {
        "epochs": {"value": 20.0, "distribution": "constant"},
        "width": {"values": [1.0, 2, 3]},
        "lr": {"distribution": "uniform", "max": 0.1, "min": 0.001},
    }
    assert same_config(parse({**BASE, "name": "a"}), parse({**BASE, "project": "p", "parameters": parameters}))
    assert not same_config(
        parse({**BASE, "parameters": {"a": {"value": 1}}}), parse({**BASE, "parameters": {"a": {"value": True}}})
    )


def test_a_grid_says_which_configurations_it_has() -> None:
    parameters = {"a": {"distribution": "q_uniform", "min": 0.5, "max": 1.1, "q": 0.2}, "b": {"values": [1, "x"]}}
    grid = Grid(parse({"method": "grid", "parameters": {**parameters, "n": {"min": 1, "max": 3}}}))
    assert all(configuration in grid for configuration in grid)
    inside = grid.configuration(0)
    for other in ({"a": 0.6}, {"a": 1.1}, {"a": "0.5"}, {"b": True}, {"n": 4}, {"n": 1.5}):
        assert {**inside, **other} not in grid
    assert {"a": 0.5, "b": 1} not in grid
