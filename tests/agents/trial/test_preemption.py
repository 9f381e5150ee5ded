"""A preempted trial continues on another machine; client, server and signals are real."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from client_scenarios import wait_until
from embedded_server import EmbeddedServer
from preempted_trials import EPOCHS, SMALL, Machine, columns, frames, run_of, same_weights, signal_all

from amc_agents.cleaning.client_cache import cache_folder, cached_checkpoints
from amc_agents.trial.end_and_history import read_end, read_rows
from amc_agents.trial.reopen import Reopened, reopen_preempted
from amc_core.training.checkpoint import load_checkpoint
from amc_sweeps.runs.causes import EndReason

pytestmark = pytest.mark.client


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return frames(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """The folder of an uninterrupted trial."""
    machine = Machine("quiet", tmp_path_factory.mktemp("uninterrupted"), None, data)
    flags = [f"--{name}={value}" for name, value in {**SMALL, "no_wandb": True}.items()]
    assert machine.start("amc-train", *flags).wait(timeout=120) == 0, machine.output()
    return machine.runs / "local-1"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(tmp_path / "server", options=("--limit", "unlisted_s=4", "--limit", "silence_s=8")) as running:
        yield running


VERSIONS = """query V($name: String!) { project(name: "demo", entityName: "local") {
    artifactType(name: "checkpoint") { artifactCollection(name: $name) { artifacts { edges { version } } } } } }"""


def _sweep_of_one() -> str:
    settings = "".join(f"  {name}: {{value: {value}}}\n" for name, value in SMALL.items())
    return (
        "program: amc-train\ncommand: ['${env}', '${program}', '${args}']\nmethod: grid\n"
        f"metric: {{name: val/combined_acc, goal: maximize}}\nparameters:\n{settings}  seed: {{values: [0]}}\n"
    )


def _assert_equal(uninterrupted: Path, folder: Path, server: EmbeddedServer, run: str) -> None:
    """Compare a run's history with W&B and its checkpoints with those of the uninterrupted trial."""
    recorded = run_of(server, run)
    expected = read_rows(uninterrupted)
    assert [row["_step"] for row in recorded["history"]] == list(range(EPOCHS))
    assert columns(recorded["history"]) == columns(expected)
    assert columns(read_rows(folder)) == columns(expected)
    for name in ("last.pt", "best.pt", "best_loss.pt"):
        assert same_weights(uninterrupted / name, folder / name), name
    assert recorded["state"] == "finished"
    assert recorded["summary"]["end_reason"] == "completed"
    assert "parent_run" not in recorded["config"] or recorded["config"]["parent_run"] is None


def test_the_supervisor_reports_a_preemption_that_killed_the_client(
    tmp_path: Path, data: Path, uninterrupted: Path, server: EmbeddedServer
) -> None:
    machine = Machine("gpu-1", tmp_path, server, data, AMC_SIGTERM="preemption")
    trial = machine.train("doomed", WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL="60")
    machine.wait_for_epoch("doomed", 2, trial)
    assert "wandb-core" in signal_all(trial, signal.SIGTERM)
    assert trial.wait(timeout=15) == 75, machine.output()
    folder = machine.runs / "doomed"
    end = read_end(folder)
    assert end is not None
    assert (end.reason, end.run) == (EndReason.PREEMPTED, "local/demo/doomed")
    lacking = run_of(server, "doomed")
    assert lacking["state"] in {"running", "crashed"}
    assert len(lacking["history"]) < 2

    assert reopen_preempted("local/demo/doomed", folder, environ=machine.env) is Reopened.MARKED
    reported = run_of(server, "doomed")
    assert (reported["state"], reported["exitcode"], reported["summary"]["end_reason"]) == (
        "preempted",
        75,
        "preempted",
    )
    assert columns(reported["history"]) == columns(read_rows(uninterrupted)[: len(reported["history"])])
    assert len(reported["history"]) >= 2
    assert reopen_preempted("local/demo/doomed", folder, environ=machine.env) is Reopened.REPORTED

    assert machine.train("doomed").wait(timeout=60) == 0, machine.output()
    _assert_equal(uninterrupted, folder, server, "doomed")


def test_a_fleet_reports_a_preemption_and_its_next_trial_continues_the_run(
    tmp_path: Path, data: Path, uninterrupted: Path, server: EmbeddedServer
) -> None:
    machine = Machine("gpu-1", tmp_path, server, data, AMC_SIGTERM="preemption")
    sweep = machine.create_sweep(_sweep_of_one())
    fleet = machine.start("amc-sweep", "agent", sweep, "--workers", "1", "--json")
    run = wait_until(lambda: [path.name for path in machine.runs.iterdir()], "the trial begins")[0]
    machine.wait_for_epoch(run, 2, fleet)
    everybody = psutil.Process(fleet.pid).children(recursive=True)
    trial = next(process for process in everybody if process.environ().get("WANDB_RUN_ID") == run)
    assert "wandb-core" in signal_all(trial, signal.SIGTERM)
    assert fleet.wait(timeout=120) == 0, machine.output("amc-sweep")
    assert f"{run}: its rows and its preemption were reported to W&B" in machine.output("amc-sweep")
    _assert_equal(uninterrupted, machine.runs / run, server, run)
    assert [path.name for path in machine.runs.iterdir()] == [run], "handed out once"
    assert "\nepoch 2/" in next((machine.folder / "agent-logs").rglob("*.log")).read_text(), "what one tails for"


def test_a_lost_client_is_reported_and_a_run_without_checkpoint_starts_over(
    tmp_path: Path, data: Path, uninterrupted: Path, server: EmbeddedServer
) -> None:
    machine = Machine("gpu-1", tmp_path, server, data)
    trial = machine.train("mute")
    wait_until(lambda: run_of(server, "mute")["history"], "a row arrives")
    next(child for child in psutil.Process(trial.pid).children(recursive=True) if child.name() == "wandb-core").kill()
    assert trial.wait(timeout=30) == 70, machine.output()
    end = read_end(machine.runs / "mute")
    assert end is not None
    assert end.reason is EndReason.ERROR
    assert "continue with: amc-sweep resume local/demo/mute" in machine.output()
    assert load_checkpoint(machine.runs / "mute" / "last.pt").epoch >= 2
    assert reopen_preempted("local/demo/mute", machine.runs / "mute", environ=machine.env) is Reopened.NOT_PREEMPTED

    elsewhere = Machine("gpu-2", tmp_path, server, data)
    assert elsewhere.train("mute").wait(timeout=60) == 0, elsewhere.output()
    assert "run mute starts over: no checkpoint in" in elsewhere.output()
    _assert_equal(uninterrupted, elsewhere.runs / "mute", server, "mute")


def test_a_preempted_trial_of_a_sweep_continues_on_another_host_and_folder(
    tmp_path: Path, data: Path, uninterrupted: Path, server: EmbeddedServer
) -> None:
    first, second = (Machine(name, tmp_path, server, data) for name in ("gpu-1", "gpu-2"))
    sweep = first.create_sweep(_sweep_of_one())
    doomed = first.start("wandb", "agent", "--count", "1", sweep)
    run = wait_until(lambda: [path.name for path in first.runs.iterdir()], "the trial begins")[0]
    first.wait_for_epoch(run, 2, doomed)
    trial = next(child for child in psutil.Process(doomed.pid).children() if child.environ().get("WANDB_RUN_ID") == run)
    trial.send_signal(signal.SIGUSR1)
    wait_until(lambda: run_of(server, run)["state"] == "preempted", "the server knows")
    left = load_checkpoint(first.runs / run / "last.pt")
    assert left.epoch >= 2
    assert left.steps_done > 0, "in the middle of an epoch"
    assert doomed.wait(timeout=20) == 0

    agents = [second.start("wandb", "agent", sweep, AMC_CHECKPOINT_ARTIFACT="end") for _ in range(2)]
    assert [agent.wait(timeout=90) for agent in agents] == [0, 0], second.output("wandb")
    _assert_equal(uninterrupted, second.runs / run, server, run)
    assert [path.name for path in second.runs.iterdir()] == [run], "handed out once"
    recorded = run_of(server, run)
    assert recorded["host"] == "gpu-2"
    message = f"goes on after epoch {left.epoch} and {left.steps_done} steps, from W&B's artifact"
    assert message in second.output("wandb")
    assert recorded["summary"]["evaluation/snr_confusion"]["_type"] == "image-file"
    kept = server.graphql(VERSIONS, name=f"checkpoint-{run}")["project"]["artifactType"]["artifactCollection"]
    assert [edge["version"] for edge in kept["artifacts"]["edges"]] == ["v1"], "of the preemption and of the end"
    cache = cache_folder(first.env)
    assert cached_checkpoints(cache, now=time.time() + 60, older_than_s=0) == []
    names = {edge["node"]["name"] for edge in recorded["files"]["edges"]}
    assert {"evaluation/test.json", "evaluation/test_scores.csv", f"evaluation/epoch_{EPOCHS:04d}.json"} <= names
    assert sum(name.startswith("media/images/evaluation/") for name in names) == 3
