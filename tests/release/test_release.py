"""What `make wheel` has built in dist/: the source archive holds its tests, and the light install works without torch.

These tests install packages, so `make test` leaves them out.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(900)  # installing takes a minute alone, and five on a busy machine

ROOT = Path(__file__).parents[2]
VERSION = "0.1.0"
FAST_TESTS = ("tests/sweeps", "tests/core/test_config.py", "tests/test_architecture.py", "tests/test_documents.py")
PYTHONS = ("python3.11", "python3.12", "python3.13")
LIGHT = "A laptop or a login node: without torch"


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpack the source archive."""
    archive = ROOT / "dist" / f"amc_sweep_toolkit-{VERSION}.tar.gz"
    assert archive.is_file(), "make wheel builds it, and then runs these tests"
    folder = tmp_path_factory.mktemp("archive")
    with tarfile.open(archive) as content:
        content.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


def _pytest(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", *arguments],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    return done.stdout


def test_the_archive_has_every_test_and_what_tests_need(unpacked: Path) -> None:
    counts = [_pytest(folder, "--collect-only", "tests").splitlines()[-1].split()[0] for folder in (unpacked, ROOT)]
    assert counts[0] == counts[1]
    assert "passed" in _pytest(unpacked, *FAST_TESTS)


class Light:
    """A light install, made by the commands of docs/install.md."""

    def __init__(self, python: str, unpacked: Path, folder: Path) -> None:
        shutil.copytree(unpacked, folder)
        self.folder = folder
        self._bin = folder / "light" / "bin"
        page = (folder / "docs" / "install.md").read_text()
        (block,) = re.findall(r"```bash\n(.*?)```", page.split(f"## {LIGHT}\n")[1], re.DOTALL)
        subprocess.run(["bash", "-euc", block.replace("python3 ", f"{python} ")], cwd=folder, check=True)

    def run(self, command: str, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run one of its commands in its folder and check the exit code."""
        path = f"{self._bin}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            [self._bin / command, *arguments],
            cwd=self.folder,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, f"{command} {arguments}\n{done.stdout}\n{done.stderr}"
        return done


def _find_python(name: str) -> str | None:
    """Return a Python that can make environments: on the path, or one of pyenv's."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    places = [shutil.which(name), *map(str, versions.glob(f"*/bin/{name}"))]
    works = (place for place in places if place and _succeeds(place, "-c", "import ensurepip, venv"))
    return next(works, None)


def _succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="module", params=PYTHONS)
def light(request: pytest.FixtureRequest, unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Light:
    """Make a light install with a Python of this machine."""
    python = _find_python(request.param)
    if python is None:
        pytest.skip(f"no {request.param} on this machine")
    return Light(python, unpacked, tmp_path_factory.mktemp("light") / "toolkit")


@pytest.fixture
def server(light: Light) -> Iterator[None]:
    light.run("amc-sweep", "serve", "--background", "--port", "0", "--data", "server")
    yield
    for state in Path(os.environ["AMC_STATE_DIR"]).glob("*.json"):
        os.kill(json.loads(state.read_text())["pid"], signal.SIGTERM)


def test_a_light_install_has_no_torch_and_says_its_version(light: Light) -> None:
    for command in ("amc-sweep", "amc-analyze", "amc-data", "amc-train"):
        assert light.run(command, "--version").stdout == f"{command}, version {VERSION}\n"
        light.run(command, "--help")
    for package in ("torch", "timm", "h5py", "numba"):
        assert "ModuleNotFoundError" in light.run("python", "-c", f"import {package}", code=1).stderr


@pytest.mark.usefixtures("server")
def test_a_light_install_creates_hands_out_and_watches(light: Light) -> None:
    created = json.loads(light.run("amc-sweep", "create", "sweeps/resnet50_focused.yaml", "--json").stdout)
    sweep = created["sweep_id"]
    run = json.loads(light.run("amc-sweep", "next", sweep, "--json").stdout)["run"]
    light.run("amc-sweep", "give-back", run)
    assert json.loads(light.run("amc-sweep", "status", sweep, "--json").stdout)
    assert sweep in light.run("amc-sweep", "list").stdout
    script = light.run("amc-sweep", "launch", "slurm", sweep, "--agents", "2", "--time", "1:00:00", "--dry-run").stdout
    assert "amc-sweep" in script
    assert "#SBATCH" in script
    light.run("amc-sweep", "pause", sweep)
    light.run("amc-sweep", "export", sweep, "export.yaml")
    light.run("amc-sweep", "cancel", sweep, "--yes")
    light.run("amc-analyze", sweep)


def test_a_light_install_analyses_a_recorded_sweep(light: Light) -> None:
    recorded = "sweeps/recorded/94fqx0gz.yaml"
    shown = light.run("amc-analyze", "--from", recorded, "--html", "report.html", "--next", "next.yaml").stdout
    assert "94fqx0gz" in shown
    light.run("amc-sweep", "create", "next.yaml", "--dry-run")


@pytest.mark.parametrize(
    ("command", "package"),
    [
        (("amc-data", "synth", "frames.hdf5"), "h5py"),
        (("amc-data", "audit", "frames.hdf5"), "h5py"),
        (("amc-train", "--no_wandb"), "torch"),
        (("amc-train", "--summary"), "torch"),
    ],
)
def test_a_command_that_lacks_a_package_names_it(light: Light, command: tuple[str, ...], package: str) -> None:
    error = light.run(*command, code=1).stderr
    assert re.match(rf"Error: {command[0]}[a-z ]* needs \w+, and this environment lacks it", error)
    assert f"needs {package}," in error or "needs torch," in error
    assert "-m pip install amc-sweep-toolkit\n" in error


def test_the_doctor_of_a_light_install_names_what_is_missing(light: Light) -> None:
    assert "torch is missing" in light.run("amc-sweep", "doctor", code=1).stdout
