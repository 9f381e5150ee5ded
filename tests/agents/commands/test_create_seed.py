"""amc-sweep create with the options of the search: the real client at embedded servers and at a plain W&B server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from embedded_server import EmbeddedServer
from limiting_proxy import LimitingProxy
from operated_sweep import OperatedSweep
from plain_wandb import PlainWandb

pytestmark = pytest.mark.client

FILE = """
program: train.py
method: random
metric: {name: acc, goal: maximize}
parameters:
  zeta: {min: 0.0, max: 1.0}
  alpha: {distribution: log_uniform_values, min: 0.0001, max: 0.1}
  size: {values: [1, 2, 3]}
"""
GRID = """
program: train.py
method: grid
parameters: {a: {values: [1, 2, 3, 4, 5, 6, 7, 8]}}
"""
SWEEPS = '{ project(name: "%s", entityName: "local") { sweeps { edges { node { name } } } } }'
# A server from before these options.
OLDER = """
from amc_server.graphql.execution import SCHEMA
for name in ("seed", "shuffle"):
    del SCHEMA.type_map["UpsertSweepInput"].fields[name]
"""


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatedSweep]:
    folder = tmp_path_factory.mktemp("seed")
    with EmbeddedServer(folder / "data") as server, PlainWandb(server) as plain:
        yield OperatedSweep(server, plain, folder)


def create(user: OperatedSweep, project: str, text: str, *options: str) -> dict[str, Any]:
    (user.folder / "file.yaml").write_text(text)
    return dict(user.json("create", "file.yaml", "--project", project, *options))


def drawn(server: EmbeddedServer, path: str, count: int) -> list[dict[str, Any]]:
    """Draw runs as agents do."""
    _, project, sweep = path.split("/")
    begin = """mutation A($p: String, $s: String!) { createAgent(input: {host: "box", projectName: $p, sweep: $s}) {
        agent { id } } }"""
    beat = "mutation H($id: ID!) { agentHeartbeat(input: {id: $id}) { commands } }"
    configurations = []
    for _ in range(count):
        agent = server.graphql(begin, p=project, s=sweep)["createAgent"]["agent"]["id"]
        (command,) = json.loads(server.graphql(beat, id=agent)["agentHeartbeat"]["commands"])
        configurations.append({name: entry["value"] for name, entry in command["args"].items()})
    return configurations


def test_the_command_for_agents_is_safe_to_evaluate_whatever_the_file_calls_its_project(user: OperatedSweep) -> None:
    registered = create(user, "a b; echo $(id)", FILE)
    assert registered["agent_command"].endswith(f"wandb agent 'local/a b; echo $(id)/{registered['sweep_id']}'")


def test_two_sweeps_of_a_file_and_a_seed_are_drawn_alike_also_over_a_kill(user: OperatedSweep) -> None:
    first, second = (create(user, "random", FILE, "--seed", "7") for _ in range(2))
    assert (first["seed"], first["shuffle"]) == (7, False)
    assert first["sweep_id"] != second["sweep_id"], "the second is a wish of its own, however soon it comes"
    whole = drawn(user.server, first["path"], 4)
    before = drawn(user.server, second["path"], 2)
    user.server.kill()
    user.server.restart()
    assert before + drawn(user.server, second["path"], 2) == whole
    plain = user.json("status", first["path"], plain=True)["sweep"]
    assert (plain["seed"], plain["shuffle"]) == (None, None), "another server does not tell"


def test_the_seed_that_status_shows_repeats_a_shuffled_grid_also_after_an_import(
    user: OperatedSweep, tmp_path: Path
) -> None:
    first = create(user, "grid", GRID, "--shuffle")
    assert (first["seed"], first["shuffle"]) == (None, True)
    shown = user.json("status", first["path"])["sweep"]
    assert shown["shuffle"] is True
    second = create(user, "grid", GRID, "--shuffle", "--seed", str(shown["seed"]))
    order = [point["a"] for point in drawn(user.server, first["path"], 8)]
    assert sorted(order) == list(range(1, 9)) != order
    assert [point["a"] for point in drawn(user.server, second["path"], 3)] == order[:3]

    assert user.call("export", second["path"], "grid.yaml").returncode == 0
    with EmbeddedServer(tmp_path / "other") as other:
        ended = OperatedSweep(other, user.plain, user.folder).call("import", "grid.yaml")
        assert ended.returncode == 0, ended.stderr
        assert [point["a"] for point in drawn(other, second["path"], 5)] == order[3:]


def test_a_lost_reply_leaves_one_sweep_with_its_seed(user: OperatedSweep) -> None:
    with LimitingProxy(user.server.base_url, lambda _, body: b"upsertSweep" in body, loses_replies=True) as proxy:
        sweep = create(user, "lost", FILE, "--seed", "7", "--base-url", proxy.base_url)
    assert len(proxy.refused) == 1
    query = '{ project(name: "lost") { sweeps { edges { node { name seed } } } } }'
    sweeps = user.server.graphql(query)["project"]["sweeps"]["edges"]
    assert [edge["node"] for edge in sweeps] == [{"name": sweep["sweep_id"], "seed": 7}]


@pytest.mark.compatibility("create --seed, --shuffle, --crashed-runs, --prior")
@pytest.mark.parametrize("options", [["--seed", "7"], ["--shuffle"], ["--prior", "ab12cd34"]])
def test_another_server_refuses_the_options_before_anything_is_registered(
    user: OperatedSweep, options: list[str]
) -> None:
    (user.folder / "file.yaml").write_text(GRID)
    ended = user.call("create", "file.yaml", "--project", "elsewhere", *options, plain=True)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "not an embedded server, and other W&B servers take no --seed, --shuffle, --crashed-runs" in ended.stderr
    assert user.server.graphql(SWEEPS % "elsewhere")["project"] is None


def test_a_sweep_that_starts_from_an_earlier_one_repeats_nothing_of_it(user: OperatedSweep) -> None:
    first = create(user, "earlier", GRID)
    had = drawn(user.server, first["path"], 3)
    (user.folder / "file.yaml").write_text(GRID)
    ended = user.call("create", "file.yaml", "--project", "later", "--prior", first["sweep_id"], "--json")
    assert ended.returncode == 0, ended.stderr
    assert f"prior sweep {first['sweep_id']}: the search uses 3 of 3 runs." in ended.stderr
    rest = drawn(user.server, json.loads(ended.stdout)["path"], 5)
    assert len({point["a"] for point in [*had, *rest]}) == 8


def test_a_prior_sweep_that_is_not_where_it_is_said_to_be_registers_nothing(user: OperatedSweep) -> None:
    (user.folder / "file.yaml").write_text(GRID)
    first = create(user, "here", GRID)["sweep_id"]
    here, plain = user.server.base_url, user.plain.base_url
    for priors, said in (
        (["nosuch00"], "no sweep nosuch00 in the "),
        ([f"elsewhere/{first}"], f"no sweep {first} in local/elsewhere"),
        ([f"local/elsewhere/{first}"], f"no sweep {first} in local/elsewhere"),
        ([f"{here}/local/elsewhere/sweeps/{first}"], f"no sweep {first} in local/elsewhere"),
        ([f"{here}/local/here/runs/{first}"], "is the page of a run; a sweep is needed"),
        (
            [f"{here}/local/here/sweeps/{first}", f"{plain}/local/here/sweeps/{first}"],
            "the arguments are on several servers",
        ),
    ):
        options = [part for prior in priors for part in ("--prior", prior)]
        refused = user.call("create", "file.yaml", "--project", "later still", *options)
        assert (refused.returncode, refused.stdout) == (2, ""), priors
        assert said in refused.stderr
        assert "nothing was registered" in refused.stderr
    assert user.server.graphql(SWEEPS % "later still")["project"] is None


def test_the_url_of_a_prior_sweep_says_where_the_new_one_is_registered(user: OperatedSweep, tmp_path: Path) -> None:
    here = OperatedSweep(user.server, user.plain, tmp_path)
    (tmp_path / "state").symlink_to(tmp_path / "other.state")  # the second server runs here, too, so its key is found
    with EmbeddedServer(tmp_path / "other") as other:
        first = create(OperatedSweep(other, user.plain, tmp_path), "earlier", GRID)
        page = f"{other.base_url}/local/earlier/sweeps/{first['sweep_id']}"
        second = create(here, "there", GRID, "--prior", page)
        registered = other.graphql(SWEEPS % "there")["project"]["sweeps"]["edges"]
        assert [edge["node"]["name"] for edge in registered] == [second["sweep_id"]]
        assert here.call("export", page, "there.yaml").returncode == 0
    assert user.server.graphql(SWEEPS % "there")["project"] is None


def test_the_policy_for_crashed_runs_reaches_the_server_and_status_and_an_export_tell_it(user: OperatedSweep) -> None:
    bayes = FILE.replace("random", "bayes")
    assert create(user, "policy", bayes)["crashed_runs"] == "auto"
    sweep = create(user, "policy", bayes, "--crashed-runs", "extrapolate")
    assert sweep["crashed_runs"] == "extrapolate"
    assert user.json("status", sweep["path"])["sweep"]["crashed_runs"] == "extrapolate"
    assert user.call("export", sweep["path"], "policy.yaml").returncode == 0
    assert "crashed_runs: extrapolate" in (user.folder / "policy.yaml").read_text()


def test_an_older_embedded_server_registers_no_sweep_without_the_seed(user: OperatedSweep, tmp_path: Path) -> None:
    (user.folder / "file.yaml").write_text(FILE)
    with EmbeddedServer(tmp_path / "older", prelude=OLDER) as older:
        ended = OperatedSweep(older, user.plain, user.folder).call("create", "file.yaml", "--seed", "7")
        assert (ended.returncode, ended.stdout) == (2, "")
        assert "seed" in ended.stderr
        assert "Traceback" not in ended.stderr
        assert older.graphql(SWEEPS % "amc-sweeps")["project"] is None
