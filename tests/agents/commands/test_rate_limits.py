"""Commands at a server that limits requests (HTTP 429): they wait, say so, and give up in the end."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from embedded_server import EmbeddedServer
from limiting_proxy import LimitingProxy
from operated_sweep import CONFIG, METRIC, PATH, PROJECT, SWEEP_ID, OperatedSweep, ended_runs
from plain_wandb import PlainWandb
from run_folder import run_folder

from amc_agents import doctor
from amc_agents.commands import clean
from amc_analysis.cli import main as analyze
from amc_core.config import TrialConfig
from amc_sweeps.backend import patience
from amc_sweeps.runs.export_file import Export, write

pytestmark = [pytest.mark.client, pytest.mark.compatibility("rate limits")]

GRID = {**CONFIG, "method": "grid", "parameters": {"a": {"values": [1, 2]}}}
NARROWER = {**CONFIG, "parameters": {"lr": {"values": [0.2, 0.3]}, "epochs": {"value": 6}}}
TRIALS = {
    **CONFIG,
    "program": "amc-train",
    "command": ["${env}", "${program}", "${args}"],
    "parameters": {"max_lr": {"values": [0.001, 0.002]}, "patience": {"value": None}},
}
COMMANDS: list[tuple[str, ...]] = [
    ("list",),
    ("status", SWEEP_ID),
    ("next", PATH),  # now the sweep runs
    ("pause", PATH),
    ("resume", SWEEP_ID),
    ("export", PATH, "limited.yaml"),
    ("launch", "slurm", PATH, "--agents", "2", "--time", "1:00:00", "--dry-run"),
]


@dataclass(frozen=True)
class Case:
    """A command, and what it leaves at the server."""

    arguments: tuple[str, ...]
    limited: bytes  # only requests with this are refused
    done: int  # sweeps, configs and runs that are new when the command has gone through
    half: int = 0  # those that are new when it has given up
    plain: bool = False  # at another W&B than ours
    gives_up: bool = True  # not tried with wandb.sweep: five requests, with a timeout that wandb reads at its import


CASES = {
    "create": Case(("create", "grid.yaml", "--project", "limits"), b"", done=1, plain=True, gives_up=False),
    "update": Case(("update", "local/limits/updated", "narrower.yaml", "--yes"), b"expectedConfig", done=1),
    "promote": Case(("promote", "local/limits/elsewhere", "--top", "1"), b"", done=1, plain=True, gives_up=False),
    "promote, queued": Case(("promote", "local/limits/promoted", "--top", "1"), b"-seed-2", half=1, done=3),
    "repeat": Case(("repeat", "local/limits/repeated1", "--in-sweep", "--count", "2"), b"-seed-2", half=1, done=2),
    "next": Case(("next", "local/limits/handed"), b"gentHeartbeat", done=1),
    "export": Case(("export", "local/limits/promoted", "gave-up.yaml"), b"istory", done=0, plain=True),
    "list": Case(("list", PROJECT), b"ListedSweeps", done=0, plain=True),
}


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatedSweep]:
    """A person with sweeps to steer, at another W&B or at ours."""
    folder = tmp_path_factory.mktemp("limited")
    for name, config in ("grid", GRID), ("narrower", NARROWER):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
    with EmbeddedServer(folder / "data") as server, PlainWandb(server) as plain:
        operated = OperatedSweep(server, plain, folder)
        operated.import_runs(ended_runs())
        configs = dict.fromkeys(("elsewhere", "promoted", "repeated"), TRIALS) | {"updated": CONFIG, "handed": GRID}
        sweeps = [{"id": name, "state": "RUNNING", "config": config} for name, config in configs.items()]
        runs = [run for name, config in configs.items() if config is TRIALS for run in trials(name)]
        (folder / "limits.yaml").write_text(write(Export("limits", tuple(sweeps), tuple(runs))))
        ended = operated.call("import", "limits.yaml")
        assert ended.returncode == 0, ended.stderr
        yield operated


def trials(sweep: str) -> list[dict[str, Any]]:
    """Return two runs of amc-train that have ended."""
    return [
        {
            **{"id": f"{sweep}{number}", "sweep": sweep, "state": "finished", "exit_code": 0},
            "config": TrialConfig.from_mapping({"max_lr": number / 1000, "patience": None}).to_mapping(),
            "history": [{"_step": 0, "epoch": 1, METRIC: 0.5 + number / 10}],
            "summary": {"end_reason": "completed"},
        }
        for number in (1, 2)
    ]


STORED = """{ project(name: "limits") { sweeps { edges { node { name config
    runs { edges { node { name } } } } } } } }"""


def stored(user: OperatedSweep) -> set[tuple[str, ...]]:
    """Return every sweep with its config, and every run."""
    sweeps = [edge["node"] for edge in user.server.graphql(STORED)["project"]["sweeps"]["edges"]]
    runs = {(s["name"], edge["node"]["name"]) for s in sweeps for edge in s["runs"]["edges"]}
    return runs | {("config of", s["name"], s["config"]) for s in sweeps}


def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "PATIENCE_S", 1.0)
    monkeypatch.setattr(patience, "FIRST_WORD_S", 0.3)


@pytest.mark.parametrize("name", CASES)
def test_a_command_gives_up_and_a_second_one_loses_and_doubles_nothing(
    user: OperatedSweep, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    case, before = CASES[name], stored(user)
    server, arguments = user.plain if case.plain else user.server, case.arguments
    if case.gives_up:
        error = gives_up(user, monkeypatch, case)
        assert len(stored(user) - before) == case.half, error
        assert name != "export" or not (user.folder / "gave-up.yaml").exists(), "half a file"
        if name == "repeat":  # else the first seed would be queued once more
            (line,) = re.findall(r"amc-sweep (repeat .*)", error)
            arguments = tuple(line.split())
    with LimitingProxy(server.base_url, lambda *_: True, retry_after="0") as proxy:
        ended = user.call(*arguments, "--base-url", proxy.base_url, plain=case.plain)
    assert ended.returncode == 0, ended.stderr
    assert len(proxy.refused) > 1
    assert len(stored(user) - before) == case.done, ended.stderr


def gives_up(user: OperatedSweep, monkeypatch: pytest.MonkeyPatch, case: Case) -> str:
    """Run the command at a server that always refuses it, and return what it wrote to stderr."""
    server = user.plain if case.plain else user.server
    with monkeypatch.context() as patched:
        impatient(patched)
        refuses: Callable[[str, bytes], bool] = lambda _, body: case.limited in body  # noqa: E731
        with LimitingProxy(server.base_url, refuses, retry_after="30", always=True) as proxy:
            begin = time.monotonic()
            ended = user.call(*case.arguments, "--base-url", proxy.base_url, plain=case.plain)
            assert time.monotonic() - begin < 15
    assert ended.returncode == 1, ended.stderr
    assert f"no answer from {proxy.base_url} for " in ended.stderr
    assert f"{proxy.base_url} has not answered for 1 s, although the request was repeated" in ended.stderr
    assert "limits requests (HTTP 429)" in ended.stderr
    return ended.stderr


def test_clean_removes_nothing_before_the_server_has_said_which_runs_have_ended(
    user: OperatedSweep, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = run_folder(tmp_path / "runs", "promoted1", project="local/limits")
    monkeypatch.setattr(clean, "time", lambda: time.time() + 10 * 86400)
    command = ("clean", "--runs-dir", str(tmp_path / "runs"), "--yes")
    with monkeypatch.context() as patched:
        impatient(patched)
        with LimitingProxy(user.plain.base_url, lambda _, body: b"RunsOfFolders" in body, "30", always=True) as proxy:
            ended = user.call(*command, "--base-url", proxy.base_url, plain=True)
    assert (ended.returncode, (folder / "last.pt").exists()) == (1, True), ended.stderr
    assert "1 folder in" in ended.stderr
    assert f"{proxy.base_url} has not answered for 1 s, although the request was repeated" in ended.stderr
    with LimitingProxy(user.plain.base_url, lambda *_: True, "0") as proxy:
        ended = user.call(*command, "--base-url", proxy.base_url, plain=True)
    assert (ended.returncode, (folder / "last.pt").exists()) == (0, False), ended.stderr


def test_the_doctor_says_that_the_server_limits_requests(user: OperatedSweep, monkeypatch: pytest.MonkeyPatch) -> None:
    def found(refuses: Callable[[str, bytes], bool], retry_after: str, *, always: bool) -> dict[str, str]:
        with LimitingProxy(user.plain.base_url, refuses, retry_after, always=always) as proxy:
            ended = user.call("doctor", "--json", "--base-url", proxy.base_url, plain=True)
        (check,) = [check for check in json.loads(ended.stdout)["checks"] if check["name"] == "W&B"]
        return dict(check)

    monkeypatch.setattr(doctor, "torch_facts", lambda: doctor.TorchFacts("2", None, ()))
    assert found(lambda *_: True, "0", always=False)["verdict"] == "pass"
    impatient(monkeypatch)
    check = found(lambda _, body: b"iewer" in body, "30", always=True)
    assert check["verdict"] == "fail"
    assert "has not answered for 1 s" in check["message"]
    assert "limits requests (HTTP 429)" in check["message"]
    assert "relogin" not in check["remedy"], "another key would not help"


def test_every_command_survives_that_each_of_its_requests_is_refused_once(
    user: OperatedSweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amc_agents.commands.launch._own_command", lambda: Path("/opt/amc/bin/amc-sweep"))
    (user.folder / "limited.yaml").unlink(missing_ok=True)
    with LimitingProxy(user.plain.base_url, lambda *_: True, retry_after="0") as proxy:
        for arguments in COMMANDS:
            before = len(proxy.refused)
            ended = user.call(*arguments, "--base-url", proxy.base_url, plain=True)
            assert ended.returncode == 0, (arguments, ended.stderr)
            assert len(proxy.refused) > before, arguments
        ended = user.call(SWEEP_ID, "--base-url", proxy.base_url, "--no-cache", plain=True, program=analyze)
        assert ended.returncode == 0, ended.stderr


def test_a_command_says_that_it_waits_as_long_as_it_is_told(
    user: OperatedSweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "FIRST_WORD_S", 0.3)
    with LimitingProxy(user.plain.base_url, lambda _, body: b"ListedSweeps" in body, retry_after="1") as proxy:
        ended = user.call("list", PROJECT, "--base-url", proxy.base_url, plain=True)
        assert ended.returncode == 0, ended.stderr
        assert f"no answer from {proxy.base_url} for " in ended.stderr
        assert "limit requests (HTTP 429)" in ended.stderr
        assert min(proxy.waits_s()) >= 1.0


@pytest.mark.parametrize("status", [500, 502, 503])
def test_a_command_survives_a_fault_of_the_server(user: OperatedSweep, status: int) -> None:
    refuses: Callable[[str, bytes], bool] = lambda _, body: b"ListedSweeps" in body  # noqa: E731
    with LimitingProxy(user.plain.base_url, refuses, retry_after="0", status=status) as proxy:
        ended = user.call("list", PROJECT, "--base-url", proxy.base_url, plain=True)
    assert (ended.returncode, len(proxy.refused)) == (0, 1), ended.stderr


def test_the_embedded_server_behind_a_limiting_gateway_is_found_and_imports(
    user: OperatedSweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LimitingProxy(user.server.base_url, lambda *_: True, retry_after="0") as proxy:
        ended = user.call("import", str(user.folder / "sweep.yaml"), "--base-url", proxy.base_url)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count(f"{proxy.base_url} limits requests (HTTP 429): waiting 0 s") == 2
    monkeypatch.setattr(patience, "PATIENCE_S", 5.0)
    with LimitingProxy(user.server.base_url, lambda *_: True, retry_after="60", always=True) as proxy:
        ended = user.call("list", "--base-url", proxy.base_url)
    assert ended.returncode == 2
    assert "asks to wait 1 min more. Gave up after 0 s, because 5 s is the longest wait" in ended.stderr
    assert re.search(r"Repeat this later\. The server said: .*rate limit exceeded", ended.stderr)
