"""The rules for images and the compose file, checked in the files; docker/verify.sh builds and runs the images."""

from __future__ import annotations

import fnmatch
import json
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from amc_agents.commands import main

ROOT = Path(__file__).parents[1]
DOCKER = ROOT / "docker"
DOCKERFILES = ("Dockerfile", "server.Dockerfile")
KUBERNETES = "1.33"  # the first release in which backoffLimitPerIndex is stable
CHECKPOINT_BOUND_S = 10  # a preempted trial has saved its checkpoint in this time
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def _instructions(name: str) -> list[tuple[str, str]]:
    text = re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*#.*\n", "", (DOCKER / name).read_text()))
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


def _stages(name: str) -> list[list[tuple[str, str]]]:
    stages: list[list[tuple[str, str]]] = []
    for word, rest in _instructions(name):
        if word == "FROM":
            stages.append([])
        if stages:
            stages[-1].append((word, rest))
    return stages


def _values(stage: list[tuple[str, str]], word: str) -> list[str]:
    return [rest for instruction, rest in stage if instruction == word]


def _requirements(name: str) -> list[str]:
    lines = [line.strip() for line in (DOCKER / name).read_text().splitlines()]
    others = [other for line in lines if line.startswith("-r ") for other in _requirements(line[3:])]
    return others + [line for line in lines if line and not line.startswith(("#", "-r "))]


def _install_requires() -> dict[str, Requirement]:
    printed = subprocess.run(
        [sys.executable, DOCKER / "requirements.py", ROOT / "setup.cfg"], capture_output=True, text=True, check=True
    )
    return _by_name(printed.stdout.splitlines())


def _by_name(lines: list[str]) -> dict[str, Requirement]:
    return {canonicalize_name(requirement.name): requirement for requirement in map(Requirement, lines)}


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_runs_as_an_ordinary_user_on_any_base(name: str) -> None:
    arguments = _values(_instructions(name), "ARG")
    assert arguments[0] == "BASE=python:3.12-slim-bookworm"
    stages = _stages(name)
    assert all(_values(stage, "FROM")[0].split()[0] == "${BASE}" for stage in stages)
    last = stages[-1]
    assert _values(last, "USER") == ["10001:10001"]
    created = next(run for run in _values(last, "RUN") if "useradd" in run)
    assert "--uid 10001" in created
    after_user = last[last.index(("USER", "10001:10001")) + 1 :]
    assert not _values(after_user, "RUN")
    assert not _values(after_user, "COPY")


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_has_pinned_versions_and_neither_cache_nor_tools(name: str) -> None:
    build, last = _stages(name)
    installs = [run for run in _values(build, "RUN") if "pip install" in run]
    assert "--constraint /build/constraints.txt" in installs[0]
    assert "--no-deps ." in installs[1]
    assert "pip uninstall --yes" in installs[1]
    assert any("PIP_NO_CACHE_DIR=1" in value for value in _values(build, "ENV"))
    assert not any("pip" in run for run in _values(last, "RUN"))
    for run in _values(last, "RUN"):
        assert "apt-get" not in run or ("--no-install-recommends" in run and "rm -rf /var/lib/apt/lists/*" in run)


@pytest.mark.parametrize("name", DOCKERFILES)
def test_the_code_comes_after_the_large_layers(name: str) -> None:
    build = _stages(name)[0]
    large = next(number for number, (word, rest) in enumerate(build) if word == "RUN" and "--requirement" in rest)
    packages = [number for number, (word, rest) in enumerate(build) if word == "COPY" and rest.startswith("amc_core")]
    assert min(packages) > large


@pytest.mark.parametrize("name", DOCKERFILES)
def test_every_file_that_an_image_copies_exists_and_is_in_the_context(name: str) -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    kept = [line[1:] for line in ignored if line.startswith("!")]
    assert "*" in ignored
    for stage in _stages(name):
        for copy in _values(stage, "COPY"):
            if copy.startswith("--from"):
                continue
            for source in copy.split()[:-1]:
                assert list(ROOT.glob(source)), f"{name} copies {source}, which does not exist"
                assert any(source == line or source.startswith(f"{line}/") for line in kept), source


def test_nothing_large_or_secret_is_in_the_context() -> None:
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for name in (".git", "data", "runs", "wandb", ".venv", "tests", "api.key", ".env"):
        assert not any(fnmatch.fnmatch(name, line) for line in kept)


def test_the_constraints_pin_every_requirement_in_an_accepted_version() -> None:
    pins = _by_name(_requirements("constraints.txt"))
    for name, requirement in _install_requires().items():
        (pin,) = pins[name].specifier
        assert pin.operator == "=="
        accepted = requirement.specifier
        assert accepted.contains(pin.version), f"{name}: {pin.version} is pinned, {accepted} accepted"


# Hides the libraries that an installation lacks; a program follows.
WITHOUT = """
import sys
from importlib.machinery import PathFinder
class Installed(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in ABSENT else PathFinder.find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = Installed
for name in ABSENT & set(sys.modules):
    del sys.modules[name]  # imported when this environment started
"""
# Uses the server's libraries as a server does.
SERVER_ALONE = """
from pathlib import Path
from amc_agents.commands import main
import amc_server.store.backup
from amc_server.bayes.observations import Observation
from amc_server.scheduling.search import suggest
from amc_sweeps.grammar.parse import parse
from amc_server.app import create_app
from amc_server.store.storage import Storage
create_app(Storage(Path(sys.argv[1])), key=None)
space = {"method": "bayes", "metric": {"name": "m"}, "parameters": {"x": {"distribution": "beta", "a": 2, "b": 2}}}
runs = [Observation({"x": number / 20}, "finished", [number / 20]) for number in range(1, 15)]
assert suggest(parse(space), runs, seed=1, number=14)
print("served")
"""
# Uses everything that a light install has, and one command of each program that it lacks.
LIGHT_ALONE = """
from click.testing import CliRunner
from amc_agents.commands import main as amc_sweep
from amc_agents.trial.end_reason import reason_of
from amc_agents.trial.main import main as amc_train
from amc_analysis.cli import main as amc_analyze
from amc_core.commands import main as amc_data
import amc_agents.next_run, amc_agents.slurm.script, wandb
def run(command, *arguments, code=0):
    done = CliRunner().invoke(command, arguments)
    assert done.exit_code == code, (arguments, done.output, done.exception)
    return done.output
run(amc_sweep, "create", "sweeps/resnet50_focused.yaml", "--dry-run")
for group in (amc_sweep, amc_data):
    for name in group.commands:
        run(group, name, "--help")
page, following = sys.argv[1] + "/report.html", sys.argv[1] + "/next.yaml"
run(amc_analyze, "--from", "sweeps/recorded/94fqx0gz.yaml", "--html", page, "--next", following)
for command, *arguments in ((amc_data, "synth", "x.hdf5"), (amc_data, "audit", "x.hdf5"), (amc_train, "--no_wandb")):
    message = run(command, *arguments, code=1)
    assert " needs " in message and "pip install amc-sweep-toolkit" in message, message
assert reason_of(ModuleNotFoundError("No module named 'torch'", name="torch")) == "error"
print("served")
"""


@pytest.mark.parametrize(
    ("name", "program", "large"),
    [
        ("server-requirements.txt", SERVER_ALONE, {"torch", "wandb", "pandas", "h5py", "numba", "rich"}),
        ("light-requirements.txt", LIGHT_ALONE, {"torch", "torchvision", "timm", "h5py", "numba", "PIL"}),
    ],
)
def test_an_installation_works_with_only_its_own_requirements(
    name: str, program: str, large: set[str], tmp_path: Path
) -> None:
    """Every other library of this environment is hidden."""
    listed = {canonicalize_name(requirement) for requirement in _requirements(name)}
    assert listed <= set(_install_requires())
    installed = _closure(listed) | {"amc-sweep-toolkit"}
    absent = {
        module
        for module, owners in packages_distributions().items()
        if not {canonicalize_name(owner) for owner in owners} & installed
    }
    assert large <= absent
    done = subprocess.run(
        [sys.executable, "-c", f"ABSENT = {absent!r}\n{WITHOUT}{program}", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "served\n", done.stderr


def _closure(names: set[str]) -> set[str]:
    from importlib.metadata import PackageNotFoundError, requires

    closure: set[str] = set()
    waiting = set(names)
    while waiting:
        name = waiting.pop()
        closure.add(name)
        try:
            needed = [Requirement(text) for text in requires(name) or []]
        except PackageNotFoundError:
            continue
        waiting |= {canonicalize_name(n.name) for n in needed if n.marker is None or n.marker.evaluate()} - closure
    return closure


def test_the_server_image_serves_and_has_a_health_check() -> None:
    last = _stages("server.Dockerfile")[-1]
    (health,) = _values(last, "HEALTHCHECK")
    assert "/healthz" in health
    words = json.loads(_values(last, "ENTRYPOINT")[0]) + json.loads(_values(last, "CMD")[0])
    assert words[:2] == ["amc-sweep", "serve"]
    serve = main.commands["serve"]
    options = {name for option in serve.params for name in option.opts}
    assert {word for word in words if word.startswith("--")} <= options
    assert _values(last, "EXPOSE") == ["8418"]
    assert next(p for p in serve.params if p.name == "port").default == 8418


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_time_for_a_checkpoint_and_an_image_of_this_repository(name: str) -> None:
    service = SERVICES[name]
    grace = re.fullmatch(r"(\d+)s", service["stop_grace_period"])
    assert grace is not None
    assert int(grace[1]) > CHECKPOINT_BOUND_S
    build = service["build"]
    assert (DOCKER / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).is_file()
    for volume in service["volumes"]:
        source = re.sub(r"\$\{[^:}]+:-([^}]+)\}", r"\1", volume).split(":")[0]
        assert source in COMPOSE["volumes"], volume


def test_every_worker_reserves_its_own_gpu_and_preempts_at_sigterm() -> None:
    workers = {name: service for name, service in SERVICES.items() if name.startswith("worker-")}
    devices = [service["deploy"]["resources"]["reservations"]["devices"] for service in workers.values()]
    assert all(device["driver"] == "nvidia" and "gpu" in device["capabilities"] for (device,) in devices)
    numbers = [number for (device,) in devices for number in device["device_ids"]]
    assert len(set(numbers)) == len(numbers) == len(workers)
    for service in workers.values():
        assert service["environment"]["AMC_SIGTERM"] == "preemption"
        assert service["depends_on"]["server"]["condition"] == "service_healthy"


def test_server_and_workers_share_the_key_and_no_port_is_open_to_the_network() -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES["server"]["ports"])
    assert "key:/key" in SERVICES["server"]["volumes"]
    for name, service in SERVICES.items():
        if name != "server":
            assert "key:/key:ro" in service["volumes"]
            assert service["environment"]["AMC_KEY_FILE"] == "/key/api.key"
            assert service["environment"]["WANDB_BASE_URL"] == "http://server:8418"


def test_the_kubernetes_job_is_valid_and_preempts_without_losing_a_run() -> None:
    claim, job = yaml.safe_load_all((DOCKER / "kubernetes-job.yaml").read_text())
    for resource in (claim, job):
        kubernetes_validate.validate(resource, KUBERNETES, strict=True)
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    with pytest.raises(kubernetes_validate.ValidationError):  # what the schema is worth
        kubernetes_validate.validate({**job, "spec": {**job["spec"], "compeltions": 8}}, KUBERNETES, strict=True)
    assert job["spec"]["completionMode"] == "Indexed"
    assert pod["terminationGracePeriodSeconds"] > CHECKPOINT_BOUND_S
    environment = {variable["name"]: variable["value"] for variable in container["env"]}
    assert environment["AMC_SIGTERM"] == "preemption"
    assert "WANDB_API_KEY" not in environment
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts.keys() == {volume["name"] for volume in pod["volumes"]}
    assert environment["AMC_KEY_FILE"].startswith(mounts["key"])
    assert environment["AMC_RUNS_DIR"] == mounts["runs"]
    program, command, sweep, *options = container["args"]
    parsed = main.commands[command].make_context(command, [sweep, *options]).params
    assert (program, parsed["idle_limit"]) == ("amc-sweep", 600)
    assert CHECKPOINT_BOUND_S < parsed["grace"] < pod["terminationGracePeriodSeconds"]


def test_the_entry_point_reads_the_key_from_its_file_and_does_not_show_it(tmp_path: Path) -> None:
    key = tmp_path / "api.key"
    key.write_text("amc-secret\n")
    script = DOCKER / "entrypoint.sh"
    shown = subprocess.run(
        [script, "sh", "-c", 'printf %s "$WANDB_API_KEY"; tr "\\0" " " < /proc/$$/cmdline >&2'],
        env={"AMC_KEY_FILE": str(key), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout == "amc-secret"
    assert "amc-secret" not in shown.stderr
    missing = subprocess.run([script, "true"], env={"AMC_KEY_FILE": str(tmp_path / "none")}, check=False)
    assert missing.returncode != 0
