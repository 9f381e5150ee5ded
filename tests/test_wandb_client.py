"""The real wandb client against the real server, both as processes of their own.

The client keeps one side-car a process tree, and its agents ask for work every five seconds: a scenario does much at
once because each costs seconds.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from embedded_server import EmbeddedServer

pytestmark = pytest.mark.client

TRAIN = """
import os, sys, time, wandb

run = wandb.init()
for epoch in range(int(os.environ.get("EPOCHS", "3"))):
    run.log({"epoch": epoch, "val/acc": run.config["a"] / 10 + epoch / 1000, "broken": float("nan")})
    time.sleep(float(os.environ.get("PAUSE_S", "0.05")))
print("trained with", run.config["a"])
run.finish()
"""
GRID = """
program: train.py
method: grid
metric: {name: val/acc, goal: maximize}
parameters:
  a: {values: [%s]}
"""


class Researcher:
    """A person with a folder, a training script and the wandb client."""

    def __init__(self, folder: Path, server: EmbeddedServer) -> None:
        self.folder = folder
        self._server = server
        self._started: list[subprocess.Popen[bytes]] = []
        (folder / "train.py").write_text(TRAIN)

    def wandb(self, *arguments: str) -> str:
        """Run a wandb command and return what it said."""
        done = subprocess.run(
            ["wandb", *arguments],
            cwd=self.folder,
            env=self._env(),
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def python(self, code: str, *arguments: str) -> Any:
        """Run code against the public API in a process of its own and return the JSON object that it prints."""
        command = [sys.executable, "-c", "import json, sys, wandb\n" + code, *arguments]
        done = subprocess.run(
            command, cwd=self.folder, env=self._env(), capture_output=True, text=True, timeout=90, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))

    def create_sweep(self, config: str) -> str:
        """Register a sweep by the CLI and return ENTITY/PROJECT/ID as it prints it."""
        (self.folder / "sweep.yaml").write_text(config)
        said = self.wandb("sweep", "--project", "demo", "sweep.yaml")
        return said.split("wandb agent ")[1].split()[0]

    def start_agent(self, sweep: str, *options: str, **env: str) -> subprocess.Popen[bytes]:
        """Start ``wandb agent`` in the background."""
        with (self.folder / f"agent{len(self._started)}.log").open("wb") as log:
            agent = subprocess.Popen(
                ["wandb", "agent", *options, sweep],
                cwd=self.folder,
                env=self._env(**env),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._started.append(agent)
        return agent

    def sweep(self, path: str) -> dict[str, Any]:
        """Return a sweep's state and its runs by id, as the API's GraphQL tells them."""
        entity, project, sweep = path.split("/")
        document = """query S($entity: String!, $project: String!, $sweep: String!) {
            project(name: $project, entityName: $entity) { sweep(sweepName: $sweep) { state runs { edges { node {
                name state config exitcode shouldStop stopped stopReason historyLineCount } } } } } }"""
        found = self._server.graphql(document, entity=entity, project=project, sweep=sweep)["project"]["sweep"]
        runs = [edge["node"] for edge in found["runs"]["edges"]]
        for run in runs:
            run["a"] = json.loads(run["config"])["a"]["value"]
        return {"state": found["state"], "runs": {run["name"]: run for run in runs}}

    def end(self) -> None:
        """End every agent and all that it started."""
        for agent in self._started:
            if agent.poll() is None:
                agent.send_signal(signal.SIGKILL)
                agent.wait(timeout=30)
        for pid in trials_in(self.folder):
            os.kill(pid, signal.SIGKILL)

    def _env(self, **more: str) -> dict[str, str]:
        own = {"WANDB_DIR": str(self.folder), "WANDB_SILENT": "false", "WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL": "1"}
        return self._server.environment(**own, **more)


def trials_in(folder: Path) -> list[int]:
    """Return the ids of the training processes that work in a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            arguments = (entry / "cmdline").read_bytes().split(b"\0")
            if b"train.py" in arguments and (entry / "cwd").readlink() == folder:
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def wait_until(true: Callable[[], Any], what: str, seconds: float = 60.0) -> Any:
    """Return the first true answer."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := true():
            return answer
        time.sleep(0.2)
    raise AssertionError(f"waited {seconds:g} s in vain: {what}")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(tmp_path / "data", options=("--limit", "unlisted_s=4")) as running:
        yield running


@pytest.fixture
def researcher(tmp_path: Path, server: EmbeddedServer) -> Iterator[Researcher]:
    folder = tmp_path / "work"
    folder.mkdir()
    person = Researcher(folder, server)
    yield person
    person.end()


def test_two_agents_walk_a_grid_and_the_public_api_reads_every_row(
    server: EmbeddedServer, researcher: Researcher
) -> None:
    assert server.key.startswith("amc-")
    sweep = researcher.create_sweep(GRID % "1, 2, 3")
    agents = [researcher.start_agent(sweep, "--count", count) for count in ("2", "1")]
    for agent in agents:
        assert agent.wait(timeout=90) == 0
    found = researcher.sweep(sweep)
    assert sorted(run["a"] for run in found["runs"].values()) == [1, 2, 3]
    assert {run["state"] for run in found["runs"].values()} == {"finished"}
    wait_until(lambda: researcher.sweep(sweep)["state"] == "FINISHED", "the sweep finishes with its last run")

    read = researcher.python(
        """
api = wandb.Api()
sweep = api.sweep(sys.argv[1])
best = sweep.best_run()
rows = {}
for run in sweep.runs:
    scanned = [row["val/acc"] for row in run.scan_history()]
    assert scanned == [row["val/acc"] for row in run.scan_history(keys=["val/acc"], page_size=2)]
    assert scanned == [row["val/acc"] for row in run.history(pandas=False)]
    assert scanned == [row["val/acc"] for row in run.history(keys=["val/acc"], pandas=False)]
    assert run.lastHistoryStep == 2 and run.metadata["program"].endswith("train.py")
    assert [line.content for line in run.console_logs()][-1] == f"trained with {run.config['a']}"
    rows[run.config["a"]] = scanned
api.run(best.path[0] + "/" + best.path[1] + "/" + best.id).file("config.yaml").download(root="down", replace=True)
print(json.dumps({
    "state": sweep.state, "expected": sweep.expected_run_count, "url": sweep.url, "rows": rows,
    "best": best.config["a"], "summary": best.summary["val/acc"], "nan": str(best.summary["broken"]),
    "projects": [p.name for p in api.projects()], "sweeps": [s.id for s in api.project("demo").sweeps()],
    "filtered": [r.config["a"] for r in api.runs("demo", filters={"config.a": {"$gte": 2}, "state": "finished"},
                                                 order="-summary_metrics.val/acc")],
    "agents": sorted(len(list(agent.runs())) for agent in sweep.agents()),
    "viewer": api.viewer.username, "file": open("down/config.yaml").read(),
}))
""",
        sweep,
    )
    assert read["rows"] == {str(a): [a / 10 + epoch / 1000 for epoch in range(3)] for a in (1, 2, 3)}
    assert (read["state"], read["expected"], read["best"], read["summary"]) == ("FINISHED", 3, 3, 0.302)
    assert read["url"] == f"{server.base_url}/local/demo/sweeps/{sweep.rsplit('/', 1)[1]}"
    assert read["filtered"] == [3, 2]
    assert read["agents"] == [1, 2]
    assert (read["projects"], read["sweeps"]) == (["demo"], [sweep.rsplit("/", 1)[1]])
    assert (read["viewer"], read["nan"]) == ("local", "nan")
    assert "value: 3" in read["file"]


def test_hyperband_ends_a_trial_and_a_killed_one_crashes(researcher: Researcher) -> None:
    early = "early_terminate: {type: hyperband, min_iter: 2, eta: 3, strict: true}\n"
    sweep = researcher.create_sweep(GRID % "3, 1, 2" + early)
    for _ in range(2):  # one after the other, so that the good run has passed the band before the bad one does
        researcher.start_agent(sweep, EPOCHS="120", PAUSE_S="0.4")
        time.sleep(2)

    def runs() -> dict[int, dict[str, Any]]:
        return {run["a"]: run for run in researcher.sweep(sweep)["runs"].values()}

    def stopped() -> dict[str, Any] | None:
        return next((run for run in runs().values() if run["shouldStop"]), None)

    bad = wait_until(stopped, "Hyperband ends the worse run")
    assert (bad["a"], bad["stopReason"]) == (1, "hyperband")
    good = next(pid for pid in trials_in(researcher.folder) if _argument(pid) == "--a=3")
    os.kill(good, signal.SIGKILL)
    wait_until(lambda: runs()[3]["state"] == "crashed", "the killed run crashes", 30)
    assert runs()[3]["exitcode"] is None
    ended = wait_until(lambda: runs()[1]["state"] == "killed" and runs()[1], "the stopped run ends", 40)
    assert ended["exitcode"] == 255  # the client's own after a stop: it said goodbye, with every row sent
    assert ended["historyLineCount"] > 2


def test_a_server_that_is_killed_and_started_again_loses_and_doubles_nothing(
    server: EmbeddedServer, researcher: Researcher
) -> None:
    sweep = researcher.create_sweep(GRID % "1, 2, 3")
    agents = [researcher.start_agent(sweep, EPOCHS="60", PAUSE_S="0.1") for _ in range(2)]

    def rows() -> dict[int, list[float]]:
        found = {}
        for name, run in researcher.sweep(sweep)["runs"].items():
            document = """query H($run: String!) { project(name: "demo", entityName: "local") { run(name: $run) {
                history(minStep: 0, maxStep: 1000000, samples: 100000) } } }"""
            lines = server.graphql(document, run=name)["project"]["run"]["history"]
            found[run["a"]] = [json.loads(line)["epoch"] for line in lines]
        return found

    wait_until(lambda: sum(map(len, rows().values())) > 20, "rows arrive")
    acknowledged = rows()
    server.kill()
    time.sleep(3)
    server.restart()
    assert all(rows()[a][: len(epochs)] == epochs for a, epochs in acknowledged.items())
    for agent in agents:
        assert agent.wait(timeout=120) == 0
    assert rows() == {a: list(range(60)) for a in (1, 2, 3)}
    found = researcher.sweep(sweep)
    assert found["state"] == "FINISHED"
    assert [run["state"] for run in found["runs"].values()] == ["finished"] * 3


def test_the_cli_and_the_api_steer_sweeps_and_runs(researcher: Researcher) -> None:
    sweep = researcher.create_sweep(GRID % "1, 2")
    read = researcher.python(
        """
out = {}
for mode in ("allow", "must"):
    with wandb.init(project="demo", id="mine", resume=mode, config={"x": 1}) as run:
        for value in range(3):
            run.log({"v": value})
    out[mode] = run.resumed
try:
    wandb.init(project="demo", id="mine", resume="never")
except Exception as error:
    out["never"] = type(error).__name__
api = wandb.Api()
run = api.run("demo/mine")
out["steps"] = [row["_step"] for row in run.scan_history()]
run.config["y"] = 2
run.tags, run.notes, run.summary["best"] = ["good"], "a note", 5
run.update()
run = wandb.Api().run("demo/mine")
out["updated"] = [run.state, dict(run.config), run.tags, run.notes, run.summary["best"]]
open("note.txt", "w").write("hello")
out["uploaded"] = run.upload_file("note.txt").download(root="down", replace=True).read()
run.file("note.txt").delete()
out["files"] = [file.name for file in wandb.Api().run("demo/mine").files() if file.name == "note.txt"]
run.delete()
try:
    wandb.Api().run("demo/mine")
except Exception as error:
    out["deleted"] = str(error)
try:
    api.sweep("demo/nothere")
except Exception as error:
    out["no sweep"] = str(error)
sweep = api.sweep(sys.argv[1])
out["queued"] = sweep.enqueue_run({"a": {"value": 9}}) in [run.id for run in wandb.Api().sweep(sys.argv[1]).runs]
print(json.dumps(out))
""",
        sweep,
    )
    assert (read["allow"], read["must"], read["never"]) == (False, True, "UsageError")
    assert read["steps"] == [0, 1, 2, 3, 4, 5]
    assert read["updated"] == ["finished", {"x": 1, "y": 2}, ["good"], "a note", 5]
    assert (read["uploaded"], read["files"], read["queued"]) == ("hello", [], True)
    assert "Could not find run" in read["deleted"]
    assert "Could not find sweep" in read["no sweep"]

    researcher.wandb("sweep", "--stop", sweep)
    assert researcher.sweep(sweep)["state"] == "FINISHED"
    researcher.wandb("sweep", "--resume", sweep)
    assert researcher.sweep(sweep)["state"] == "PENDING"
    researcher.wandb("sweep", "--cancel", sweep)
    assert researcher.sweep(sweep)["state"] == "CANCELED"


def test_a_bad_sweep_is_refused_by_the_cli_with_every_problem(researcher: Researcher) -> None:
    (researcher.folder / "sweep.yaml").write_text("method: gird\nparameters: {a: {min: 2, max: 1}}\nbogus: 1\n")
    with pytest.raises(AssertionError) as refusal:
        researcher.wandb("sweep", "--project", "demo", "sweep.yaml")
    said = str(refusal.value)
    assert "gird" in said
    assert "bogus" in said
    assert "parameters.a" in said
    assert "Traceback" not in said


def _argument(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[2].decode()
