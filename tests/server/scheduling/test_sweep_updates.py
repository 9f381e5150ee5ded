"""A running sweep gets another config: its search, its bands and its end follow it, also after a restart."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from in_process_server import GraphqlRefused, InProcessServer

GRID = """
method: grid
metric: {name: acc, goal: maximize}
parameters: {a: {values: [1, 2, 3]}}
"""
WIDER = GRID.replace("[1, 2, 3]", "[2, 3, 4]")
BAYES = """
method: bayes
metric: {name: acc, goal: maximize}
parameters: {x: {min: 0.0, max: 1.0}}
"""
RANDOM = BAYES.replace("bayes", "random")
HYPERBAND = RANDOM + "early_terminate: {type: hyperband, min_iter: 3, eta: 3}\n"
UPDATE = """mutation U($id: ID, $config: String, $expected: String, $author: String) {
    upsertSweep(input: {id: $id, config: $config, expectedConfig: $expected, author: $author}) { sweep { name } } }"""
NOTES = """query N($sweep: String!, $config: String!) { project(name: "p") { sweep(sweepName: $sweep) {
    config displayName updates { at author config } proposedUpdate(config: $config) { problem changes effects } } } }"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[InProcessServer]:
    running = InProcessServer(tmp_path / "data")
    yield running
    running.close()


@pytest.fixture(params=["at once", "after a restart"])
def turn(request: pytest.FixtureRequest, server: InProcessServer) -> Any:
    """Return what happens after an update: nothing, or a restart of the server."""

    def nothing() -> None:
        if request.param == "after a restart":
            server.close()
            server.open()

    return nothing


def update(server: InProcessServer, sweep: str, config: str, **note: Any) -> None:
    server.graphql(UPDATE, id=server.sweep(sweep)["id"], config=config, **note)


def notes(server: InProcessServer, sweep: str, config: str = GRID) -> dict[str, Any]:
    return dict(server.graphql(NOTES, sweep=sweep, config=config)["project"]["sweep"])


def proposed(server: InProcessServer, sweep: str, config: str) -> str:
    found = notes(server, sweep, config)["proposedUpdate"]
    return "\n".join([found["problem"] or "", *found["changes"], *found["effects"]]).strip()


def train(server: InProcessServer, sweep: str, *values: float, config: dict[str, Any] | None = None) -> dict[str, Any]:
    """Train the sweep's next run, and return its values."""
    run = server.draw(server.create_agent(sweep))
    chosen = {name: entry["value"] for name, entry in run["args"].items()}
    server.begin(run["run_id"], {**chosen, **(config or {})}, sweep=sweep)
    server.log(run["run_id"], *values)
    server.finish(run["run_id"])
    return chosen


def state(server: InProcessServer, sweep: str) -> str:
    server.advance(1)  # ended runs finish the sweep at the next check
    return str(server.sweep(sweep)["state"])


def test_a_grid_goes_on_with_what_no_run_has_had(server: InProcessServer, turn: Any) -> None:
    sweep = server.create_sweep(GRID)
    assert train(server, sweep, 0.1) == {"a": 1}
    assert train(server, sweep, 0.2) == {"a": 2}
    said = proposed(server, sweep, WIDER)
    assert "a: 1 (1 run) is dropped; 4 is new" in said
    assert "the new grid has 3 configurations. Runs have had 1 of them, 2 are to come" in said
    update(server, sweep, WIDER)
    turn()
    assert [train(server, sweep, 0.3), train(server, sweep, 0.4)] == [{"a": 3}, {"a": 4}]
    assert state(server, sweep) == "FINISHED"


def test_a_grid_with_one_parameter_fewer_repeats_no_point(server: InProcessServer, turn: Any) -> None:
    sweep = server.create_sweep(GRID.replace("}}", "}, b: {values: [x, y]}}"))
    assert [train(server, sweep, 0.1) for _ in range(3)][-1] == {"a": 2, "b": "x"}
    update(server, sweep, GRID)
    turn()
    assert train(server, sweep, 0.1) == {"a": 3}
    assert state(server, sweep) == "FINISHED"


def test_a_run_that_trained_with_the_default_of_a_new_parameter_is_not_repeated(
    server: InProcessServer, turn: Any
) -> None:
    sweep = server.create_sweep(GRID.replace("1, 2, 3", "1, 2"))
    train(server, sweep, 0.1, config={"c": {"d": "x"}})
    update(server, sweep, GRID.replace("[1, 2, 3]}", "[1, 2]}, c: {parameters: {d: {values: [x, y]}}}"))
    turn()
    assert [train(server, sweep, 0.1) for _ in range(3)] == [
        {"a": 1, "c": {"d": "y"}},
        {"a": 2, "c": {"d": "x"}},
        {"a": 2, "c": {"d": "y"}},
    ]


def test_a_parameter_that_is_nested_under_the_same_name_moves(server: InProcessServer, turn: Any) -> None:
    nested = GRID.replace("{a: {values: [1, 2, 3]}}", "{a: {parameters: {b: {values: [1, 2, 3]}}}}")
    sweep = server.create_sweep(nested)
    assert train(server, sweep, 0.1) == {"a": {"b": 1}}
    dotted = GRID.replace("a:", "a.b:")
    said = proposed(server, sweep, dotted)
    assert "a.b: its place in a run's config moves from a > b to a.b" in said
    update(server, sweep, dotted)
    turn()
    assert train(server, sweep, 0.1) == {"a.b": 2}
    update(server, sweep, nested)
    assert train(server, sweep, 0.1) == {"a": {"b": 3}}
    assert state(server, sweep) == "FINISHED"


def test_random_draws_from_the_new_space(server: InProcessServer, turn: Any) -> None:
    sweep = server.create_sweep(RANDOM)
    train(server, sweep, 0.1)
    narrow = RANDOM.replace("min: 0.0, max: 1.0", "min: 5.0, max: 6.0")
    assert "1 of 1 run had a value outside of it" in proposed(server, sweep, narrow)
    update(server, sweep, narrow)
    turn()
    assert all(5 <= train(server, sweep, 0.1)["x"] <= 6 for _ in range(5))


def test_bayes_learns_from_the_runs_inside_of_the_new_space(server: InProcessServer, turn: Any) -> None:
    sweep = server.create_sweep(BAYES)
    for number in range(30):
        run = f"r{number}"
        server.begin(run, {"x": number / 30}, sweep=sweep)
        server.log(run, number / 30)
        server.finish(run)
    half = BAYES.replace("max: 1.0", "max: 0.5")
    said = proposed(server, sweep, half)
    assert "bayes learns from 16 of 30 ended runs. The others (14) have a value outside" in said
    update(server, sweep, half)
    turn()
    drawn = [train(server, sweep, 0.0)["x"] for _ in range(6)]
    assert max(drawn) <= 0.5
    assert sum(drawn) / 6 > 0.3, "the best of the runs inside had x close to 0.5"


def test_bayes_takes_over_from_a_grid_and_survives_a_nested_parameter(server: InProcessServer, turn: Any) -> None:
    sweep = server.create_sweep(GRID)
    train(server, sweep, 0.1)
    nested = BAYES.replace("x: {min: 0.0, max: 1.0}", "a: {parameters: {b: {min: 0.0, max: 1.0}}}")
    said = proposed(server, sweep, nested)
    assert "method: grid becomes bayes" in said
    assert "bayes learns from 0 of 1 ended run." in said
    update(server, sweep, nested)
    turn()
    assert 0 <= train(server, sweep, 0.1)["a"]["b"] <= 1


def test_other_constants_are_named_because_bayes_counts_their_runs(server: InProcessServer) -> None:
    sweep = server.create_sweep(BAYES.replace("}}", "}, epochs: {value: 5}}"))
    train(server, sweep, 0.1)
    said = proposed(server, sweep, BAYES.replace("}}", "}, epochs: {value: 9}}"))
    assert "epochs: 5 becomes 9; 1 of 1 run had another value" in said
    assert "bayes still counts runs that had another epochs" in said


def test_hyperband_judges_at_the_new_bands(server: InProcessServer, turn: Any) -> None:
    sweep = server.create_sweep(HYPERBAND)
    train(server, sweep, *[0.9] * 12)
    poor = server.draw(server.create_agent(sweep))["run_id"]
    server.begin(poor, {"x": 0.5}, sweep=sweep)
    server.log(poor, 0.1, 0.1)
    assert not server.sweep(sweep)["runs"][poor]["shouldStop"], "the first band is 3"
    earlier = HYPERBAND.replace("min_iter: 3", "min_iter: 2")
    said = proposed(server, sweep, earlier)
    assert "Hyperband's bands move from 3, 9, 27, 81 and " in said
    assert f"it stops 1 running run: {poor}" in said
    update(server, sweep, earlier)
    turn()
    assert not server.sweep(sweep)["runs"][poor]["shouldStop"]
    server.log(poor, 0.1, offset=2)
    stopped = server.sweep(sweep)["runs"][poor]
    assert (stopped["stopReason"], stopped["stopBand"]) == ("hyperband", 2)


def test_another_metric_is_read_from_the_histories(server: InProcessServer, turn: Any) -> None:
    sweep = server.create_sweep(GRID)
    run = server.draw(server.create_agent(sweep))["run_id"]
    server.begin(run, {"a": 1}, sweep=sweep)
    server.log(run, 0.3, 0.2, metric="loss")
    by_loss = GRID.replace("name: acc, goal: maximize", "name: loss, goal: minimize")
    said = proposed(server, sweep, by_loss)
    assert "values of loss are read from what runs have logged. 1 of 1 run logged any" in said
    assert "lower values are better from now on" in said
    update(server, sweep, by_loss)
    turn()
    assert server.sweep(sweep)["bestLoss"] == 0.2
    assert "finishes at once" in proposed(server, sweep, by_loss.replace("minimize", "minimize, target: 0.25"))
    update(server, sweep, by_loss.replace("minimize", "minimize, target: 0.25"))
    assert state(server, sweep) == "FINISHED"


def test_a_run_cap_below_the_runs_that_have_begun_ends_the_sweep(server: InProcessServer, turn: Any) -> None:
    sweep = server.create_sweep(RANDOM)
    train(server, sweep, 0.1)
    agent = server.create_agent(sweep)
    living = server.draw(agent)["run_id"]
    server.begin(living, sweep=sweep)
    said = proposed(server, sweep, RANDOM + "run_cap: 1")
    assert "run_cap is 1, and the sweep has begun 2 runs" in said
    assert "finishes when the runs that have begun have ended" in said
    update(server, sweep, RANDOM + "run_cap: 1")
    turn()
    assert state(server, sweep) == "RUNNING"
    assert server.heartbeat(server.create_agent(sweep)) == []
    server.finish(living)
    assert state(server, sweep) == "FINISHED"


def test_a_higher_run_cap_and_a_resume_continue_a_finished_sweep(server: InProcessServer, turn: Any) -> None:
    sweep = server.create_sweep(RANDOM + "run_cap: 1")
    train(server, sweep, 0.1)
    assert state(server, sweep) == "FINISHED"
    assert f"amc-sweep resume {sweep}" in proposed(server, sweep, RANDOM + "run_cap: 2")
    update(server, sweep, RANDOM + "run_cap: 2")
    assert state(server, sweep) == "FINISHED"
    turn()
    server.set_state(sweep, "RUNNING")
    train(server, sweep, 0.2)
    assert state(server, sweep) == "FINISHED"


def test_queued_and_pending_runs_keep_their_values(server: InProcessServer, turn: Any) -> None:
    sweep = server.create_sweep(GRID)
    agent = server.create_agent(sweep)
    pending = server.draw(agent)
    queue = (
        """mutation Q($id: ID!) { enqueueSweepRun(input: {id: $id, config: "{\\"a\\": {\\"value\\": 7}}"}) { id } }"""
    )
    server.graphql(queue, id=server.sweep(sweep)["id"])
    said = proposed(server, sweep, WIDER)
    assert "living runs go on with their own values: 1 run, 1 of them outside" in said
    assert "queued and preempted runs (1) are handed out before anything new" in said
    update(server, sweep, WIDER)
    turn()
    assert server.heartbeat(agent)[0]["args"] == pending["args"], "the reply may have been lost"
    assert train(server, sweep, 0.1) == {"a": 7}
    assert train(server, sweep, 0.1) == {"a": 2}


def test_prior_runs_are_read_in_the_new_space(server: InProcessServer, turn: Any) -> None:
    first = server.create_sweep(GRID)
    train(server, first, 0.1, config={"b": "4"})
    by_b = GRID.replace("a: {values: [1, 2, 3]}", "b: {values: [4, 5]}")
    priors = json.dumps({"$or": [{"name": next(iter(server.sweep(first)["runs"]))}]})
    sweep = server.create_sweep(GRID, priorRunsFilters=priors)
    update(server, sweep, by_b)
    turn()
    assert train(server, sweep, 0.1) == {"b": 5}, "the prior run had 4"


def test_a_note_keeps_when_by_whom_and_from_what(server: InProcessServer, turn: Any) -> None:
    sweep = server.create_sweep(GRID)
    update(server, sweep, WIDER + "name: wider", author="ann@box")
    update(server, sweep, GRID)
    turn()
    found = notes(server, sweep)
    assert [(note["author"], note["config"]) for note in found["updates"]] == [
        ("ann@box", GRID),
        (None, WIDER + "name: wider"),
    ]
    assert found["displayName"] == "wider", "a config without a name keeps the name"
    assert found["updates"][0]["at"].startswith("2023-11-14T22:13:20")


def test_a_config_that_means_the_same_is_no_update(server: InProcessServer) -> None:
    sweep = server.create_sweep(GRID)
    same = "project: other\nparameters: {a: {values: [1, 2.0, 3], distribution: categorical}}\n" + "\n".join(
        GRID.split("\n")[1:3]
    )
    assert proposed(server, sweep, same) == ""
    update(server, sweep, same)
    assert notes(server, sweep)["updates"] == []


@pytest.mark.parametrize(
    ("config", "says"),
    [(GRID.replace("a:", "1a:"), "parameters.1a"), (GRID.replace("grid", "gird"), "gird"), ("- x", "mapping")],
)
def test_a_bad_config_is_refused_in_words_and_changes_nothing(server: InProcessServer, config: str, says: str) -> None:
    sweep = server.create_sweep(GRID)
    with pytest.raises(GraphqlRefused, match=says) as refused:
        update(server, sweep, config)
    assert refused.value.status == 400
    assert says in proposed(server, sweep, config)
    assert notes(server, sweep)["updates"] == []


def test_a_config_that_somebody_else_has_changed_is_not_overwritten(server: InProcessServer) -> None:
    sweep = server.create_sweep(GRID)
    update(server, sweep, WIDER, expected=GRID)
    update(server, sweep, WIDER, expected=GRID)  # the reply was lost, so the client sends it again
    with pytest.raises(GraphqlRefused, match="changed in the meantime"):
        update(server, sweep, GRID.replace("3]", "3, 9]"), expected=GRID)
    assert notes(server, sweep)["config"] == WIDER
    assert len(notes(server, sweep)["updates"]) == 1


def test_a_sweep_whose_config_cannot_be_read_gets_another(server: InProcessServer) -> None:
    sweep = server.create_sweep(GRID)
    train(server, sweep, 0.1)
    with server.storage.write() as store:
        stored = store.sweep_by_id(sweep)
        assert stored is not None
        store.update("sweeps", stored.pk, config="method: [")
    assert "method: unreadable becomes grid" in proposed(server, sweep, WIDER)
    update(server, sweep, WIDER)
    assert train(server, sweep, 0.1) == {"a": 2}


def test_a_cancelled_sweep_is_left_alone(server: InProcessServer) -> None:
    sweep = server.create_sweep(GRID)
    server.set_state(sweep, "CANCELED")
    assert "was cancelled" in proposed(server, sweep, WIDER)
    with pytest.raises(GraphqlRefused, match="was cancelled"):
        update(server, sweep, WIDER)
