"""Every feature of ``client_features.py`` under every version of the client in ``clients.txt``: ``make clients``.

Each version lies in an environment of its own, ``.clients/VERSION``. All of them talk to one server.
"""

from __future__ import annotations

import itertools
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from client_features import FEATURES
from embedded_server import EmbeddedServer
from results_file import FOLDER

from amc_core.files import write_whole
from amc_server.clients import range_hint

ENVIRONMENTS = Path(__file__).resolve().parents[2] / ".clients"
CELLS = ENVIRONMENTS / "cells"  # what every test found, so that two processes can share one table
VERSIONS = (Path(__file__).parent / "clients.txt").read_text().split()
NAMES = [feature.__name__ for feature in FEATURES]

pytestmark = pytest.mark.client


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(tmp_path_factory.mktemp("server") / "data", options=("--limit", "unlisted_s=4")) as running:
        yield running


@pytest.fixture(scope="module", autouse=True)
def _table() -> Iterator[None]:
    CELLS.mkdir(parents=True, exist_ok=True)
    yield
    cells = {cell: CELLS / "_".join(cell) for cell in itertools.product(VERSIONS, NAMES)}
    found = {cell: path.read_text() if path.exists() else "not run" for cell, path in cells.items()}
    rows = [[name.replace("_", " "), *(found[version, name] for version in VERSIONS)] for name in NAMES]
    lines = [
        "# clients: what each version of wandb can do with the server",
        "",
        f"{time.strftime('%Y-%m-%d', time.gmtime())}, `make clients`. Each cell is a test with the real client.",
        "",
        *(f"| {' | '.join(row)} |" for row in [["feature", *VERSIONS], ["---"] * (len(VERSIONS) + 1), *rows]),
    ]
    write_whole(FOLDER / "clients.md", "\n".join(lines) + "\n")


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
    cell = CELLS / f"{version}_{feature}"
    cell.write_text("fails")
    run(version, tmp_path, server, str(Path(__file__).with_name("client_features.py")), feature)
    log = (server.data / "server.log").read_text()
    assert '"level": "error"' not in log
    cell.write_text("works")


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
