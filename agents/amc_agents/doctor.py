"""Is this machine ready for trials? One verdict a question, each with its remedy; what is asked outside stays thin.

Every ``*_check`` is a pure function of what was found, so that a driver that is too old or a clock that is wrong can be
tested on a machine that has neither.
"""

from __future__ import annotations

import email.utils
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from amc_core.verdicts import Verdict
from amc_sweeps.backend.choose import Backend
from amc_sweeps.runs.causes import STALE_AFTER_S

DISTRIBUTION = "amc-sweep-toolkit"
SHOWN_VERSIONS = ("torch", "torchvision", "wandb", "h5py", "optuna")
TIMEOUT_S = 10.0
CLOCK_WARN_S = 30.0
DISK_FAIL_GB, DISK_WARN_GB = 2.0, 20.0  # three checkpoints a run; those of a ResNet-50 take 0.3 GB each


@dataclass(frozen=True)
class Check:
    """One question's answer."""

    name: str
    verdict: Verdict
    said: str
    remedy: str | None = None  # what to do, where something is to be done


@dataclass(frozen=True)
class Gpu:
    """One line of nvidia-smi."""

    name: str
    driver: str
    memory_mib: int


@dataclass(frozen=True)
class TorchFacts:
    """What torch says of CUDA."""

    version: str
    cuda: str | None  # the CUDA that torch was built for; None: a build for the CPU
    devices: tuple[str, ...]  # what it sees
    error: str | None = None  # why it could not be asked


# --- W&B ------------------------------------------------------------------------------------------------------------


def wandb_check(backend: Backend) -> Check:
    """Ask W&B who I am."""
    where = backend.announce().removeprefix("W&B: ")
    os.environ.setdefault("WANDB_SILENT", "true")
    try:
        import wandb

        api = wandb.Api(overrides={"base_url": backend.base_url}, api_key=backend.api_key)
        viewer, entity = api.viewer, api.default_entity
    except Exception as error:  # noqa: BLE001 - whatever is wrong between here and the server is the finding
        host = "" if backend.kind == "cloud" else f" --host {backend.base_url}"
        remedy = (
            "is the server running, and is the key the one in its key file?"
            if backend.kind == "embedded"
            else f"check the address and the network; wandb login --relogin{host} takes another key"
        )
        return Check("W&B", Verdict.FAIL, f"{where}: {_first_line(error)}", remedy)
    name = getattr(viewer, "username", None) or getattr(viewer, "name", "unknown")
    return Check("W&B", Verdict.PASS, f"{where}; you are {name}, runs go to {entity}")


def mode_check(environ: Mapping[str, str]) -> Check | None:
    """Name a W&B mode in which an agent's trials reach no server."""
    mode = environ.get("WANDB_MODE", "online")
    if mode in {"offline", "disabled", "dryrun"}:
        return Check("W&B mode", Verdict.FAIL, f"WANDB_MODE={mode}: no trial would reach W&B", "unset WANDB_MODE")
    return None


def server_ahead_s(base_url: str) -> float | None:
    """Return by how much the server's clock is ahead of this one, by its Date header; None where it sends none."""
    request = urllib.request.Request(base_url, method="HEAD")
    begin = time.time()
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            date = answer.headers.get("Date")
    except urllib.error.HTTPError as error:
        date = error.headers.get("Date")  # refused or not found: its clock shows all the same
    except OSError:
        return None
    if date is None:
        return None
    # The header has whole seconds, cut off: its time is half a second later in the mean.
    return email.utils.parsedate_to_datetime(date).timestamp() + 0.5 - (begin + time.time()) / 2


def clock_check(ahead_s: float | None) -> Check:
    """Judge this machine's clock by the server's."""
    if ahead_s is None:
        return Check("clock", Verdict.WARN, "the server did not say its time", "compare `date -u` with another machine")
    off, remedy = abs(ahead_s), "set the clock by NTP: timedatectl set-ntp true"
    if off <= CLOCK_WARN_S:
        return Check("clock", Verdict.PASS, f"within {max(off, 1):.0f} s of the server's")
    said = f"{off:.0f} s {'behind' if ahead_s > 0 else 'ahead of'} the server's"
    if off > STALE_AFTER_S:
        return Check(
            "clock", Verdict.FAIL, f"{said}: living runs are taken for lost ones, or the other way round", remedy
        )
    return Check("clock", Verdict.WARN, said, remedy)


# --- versions -------------------------------------------------------------------------------------------------------


def installed_versions(required: Sequence[str]) -> dict[str, str | None]:
    """Return the versions of what is required, without importing it; None for what is missing."""
    from packaging.requirements import Requirement

    names = [Requirement(text).name for text in required]
    return {name: _version(name) for name in [DISTRIBUTION, *SHOWN_VERSIONS, *names]}


def versions_check(installed: Mapping[str, str | None], required: Sequence[str], python: tuple[int, ...]) -> Check:
    """Compare versions with what the toolkit accepts.

    Args:
        installed: name -> version, None where it is missing.
        required: requirements as packages state them, such as ``wandb>=0.31,<0.32``.
        python: the interpreter's version.
    """
    from packaging.requirements import Requirement

    wrong = [] if python >= (3, 11) else [f"Python {'.'.join(map(str, python))}, accepted: 3.11 or newer"]
    for text in required:
        requirement = Requirement(text)
        found = installed.get(requirement.name)
        if found is None:
            wrong.append(f"{requirement.name} is missing")
        elif not requirement.specifier.contains(found, prereleases=True):
            wrong.append(f"{requirement.name} {found}, accepted: {requirement.specifier}")
    if wrong:
        return Check(
            "versions", Verdict.FAIL, "; ".join(wrong), f"pip install --upgrade {DISTRIBUTION}, in this environment"
        )
    named = [f"{name} {installed[name]}" for name in SHOWN_VERSIONS if installed.get(name)]
    toolkit = installed.get(DISTRIBUTION) or "from a checkout"
    return Check(
        "versions", Verdict.PASS, ", ".join([f"Python {'.'.join(map(str, python))}", *named, f"toolkit {toolkit}"])
    )


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


# --- GPU ------------------------------------------------------------------------------------------------------------


def nvidia_gpus() -> list[Gpu] | None:
    """Return the GPUs that the driver knows; None where there is no driver."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_gpus(done.stdout) if done.returncode == 0 else None


def parse_gpus(text: str) -> list[Gpu]:
    """Read what nvidia-smi prints: one GPU a line."""
    rows = [[piece.strip() for piece in line.split(",")] for line in text.splitlines() if line.count(",") == 2]
    return [Gpu(name, driver, int(memory) if memory.isdigit() else 0) for name, driver, memory in rows]


def torch_facts() -> TorchFacts:
    """Ask torch, in a process of its own: a broken CUDA may end it."""
    program = (
        "import json, torch\n"
        "devices = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]\n"
        "sees = torch.cuda.is_available() and bool((torch.ones(2, device='cuda') * 2).sum().item() == 4)\n"
        "print(json.dumps([torch.__version__, torch.version.cuda, devices if sees else []]))\n"
    )
    try:
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    except subprocess.TimeoutExpired:
        return TorchFacts("?", None, (), "torch did not answer within two minutes")
    if done.returncode != 0:
        return TorchFacts("?", None, (), _last_line(done.stderr) or f"it ended with code {done.returncode}")
    found, cuda, devices = json.loads(done.stdout.splitlines()[-1])
    return TorchFacts(found, cuda, tuple(devices))


def gpu_check(gpus: Sequence[Gpu] | None, torch: TorchFacts, visible: str | None = None) -> Check:
    """Judge driver and torch together.

    Args:
        gpus: what the driver knows; None where there is no driver.
        torch: what torch says.
        visible: CUDA_VISIBLE_DEVICES, where it is set.
    """
    if torch.error is not None:
        return Check(
            "GPU", Verdict.FAIL, f"torch cannot be asked: {torch.error}", "pip install --force-reinstall torch"
        )
    if not gpus:
        driver = "no NVIDIA driver answers" if gpus is None else "the driver knows no GPU"
        said = f"{driver} (nvidia-smi): trials run on the CPU, with torch {torch.version}"
        remedy = "fine for a first try; else install NVIDIA's driver, and let a container reserve the GPU"
        return Check("GPU", Verdict.WARN, said, remedy)
    found = ", ".join(f"{gpu.name} ({gpu.memory_mib / 1024:.0f} GiB)" for gpu in gpus)
    driver = f"driver {gpus[0].driver}"
    if torch.devices:
        fewer = "" if len(torch.devices) == len(gpus) else f"; torch sees {len(torch.devices)} of them"
        return Check(
            "GPU", Verdict.PASS, f"{found}, {driver}, torch {torch.version} computes on CUDA {torch.cuda}{fewer}"
        )
    if torch.cuda is None:
        remedy = "install torch's build for CUDA: https://pytorch.org/get-started/locally"
        return Check(
            "GPU", Verdict.FAIL, f"{found}, {driver}, but torch {torch.version} is a build for the CPU", remedy
        )
    if visible is not None:
        said = f"{found}, {driver}, but CUDA_VISIBLE_DEVICES={visible!r} lets torch see none of it"
        return Check("GPU", Verdict.FAIL, said, "unset CUDA_VISIBLE_DEVICES, or name a GPU that is there")
    said = f"{found}, {driver}, but torch {torch.version} cannot compute on it (built for CUDA {torch.cuda})"
    return Check(
        "GPU", Verdict.FAIL, said, f"update the driver to one for CUDA {torch.cuda}, or install an older torch"
    )


# --- data and disk --------------------------------------------------------------------------------------------------


def data_check(path: Path | None) -> Check:
    """Audit the data file by samples: its layout, its cells and what its signals say of its labels."""
    if path is None:
        return Check(
            "data", Verdict.WARN, "no data file is named for this machine", "export AMC_DATA=FILE, or give --data FILE"
        )
    if not path.is_file():
        return Check(
            "data", Verdict.FAIL, f"{path}: no such file", "amc-data synth FILE makes one, or correct AMC_DATA"
        )
    from amc_core.audit.checks import audit_file

    checks = audit_file(path, every_frame=False)
    failed = [check for check in checks if check.verdict is Verdict.FAIL]
    whole = f"amc-data audit {path} reads every frame and says more"
    if len(checks) == 1 and failed:
        return Check("data", Verdict.FAIL, failed[0].text, "copy the file again; " + whole)
    if failed:
        return Check("data", Verdict.WARN, f"{path}: " + "; ".join(f"{c.name}: {c.text}" for c in failed), whole)
    passed = sum(check.verdict is Verdict.PASS for check in checks)
    return Check(
        "data", Verdict.PASS, f"{path}: {passed} checks passed by samples ({path.stat().st_size / 1e9:.1f} GB)"
    )


def disk_check(folder: Path, free_bytes: int, *, is_writable: bool) -> Check:
    """Judge the room for checkpoints."""
    free_gb = free_bytes / 1e9
    said = f"{free_gb:.1f} GB free for checkpoints in {folder}"
    remedy = "name another folder: export AMC_RUNS_DIR=FOLDER"
    if not is_writable:
        return Check("disk", Verdict.FAIL, f"{folder} cannot be written", remedy)
    if free_gb < DISK_FAIL_GB:
        return Check("disk", Verdict.FAIL, said, f"make room, or {remedy}")
    if free_gb < DISK_WARN_GB:
        return Check("disk", Verdict.WARN, said, f"enough for small networks; make room, or {remedy}")
    return Check("disk", Verdict.PASS, said)


def check_disk(runs_dir: Path) -> Check:
    """Look at the folder of the runs, or where it would be made."""
    folder = runs_dir.absolute()
    there = next(each for each in (folder, *folder.parents) if each.is_dir())
    return disk_check(folder, shutil.disk_usage(there).free, is_writable=os.access(there, os.W_OK | os.X_OK))


def examine(
    backend: Backend | str, *, data: Path | None, runs_dir: Path, environ: Mapping[str, str]
) -> Iterator[Check]:
    """Ask every question; the quick ones first.

    Args:
        backend: which W&B, or why none can be told.
        data: this machine's data file.
        runs_dir: where checkpoints go.
        environ: of the process.
    """
    required = _requirements()
    yield versions_check(installed_versions(required), required, sys.version_info[:3])
    yield check_disk(runs_dir)
    if isinstance(backend, str):
        yield Check("W&B", Verdict.FAIL, backend.splitlines()[0], "amc-sweep serve, wandb login, or --base-url URL")
    else:
        yield wandb_check(backend)
        yield clock_check(server_ahead_s(backend.base_url))
    if (mode := mode_check(environ)) is not None:
        yield mode
    yield gpu_check(nvidia_gpus(), torch_facts(), environ.get("CUDA_VISIBLE_DEVICES"))
    yield data_check(data)


def _requirements() -> list[str]:
    try:
        return [text for text in requires(DISTRIBUTION) or [] if ";" not in text]  # what follows one is for extras
    except PackageNotFoundError:
        return []


def _first_line(error: Any) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1]
