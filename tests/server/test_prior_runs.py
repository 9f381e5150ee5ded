"""Prior runs (``wandb sweep --prior_run``): what a sweep learns from, and what the user is told of the others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from in_process_server import GraphqlRefused, InProcessServer

from amc_server.scheduling.prior_runs import fit, named_runs
from amc_server.scheduling.run_ends import RunEnds
from amc_sweeps.grammar.parse import parse

GRID = """
method: grid
metric: {name: acc, goal: maximize}
parameters: {a: {values: [1, 2, 3]}}
"""
BAYES = """
method: bayes
metric: {name: acc, goal: maximize}
parameters: {x: {min: 0.0, max: 1.0}}
"""
CREATE = """mutation C($config: String, $priors: JSONString, $id: ID) {
    upsertSweep(input: {id: $id, config: $config, projectName: "p", priorRunsFilters: $priors}) {
        sweep { name } configValidationWarnings } }"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[InProcessServer]:
    running = InProcessServer(tmp_path / "data")
    yield running
    running.close()


def create(server: InProcessServer, config: str, *priors: str) -> tuple[str, list[str]]:
    """Register a sweep as ``wandb sweep -R`` does; return its id and what the client prints."""
    filters = json.dumps({"$or": [{"name": prior} for prior in priors]})
    answer = server.graphql(CREATE, config=config, priors=filters)["upsertSweep"]
    return answer["sweep"]["name"], answer["configValidationWarnings"]


def train(server: InProcessServer, run: str, config: dict[str, Any], *values: float, sweep: str | None = None) -> str:
    server.begin(run, config, sweep=sweep)
    server.log(run, *values)
    server.finish(run)
    return run


def prior_runs(server: InProcessServer, sweep: str) -> list[str]:
    query = """query Q($s: String!) { project(name: "p") { sweep(sweepName: $s) {
        priorRuns { edges { node { name } } } } } }"""
    edges = server.graphql(query, s=sweep)["project"]["sweep"]["priorRuns"]["edges"]
    return [edge["node"]["name"] for edge in edges]


def test_runs_of_another_sweep_are_learnt_from_and_stay_there(server: InProcessServer) -> None:
    first = server.create_sweep(GRID)
    run = train(server, "old", {"a": 1}, 0.3, 0.9, sweep=first)
    second, warnings = create(server, GRID, run)
    assert warnings == []
    assert prior_runs(server, second) == [run]
    assert server.draw(server.create_agent(second))["args"]["a"] == {"value": 2}
    assert server.sweep(second)["bestLoss"] == 0.9
    assert list(server.sweep(first)["runs"]) == [run]


def test_bayes_learns_from_runs_of_another_sweep(server: InProcessServer) -> None:
    first = server.create_sweep(BAYES)
    runs = [train(server, f"r{n}", {"x": n / 20}, n / 20, sweep=first) for n in range(20)]
    second, _ = create(server, BAYES, *runs)
    drawn = [server.draw(server.create_agent(second))["args"]["x"]["value"] for _ in range(8)]
    assert sum(drawn) / 8 > 0.7
    update = server.graphql(
        "mutation U($id: ID, $c: String) { upsertSweep(input: {id: $id, config: $c}) { sweep { name } } }",
        id=server.sweep(second)["id"],
        c=BAYES.replace("acc", "loss").replace("maximize", "minimize"),
    )
    assert update["upsertSweep"]["sweep"]["name"] == second
    assert server.sweep(second)["bestLoss"] is None, "the prior runs have no such metric"


@pytest.mark.parametrize(
    "path", ["local/p/%s", "p/%s", "http://127.0.0.1:8080/local/p/runs/%s", "/local/p/runs/%s?nw=1"]
)
def test_a_prior_run_may_be_given_by_its_path(server: InProcessServer, path: str) -> None:
    run = train(server, "old", {"a": 1}, 0.9)
    sweep, warnings = create(server, GRID, path % run)
    assert (prior_runs(server, sweep), warnings) == ([run], [])


def test_an_unknown_prior_run_is_named(server: InProcessServer) -> None:
    run = train(server, "old", {"a": 1}, 0.9)
    sweep, warnings = create(server, GRID, "nosuch", run, "local/other/x")
    assert prior_runs(server, sweep) == [run]
    assert [warning.partition(" Give")[0] for warning in warnings] == [
        "prior run nosuch: project p has no such run.",
        "prior run local/other/x: project other has no such run.",
    ]


def test_a_prior_run_that_does_not_fit_is_named_with_the_reason(server: InProcessServer) -> None:
    train(server, "other", {"b": 1}, 0.9)
    train(server, "outside", {"a": 7}, 0.9)
    train(server, "silent", {"a": 2})
    _, warnings = create(server, GRID, "other", "outside", "silent")
    assert [warning.removesuffix(" The search cannot learn from this run.") for warning in warnings] == [
        "prior run other: its config has no a.",
        "prior run outside: its a is 7, which this sweep does not try.",
        "prior run silent: it has no finite acc.",
    ]


def test_bayes_says_that_it_counts_a_prior_run_with_another_fixed_value(server: InProcessServer) -> None:
    train(server, "shorter", {"x": 0.5, "epochs": 5}, 0.9)
    train(server, "outside", {"x": 1.5, "epochs": 9}, 0.9)
    train(server, "silent", {"x": 0.5, "epochs": 5})
    config = BAYES.replace("}}", "}, epochs: {value: 9}}")
    _, warnings = create(server, config, "shorter", "outside", "silent")
    unused = "The search cannot learn from this run."
    assert warnings == [
        "prior run shorter: its epochs is 5, which this sweep does not try. bayes counts its result all the same.",
        f"prior run outside: its x is 1.5, which this sweep does not try. {unused}",
        f"prior run silent: its epochs is 5, which this sweep does not try and it has no finite acc. {unused}",
    ]


def test_prior_runs_that_are_given_twice_count_once(server: InProcessServer) -> None:
    first = server.create_sweep(GRID)
    train(server, "old", {"a": 1}, 0.9, sweep=first)
    second, _ = create(server, GRID, "old", "old")
    server.graphql(CREATE, id=server.sweep(second)["id"], priors='{"$or": [{"name": "old"}]}')
    assert prior_runs(server, second) == ["old"]


def test_a_target_that_a_prior_run_has_reached_ends_the_sweep(server: InProcessServer) -> None:
    first = server.create_sweep(GRID)
    train(server, "old", {"a": 1}, 0.9, sweep=first)
    second, _ = create(server, GRID.replace("maximize", "maximize, target: 0.8"), "old")
    assert server.sweep(second)["state"] == "FINISHED"


CHOICES = "method: random\nparameters: {v: {values: [%s]}}"
RANGE = "method: random\nparameters: {v: {%s}}"


@pytest.mark.parametrize(
    ("config", "value", "chosen"),
    [
        (CHOICES % "1, 2", "1", 1),
        (CHOICES % "1, 2", 1.0, 1),
        (CHOICES % "0.001, 0.01", "1e-3", 0.001),
        (CHOICES % "true, false", "True", True),
        (CHOICES % "adam, sgd", "Adam", "adam"),
        (CHOICES % "[3, 4], [5, 6]", [3, 4], [3, 4]),
        (CHOICES % '1, "1"', "1", "1"),
        (RANGE % "min: 0.0, max: 1.0", "0.25", 0.25),
        (RANGE % "min: 1, max: 9", 4.0, 4),
        (RANGE % "min: 1, max: 9", "4", 4),
        (RANGE % "distribution: normal, mu: 0, sigma: 1", -3, -3),
    ],
)
def test_a_value_whose_type_the_script_rewrote_counts_as_the_sweeps_own(config: str, value: Any, chosen: Any) -> None:
    values, problems = fit({"v": value}, parse(config))
    assert (values, type(values["v"]), problems) == ({"v": chosen}, type(chosen), [])


@pytest.mark.parametrize(
    ("config", "value"),
    [
        (CHOICES % "1, 2", True),
        (CHOICES % '1, "1.0"', 1.5),
        (RANGE % "min: 0.0, max: 1.0", "fast"),
        (RANGE % "min: 0.0, max: 1.0", 2),
        (RANGE % "min: 1, max: 9", 4.5),
        (RANGE % "min: 0.0, max: 1.0", float("nan")),
    ],
)
def test_a_value_that_the_sweep_does_not_try_is_reported(config: str, value: Any) -> None:
    _, problems = fit({"v": value}, parse(config))
    assert len(problems) == 1


def test_filters_of_another_form_name_no_runs() -> None:
    assert named_runs({"$or": [{"name": "a"}, {"state": "finished"}]}) is None
    assert named_runs({"state": "finished"}) is None


FROM_SWEEP = """mutation C($config: String, $priors: [String!]) {
    upsertSweep(input: {config: $config, projectName: "p", priorSweeps: $priors}) {
        sweep { name } configValidationWarnings } }"""


def start_from(server: InProcessServer, config: str, *priors: str) -> tuple[str, list[str]]:
    """Create a sweep as ``amc-sweep create --prior`` does; return its id and what the user is told."""
    answer = server.graphql(FROM_SWEEP, config=config, priors=list(priors))["upsertSweep"]
    return answer["sweep"]["name"], answer["configValidationWarnings"]


def drawn(server: InProcessServer, sweep: str, count: int) -> list[float]:
    return [server.draw(server.create_agent(sweep))["args"]["x"]["value"] for _ in range(count)]


def test_a_sweep_starts_from_the_runs_of_an_earlier_one(server: InProcessServer) -> None:
    first = server.create_sweep(BAYES)
    for number in range(20):
        train(server, f"r{number}", {"x": number / 20}, number / 20, sweep=first)
    second, said = start_from(server, BAYES, first)
    assert said == [f"prior sweep {first}: the search uses 20 of 20 runs."]
    assert min(drawn(server, second, 4)) > 0.7
    assert list(server.sweep(first)["runs"]) == [f"r{number}" for number in range(20)], "it stays as it was"


def test_the_reasons_why_prior_runs_cannot_be_used_are_counted(server: InProcessServer) -> None:
    first = server.create_sweep("method: random\nparameters: {x: {min: 0.0, max: 2.0}}")
    for number in range(6):
        train(server, f"r{number}", {"x": 0.5} if number < 4 else {}, *([0.5] if number else []), sweep=first)
    _, said = start_from(server, BAYES, first)
    assert said == [
        f"prior sweep {first}: the search uses 3 of 6 runs. Why not the others: its config has no x (2 runs), "
        "it has no finite acc (1 run)."
    ]


def test_after_an_update_prior_runs_are_looked_at_again_in_the_new_space(server: InProcessServer) -> None:
    wide = BAYES.replace("max: 1.0", "max: 2.0")
    first = server.create_sweep(wide)
    for number in range(20):
        train(server, f"r{number}", {"x": 1 + number / 20}, number / 20, sweep=first)
    second, said = start_from(server, BAYES, first)
    assert "the search uses 1 of 20 runs" in said[0]
    server.graphql(
        "mutation U($id: ID, $c: String) { upsertSweep(input: {id: $id, config: $c}) { sweep { name } } }",
        id=server.sweep(second)["id"],
        c=wide,
    )
    assert sum(x > 1.7 for x in drawn(server, second, 4)) >= 3


def test_the_curves_and_the_causes_of_prior_runs_count(server: InProcessServer) -> None:
    """In the upper half every second prior run was lost early: by its curve it was as good as its neighbours."""
    first = server.create_sweep(BAYES)
    for number in range(24):
        x, run = number / 24, f"r{number}"
        server.begin(run, {"x": x}, sweep=first)
        server.log(run, *[share * (1 + x) for share in (0.2, 0.6, 0.9, 1.0)][: 2 if number > 12 and number % 4 else 4])
        if number > 12 and number % 4:
            server.advance(3600)
        else:
            server.finish(run)
    second, _ = start_from(server, BAYES, first)
    assert min(drawn(server, second, 4)) > 0.8


def test_an_unknown_prior_sweep_registers_nothing(server: InProcessServer) -> None:
    with pytest.raises(GraphqlRefused, match="prior sweep nosuch00: there is no such sweep on this server"):
        start_from(server, BAYES, "nosuch00")
    assert server.graphql('{ project(name: "p") { sweeps { edges { node { name } } } } }')["project"] is None


def test_a_minimised_metric_of_an_earlier_sweep_is_learned_from(server: InProcessServer) -> None:
    loss = BAYES.replace("acc, goal: maximize", "loss")
    first = server.create_sweep(loss)
    for number in range(20):
        server.begin(f"r{number}", {"x": number / 20}, sweep=first)
        server.log(f"r{number}", 1 + number / 20, number / 20, metric="loss")
        server.finish(f"r{number}")
    second, said = start_from(server, loss, first)
    assert said == [f"prior sweep {first}: the search uses 20 of 20 runs."]
    assert max(drawn(server, second, 4)) < 0.3


def test_an_earlier_sweep_counts_once_and_one_without_runs_is_said(server: InProcessServer) -> None:
    first, empty = server.create_sweep(BAYES), server.create_sweep(BAYES)
    train(server, "r", {"x": 0.5}, 0.5, sweep=first)
    second, said = start_from(server, BAYES, first, empty, first)
    assert said == [
        f"prior sweep {first}: the search uses 1 of 1 run.",
        f"prior sweep {empty}: it has no runs, so the search learns nothing from it.",
    ]
    assert prior_runs(server, second) == ["r"]


def test_a_sweep_cannot_start_from_itself(server: InProcessServer) -> None:
    sweep = server.create_sweep(BAYES)
    train(server, "r", {"x": 0.5}, 0.5, sweep=sweep)
    change = "mutation U($id: ID, $p: [String!]) { upsertSweep(input: {id: $id, priorSweeps: $p}) { sweep { name } } }"
    with pytest.raises(GraphqlRefused, match="a sweep cannot start from itself"):
        server.graphql(change, id=server.sweep(sweep)["id"], p=[sweep])
    assert prior_runs(server, sweep) == []


def test_a_run_that_still_trains_in_the_earlier_sweep_counts_with_its_end(server: InProcessServer) -> None:
    first = server.create_sweep(BAYES)
    for number in range(20):
        server.begin(f"r{number}", {"x": number / 20}, sweep=first)
        server.log(f"r{number}", 0.1)
    second, _ = start_from(server, BAYES, first)
    for number in range(20):
        server.log(f"r{number}", 0.1 + number / 20, offset=1)
        server.finish(f"r{number}")
    assert min(drawn(server, second, 4)) > 0.7


def test_runs_are_lost_together_within_their_own_sweep(server: InProcessServer) -> None:
    """A run of the earlier sweep that was lost alone does not hide that a node took the runs of the new one."""
    first = server.create_sweep(BAYES)
    server.begin("alone", {"x": 0.5}, sweep=first)
    server.log("alone", 0.5)
    server.advance(3600)
    second, _ = start_from(server, BAYES, first)
    for number in range(3):
        server.begin(f"r{number}", {"x": number / 3}, sweep=second)
        server.log(f"r{number}", 0.5)
    server.advance(3600)
    with server.storage.read() as store:
        runs = [run for sweep in (first, second) for run in store.members(store.sweep_by_id(sweep).pk)]
        ends = RunEnds().diagnoses(store, runs, {})
    causes = {run.id: ends[run.pk].cause for run in runs}
    assert causes == {"alone": "lost", "r0": "node_failure", "r1": "node_failure", "r2": "node_failure"}
