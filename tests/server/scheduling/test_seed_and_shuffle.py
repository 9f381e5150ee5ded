"""A sweep's seed and the shuffling of its grid: the sequence of configurations, over restarts and imports."""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from in_process_server import GraphqlRefused, InProcessServer

from amc_server.http.imports import sweep_record
from amc_sweeps.grammar.parse import parse
from amc_sweeps.runs.export_file import Export, read, write

SPACE = """
metric: {name: acc, goal: maximize}
parameters:
  lr: {distribution: log_uniform_values, min: 0.0001, max: 0.1}
  size: {values: [1, 2, 3, 4]}
  loss: {parameters: {name: {values: [a, b]}, weight: {min: 0.0, max: 1.0}}}
"""
GRID = "method: grid\nparameters: {a: {values: [%s]}, b: {values: [x, y]}}"
CREATE = """mutation C($config: String, $project: String, $seed: Int64, $shuffle: Boolean) {
    upsertSweep(input: {config: $config, projectName: $project, seed: $seed, shuffle: $shuffle}) { sweep {
        name seed shuffle } } }"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[InProcessServer]:
    running = InProcessServer(tmp_path / "data", seed=None)
    yield running
    running.close()


def create(server: InProcessServer, config: str, **options: Any) -> str:
    sweep = server.graphql(CREATE, config=config, project="p", **options)["upsertSweep"]["sweep"]
    if "seed" in options:
        assert sweep["seed"] == options["seed"]
    assert sweep["shuffle"] == options.get("shuffle", False)
    return str(sweep["name"])


def drawn(server: InProcessServer, sweep: str, count: int, *, restart: bool = False) -> list[str]:
    """Draw runs one after the other, each finished with a value that follows from its configuration."""
    texts = []
    for _ in range(count):
        if restart:
            server.close()
            server.open()
        command = server.draw(server.create_agent(sweep))
        values = {name: entry["value"] for name, entry in command["args"].items()}
        texts.append(json.dumps(values, sort_keys=True))
        server.begin(command["run_id"], values)
        server.log(command["run_id"], values["size"] / 10 - abs(values["lr"] - 0.01) if "lr" in values else 0.0)
        server.finish(command["run_id"])
    return texts


@pytest.mark.parametrize("method", ["random", "bayes"])
def test_a_seed_fixes_the_sequence_also_when_the_server_is_restarted_between_draws(
    server: InProcessServer, method: str
) -> None:
    config = f"method: {method}{SPACE}"
    first = drawn(server, create(server, config, seed=7), 14)
    assert len(set(first)) == 14
    assert drawn(server, create(server, config, seed=7), 14, restart=True) == first
    assert set(first).isdisjoint(drawn(server, create(server, config, seed=8), 3))


def test_without_a_seed_the_server_chooses_one_and_tells_it(server: InProcessServer) -> None:
    config = f"method: random{SPACE}"
    query = 'query Q($s: String!) { project(name: "p") { sweep(sweepName: $s) { seed } } }'
    first, second = create(server, config), create(server, config)
    seeds = [server.graphql(query, s=sweep)["project"]["sweep"]["seed"] for sweep in (first, second)]
    assert seeds[0] != seeds[1]
    assert drawn(server, create(server, config, seed=seeds[0]), 3) == drawn(server, first, 3)


def test_a_shuffled_grid_has_every_point_once_in_the_order_of_its_seed(server: InProcessServer) -> None:
    config = GRID % ", ".join(map(str, range(10)))
    in_order = drawn(server, create(server, config, seed=3), 20)
    assert in_order == sorted(in_order)
    shuffled = drawn(server, create(server, config, seed=3, shuffle=True), 20)
    assert shuffled != in_order
    assert sorted(shuffled) == in_order
    again = create(server, config, seed=3, shuffle=True)
    assert drawn(server, again, 20, restart=True) == shuffled
    server.advance(1)
    assert server.sweep(again)["state"] == "FINISHED"
    assert drawn(server, create(server, config, seed=4, shuffle=True), 20) != shuffled
    assert drawn(server, create(server, config, shuffle=True), 20) != shuffled, "without a seed each has its own order"


def test_a_shuffled_grid_that_grows_has_every_point_once(server: InProcessServer) -> None:
    sweep = create(server, GRID % "0, 1, 2", seed=3, shuffle=True)
    first = drawn(server, sweep, 4)
    update = "mutation U($id: ID, $c: String) { upsertSweep(input: {id: $id, config: $c}) { sweep { shuffle } } }"
    server.graphql(update, id=server.sweep(sweep)["id"], c=GRID % "0, 1, 2, 3, 4")
    points = first + drawn(server, sweep, 6, restart=True)
    assert sorted(points) == drawn(server, create(server, GRID % "0, 1, 2, 3, 4"), 10)


def test_a_shuffled_grid_of_ten_million_points_is_drawn_at_once(server: InProcessServer) -> None:
    axes = ", ".join(f"p{axis}: {{values: {list(range(10))}}}" for axis in range(7))
    sweep = create(server, f"method: grid\nparameters: {{{axes}}}", seed=1, shuffle=True)
    points = [int("".join(str(value) for value in json.loads(text).values())) for text in drawn(server, sweep, 10)]
    assert len(set(points)) == 10
    assert min(abs(one - other) for one, other in itertools.pairwise(points)) > 1000


@pytest.mark.parametrize("method", ["random", "bayes"])
def test_only_a_grid_can_be_shuffled(server: InProcessServer, method: str) -> None:
    with pytest.raises(GraphqlRefused, match=f"only a grid has an order, and {method}") as refusal:
        create(server, f"method: {method}{SPACE}", shuffle=True)
    assert refusal.value.status == 400
    assert server.graphql('{ project(name: "p") { sweeps { edges { node { name } } } } }')["project"] is None


@pytest.mark.parametrize("seed", [-1, 2**32, 10**30, 1.5, True, "7", [7]])
def test_a_seed_that_is_none_is_refused_with_what_is_allowed(server: InProcessServer, seed: Any) -> None:
    with pytest.raises(GraphqlRefused, match="a whole number from 0 to 4,294,967,295") as refusal:
        create(server, f"method: random{SPACE}", seed=seed)
    assert refusal.value.status == 400


def test_the_seed_of_a_sweep_cannot_be_changed(server: InProcessServer) -> None:
    sweep = create(server, f"method: random{SPACE}", seed=7)
    change = "mutation U($id: ID, $seed: Int64) { upsertSweep(input: {id: $id, seed: $seed}) { sweep { seed } } }"
    with pytest.raises(GraphqlRefused, match="set when a sweep is created"):
        server.graphql(change, id=server.sweep(sweep)["id"], seed=8)


def test_a_repeated_request_is_the_same_sweep_and_one_with_another_seed_is_not(server: InProcessServer) -> None:
    config = f"method: random{SPACE}"
    first = create(server, config, seed=7)
    server.clock.advance(2)
    assert create(server, config, seed=7) == first
    assert create(server, config, seed=8) != first


def exported(server: InProcessServer, sweep: str) -> dict[str, Any]:
    with server.storage.read() as store:
        stored = store.sweep_by_id(sweep)
        assert stored is not None
        return {**sweep_record(store, stored), "state": stored.state.value}


def test_an_imported_sweep_continues_the_sequence(tmp_path: Path, server: InProcessServer) -> None:
    grid = GRID % ", ".join(map(str, range(10)))
    for number, (config, options) in enumerate(
        [(f"method: random{SPACE}", {"seed": 7}), (grid, {"seed": 2**32 - 1, "shuffle": True})]
    ):
        whole = drawn(server, create(server, config, **options), 6)
        sweep = create(server, config, **options)
        assert drawn(server, sweep, 4) == whole[:4]
        runs = [
            {"id": f"run{index}", "sweep": sweep, "state": "finished", "config": json.loads(text)}
            for index, text in enumerate(whole[:4])
        ]
        file = write(Export("p", (exported(server, sweep),), tuple(runs)))
        assert read(file).sweeps[0]["seed"] == options["seed"]
        other = InProcessServer(tmp_path / f"other{number}", seed=None)
        assert other.request("POST", "/import", file.encode()).json() == {"sweeps": 1, "runs": 4, "unchanged": 0}
        assert drawn(other, sweep, 2) == whole[4:]
        assert exported(other, sweep)["seed"] == options["seed"]
        changed = {**exported(server, sweep), "seed": 5}
        reply = other.request("POST", "/import", write(Export("p", (changed,), ())).encode())
        assert reply.status == 409
        assert f"sweep {sweep} (seed)" in reply.json()["errors"][0]["message"]
        other.close()


def test_the_seed_of_an_import_without_one_stays_unknown(server: InProcessServer) -> None:
    record = {"id": "cloud001", "config": parse(f"method: random{SPACE}").raw}
    for _ in range(2):
        assert server.request("POST", "/import", write(Export("p", (record,), ())).encode()).status == 200
    assert not {"seed", "shuffle"} & exported(server, "cloud001").keys()
    query = '{ project(name: "p") { sweep(sweepName: "cloud001") { seed shuffle } } }'
    assert server.graphql(query)["project"]["sweep"] == {"seed": None, "shuffle": False}


@pytest.mark.parametrize(("field", "value"), [("seed", -1), ("seed", "7"), ("seed", None), ("shuffle", 1)])
def test_an_export_file_with_a_wrong_seed_is_refused(server: InProcessServer, field: str, value: Any) -> None:
    record = {"id": "s", "config": parse(f"method: random{SPACE}").raw, field: value}
    reply = server.request("POST", "/import", write(Export("p", (record,), ())).encode())
    assert reply.status == 400
    assert f"sweeps: s: {field} is" in reply.json()["errors"][0]["message"]


def test_a_data_folder_from_before_the_shuffling_is_opened(tmp_path: Path) -> None:
    server = InProcessServer(tmp_path / "old")
    sweep = create(server, GRID % "1, 2", seed=7)
    server.close()
    with sqlite3.connect(tmp_path / "old" / "amc.sqlite3") as database:
        database.execute("ALTER TABLE sweeps DROP COLUMN shuffle")
    database.close()
    for _ in range(2):
        server.open()
        assert exported(server, sweep)["shuffle"] is False
        server.close()
    server.open()
    assert len(drawn(server, sweep, 4)) == 4
    server.close()
