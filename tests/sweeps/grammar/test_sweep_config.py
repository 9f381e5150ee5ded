"""W&B's sweep grammar. Orders, counts and defaults were compared with W&B's own engine (``sweeps`` 0.3.0)."""

from __future__ import annotations

import itertools
import math
import random
import statistics
import time
import tracemalloc
from collections import Counter
from typing import Any

import pytest

from amc_sweeps.grammar.configurations import Grid, count_configurations, sample, shuffled_numbers
from amc_sweeps.grammar.distributions import DISTRIBUTIONS, Range, ends
from amc_sweeps.grammar.hyperband import HyperbandConfig, bands
from amc_sweeps.grammar.parse import parse, parse_leniently
from amc_sweeps.grammar.sweep_config import Choice, Constant, Metric, Nested, SweepConfigError

WIDE = {"method": "grid", "run_cap": 5, "parameters": {f"p{axis}": {"values": list(range(10))} for axis in range(30)}}
FULL = """
method: bayes
name: everything
description: every key that a sweep may have
project: p
entity: e
program: amc-train
command: ["${env}", "${program}", "${args}"]
metric: {name: val/combined_acc, goal: maximize, target: 0.6, impute: best}
early_terminate: {type: hyperband, min_iter: 5, eta: 2, strict: false}
run_cap: 40
controller: {type: cloud}
parameters:
  lr: {distribution: log_uniform_values, min: 1.0e-5, max: 1.0e-2}
  layers: {min: 1, max: 4}
  dropout: {min: 0.0, max: 0.5}
  head: {values: [a, b]}
  seed: {value: 3}
  optimizer: {parameters: {beta: {values: [0.9, 0.99]}}}
"""


def problems_of(source: Any) -> list[str]:
    return parse_leniently(source)[1]


def of(method: str = "random", **parameters: Any) -> dict[str, Any]:
    return {"method": method, "metric": {"name": "m"}, "parameters": parameters}


def test_every_part_of_a_full_sweep_is_read() -> None:
    sweep = parse(FULL)
    assert sweep.method == "bayes"
    assert sweep.metric == Metric("val/combined_acc", "maximize", 0.6, "best")
    assert sweep.early_terminate == HyperbandConfig(min_iter=5, eta=2, strict=False)
    assert sweep.run_cap == 40
    assert (sweep.program, sweep.project, sweep.entity, sweep.name) == ("amc-train", "p", "e", "everything")
    assert sweep.command == ["${env}", "${program}", "${args}"]
    assert sweep.parameters == {
        "lr": Range("log_uniform_values", min=1.0e-5, max=1.0e-2),
        "layers": Range("int_uniform", min=1, max=4),
        "dropout": Range("uniform", min=0.0, max=0.5),
        "head": Choice(("a", "b")),
        "seed": Constant(3),
        "optimizer": Nested({"beta": Choice((0.9, 0.99))}),
    }
    assert sweep.raw["controller"] == {"type": "cloud"}
    assert parse(sweep.raw) == sweep


def test_defaults_are_those_of_wandb() -> None:
    sweep = parse({**of(), "parameters": {"n": {"distribution": "normal"}}, "early_terminate": HYPERBAND})
    assert sweep.metric == Metric("m", goal="minimize", impute=None)
    assert sweep.early_terminate == HyperbandConfig(min_iter=3, eta=3, strict=True)
    assert sweep.parameters["n"] == Range("normal", mu=0.0, sigma=1.0)
    assert sweep.run_cap is None


HYPERBAND = {"type": "hyperband", "min_iter": 3}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"values": [1]}, Choice((1,))),
        ({"values": [1, 2], "probabilities": [0.5, 0.5]}, Choice((1, 2), (0.5, 0.5))),
        ({"value": None}, Constant(None)),
        ({"min": 1, "max": 3}, Range("int_uniform", min=1, max=3)),
        ({"min": 1, "max": 3.0}, Range("uniform", min=1, max=3.0)),
        ({"min": 1.0, "max": 3}, Range("uniform", min=1.0, max=3)),
        ({"distribution": "uniform", "min": 1, "max": 3}, Range("uniform", min=1, max=3)),
        ({"distribution": "q_uniform", "min": 1, "max": 3}, Range("q_uniform", min=1, max=3, q=1.0)),
    ],
)
def test_a_distribution_that_is_not_named_is_inferred(spec: dict[str, Any], expected: object) -> None:
    assert parse(of(p=spec)).parameters["p"] == expected


def test_all_problems_are_reported_with_path_value_and_what_is_allowed() -> None:
    text = """
method: bays
metrik: {name: loss}
metric: {name: loss, goal: maximise, impute: auto, target: high}
early_terminate: {type: hyperband, min_iter: 0, eta: 1, strct: true}
run_cap: 0
program: 5
parameters:
  lr: {min: 1e-4, max: 1.0e-2}
  k: 3
  l: [1, 2]
  d: {distribution: log_unifrm_values, min: 1, max: 2}
  n: {parameters: {inner: {values: []}}}
"""
    message = "\n".join(problems_of(text))
    for expected in [
        "method: 'bays' is not allowed; allowed: grid, random, bayes; did you mean bayes?",
        "metrik: no such key; did you mean metric?",
        "metric.goal: 'maximise' is not allowed; allowed: minimize, maximize; did you mean maximize?",
        "metric.impute: 'auto' is not allowed; allowed: worst, best, latest",
        "metric.target: 'high' is not allowed; allowed: a number",
        "early_terminate.min_iter: 0 is not allowed; allowed: a whole number >= 1",
        "early_terminate.eta: 1 is not allowed; allowed: a number > 1",
        "early_terminate.strct: no such key; did you mean strict?",
        "run_cap: 0 is not allowed; allowed: a whole number >= 1",
        "program: 5 is not allowed; allowed: text",
        "parameters.lr.min: '1e-4' is not allowed; allowed: a number; YAML reads 1e-4 as text: write 1.0e-4",
        "parameters.k: 3 is not allowed; allowed: a mapping; write value: 3",
        "parameters.l: [1, 2] is not allowed; allowed: a mapping; write values: [1, 2]",
        "parameters.d.distribution: 'log_unifrm_values' is not allowed",
        "did you mean log_uniform_values?",
        "parameters.n.parameters.inner.values: [] is not allowed; allowed: a list of at least one value",
    ]:
        assert expected in message
    assert len(message.splitlines()) == 15
    with pytest.raises(SweepConfigError) as refused:
        parse(text)
    assert refused.value.problems == problems_of(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "the file is empty"),
        ("# only a comment\n", "the file is empty"),
        ("- method: grid\n", "this is a list, not a mapping"),
        ("just words", "this is only 'just words', not a mapping"),
        ("method: grid\nparameters: {a: [1\n", "line 3"),
        ("method: grid\n\tparameters: 1\n", "line 2"),
        ("method: grid\n---\nmethod: random\n", "line 2"),
        ("method: \x00", "this is not YAML"),
        ("? [a]\n: 1\n", "line 1"),
    ],
)
def test_a_text_that_is_not_a_sweep_has_one_problem(text: str, expected: str) -> None:
    sweep, problems = parse_leniently(text)
    assert sweep is None
    assert len(problems) == 1
    assert expected in problems[0]


def test_a_key_given_twice_is_a_problem_with_both_lines() -> None:
    text = "method: random\nparameters:\n  a: {value: 1}\n  b: {value: 2}\n  a: {values: []}\nmethod: random\n"
    assert problems_of(text) == [
        "line 6: 'method' is given again (first in line 1)",
        "line 5: 'a' is given again (first in line 3)",
        "parameters.a.values: [] is not allowed; allowed: a list of at least one value",
    ]


def test_merge_keys_of_yaml_are_not_duplicates() -> None:
    text = "method: random\nparameters:\n  a: &a {min: 1, max: 5}\n  b: {<<: *a, max: 9}\n"
    assert parse(text).parameters["b"] == Range("int_uniform", min=1, max=9)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"min": 2, "max": 2}, "less than max = 2"),
        ({"min": 3.0, "max": 2.0}, "less than max = 2"),
        ({"min": 1}, "p.max: missing"),
        ({"min": math.nan, "max": 1.0}, "p.min: nan is not allowed"),
        ({"min": True, "max": 2}, "p.min: True is not allowed"),
        ({"distribution": "int_uniform", "min": 1.0, "max": 2}, "p.min: 1.0 is not allowed; allowed: a whole number"),
        ({"distribution": "log_uniform_values", "min": 0, "max": 1}, "takes logarithms"),
        ({"distribution": "log_uniform", "min": 1, "max": 5000}, "log_uniform_values takes values"),
        ({"distribution": "q_normal", "q": 0}, "p.q: 0 is not allowed; allowed: a number > 0"),
        ({"distribution": "normal", "sigma": -1}, "p.sigma: -1 is not allowed"),
        ({"distribution": "beta", "a": 0}, "p.a: 0 is not allowed"),
        ({"distribution": "uniform", "min": 1, "max": 2, "q": 1}, "p.q: no such key of uniform"),
        ({"distribution": "constant"}, "p.value: missing"),
        ({"values": [1, 2], "probabilities": [0.5]}, "one for each value (2)"),
        ({"values": [1, 2], "probabilities": [0.5, 0.6]}, "these sum to 1.1"),
        ({"values": [1, 2], "probabilities": [1.5, -0.5]}, "a list of numbers >= 0"),
        ({}, "value, values, min with max"),
        ({"values": [1], "min": 2}, "p.min: no such key of categorical"),
    ],
)
def test_a_parameter_that_wandb_cannot_draw_is_refused(spec: dict[str, Any], expected: str) -> None:
    (problem,) = problems_of(of(p=spec))
    assert expected in problem


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({"type": "median"}, "early_terminate.type: 'median' is not allowed; allowed: hyperband"),
        ({"type": "hyperband"}, "min_iter (with eta), or max_iter with s"),
        ({"type": "hyperband", "max_iter": 27}, "early_terminate.s: missing"),
        ({"type": "hyperband", "max_iter": 27, "s": 2.5}, "early_terminate.s: 2.5 is not allowed"),
        ({"type": "hyperband", "max_iter": 2, "s": 2}, "below it there is no band"),
        ({"type": "hyperband", "min_iter": 3, "strict": "yes"}, "early_terminate.strict: 'yes' is not allowed"),
        ("hyperband", "early_terminate: 'hyperband' is not allowed; allowed: a mapping"),
    ],
)
def test_early_termination_that_cannot_work_is_refused(section: Any, expected: str) -> None:
    problems = problems_of({**of(p={"value": 1}), "early_terminate": section})
    assert any(expected in problem for problem in problems), problems


def test_parameters_that_a_method_cannot_search_are_refused() -> None:
    spread = {"min": 0.0, "max": 1.0}
    assert "a grid is finite" in problems_of(of("grid", p=spread))[0]
    chances = {"values": [1, 2], "probabilities": [0.1, 0.9]}
    assert "does not draw by probability" in problems_of(of("grid", p=chances))[0]
    assert problems_of(of("random", p=chances)) == []
    assert problems_of({"method": "bayes", "parameters": {"p": spread}}) == [
        "metric: missing; allowed: a mapping with name and goal, which bayes needs"
    ]
    assert (
        "which early_terminate needs"
        in problems_of({"method": "random", "parameters": {"p": spread}, "early_terminate": HYPERBAND})[0]
    )
    assert "W&B's client-side scheduler" in problems_of({**of(p=spread), "scheduler": {"engine": "optuna"}})[0]


def test_an_unquoted_false_for_impute_while_running_is_explained() -> None:
    sweep = {**of(p={"value": 1}), "metric": {"name": "m", "impute_while_running": False}}
    assert problems_of(sweep) == [
        'metric.impute_while_running: False is not allowed; allowed: text: write "false" in quotes'
    ]


def test_in_a_grid_the_first_parameter_by_name_changes_slowest() -> None:
    sweep = parse(of("grid", b={"values": [2, 1]}, a={"values": ["x", "y"]}, c={"value": 7}))
    assert list(Grid(sweep)) == [
        {"a": "x", "b": 2, "c": 7},
        {"a": "x", "b": 1, "c": 7},
        {"a": "y", "b": 2, "c": 7},
        {"a": "y", "b": 1, "c": 7},
    ]


def test_a_grid_includes_the_max_of_int_uniform_but_not_of_q_uniform() -> None:
    sweep = parse(of("grid", n={"min": 1, "max": 3}, q={"distribution": "q_uniform", "min": 0.5, "max": 1.1, "q": 0.2}))
    values = list(Grid(sweep))
    assert [value["q"] for value in values[:3]] == [0.5, 0.7, 0.9]
    assert [value["n"] for value in values[::3]] == [1, 2, 3]
    assert count_configurations(sweep) == 9


def test_a_value_listed_twice_is_one_point_but_true_differs_from_1() -> None:
    sweep = parse(of("grid", p={"values": [1, 1.0, True, 2]}))
    assert [config["p"] for config in Grid(sweep)] == [1, True, 2]
    assert count_configurations(sweep) == 3


def test_nested_parameters_stay_nested() -> None:
    nested = {"parameters": {"beta": {"values": [1, 2]}, "deep": {"parameters": {"x": {"value": 0}}}}}
    sweep = parse(of("grid", opt=nested, a={"values": [5, 6]}))
    assert next(iter(Grid(sweep))) == {"a": 5, "opt": {"beta": 1, "deep": {"x": 0}}}
    assert count_configurations(sweep) == 4
    assert sample(sweep, random.Random(0)).keys() == {"opt", "a"}


def test_a_very_long_grid_is_counted_and_started_at_once() -> None:
    sweep = parse({**of("grid", n={"min": 1, "max": 10**9}, a={"values": [1, 2]}), "run_cap": 5})
    assert count_configurations(sweep) == 2 * 10**9
    assert next(iter(Grid(sweep))) == {"a": 1, "n": 1}
    assert Grid(sweep).configuration(2 * 10**9 - 1) == {"a": 2, "n": 10**9}


def test_shuffled_numbers_are_every_number_once() -> None:
    for size in (*range(1, 130), 1009, 4096, 9973, 10_000):
        assert sorted(shuffled_numbers(size, random.Random(size))) == list(range(size))


def test_every_order_of_shuffled_numbers_is_equally_likely() -> None:
    orders = Counter(tuple(shuffled_numbers(4, random.Random(seed))) for seed in range(4800))
    assert len(orders) == math.factorial(4)
    assert all(140 < count < 260 for count in orders.values())  # 200 expected, with a standard deviation of 14


@pytest.mark.parametrize("size", [10**7 - 1, 10**7, 10**30])
def test_a_shuffled_grid_takes_as_much_memory_as_was_drawn(size: int) -> None:
    sweep = parse({**of("grid", n={"min": 0, "max": size - 1}), "run_cap": 10**7} if size < 2**63 else WIDE)
    grid = Grid(sweep)
    assert grid.size == size
    tracemalloc.start()
    begin = time.process_time()
    points = [repr(config) for config in itertools.islice(grid.shuffled(7), 1000)]
    assert time.process_time() - begin < 1
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()
    assert len(set(points)) == 1000
    assert points == [repr(config) for config in itertools.islice(grid.shuffled(7), 1000)]
    if size < 2**63:
        numbers = [config["n"] for config in itertools.islice(grid.shuffled(7), 1000)]
        assert abs(statistics.mean(numbers) / size - 0.5) < 0.05
        assert sum(abs(one - other) < size / 1000 for one, other in itertools.pairwise(numbers)) < 12  # 2 expected


@pytest.mark.parametrize(
    ("parameters", "count"),
    [
        ({"lr": {"distribution": "q_uniform", "min": 0.0001, "max": 0.1, "q": 1.0e-10}}, "999,000,000 configurations"),
        ({"n": {"min": 1, "max": 10**9}, "a": {"values": [1, 2]}}, "2,000,000,000 configurations"),
        ({"n": {"min": -(2**62), "max": 2**62}}, r"10\^18 configurations"),
        ({f"p{n}": {"min": -(2**62), "max": 2**62} for n in range(300)}, r"10\^5689 configurations"),
    ],
)
def test_a_grid_that_cannot_be_walked_to_its_end_is_refused_with_its_count(
    parameters: dict[str, Any], count: str
) -> None:
    with pytest.raises(SweepConfigError, match=count):
        parse(of("grid", **parameters))
    stored = parse(of("grid", **parameters), is_new=False)
    assert next(iter(Grid(stored))).keys() == parameters.keys()
    assert parse({**of("grid", **parameters), "run_cap": 100}).run_cap == 100


def test_many_parameters_and_listed_values_are_counted_before_they_are_enumerated() -> None:
    wide = parse(of("grid", **{f"p{n}": {"values": [1]} for n in range(2000)}))
    assert len(next(iter(Grid(wide)))) == 2000
    assert count_configurations(parse(of("random", **{f"p{n}": {"values": [1, 2]} for n in range(2000)}))) is None


@pytest.mark.parametrize(
    "spec",
    [
        {"distribution": "q_uniform", "min": 0.0, "max": 1.0, "q": 1e-320},
        {"distribution": "q_log_uniform", "min": 0.0, "max": 600.0, "q": 1.0},
        {"distribution": "uniform", "min": -1e308, "max": 1e308},
        {"distribution": "log_normal", "mu": 1000.0},
        {"distribution": "q_normal", "mu": 1e300, "q": 1e-300},
        {"distribution": "beta", "a": 1e308, "b": 1.0},
        {"distribution": "int_uniform", "min": 0, "max": 10**400},
        {"min": 0, "max": 10**30},
    ],
)
def test_a_range_whose_values_cannot_be_drawn_is_refused(spec: dict[str, Any]) -> None:
    with pytest.raises(SweepConfigError, match=r"parameters\.x"):
        parse(of("random", x=spec))


def test_many_problems_and_long_names_make_a_short_answer() -> None:
    config = {**of(**{"x" * 100_000: {"values": []}, "y": "z" * 100_000}), **{f"k{n}": 1 for n in range(20_000)}}
    begin = time.process_time()
    problems = problems_of(config)
    assert time.process_time() - begin < 2
    assert sum(map(len, problems)) < 20_000
    assert problems[-1].startswith("and 19,9")


def test_bands_that_hardly_differ_are_not_counted_for_ever() -> None:
    early = {"type": "hyperband", "max_iter": 10**9, "s": 10**12, "eta": 1.0000001}
    assert len(bands(parse({**of(x={"value": 1}), "early_terminate": early}).early_terminate)) <= 100


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"min": 1, "max": 10}, 10),
        ({"min": 0.0, "max": 1.0}, None),
        ({"distribution": "q_uniform", "min": 5, "max": 14, "q": 4}, 2),  # 8 and 12
        ({"distribution": "q_uniform", "min": 0.0, "max": 0.3, "q": 0.1}, 4),
        ({"distribution": "q_beta", "q": 0.25}, 5),
        ({"distribution": "q_normal"}, None),
        ({"values": [1, 2, 3], "probabilities": [0.5, 0.5, 0.0]}, 2),
        ({"value": 1}, 1),
    ],
)
def test_configurations_are_counted(spec: dict[str, Any], expected: int | None) -> None:
    assert count_configurations(parse(of("random", p=spec, other={"values": ["a"]}))) == expected


EXAMPLES: dict[str, dict[str, Any]] = {
    "int_uniform": {"min": 2, "max": 20},
    "uniform": {"min": 2.0, "max": 20.0},
    "q_uniform": {"min": 2, "max": 20, "q": 3},
    "log_uniform": {"min": -2.0, "max": 3.0},
    "log_uniform_values": {"min": 0.01, "max": 10.0},
    "q_log_uniform": {"min": 0.0, "max": 3.0, "q": 0.5},
    "q_log_uniform_values": {"min": 1, "max": 64, "q": 2},
    "inv_log_uniform": {"min": 1.0, "max": 3.0},
    "inv_log_uniform_values": {"min": 0.1, "max": 1.0},
    "normal": {"mu": 1.0, "sigma": 0.5},
    "q_normal": {"mu": 1.0, "sigma": 2.0, "q": 1},
    "log_normal": {"mu": 1.0, "sigma": 0.5},
    "q_log_normal": {"mu": 1.0, "sigma": 0.5, "q": 1},
    "beta": {"a": 2, "b": 3},
    "q_beta": {"a": 2, "b": 3, "q": 0.1},
}

# Medians that follow from the definitions: uniform on a scale means half way on it.
MEDIANS = {
    "int_uniform": 11,
    "uniform": 11.0,
    "log_uniform": math.exp(0.5),
    "log_uniform_values": math.sqrt(0.01 * 10.0),
    "inv_log_uniform": math.exp(-2.0),
    "inv_log_uniform_values": math.sqrt(0.1),
    "normal": 1.0,
    "log_normal": math.e,
    "beta": 0.3857,
}


def test_there_is_an_example_of_every_distribution() -> None:
    assert EXAMPLES.keys() == DISTRIBUTIONS.keys()


@pytest.mark.parametrize("distribution", EXAMPLES)
def test_every_distribution_draws_values_of_its_shape(distribution: str) -> None:
    spec = EXAMPLES[distribution]
    sweep = parse(of("random", p={"distribution": distribution, **spec}))
    parameter = sweep.parameters["p"]
    assert isinstance(parameter, Range)
    rng = random.Random(7)
    values = [sample(sweep, rng)["p"] for _ in range(2000)]
    low, high = ends(parameter)
    assert low <= min(values)
    assert max(values) <= high
    assert len(set(values)) > 5
    if "q" in spec:
        assert all(math.isclose(value / spec["q"], round(value / spec["q"]), abs_tol=1e-6) for value in values)
        assert {type(value) for value in values} == {type(spec["q"])}
    if distribution in MEDIANS:
        spread = statistics.stdev(values) / math.sqrt(len(values))
        assert abs(statistics.median(values) - MEDIANS[distribution]) < 8 * spread


def test_values_are_drawn_with_their_probabilities() -> None:
    sweep = parse(of("random", p={"values": ["a", "b", "c"], "probabilities": [0.8, 0.2, 0.0]}))
    rng = random.Random(3)
    drawn = [sample(sweep, rng)["p"] for _ in range(1000)]
    assert 750 < drawn.count("a") < 850
    assert "c" not in drawn


def test_the_same_seed_draws_the_same() -> None:
    sweep = parse(FULL)
    first, again = random.Random(5), random.Random(5)
    assert [sample(sweep, first) for _ in range(5)] == [sample(sweep, again) for _ in range(5)]


SCALARS = [None, True, False, -3, 0, 1, 40, 0.5, math.nan, math.inf, "1e-4", "grid", "best", "", *DISTRIBUTIONS]
WORDS = [
    "value",
    "values",
    "min",
    "max",
    "q",
    "distribution",
    "parameters",
    "probabilities",
    "name",
    "type",
    "eta",
    "s",
]
TOP = ["method", "metric", "parameters", "early_terminate", "run_cap", "command", "name", "controller", "x"]


def tree(rng: random.Random, depth: int = 0) -> Any:
    kind = rng.random() if depth < 3 else 0.0
    if kind < 0.4:
        return rng.choice(SCALARS)
    if kind < 0.6:
        return [tree(rng, depth + 1) for _ in range(rng.randint(0, 3))]
    return {word: tree(rng, depth + 1) for word in rng.sample(WORDS, rng.randint(0, 4))}


@pytest.mark.parametrize("seed", range(4))
def test_any_input_is_read_or_refused_with_messages(seed: int) -> None:
    rng = random.Random(seed)
    accepted = 0
    for _ in range(500):
        source = {key: tree(rng) for key in rng.sample(TOP, rng.randint(0, 2))}
        source |= {"method": "random"} if rng.random() < 0.8 else {}
        source |= {"parameters": {name: tree(rng, 1) for name in "ab"}} if rng.random() < 0.5 else {}
        source |= {"parameters": {"a": {"values": [tree(rng)]}}} if rng.random() < 0.5 else {}
        sweep, problems = parse_leniently(source)
        assert sweep is not None
        assert all(": " in problem for problem in problems)
        if not problems:
            accepted += 1
            assert sample(sweep, rng).keys() == source["parameters"].keys()
    assert 50 < accepted < 450  # otherwise the test covers one side only
