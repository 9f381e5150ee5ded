"""Every feature of ``client_features.py`` under every version of the client in ``clients.txt``: ``make clients``.

Each version lies in an environment of its own, ``.clients/VERSION``. All of them talk to one server.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from client_features import FEATURES
from client_scenarios import wait_until
from embedded_server import EmbeddedServer
from packaging.version import Version
from preempted_trials import SMALL, Machine, frames, run_of
from results_file import FOLDER

from amc_core.files import write_whole
from amc_server.clients import range_hint

ENVIRONMENTS = Path(__file__).resolve().parents[2] / ".clients"
CELLS = ENVIRONMENTS / "cells"  # what every test found, so that two processes can share one table
VERSIONS = (Path(__file__).parent / "clients.txt").read_text().split()
NAMES = [feature.__name__ for feature in FEATURES]
TRIAL = "amc-train"  # asks for wandb 0.25: setup.cfg
TRIAL_VERSIONS = [version for version in VERSIONS if Version(version) >= Version("0.25")]

pytestmark = pytest.mark.client


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(tmp_path_factory.mktemp("server") / "data", options=("--limit", "unlisted_s=4")) as running:
        yield running


@pytest.fixture(scope="module", autouse=True)
def _table() -> Iterator[None]:
    CELLS.mkdir(parents=True, exist_ok=True)
    yield
    names = [*NAMES, TRIAL]
    cells = {cell: CELLS / "_".join(cell) for cell in itertools.product(VERSIONS, names)}
    found = {cell: path.read_text() if path.exists() else "not run" for cell, path in cells.items()}
    found |= {(version, TRIAL): "not accepted" for version in VERSIONS if version not in TRIAL_VERSIONS}
    rows = [[name.replace("_", " "), *(found[version, name] for version in VERSIONS)] for name in names]
    lines = [
        "# clients: what each version of wandb can do with the server",
        "",
        f"{time.strftime('%Y-%m-%d', time.gmtime())}, `make clients`. Each cell is a test with the real client.",
        "",
        *(f"| {' | '.join(row)} |" for row in [["feature", *VERSIONS], ["---"] * (len(VERSIONS) + 1), *rows]),
    ]
    write_whole(FOLDER / "clients.md", "\n".join(lines) + "\n")


@contextlib.contextmanager
def cell(version: str, name: str) -> Iterator[None]:
    """Fill a cell of the table with how the block ends."""
    path = CELLS / f"{version}_{name}"
    path.write_text("fails")
    yield
    path.write_text("works")


def run(version: str, folder: Path, server: EmbeddedServer, *arguments: str) -> str:
    """Run Python under a version of the client and return what it prints."""
    python = ENVIRONMENTS / version / "bin" / "python"
    assert python.exists(), f"wandb {version} is not installed: run make clients"
    own = {"WANDB_DIR": str(folder), "WANDB_SILENT": "false", "WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL": "1"}
    env = server.environment(**own)
    done = subprocess.run(
        [str(python), *arguments], cwd=folder, env=env, capture_output=True, text=True, timeout=240, check=False
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    return output


@pytest.mark.parametrize("feature", NAMES)
@pytest.mark.parametrize("version", VERSIONS)
def test_the_client_can(version: str, feature: str, server: EmbeddedServer, tmp_path: Path) -> None:
    with cell(version, feature):
        run(version, tmp_path, server, str(Path(__file__).with_name("client_features.py")), feature)
        assert '"level": "error"' not in (server.data / "server.log").read_text()


@pytest.mark.parametrize("version", TRIAL_VERSIONS)
def test_amc_train_trains_to_its_end_and_to_a_stop_by_wandb(
    version: str, server: EmbeddedServer, tmp_path: Path
) -> None:
    (packages,) = (ENVIRONMENTS / version).glob("lib/python*/site-packages")
    paths = f"{packages}{os.pathsep}{EmbeddedServer.process_environment()['PYTHONPATH']}"
    machine = Machine("gpu-1", tmp_path, server, frames(tmp_path), PYTHONPATH=paths)
    sweep = machine.create_sweep("program: train.py\nmethod: random\nparameters: {batch_size: {value: 16}}\n")
    whole, stopped = f"whole-{version}", f"stopped-{version}"
    with cell(version, TRIAL):
        assert machine.train(whole).wait(timeout=120) == 0, machine.output()
        record = run_of(server, whole)
        assert record["config"]["_wandb"]["cli_version"] == version, "the trial ran under this version"
        assert [row["epoch"] for row in record["history"]] == [1, 2, 3, 4]
        assert record["summary"]["end_reason"] == "completed"

        in_sweep = {"WANDB_SWEEP_ID": sweep.rsplit("/", 1)[1]}
        trial = machine.train(stopped, {**SMALL, "epochs": 1000, "epochs_per_cycle": 1000}, **in_sweep)
        wait_until(lambda: run_of(server, stopped)["history"], "a row arrives")
        query = 'query Q($run: String!) { project(name: "demo") { run(name: $run) { id } } }'
        node_id = server.graphql(query, run=stopped)["project"]["run"]["id"]
        server.graphql("mutation S($id: ID!) { stopRun(input: {id: $id}) { success } }", id=node_id)
        assert trial.wait(timeout=120) == 0, machine.output()
        record = run_of(server, stopped)
        assert (record["state"], record["summary"]["end_reason"]) == ("killed", "stopped")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_client_of_an_untested_version_is_told_so_when_a_run_begins(
    version: str, server: EmbeddedServer, tmp_path: Path
) -> None:
    code = """
import time, wandb
wandb.__version__ = "0.99.1"
with wandb.init(project="clients") as run:
    time.sleep(6)  # the client looks every few seconds for something to print
"""
    assert range_hint("0.99.1") in run(version, tmp_path, server, "-c", code)
