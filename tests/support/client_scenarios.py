"""Scenarios of the real wandb client in a sweep. Each has a moment in the middle where a test may disturb it.

The client starts one wandb-core a process tree, and its agents send a heartbeat every five seconds. A scenario costs
seconds, so it does many things.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from embedded_server import EmbeddedServer

from amc_sweeps.runs.export_file import differing_fields
from amc_sweeps.runs.export_file import read as read_export

Disturbance = Callable[[], None]

PREAMBLE = """
import json, os, sys, time, wandb
def middle():
    open("middle", "w").close()
    while not os.path.exists("go"):
        time.sleep(0.05)
"""
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
# Tests cannot reach W&B's cloud. This server has only what the plain public API asks for.
PLAIN_API = """
from amc_server.graphql.execution import SCHEMA
for name in "exitcode host shouldStop failed stopped running stopReason stopBand stopValue stopThreshold".split():
    del SCHEMA.type_map["Run"].fields[name]
for name in ("stateWhenExported", "unknownFacts"):
    del SCHEMA.type_map["Run"].fields[name]
for name in ("unknownFacts", "seed", "shuffle"):
    del SCHEMA.type_map["Sweep"].fields[name]
"""


class Researcher:
    """A person with a folder, a training script and the wandb client."""

    def __init__(self, folder: Path, server: EmbeddedServer) -> None:
        self.folder = folder
        self.server = server
        self._started: list[subprocess.Popen[bytes]] = []
        (folder / "train.py").write_text(TRAIN)

    def wandb(self, *arguments: str, **env: str) -> str:
        """Run a wandb command and return its output."""
        return self.command("wandb", *arguments, **env)

    def command(self, *command: str, **env: str) -> str:
        """Run a command and return its output."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self._env(**env),
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def python(self, code: str, *arguments: str, meanwhile: Callable[[], None] | None = None, **env: str) -> Any:
        """Run code against the public API in a process of its own and return the JSON object that it prints.

        When the code calls ``middle()``, it waits until ``meanwhile`` has returned.
        """
        for name in ("middle", "go"):
            (self.folder / name).unlink(missing_ok=True)
        command = [sys.executable, "-c", PREAMBLE + code, *arguments]
        output = self.folder / "python.log"
        with output.open("w") as log:
            process = subprocess.Popen(command, cwd=self.folder, env=self._env(**env), stdout=log, stderr=log)
        try:
            if meanwhile is not None:
                wait_until(lambda: (self.folder / "middle").exists() or process.poll() is not None, "the middle", 90)
                assert process.poll() is None, output.read_text()
                meanwhile()
                (self.folder / "go").touch()
            assert process.wait(timeout=120) == 0, output.read_text()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        return json.loads(next(line for line in output.read_text().splitlines() if line.startswith("{")))

    def create_sweep(self, config: str) -> str:
        """Register a sweep by the CLI and return ENTITY/PROJECT/ID as it prints it."""
        (self.folder / "sweep.yaml").write_text(config)
        output = self.wandb("sweep", "--project", "demo", "sweep.yaml")
        return output.split("wandb agent ")[1].split()[0]

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
        """Return a sweep's state and its runs by id, from the API's GraphQL."""
        entity, project, sweep = path.split("/")
        document = """query S($entity: String!, $project: String!, $sweep: String!) {
            project(name: $project, entityName: $entity) { sweep(sweepName: $sweep) { state runs { edges { node {
                name state config exitcode shouldStop stopped stopReason historyLineCount } } } } } }"""
        node = self.server.graphql(document, entity=entity, project=project, sweep=sweep)["project"]["sweep"]
        runs = [edge["node"] for edge in node["runs"]["edges"]]
        for run in runs:
            run["a"] = json.loads(run["config"]).get("a", {}).get("value")
        return {"state": node["state"], "runs": {run["name"]: run for run in runs}}

    def end(self) -> None:
        """Kill every agent and its trials."""
        for agent in self._started:
            if agent.poll() is None:
                agent.send_signal(signal.SIGKILL)
                agent.wait(timeout=30)
        for pid in trials_in(self.folder):
            os.kill(pid, signal.SIGKILL)

    def _env(self, **more: str) -> dict[str, str]:
        own = {"WANDB_DIR": str(self.folder), "WANDB_SILENT": "false", "WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL": "1"}
        return self.server.environment(**{**own, **more})


def trials_in(folder: Path) -> list[int]:
    """Return the ids of the training processes that work in a folder."""
    pids = []
    for entry in Path("/proc").iterdir():
        try:
            arguments = (entry / "cmdline").read_bytes().split(b"\0")
            if b"train.py" in arguments and (entry / "cwd").readlink() == folder:
                pids.append(int(entry.name))
        except OSError:
            continue
    return pids


def wait_until(condition: Callable[[], Any], event: str, seconds: float = 60.0) -> Any:
    """Return the first true result of the condition."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if result := condition():
            return result
        time.sleep(0.2)
    raise AssertionError(f"waited {seconds:g} s, but never: {event}")


def two_agents_walk_a_grid_and_the_public_api_reads_every_row(researcher: Researcher, disturb: Disturbance) -> None:
    server = researcher.server
    assert server.key.startswith("amc-")
    sweep = researcher.create_sweep(GRID % "1, 2, 3")
    agents = [researcher.start_agent(sweep, "--count", count) for count in ("2", "1")]
    wait_until(lambda: researcher.sweep(sweep)["runs"], "a run is handed out")
    disturb()
    for agent in agents:
        assert agent.wait(timeout=150) == 0
    ended = researcher.sweep(sweep)
    assert sorted(run["a"] for run in ended["runs"].values()) == [1, 2, 3]
    assert {run["state"] for run in ended["runs"].values()} == {"finished"}
    wait_until(lambda: researcher.sweep(sweep)["state"] == "FINISHED", "the sweep finishes with its last run")

    read = researcher.python(
        """
api = wandb.Api()
sweep = api.sweep(sys.argv[1])
best = sweep.best_run()
rows = {}
middle()
for run in sweep.runs:
    scanned = [row["val/acc"] for row in run.scan_history()]
    assert scanned == [row["val/acc"] for row in run.scan_history(keys=["val/acc"], page_size=2)]
    assert scanned == [row["val/acc"] for row in run.history(pandas=False)]
    assert scanned == [row["val/acc"] for row in run.history(keys=["val/acc"], pandas=False)]
    system = run.history(stream="system", pandas=False)
    assert system and "system.memory_percent" in system[0] and run.system_metrics, system
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
    "every operator": [r.config["a"] for r in api.runs("demo", filters={"$and": [
        {"config.a": {"$in": [1, 2, 3, 4], "$nin": [4], "$ne": 5, "$gt": 0, "$lt": 9, "$lte": 3}},
        {"$or": [{"summary_metrics.val/acc": {"$gte": 0.25}}, {"summary_metrics.epoch": {"$exists": False}},
                 {"$not": {"config.a": {"$gt": 1}}}]},
        {"displayName": {"$regex": "-sweep-[0-9]+$"}, "config.nothing": {"$exists": False}},
    ]}, order="+config.a.value")],
    "agents": sorted(len(list(agent.runs())) for agent in sweep.agents()),
    "viewer": api.viewer.username, "file": open("down/config.yaml").read(),
}))
""",
        sweep,
        meanwhile=disturb,
    )
    assert read["rows"] == {str(a): [a / 10 + epoch / 1000 for epoch in range(3)] for a in (1, 2, 3)}
    assert (read["state"], read["expected"], read["best"], read["summary"]) == ("FINISHED", 3, 3, 0.302)
    assert read["url"] == f"{server.base_url}/local/demo/sweeps/{sweep.rsplit('/', 1)[1]}"
    assert (read["filtered"], read["every operator"]) == ([3, 2], [1, 3])
    assert read["agents"] == [1, 2]
    assert (read["projects"], read["sweeps"]) == (["demo"], [sweep.rsplit("/", 1)[1]])
    assert (read["viewer"], read["nan"]) == ("local", "NaN")
    assert "value: 3" in read["file"]


def hyperband_ends_a_trial_and_a_killed_one_crashes(researcher: Researcher, disturb: Disturbance) -> None:
    early = "early_terminate: {type: hyperband, min_iter: 2, eta: 3, strict: true}\n"
    sweep = researcher.create_sweep(GRID % "3, 1, 2" + early)
    for _ in range(2):  # in turn, so that the good run passes the band before the bad run
        researcher.start_agent(sweep, EPOCHS="120", PAUSE_S="0.4")
        time.sleep(2)
    disturb()

    def runs() -> dict[int, dict[str, Any]]:
        return {run["a"]: run for run in researcher.sweep(sweep)["runs"].values()}

    def stopped() -> dict[str, Any] | None:
        return next((run for run in runs().values() if run["shouldStop"]), None)

    bad = wait_until(stopped, "Hyperband ends the worse run", 90)
    assert (bad["a"], bad["stopReason"]) == (1, "hyperband")
    good = next(pid for pid in trials_in(researcher.folder) if _argument(pid) == "--a=3")
    os.kill(good, signal.SIGKILL)
    wait_until(lambda: runs()[3]["state"] == "crashed", "the killed run crashes", 30)
    assert runs()[3]["exitcode"] is None
    ended = wait_until(lambda: runs()[1]["state"] == "killed" and runs()[1], "the stopped run ends", 40)
    # The client exits with 255 after a stop, with every row sent. On a busy machine it may miss the stop for 30 s, and
    # then its agent's SIGTERM ends it without a last post.
    assert ended["exitcode"] in (255, None)
    assert ended["historyLineCount"] > 2


def the_cli_and_the_api_steer_sweeps_and_runs(researcher: Researcher, disturb: Disturbance) -> None:
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
middle()
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
        meanwhile=disturb,
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


def a_function_agent_runs_trials_in_its_own_process(researcher: Researcher, disturb: Disturbance) -> None:
    sweep = researcher.create_sweep(GRID % "1, 2")
    read = researcher.python(
        """
seen = []
def train():
    with wandb.init() as run:
        run.log({"val/acc": run.config["a"] / 10})
        if not seen:
            middle()
        seen.append(run.config["a"])
        run.log({"val/acc": run.config["a"] / 5})
wandb.Api().sweep(sys.argv[1]).enqueue_run({"a": {"value": 7}})
wandb.agent(sys.argv[1], train, count=3)
print(json.dumps({"seen": seen}))
""",
        sweep,
        meanwhile=disturb,
    )
    assert read["seen"][0] == 7, "the queued run comes first"
    assert sorted(read["seen"]) == [1, 2, 7]
    runs = researcher.sweep(sweep)["runs"].values()
    assert [(run["state"], run["historyLineCount"]) for run in runs] == [("finished", 2)] * 3


def an_offline_run_arrives_by_sync(researcher: Researcher, disturb: Disturbance) -> None:
    researcher.python(
        """
with wandb.init(project="demo", id="far", config={"lr": 0.5}) as run:
    for step in range(30):
        run.log({"v": step})
    print("printed offline")
print(json.dumps({}))
""",
        WANDB_MODE="offline",
    )
    (folder,) = (researcher.folder / "wandb").glob("offline-run-*-far")
    disturb()
    researcher.wandb("sync", str(folder), WANDB_MODE="online")
    disturb()
    researcher.wandb("sync", "--include-synced", str(folder), WANDB_MODE="online")  # a second time: nothing is doubled
    read = researcher.python(
        """
run = wandb.Api().run("demo/far")
print(json.dumps({"v": [row["v"] for row in run.scan_history()], "config": dict(run.config), "state": run.state}))
"""
    )
    assert read == {"v": list(range(30)), "config": {"lr": 0.5}, "state": "finished"}


def a_paused_sweep_hands_out_nothing_until_it_is_resumed(researcher: Researcher, disturb: Disturbance) -> None:
    sweep = researcher.create_sweep(GRID % "1, 2")
    agent = researcher.start_agent(sweep, EPOCHS="20", PAUSE_S="0.1")
    wait_until(lambda: researcher.sweep(sweep)["runs"], "the first run is handed out")
    researcher.wandb("sweep", "--pause", sweep)
    wait_until(
        lambda: [run["state"] for run in researcher.sweep(sweep)["runs"].values()] == ["finished"], "it ends in peace"
    )
    disturb()
    time.sleep(7)  # meanwhile the agent sends another heartbeat
    paused = researcher.sweep(sweep)
    assert (paused["state"], len(paused["runs"]), agent.poll()) == ("PAUSED", 1, None)
    researcher.wandb("sweep", "--resume", sweep)
    assert agent.wait(timeout=90) == 0
    assert [run["a"] for run in researcher.sweep(sweep)["runs"].values()] == [1, 2]


def earlier_runs_join_a_sweep_and_its_file_can_be_changed(researcher: Researcher, disturb: Disturbance) -> None:
    researcher.python(
        """
for number in (1, 2):
    with wandb.init(project="demo", id=f"prior{number}", config={"a": number}) as run:
        run.log({"val/acc": number / 10})
print(json.dumps({}))
"""
    )
    (researcher.folder / "sweep.yaml").write_text(GRID % "1, 2, 3")
    priors = ("-R", "prior1", "-R", "demo/prior2")
    output = researcher.wandb("sweep", "--project", "demo", *priors, "-R", "nosuch", "sweep.yaml")
    assert "prior run nosuch: project demo has no such run" in output
    sweep = output.split("wandb agent ")[1].split()[0]
    assert sorted(researcher.sweep(sweep)["runs"]) == ["prior1", "prior2"]
    researcher.wandb("sweep", "--project", "demo", *priors, "sweep.yaml")
    assert sorted(researcher.sweep(sweep)["runs"]) == ["prior1", "prior2"], "another sweep learns from them, too"
    disturb()
    (researcher.folder / "sweep.yaml").write_text(GRID % "1, 2, 3, 4")
    researcher.wandb("sweep", "--update", sweep, "sweep.yaml")
    disturb()
    assert researcher.start_agent(sweep).wait(timeout=90) == 0
    assert sorted(run["a"] for run in researcher.sweep(sweep)["runs"].values()) == [1, 2, 3, 4], "no point came twice"


def a_checkpoint_is_logged_used_and_downloaded(researcher: Researcher, disturb: Disturbance) -> None:
    read = researcher.python(
        """
import hashlib, pathlib
def checkpoint(seed):
    data = bytes(range(256)) * 4000 + bytes([seed])
    pathlib.Path("best.pt").write_bytes(data)
    artifact = wandb.Artifact("model", type="model", metadata={"epoch": seed})
    artifact.add_file("best.pt")
    return artifact, hashlib.sha256(data).hexdigest()
out = {}
with wandb.init(project="demo", id="train") as run:
    first, digest = checkpoint(1)
    out["version"] = run.log_artifact(first, aliases=["best"]).wait().version
    middle()
    out["again"] = run.log_artifact(checkpoint(1)[0]).wait().version
    out["second"] = run.log_artifact(checkpoint(2)[0]).wait().version
with wandb.init(project="demo", id="use") as run:
    used = run.use_artifact("model:best")
    path = pathlib.Path(used.download(root="down", skip_cache=True)) / "best.pt"
    out["whole"] = hashlib.sha256(path.read_bytes()).hexdigest() == digest
    out["metadata"] = used.metadata
api = wandb.Api()
out["logged"] = [artifact.name for artifact in api.run("demo/train").logged_artifacts()]
out["used"] = [artifact.name for artifact in api.run("demo/use").used_artifacts()]
latest = api.artifact("demo/model:latest")
out["latest"] = [latest.version, latest.size, latest.logged_by().id, [file.name for file in latest.files()]]
out["versions"] = [artifact.version for artifact in api.artifacts("model", "demo/model")]
latest.delete(delete_aliases=True)
out["left"] = wandb.Api().artifact("demo/model:latest").version
print(json.dumps(out))
""",
        meanwhile=disturb,
    )
    assert (read["version"], read["again"], read["second"]) == ("v0", "v0", "v1")
    assert (read["whole"], read["metadata"]) == (True, {"epoch": 1})
    assert (read["logged"], read["used"]) == (["model:v0", "model:v1"], ["model:v0"])
    assert read["latest"] == ["v1", 1024001, "train", ["best.pt"]]
    assert (read["versions"], read["left"]) == (["v1", "v0"], "v0")


def an_exported_sweep_is_the_same_in_another_project(researcher: Researcher, disturb: Disturbance) -> None:
    sweep = researcher.create_sweep(GRID % "1, 2")
    researcher.python(
        """
def train():
    with wandb.init() as run:
        for epoch in range(3):
            run.log({"epoch": epoch, "val/acc": run.config["a"] / 10, "broken": float("nan")})
wandb.agent(sys.argv[1], train, count=2)
print(json.dumps({}))
""",
        sweep,
    )
    wait_until(lambda: researcher.sweep(sweep)["state"] == "FINISHED", "the sweep finishes")
    amc_sweep = (sys.executable, "-c", "from amc_agents.commands import main; main()")
    researcher.command(*amc_sweep, "export", "demo", "demo.yaml", "--base-url", researcher.server.base_url)
    disturb()
    export = read_export((researcher.folder / "demo.yaml").read_text())
    assert [len(run["history"]) for run in export.runs] == [3, 3]
    assert [run["exit_code"] for run in export.runs] == [0, 0]
    assert all(math.isnan(row["broken"]) for run in export.runs for row in run["history"])
    output = researcher.command(*amc_sweep, "import", "demo.yaml", "--base-url", researcher.server.base_url)
    assert "0 new sweeps, 0 new runs, 3 unchanged" in output
    for prelude, extras in (("", True), (PLAIN_API, False)):
        with EmbeddedServer(researcher.folder / f"other-{extras}", prelude=prelude) as other:
            environment = {"WANDB_BASE_URL": other.base_url, "WANDB_API_KEY": other.key}
            researcher.command(*amc_sweep, "import", "demo.yaml", **environment)
            file = f"again-{extras}.yaml"
            researcher.command(*amc_sweep, "export", sweep.rsplit("/", 1)[1], file, **environment)
        copy = read_export((researcher.folder / file).read_text())
        pairs = zip(export.sweeps + export.runs, copy.sweeps + copy.runs, strict=True)
        assert [differing_fields(original, imported) for original, imported in pairs] == [[]] * 3
        assert all(("exit_code" in run) is extras for run in copy.runs), "what the plain API lacks is unknown"
        output = researcher.command(*amc_sweep, "import", file, "--base-url", researcher.server.base_url)
        assert "0 new sweeps, 0 new runs, 3 unchanged" in output
    refused = subprocess.run(
        [*amc_sweep, "export", "demo", "demo.yaml"],
        cwd=researcher.folder,
        env=researcher.server.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (refused.returncode, "not overwritten" in refused.stderr) == (2, True)


Scenario = Callable[[Researcher, Disturbance], None]

QUICK: tuple[Scenario, ...] = (
    two_agents_walk_a_grid_and_the_public_api_reads_every_row,
    hyperband_ends_a_trial_and_a_killed_one_crashes,
    the_cli_and_the_api_steer_sweeps_and_runs,
    a_function_agent_runs_trials_in_its_own_process,
    an_offline_run_arrives_by_sync,
    a_checkpoint_is_logged_used_and_downloaded,
    an_exported_sweep_is_the_same_in_another_project,
)
SLOW: tuple[Scenario, ...] = (  # half a minute each, mostly waiting agents
    a_paused_sweep_hands_out_nothing_until_it_is_resumed,
    earlier_runs_join_a_sweep_and_its_file_can_be_changed,
)


def _argument(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[2].decode()
