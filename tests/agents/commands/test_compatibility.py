"""Every command at a W&B server that is not ours: the lines of docs/compatibility.md that no other file tests."""

from __future__ import annotations

import base64
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from embedded_server import EmbeddedServer
from limiting_proxy import LimitingProxy
from operated_sweep import CONFIG, METRIC, PATH, PROJECT, SWEEP_ID, OperatedSweep, ended_runs
from plain_wandb import KEY, PlainWandb, plain_schema
from run_folder import run_folder
from tiny_files import synthetic_file
from webhook import Webhook

from amc_agents.commands import clean, main
from amc_analysis.cli import main as analyze
from amc_core.config import TrialConfig
from amc_server.graphql.execution import SCHEMA
from amc_sweeps.runs.export_file import Export, read, write

pytestmark = pytest.mark.client
compatibility = pytest.mark.compatibility

GRID = "program: train.py\nmethod: grid\nmetric: {name: acc, goal: maximize}\nparameters: {a: {values: [1, 2]}}\n"
BAYES = CONFIG | {"method": "bayes", "run_cap": 30, "parameters": {"x": {"min": 0.0, "max": 1.0}}}
TRIAL = TrialConfig.from_mapping({"max_lr": 0.002, "patience": None}).to_mapping()


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatedSweep]:
    """A person with a login at another W&B; the sweep there was made by W&B's own client, so it is paused."""
    folder = tmp_path_factory.mktemp("elsewhere")
    with EmbeddedServer(folder / "data") as server, PlainWandb(server) as plain:
        operated = OperatedSweep(server, plain, folder)
        operated.import_runs([*ended_runs(), trial_run()])
        yield operated


def trial_run() -> dict[str, Any]:
    """Return a run of amc-train."""
    rows = [{"_step": 0, "epoch": 1, METRIC: 0.2}]
    return {"id": "ours", "sweep": SWEEP_ID, "state": "finished", "config": TRIAL, "summary": {}, "history": rows}


def refused(user: OperatedSweep, *arguments: str) -> str:
    """Run a command that the other server cannot serve; return what the user is told."""
    ended = user.call(*arguments, plain=True)
    assert (ended.returncode, ended.stdout) == (2, ""), ended.stderr
    return ended.stderr.removeprefix(f"W&B: W&B server at {user.plain.base_url} (by WANDB_BASE_URL)\n")


# --- the stand-in


def test_the_other_server_has_nothing_of_ours(user: OperatedSweep) -> None:
    def ask(path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
        credentials = base64.b64encode(f"api:{KEY}".encode()).decode()
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{user.plain.base_url}{path}", data, {"Authorization": f"Basic {credentials}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as reply:
                return reply.status, json.loads(reply.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, None

    fields = '{ __type(name: "Run") { fields { name } } }'
    status, answer = ask("/graphql", {"query": fields})
    names = {field["name"] for field in answer["data"]["__type"]["fields"]}
    assert (status, "exitcode" in names, "stopReason" in names, "host" in names) == (200, True, False, False)
    gone = {
        f"{name}.{field}"
        for name, kind in SCHEMA.type_map.items()
        if hasattr(kind, "fields") and name[:2] != "__"
        for field in kind.fields
        if name not in plain_schema().type_map or field not in plain_schema().type_map[name].fields  # type: ignore[attr-defined]
    }
    assert {"Mutation.leaseRun", "Sweep.proposedUpdate", "UpsertSweepInput.seed", "Run.unknownFacts"} <= gone
    create = "mutation M($i: UpsertSweepInput!) { upsertSweep(input: $i) { sweep { name } } }"
    for document, variables in (
        ('{ project(name: "p") { sweep(sweepName: "s") { seed } } }', {}),
        ('mutation { giveBackRun(input: {projectName: "p", runName: "r"}) { success } }', {}),
        (create, {"i": {"config": GRID, "seed": 7}}),
    ):
        assert ask("/graphql", {"query": document, "variables": variables})[0] == 400, document
    for path in ("/healthz", "/bulk", "/import", "/local/operated", "/login"):
        assert ask(path)[0] == 404


@compatibility("pages and buttons")
def test_our_pages_are_those_of_the_embedded_server_alone(user: OperatedSweep) -> None:
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{user.plain.base_url}/{PATH.replace(SWEEP_ID, f'sweeps/{SWEEP_ID}')}")
    assert f"\n  page   {user.plain.base_url}/local/made/sweeps/" in created(user)[1], "W&B shows its own page there"


def created(user: OperatedSweep, *options: str) -> tuple[dict[str, Any], str]:
    (user.folder / "grid.yaml").write_text(GRID)
    ended = user.call("create", "grid.yaml", "--project", "made", "--json", *options, plain=True)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout), ended.stderr


# --- what works everywhere


@compatibility("create")
def test_a_sweep_is_checked_and_registered(user: OperatedSweep) -> None:
    sweep, _ = created(user, "--name", "elsewhere")
    assert sweep["agent_command"] == f"WANDB_BASE_URL={user.plain.base_url} wandb agent {sweep['path']}"
    (row,) = [row for row in user.json("list", "made", plain=True) if row["sweep_id"] == sweep["sweep_id"]]
    assert (row["name"], row["method"], row["runs_expected"]) == ("elsewhere", "grid", 2)
    (user.folder / "bad.yaml").write_text(GRID.replace("grid", "gird"))
    assert "nothing was registered" in refused(user, "create", "bad.yaml")


@compatibility("amc-analyze")
def test_the_analysis_is_the_same_through_the_public_api_and_the_second_reads_the_cache(
    user: OperatedSweep, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def runs(*options: str, plain: bool) -> dict[str, Any]:
        ended = user.call(SWEEP_ID, "--json", *options, plain=plain, program=analyze)
        assert ended.returncode == 0, ended.stderr
        return {run["run_id"]: run for run in json.loads(ended.stdout)["runs"]}

    def histories() -> int:
        return sum(b"istory(" in body or b"HistoryPage" in body for _, _, body in proxy.passed)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    ours = runs("--no-cache", plain=False)
    with LimitingProxy(user.plain.base_url, lambda *_: False) as proxy:
        theirs = runs("--base-url", proxy.base_url, plain=True)
        read_once = histories()
        assert runs("--base-url", proxy.base_url, plain=True) == theirs
        assert histories() == read_once > 0, "no history is read a second time"
    assert runs("--offline", plain=True) == theirs
    same = ("rank", "cause", "peak", "peak_epoch", "last", "epochs", "exit_code", "hidden_gem")
    assert {run: [ours[run][name] for name in same] for run in ours} == {
        run: [theirs[run][name] for name in same] for run in theirs
    }


@compatibility("agent", "wandb agent")
def test_a_fleet_of_plain_agents_finishes_a_grid_and_a_limited_request_ends_nobody(
    user: OperatedSweep, tmp_path: Path
) -> None:
    """Two agents, each of whose requests is refused once."""
    (user.folder / "train.py").write_text("import wandb\nwith wandb.init() as run:\n    run.log({'acc': 1})\n")
    with LimitingProxy(user.plain.base_url, lambda path, _: path == "/graphql", retry_after="0") as proxy:
        sweep, _ = created(user)
        fleet = user.start(
            "amc-sweep", "agent", sweep["path"], "--workers", "2", "--stagger", "0s", base_url=proxy.base_url
        )
        _, said = fleet.communicate(timeout=150)
    assert fleet.returncode == 0, said
    refusals = b"".join(body for _, _, body in proxy.refused)
    assert all(name in refusals for name in (b"createAgent", b"agentHeartbeat", b"upsertBucket", b"FleetSweep"))
    status = user.json("status", sweep["path"], plain=True)
    assert (status["sweep"]["state"], status["runs"]["by_state"]) == ("FINISHED", {"finished": 2})


@compatibility("notify")
def test_status_tells_a_webhook_that_a_sweep_is_over(user: OperatedSweep) -> None:
    sweep, _ = created(user)
    assert user.call("stop", sweep["path"], plain=True).returncode == 0
    hook = Webhook()
    ended = user.call("status", sweep["path"], "--watch", "--notify", hook.url, plain=True)
    hook.close()
    assert ended.returncode == 0, ended.stderr
    assert [message["event"] for message in hook.messages] == ["done"]


@compatibility("launch slurm")
def test_the_script_of_an_array_names_the_server_and_not_the_key(
    user: OperatedSweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amc_agents.commands.launch._own_command", lambda: Path("/opt/amc/bin/amc-sweep"))
    ended = user.call("launch", "slurm", PATH, "--agents", "8", "--time", "1:00:00", "--dry-run", plain=True)
    assert ended.returncode == 0, ended.stderr
    assert f"export WANDB_BASE_URL={user.plain.base_url}" in ended.stdout
    assert KEY not in ended.stdout


@compatibility("repeat")
def test_a_run_is_repeated_outside_of_its_sweep(user: OperatedSweep, tmp_path: Path, data: Path) -> None:
    ended = user.call("repeat", "ours", "--seed", "7", "--data", str(data), "--print", plain=True)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith(f"WANDB_BASE_URL={user.plain.base_url} WANDB_ENTITY=local")
    assert "--seed=7" in ended.stdout


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return synthetic_file(tmp_path, levels_db=(0, 10), frames_per_cell=2)


@compatibility("clean")
def test_the_checkpoints_of_a_run_that_has_ended_can_go(
    user: OperatedSweep, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run_folder(tmp_path / "runs", "whole", project=f"local/{PROJECT}")
    monkeypatch.setattr(clean, "time", lambda: time.time() + 10 * 86400)
    ended = user.call("clean", "--runs-dir", str(tmp_path / "runs"), "--json", plain=True)
    assert ended.returncode == 0, ended.stderr
    assert "last.pt" in ended.stdout


@compatibility("without any server")
def test_a_dry_run_a_file_and_the_help_ask_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody answers there
    (tmp_path / "grid.yaml").write_text(GRID)
    recorded = Path(__file__).parents[3] / "sweeps" / "recorded" / "94fqx0gz.yaml"
    for program, arguments in (
        (main, ["create", str(tmp_path / "grid.yaml"), "--dry-run"]),
        (analyze, ["--from", str(recorded), "--json"]),
    ):
        ended = CliRunner().invoke(program, arguments)
        assert ended.exit_code == 0, ended.output


# --- what the embedded server alone has


@compatibility("repeat --in-sweep")
def test_a_run_cannot_be_queued_and_the_other_ways_are_named(user: OperatedSweep) -> None:
    told = refused(user, "repeat", "ours", "--in-sweep", "--seed", "7")
    assert f"{user.plain.base_url} queues no runs in a sweep, so nothing was queued" in told
    assert f"\n  amc-sweep repeat local/{PROJECT}/ours --seed 7\n" in told
    assert f"\n  amc-sweep promote {PATH} --run ours --seeds 1" in told


@compatibility("import")
def test_a_file_cannot_be_imported_and_is_read_without_a_server(user: OperatedSweep) -> None:
    told = refused(user, "import", str(user.folder / "sweep.yaml"))
    assert "other W&B servers import no histories, so nothing was imported" in told
    assert "amc-sweep serve" in told
    assert "amc-analyze --from" in told


@compatibility("backup")
def test_a_backup_needs_the_data_folder_of_an_embedded_server(user: OperatedSweep, tmp_path: Path) -> None:
    ended = user.call("backup", str(tmp_path / "all.tar"), "--data", str(tmp_path), plain=True)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "is not the data folder of a server" in ended.stderr
    assert "amc-sweep export" in ended.stderr


# --- a sweep goes on in ours


def moved(user: OperatedSweep, source: str, other: EmbeddedServer, *, plain: bool) -> Export:
    """Export a sweep and import it into another embedded server."""
    (user.folder / "moved.yaml").unlink(missing_ok=True)
    ended = user.call("export", source, "moved.yaml", plain=plain)
    assert ended.returncode == 0, ended.stderr
    ended = OperatedSweep(other, user.plain, user.folder).call("import", "moved.yaml")
    assert ended.returncode == 0, ended.stderr
    return read((user.folder / "moved.yaml").read_text())


RUNS = """query R($p: String, $s: String!) { project(name: $p) { sweep(sweepName: $s) { state runCount runs { edges {
    node { name state config } } } } } }"""


def sweep_at(server: EmbeddedServer, path: str) -> dict[str, Any]:
    _, project, name = path.split("/")
    node = server.graphql(RUNS, p=project, s=name)["project"]["sweep"]
    runs = [edge["node"] for edge in node["runs"]["edges"]]
    return {**node, "runs": [(json.loads(run["config"])["a"]["value"], run["state"]) for run in runs]}


def drawn(server: EmbeddedServer, project: str, sweep: str, count: int) -> list[dict[str, Any]]:
    """Draw runs as agents do; return their configurations."""
    begin = 'mutation A($p: String, $s: String!) { createAgent(input: {host: "b", projectName: $p, sweep: $s}) { %s } }'
    beat = "mutation H($id: ID!) { agentHeartbeat(input: {id: $id}) { commands } }"
    configs = []
    for _ in range(count):
        agent = server.graphql(begin % "agent { id }", p=project, s=sweep)["createAgent"]["agent"]["id"]
        (command,) = json.loads(server.graphql(beat, id=agent)["agentHeartbeat"]["commands"])
        configs.append({name: entry["value"] for name, entry in command["args"].items()})
    return configs


def import_grid(user: OperatedSweep, sweep: str) -> str:
    """Make a grid of 1 and 2 whose first run has ended, and return its path."""
    config = {**CONFIG, "method": "grid", "parameters": {"a": {"values": [1, 2]}}}
    rows = [{"_step": 0, METRIC: 0.5}]
    run = {"id": f"{sweep}1", "sweep": sweep, "state": "finished", "config": {"a": 1}, "history": rows}
    export = Export("grids", ({"id": sweep, "state": "RUNNING", "config": config},), (run,))
    (user.folder / "grids.yaml").write_text(write(export))
    ended = user.call("import", "grids.yaml")
    assert ended.returncode == 0, ended.stderr
    return f"local/grids/{sweep}"


@compatibility("export")
def test_a_grid_of_another_server_goes_on_in_ours_and_repeats_nothing(user: OperatedSweep, tmp_path: Path) -> None:
    (user.folder / "train.py").write_text("import wandb\nwith wandb.init() as run:\n    run.log({'acc': 1})\n")
    path = import_grid(user, "grid0001")
    with EmbeddedServer(tmp_path / "ours") as ours:
        export = moved(user, path, ours, plain=True)
        assert [(run["config"], len(run["history"])) for run in export.runs] == [({"a": 1}, 1)]
        agent = OperatedSweep(ours, user.plain, user.folder).start("wandb", "agent", path, plain=False)
        said = agent.communicate(timeout=90)[1]
        assert agent.returncode == 0, said
        ended = sweep_at(ours, path)
    assert (ended["state"], ended["runCount"]) == ("FINISHED", 2)
    assert ended["runs"] == [(1, "finished"), (2, "finished")]


@compatibility("export")
def test_a_grid_of_ours_goes_on_in_another_of_ours(user: OperatedSweep, tmp_path: Path) -> None:
    path = import_grid(user, "grid0002")
    with EmbeddedServer(tmp_path / "ours") as ours:
        moved(user, path, ours, plain=False)
        assert drawn(ours, "grids", "grid0002", 1) == [{"a": 2}]


@compatibility("export")
def test_an_exported_bayes_search_knows_its_earlier_runs_in_ours(user: OperatedSweep, tmp_path: Path) -> None:
    sweep = {"id": "bayes001", "state": "RUNNING", "config": BAYES}
    runs = [
        {
            **{"id": f"b{number}", "sweep": "bayes001", "state": "finished", "config": {"x": number / 20}},
            "history": [{"_step": 0, METRIC: 1 - (number / 20 - 0.3) ** 2}],
            "summary": {"end_reason": "completed"},
        }
        for number in range(21)
    ]
    (user.folder / "bayes.yaml").write_text(write(Export("bayes", (sweep,), tuple(runs))))
    assert user.call("import", "bayes.yaml").returncode == 0
    with EmbeddedServer(tmp_path / "ours", options=("--seed", "1")) as ours:
        moved(user, "local/bayes/bayes001", ours, plain=True)
        near = [config["x"] for config in drawn(ours, "bayes", "bayes001", 3)]
    assert all(abs(x - 0.3) < 0.15 for x in near), near
