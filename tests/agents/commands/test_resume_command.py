"""amc-sweep resume: a run whose trial and supervisor died continues; a refused run gets a reason."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from client_scenarios import wait_until
from embedded_server import EmbeddedServer
from preempted_trials import EPOCHS, Machine, columns, frames, run_of, signal_all
from tiny_files import synthetic_file

from amc_agents.trial.end_and_history import read_rows
from amc_agents.trial.relaunch import RelaunchError, as_flags, recorded_settings, require_ended, require_epochs_left
from amc_core.config import TrialConfig
from amc_core.training.checkpoint import load_checkpoint
from amc_sweeps.backend.errors import BackendError
from amc_sweeps.backend.references import Kind, find_target, parse_reference


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(tmp_path / "server", options=("--limit", "silence_s=10")) as running:
        yield running


@pytest.mark.client
def test_a_run_whose_trial_and_supervisor_died_continues(tmp_path: Path, server: EmbeddedServer) -> None:
    data = frames(tmp_path)
    machine = Machine("gpu-1", tmp_path, server, data)
    trial = machine.train("gem", WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL="60")
    machine.wait_for_epoch("gem", 1, trial)
    wait_until(lambda: run_of(server, "gem")["state"] == "running", "the server hears of it")
    psutil.Process(trial.pid).suspend()  # a fast machine would finish it before the command asks
    wait_until(lambda: run_of(server, "gem")["config"].get("data_fingerprint"), "the server has the whole config")
    refused = machine.amc_sweep("resume", "gem")
    psutil.Process(trial.pid).resume()
    assert (refused.returncode, "run local/demo/gem is running, last heard at" in refused.stderr) == (2, True)
    machine.wait_for_epoch("gem", 2, trial)
    checkpoint = machine.runs / "gem" / "last.pt"
    wait_until(lambda: load_checkpoint(checkpoint).epoch >= 2, "the checkpoint follows the row of its epoch")
    signal_all(trial, signal.SIGKILL)
    trial.wait(timeout=15)
    wait_until(lambda: run_of(server, "gem")["state"] == "crashed", "its silence is noticed")
    logged = machine.epochs("gem")
    assert logged > len(run_of(server, "gem")["history"])
    saved = load_checkpoint(checkpoint).epoch  # the kill may have come between a row and its checkpoint

    elsewhere = Machine("gpu-2", tmp_path, server, data)
    no_checkpoint = elsewhere.amc_sweep("resume", "gem")
    assert no_checkpoint.returncode == 2
    assert f"{elsewhere.runs / 'gem' / 'last.pt'} does not exist" in no_checkpoint.stderr
    assert "no artifact local/demo/checkpoint-gem" in no_checkpoint.stderr
    (tmp_path / "other").mkdir()
    other_frames = synthetic_file(tmp_path / "other", levels_db=(0, 10, 20), frames_per_cell=21)
    other = machine.amc_sweep("resume", "gem", "--data", str(other_frames))
    assert (other.returncode, "is not the data file of the run: its fingerprint" in other.stderr) == (2, True)
    missing = machine.amc_sweep("resume", "gem", "--data", "nowhere.hdf5")
    assert (missing.returncode, "nowhere.hdf5: no such data file" in missing.stderr) == (2, True)
    assert run_of(server, "gem")["state"] == "crashed", "a refusal leaves the run alone"

    page = f"{server.base_url}/local/demo/runs/gem"
    resumed = machine.amc_sweep("resume", page, "--epochs", str(EPOCHS + 1))
    assert resumed.returncode == 0, resumed.stderr
    assert f"goes on after epoch {saved}" in resumed.stderr
    recorded = run_of(server, "gem")
    assert (recorded["state"], recorded["summary"]["end_reason"]) == ("finished", "completed")
    assert [row["_step"] for row in recorded["history"]] == list(range(EPOCHS + 1))
    assert columns(recorded["history"]) == columns(read_rows(machine.runs / "gem"))
    assert recorded["config"]["epochs"] == EPOCHS + 1

    over = machine.amc_sweep("resume", "demo/gem")
    assert (over.returncode, f"completed its {EPOCHS + 1} epochs" in over.stderr) == (2, True)


@pytest.mark.client
def test_a_sweep_is_resumed_and_an_ambiguous_id_is_refused(tmp_path: Path, server: EmbeddedServer) -> None:
    machine = Machine("desk", tmp_path, server, tmp_path)
    sweep = machine.create_sweep("program: x.py\nmethod: grid\nparameters: {a: {values: [1, 2]}}\n")
    sweep_id = sweep.rsplit("/", 1)[1]
    machine.wandb("sweep", "--stop", sweep)
    done = machine.amc_sweep("resume", sweep_id)
    assert done.returncode == 0, done.stderr
    assert "agents get configurations again" in done.stderr
    machine.python(f"import wandb; wandb.init(project='demo', id='{sweep_id}').finish()")
    ambiguous = machine.amc_sweep("resume", sweep_id)
    assert ambiguous.returncode == 2
    assert f"the run {sweep}" in ambiguous.stderr
    assert f"the sweep {sweep}" in ambiguous.stderr
    url = machine.amc_sweep("resume", f"{server.base_url}/{sweep.replace(sweep_id, 'sweeps/' + sweep_id)}", "--json")
    assert (url.returncode, '"action": "resume"' in url.stdout) == (0, True)
    unknown = machine.amc_sweep("resume", "nosuch")
    assert (unknown.returncode, "no run or sweep nosuch in the 1 project of local" in unknown.stderr) == (2, True)


class _Api:
    """A client whose server has these paths."""

    default_entity = "me"

    def __init__(self, *paths: str) -> None:
        self._paths = paths

    def projects(self, entity: str) -> list[object]:
        names = sorted({path.split("/")[1] for path in self._paths})
        return [type("Project", (), {"name": name}) for name in names]

    def run(self, path: str) -> object:
        if path not in self._paths:
            raise ValueError(f"Could not find run {path}")
        return type("Run", (), {"url": f"http://w/{path}"})

    def sweep(self, path: str) -> object:
        raise ValueError(f"Could not find sweep {path}")


def test_an_id_is_searched_in_every_project_and_a_path_only_in_its_own() -> None:
    kinds: tuple[Kind, ...] = ("run", "sweep")
    api = _Api("me/a/x", "me/b/x", "me/b/y")
    assert find_target(parse_reference("y", kinds), api, environ={}).path == "me/b/y"
    assert find_target(parse_reference("a/x", kinds), api, environ={}).path == "me/a/x"
    assert find_target(parse_reference("x", kinds), api, environ={"WANDB_PROJECT": "b"}).path == "me/b/x"
    assert find_target(parse_reference("https://w/me/b/runs/x/overview?a=1", kinds), api, environ={}).path == "me/b/x"
    with pytest.raises(
        BackendError, match=r"(?s)2 sweeps or runs have the id x; write the path or the URL of one.*me/a/x.*me/b/x"
    ):
        find_target(parse_reference("x", kinds), api, environ={})
    with pytest.raises(BackendError, match="does not name a run or a sweep"):
        parse_reference("https://w/me/b/reports/x", kinds)
    with pytest.raises(BackendError, match="is the page of a sweep; a run is needed"):
        parse_reference("https://w/me/b/sweeps/x", ("run",))


def test_a_server_that_does_not_answer_is_not_a_missing_run() -> None:
    class _UnreachableApi(_Api):
        def run(self, path: str) -> object:
            raise ConnectionError("connection refused")

    with pytest.raises(ConnectionError):
        find_target(parse_reference("me/a/x", ("run",)), _UnreachableApi(), environ={})


@pytest.mark.parametrize("state", ["pending", "running", "preempting"])
def test_a_living_run_is_not_continued(state: str) -> None:
    with pytest.raises(RelaunchError, match=state):
        require_ended("e/p/r", state, None)


@pytest.mark.parametrize("state", ["crashed", "killed", "finished", "failed", "preempted"])
def test_an_ended_run_may_continue(state: str) -> None:
    require_ended("e/p/r", state, None)


def test_a_completed_trial_needs_a_later_end_to_continue() -> None:
    settings = {"epochs": 5, "patience": 2}
    completed, patience = {"end_reason": "completed", "epoch": 5}, {"end_reason": "patience", "epoch": 3}
    with pytest.raises(RelaunchError, match="more with --epochs"):
        require_epochs_left(completed, settings, {"epochs": 5})
    with pytest.raises(RelaunchError, match="--patience"):
        require_epochs_left(patience, settings, {"epochs": 9})
    require_epochs_left(completed, settings, {"epochs": 6})
    require_epochs_left(patience, settings, {"patience": None})
    require_epochs_left({"end_reason": "stopped", "epoch": 3}, settings, {})
    require_epochs_left({}, settings, {})


def test_flags_of_recorded_settings_give_the_same_configuration() -> None:
    from amc_core.config import parse_flag

    config = TrialConfig.from_mapping(
        {"split": [0.7, 0.2, 0.1], "max_lr": 1e-3, "curriculum": True, "patience": None, "histogram_range": "auto"}
    )
    recorded = {**config.to_mapping(), "split_fingerprint": "x", "n_train": 3}
    flags = dict(flag[2:].split("=", 1) for flag in as_flags(recorded_settings(recorded)))
    parsed = TrialConfig.from_mapping({name: parse_flag(name, text) for name, text in flags.items()})
    assert parsed == config
    assert "epochs" not in flags, "defaults get no flag"
    with pytest.raises(RelaunchError, match="not a run of amc-train"):
        recorded_settings({"lr": 0.1})
