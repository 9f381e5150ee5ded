"""What every supported version of the wandb client must be able to do. Runs under the client's own interpreter.

``python client_features.py FEATURE`` works in an empty folder against the server that the environment names. It ends
with 0 if the feature works, and with a traceback otherwise. It imports nothing but wandb and the standard library.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import wandb

PROJECT = "clients"
VERSION = wandb.__version__
SWEEP: dict[str, Any] = {
    "program": "train.py",
    "method": "grid",
    "metric": {"name": "acc", "goal": "maximize"},
    "parameters": {"a": {"values": [1, 2]}},
}
TRAIN = """
import wandb
with wandb.init() as run:
    for epoch in range(3):
        run.log({"epoch": epoch, "acc": run.config["a"] / 10 + epoch / 100})
"""


def name(feature: str) -> str:
    """Return a run's id that no other feature and version uses."""
    return f"{feature}-{VERSION.replace('.', '-')}"


def read(run_id: str) -> Any:
    """Return a run as a new client of the public API sees it."""
    return wandb.Api().run(f"local/{PROJECT}/{run_id}")


def rows(run_id: str, key: str) -> list[Any]:
    """Return the values of a key in a run's whole history."""
    return [row[key] for row in read(run_id).scan_history(keys=[key])]


def cli(*arguments: str, **env: str) -> str:
    """Run a wandb command and return what it prints."""
    command = [sys.executable, "-m", "wandb", *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"} | env
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def init_and_log() -> None:
    with wandb.init(project=PROJECT, id=name("log"), config={"lr": 0.5, "net": {"depth": 3}}, tags=["t"]) as run:
        for step in range(20):
            run.log({"v": step, "nested": {"w": step / 2}})
        run.summary["best"] = 19
    assert rows(name("log"), "v") == list(range(20))
    assert rows(name("log"), "nested.w") == [step / 2 for step in range(20)]


def resume() -> None:
    run_id = name("resume")
    for mode, resumed in (("allow", False), ("must", True), ("allow", True)):
        with wandb.init(project=PROJECT, id=run_id, resume=mode) as run:
            assert run.resumed is resumed, mode
            for value in range(3):
                run.log({"v": value})
    assert rows(run_id, "_step") == list(range(9))
    for other_id, mode in ((run_id, "never"), (name("nowhere"), "must")):
        try:
            wandb.init(project=PROJECT, id=other_id, resume=mode)
        except (wandb.errors.UsageError, wandb.errors.CommError):
            continue
        raise AssertionError(f"resume={mode} of {other_id} was not refused")


def check_sweep(sweep_id: str) -> None:
    """Check that a sweep ran both configurations whole."""
    sweep = wandb.Api().sweep(f"local/{PROJECT}/{sweep_id}")
    assert sweep.state == "FINISHED", sweep.state
    runs = [read(run.id) for run in sweep.runs]  # listed lazily, a run has an empty config in wandb 0.25
    assert sorted(run.config["a"] for run in runs) == [1, 2], [run.config for run in runs]
    assert [run.state for run in runs] == ["finished"] * 2, [run.state for run in runs]
    assert all(len(list(run.scan_history())) == 3 for run in runs)
    assert read(sweep.best_run().id).config["a"] == 2


def sweep_with_cli_agent() -> None:
    Path("train.py").write_text(TRAIN)
    Path("sweep.yaml").write_text(
        "program: train.py\nmethod: grid\nmetric: {name: acc, goal: maximize}\nparameters: {a: {values: [1, 2]}}\n"
        f"command: [{sys.executable}, '${{program}}', '${{args}}']\n"
    )
    sweep = cli("sweep", "--project", PROJECT, "sweep.yaml").split("wandb agent ")[1].split()[0]
    cli("agent", sweep)
    check_sweep(sweep.rsplit("/", 1)[1])


def sweep_with_function_agent() -> None:
    sweep_id = wandb.sweep(SWEEP, project=PROJECT)
    wandb.agent(sweep_id, lambda: exec(TRAIN, {}), project=PROJECT)
    check_sweep(sweep_id)


def public_api() -> None:
    run_id = name("api")
    with wandb.init(project=PROJECT, id=run_id, group=VERSION, config={"lr": 0.5, "net": {"depth": 3}}) as run:
        for step in range(5):
            run.log({"v": step})
    run = read(run_id)
    assert (run.state, run.id, run.group) == ("finished", run_id, VERSION), run.state
    assert (run.config["lr"], run.config["net"], run.summary["v"]) == (0.5, {"depth": 3}, 4)
    assert [row["v"] for row in run.history(pandas=False)] == list(range(5))
    assert [row["v"] for row in run.history(keys=["v"], pandas=False)] == list(range(5))
    assert [row["v"] for row in run.scan_history(page_size=2)] == list(range(5))
    assert [row["v"] for row in run.scan_history(keys=["v"], page_size=2, min_step=1)] == [1, 2, 3, 4]
    found = wandb.Api().runs(
        f"local/{PROJECT}", filters={"config.lr": 0.5, "group": VERSION}, order="-summary_metrics.v"
    )
    assert [run.id for run in found] == [run_id]
    run.config["lr"] = 0.25
    run.summary["best"] = 5
    run.tags, run.notes = ["good"], "a note"
    run.update()
    run = read(run_id)
    assert (run.config["lr"], run.summary["best"], run.tags, run.notes) == (0.25, 5, ["good"], "a note")
    assert PROJECT in [project.name for project in wandb.Api().projects("local")]
    run.delete()
    try:
        read(run_id)
    except (ValueError, wandb.errors.CommError):
        return
    raise AssertionError("the deleted run is still there")


def files() -> None:
    Path("note.txt").write_text("hello")
    with wandb.init(project=PROJECT, id=name("files")) as run:
        run.log({"v": 1})
        run.save("note.txt")
    run = read(name("files"))
    assert "note.txt" in [file.name for file in run.files()]
    assert run.file("note.txt").download(root="down", replace=True).read() == "hello"
    Path("later.txt").write_text("later")
    run.upload_file("later.txt")
    assert read(name("files")).file("later.txt").download(root="down", replace=True).read() == "later"
    run.file("later.txt").delete()
    assert "later.txt" not in [file.name for file in read(name("files")).files()]


def model_artifact() -> None:
    content = os.urandom(300_000)
    Path("best.pt").write_bytes(content)
    collection = name("model")
    with wandb.init(project=PROJECT, id=name("logs-model")) as run:
        artifact = wandb.Artifact(collection, type="model", metadata={"epoch": 7})
        artifact.add_file("best.pt")
        assert run.log_artifact(artifact, aliases=["best"]).wait().version == "v0"
    with wandb.init(project=PROJECT, id=name("uses-model")) as run:
        used = run.use_artifact(f"{collection}:best")
        path = Path(used.download(root="down"), "best.pt")
        assert hashlib.md5(path.read_bytes()).digest() == hashlib.md5(content).digest()
        assert used.metadata == {"epoch": 7}
    artifact = wandb.Api().artifact(f"local/{PROJECT}/{collection}:latest")
    assert [file.name for file in artifact.files()] == ["best.pt"]
    assert [other.name for other in read(name("logs-model")).logged_artifacts()] == [f"{collection}:v0"]
    assert [other.name for other in read(name("uses-model")).used_artifacts()] == [f"{collection}:v0"]
    assert artifact.logged_by().id == name("logs-model")
    versions = [other.version for other in wandb.Api().artifacts("model", f"local/{PROJECT}/{collection}")]
    assert versions == ["v0"], versions


def shared_mode() -> None:
    run_id = name("shared")
    Path("writer.py").write_text(
        "import sys, wandb\n"
        f"settings = wandb.Settings(mode='shared', x_primary=False, x_label='w', x_update_finish_state=False)\n"
        f"with wandb.init(project={PROJECT!r}, id={run_id!r}, settings=settings) as run:\n"
        "    for step in range(4):\n"
        "        run.log({'b': step})\n"
    )
    settings = wandb.Settings(mode="shared", x_primary=True, x_label="p")
    with wandb.init(project=PROJECT, id=run_id, config={"lr": 0.5}, settings=settings) as run:
        run.log({"a": 1})
        environment = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
        subprocess.run([sys.executable, "writer.py"], check=True, timeout=120, env=environment)
        run.log({"a": 2})
    assert (rows(run_id, "a"), rows(run_id, "b")) == ([1, 2], [0, 1, 2, 3])
    run = read(run_id)
    assert (run.summary["a"], run.summary["b"], run.config["lr"], run.state) == (2, 3, 0.5, "finished")


def offline_sync() -> None:
    run_id = name("offline")
    Path("note.txt").write_text("hello")
    Path("offline.py").write_text(
        "import sys, wandb\n"
        f"with wandb.init(project={PROJECT!r}, id={run_id!r}, mode='offline', config={{'lr': 0.5}}) as run:\n"
        "    for step in range(30):\n"
        "        run.log({'v': step})\n"
        "    run.save('note.txt')\n"
        f"    artifact = wandb.Artifact({name('offline-model')!r}, type='model')\n"
        "    artifact.add_file('note.txt')\n"
        "    run.log_artifact(artifact)\n"
        "    print('printed offline')\n"
    )
    subprocess.run([sys.executable, "offline.py"], check=True, timeout=120)
    (folder,) = Path("wandb").glob(f"offline-run-*-{run_id}")
    cli("sync", str(folder))
    cli("sync", "--include-synced", str(folder))  # a second time doubles nothing
    run = read(run_id)
    assert (run.state, run.config["lr"], run.summary["v"]) == ("finished", 0.5, 29), run.state
    assert rows(run_id, "v") == list(range(30))
    assert run.file("note.txt").download(root="down", replace=True).read() == "hello"
    log = run.file("output.log").download(root="down", replace=True).read()
    assert "printed offline" in log, repr(log)
    (artifact,) = [other for other in run.logged_artifacts() if other.type == "model"]
    assert Path(artifact.download(root="model"), "note.txt").read_text() == "hello"


def verify() -> None:
    """``wandb verify`` finds nothing but what a server at http:// cannot have: TLS, and a bucket on another host."""
    command = [sys.executable, "-m", "wandb", "verify", "--host", os.environ["WANDB_BASE_URL"]]
    output = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    failed = [line.split("..")[0] for line in output.stdout.splitlines() if line.endswith("❌")]
    assert "Traceback" not in output.stderr, output.stderr
    assert "Checking sweep creation and agent execution" in output.stdout, output.stdout
    allowed = ("requests to base url", "signed URLs", "CORs", "artifact save and download")
    assert all(any(part in line for part in allowed) for line in failed), output.stdout


FEATURES: tuple[Callable[[], None], ...] = (
    init_and_log,
    resume,
    sweep_with_cli_agent,
    sweep_with_function_agent,
    public_api,
    files,
    model_artifact,
    shared_mode,
    offline_sync,
    verify,
)

if __name__ == "__main__":
    {feature.__name__: feature for feature in FEATURES}[sys.argv[1]]()
