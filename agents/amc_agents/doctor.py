"""Is this machine ready for trials? One check per question, with a verdict and, if needed, what to do.

Every ``*_check`` function is pure, so tests can give it an old driver or a wrong clock.
"""

from __future__ import annotations

import email.utils
import http.client
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from amc_agents.cleaning.client_cache import cache_folder, cache_size
from amc_agents.disk_room import Room, read_room
from amc_analysis.reading.wandb_api import failure, open_api
from amc_analysis.reading.wandb_private import has_no_answer
from amc_core.missing_packages import DISTRIBUTION
from amc_core.verdicts import Verdict
from amc_server.store.network_disk import network_disk, network_disk_warning
from amc_sweeps.backend.choose import Backend
from amc_sweeps.number_formats import counted, duration
from amc_sweeps.runs.causes import STALE_AFTER_S

SHOWN_VERSIONS = ("torch", "torchvision", "wandb", "h5py", "numpy")
TIMEOUT_S = 10.0
CLOCK_WARN_S = 30.0
DISK_FAIL_GB, DISK_WARN_GB = 2.0, 20.0  # a run has three checkpoints; those of a ResNet-50 have 0.3 GB each
FILES_A_RUN = 60  # 35 in its folder, and those of the wandb client
FILES_FAIL, FILES_WARN = 1_000, 20_000  # a sweep of 300 runs makes 20,000
CACHE_WARN_GB = 10.0


@dataclass(frozen=True)
class Check:
    name: str
    verdict: Verdict
    text: str
    remedy: str | None = None  # what to do


@dataclass(frozen=True)
class Gpu:
    """One line of nvidia-smi."""

    name: str
    driver: str
    memory_mib: int


@dataclass(frozen=True)
class TorchFacts:
    """CUDA as torch sees it."""

    version: str
    cuda: str | None  # the CUDA version of torch's build; None: a CPU build
    devices: tuple[str, ...]  # on which torch computes
    error: str | None = None  # why torch did not answer


def _passed(name: str, text: str) -> Check:
    return Check(name, Verdict.PASS, text)


def _warning(name: str, text: str, remedy: str) -> Check:
    return Check(name, Verdict.WARN, text, remedy)


def _failed(name: str, text: str, remedy: str) -> Check:
    return Check(name, Verdict.FAIL, text, remedy)


# --- W&B ------------------------------------------------------------------------------------------------------------


def wandb_check(backend: Backend) -> Check:
    """Ask W&B which user this is."""
    where = backend.announce().removeprefix("W&B: ")
    try:
        api = open_api(backend)
        viewer, entity = api.viewer, api.default_entity
    except Exception as error:  # noqa: BLE001 - any error between this machine and the server is the result
        if has_no_answer(error):
            return _failed("W&B", f"{where}: {failure(backend, error)}", "check the address and the network")
        host = "" if backend.kind == "cloud" else f" --host {backend.base_url}"
        remedy = (
            "check that the server is running, and that the key is the one in its key file"
            if backend.kind == "embedded"
            else f"check the address and the network; wandb login --relogin{host} takes another key"
        )
        text = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return _failed("W&B", f"{where}: {text}", remedy)
    name = getattr(viewer, "username", None) or getattr(viewer, "name", "unknown")
    return _passed("W&B", f"{where}; you are {name}, runs go to {entity}")


def mode_check(environ: Mapping[str, str]) -> Check | None:
    """Return a failed check for a W&B mode in which trials reach no server."""
    mode = environ.get("WANDB_MODE", "online")
    if mode in {"offline", "disabled", "dryrun"}:
        return _failed("W&B mode", f"WANDB_MODE={mode}: no trial would reach W&B", "unset WANDB_MODE")
    return None


def server_ahead_s(base_url: str) -> float | None:
    """Return by how much the server's clock is ahead of this one, from its Date header; None without that."""
    request = urllib.request.Request(base_url, method="HEAD")
    sent_at_s = time.time()
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            date = answer.headers.get("Date")
    except urllib.error.HTTPError as error:
        date = error.headers.get("Date")  # an error page has the header too
    except (OSError, http.client.HTTPException, ValueError):
        return None
    try:
        # The header has whole seconds, rounded down: on average the time is half a second later.
        return email.utils.parsedate_to_datetime(date or "").timestamp() + 0.5 - (sent_at_s + time.time()) / 2
    except (ValueError, OverflowError):  # no header, or not a time
        return None


def clock_check(ahead_s: float | None) -> Check:
    """Compare this machine's clock with the server's."""
    if ahead_s is None:
        return _warning("clock", "the server did not send its time", "compare `date -u` with another machine")
    difference_s, remedy = abs(ahead_s), "set the clock by NTP: timedatectl set-ntp true"
    if difference_s <= CLOCK_WARN_S:
        return _passed("clock", f"within {max(difference_s, 1):.0f} s of the server's")
    text = f"{duration(difference_s)} {'behind' if ahead_s > 0 else 'ahead of'} the server's"
    if difference_s > STALE_AFTER_S:
        return _failed("clock", f"{text}: living runs may look lost, and lost runs alive", remedy)
    return _warning("clock", text, remedy)


# --- versions -------------------------------------------------------------------------------------------------------


def installed_versions(required: Sequence[str]) -> dict[str, str | None]:
    """Return versions by distribution name, None for a missing one."""
    from packaging.requirements import Requirement

    names = [Requirement(text).name for text in required]
    return {name: _version(name) for name in [DISTRIBUTION, *SHOWN_VERSIONS, *names]}


def versions_check(installed: Mapping[str, str | None], required: Sequence[str], python: tuple[int, ...]) -> Check:
    """Compare the installed versions with requirements such as ``wandb>=0.31,<0.32``."""
    from packaging.requirements import Requirement

    python_text = f"Python {'.'.join(map(str, python))}"
    violations = [] if python >= (3, 11) else [f"{python_text}, accepted: 3.11 or newer"]
    for text in required:
        requirement = Requirement(text)
        installed_version = installed.get(requirement.name)
        if installed_version is None:
            violations.append(f"{requirement.name} is missing")
        elif not requirement.specifier.contains(installed_version, prereleases=True):
            violations.append(f"{requirement.name} {installed_version}, accepted: {requirement.specifier}")
    if violations:
        remedy = f"pip install --upgrade {DISTRIBUTION}, in this environment"
        return _failed("versions", "; ".join(violations), remedy)
    versions = [f"{name} {installed[name]}" for name in SHOWN_VERSIONS if installed.get(name)]
    toolkit = installed.get(DISTRIBUTION) or "from a checkout"
    return _passed("versions", ", ".join([python_text, *versions, f"toolkit {toolkit}"]))


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _requirements() -> list[str]:
    try:
        return [text for text in requires(DISTRIBUTION) or [] if ";" not in text]  # ";" marks an extra
    except PackageNotFoundError:
        return []


# --- GPU ------------------------------------------------------------------------------------------------------------


def nvidia_gpus() -> list[Gpu] | None:
    """Return the GPUs that nvidia-smi lists; None without a driver."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader,nounits"]
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_gpus(process.stdout) if process.returncode == 0 else None


def parse_gpus(text: str) -> list[Gpu]:
    rows = [[part.strip() for part in line.split(",")] for line in text.splitlines() if line.count(",") == 2]
    return [Gpu(name, driver, int(memory) if memory.isdigit() else 0) for name, driver, memory in rows]


def torch_facts() -> TorchFacts:
    """Ask torch in another process, since a broken CUDA may crash it."""
    program = (
        "import json, torch\n"
        "devices = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]\n"
        "works = torch.cuda.is_available() and bool((torch.ones(2, device='cuda') * 2).sum().item() == 4)\n"
        "print(json.dumps([torch.__version__, torch.version.cuda, devices if works else []]))\n"
    )
    try:
        process = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
        )
    except subprocess.TimeoutExpired:
        return TorchFacts("?", None, (), "torch did not answer within two minutes")
    if process.returncode != 0:
        lines = process.stderr.strip().splitlines() or [f"exit code {process.returncode}"]
        return TorchFacts("?", None, (), lines[-1])
    torch_version, cuda, devices = json.loads(process.stdout.splitlines()[-1])
    return TorchFacts(torch_version, cuda, tuple(devices))


def gpu_check(gpus: Sequence[Gpu] | None, torch: TorchFacts, visible: str | None = None) -> Check:
    """Judge driver and torch together; ``visible`` is CUDA_VISIBLE_DEVICES."""
    if torch.error is not None:
        return _failed("GPU", f"torch does not start: {torch.error}", "pip install --force-reinstall torch")
    if not gpus:
        driver = "no NVIDIA driver answers" if gpus is None else "the driver lists no GPU"
        return _warning(
            "GPU",
            f"{driver} (nvidia-smi): trials run on the CPU, with torch {torch.version}",
            "enough for a first try; for a GPU install NVIDIA's driver, and give a container access to the GPU",
        )
    names = ", ".join(f"{gpu.name} ({gpu.memory_mib / 1024:.0f} GiB)" for gpu in gpus)
    text = f"{names}, driver {gpus[0].driver}"
    if torch.devices:
        note = "" if len(torch.devices) == len(gpus) else f"; torch sees {len(torch.devices)} of them"
        return _passed("GPU", f"{text}, torch {torch.version} computes on CUDA {torch.cuda}{note}")
    if torch.cuda is None:
        remedy = "install torch's build for CUDA: https://pytorch.org/get-started/locally"
        return _failed("GPU", f"{text}, but torch {torch.version} is a CPU build", remedy)
    if visible is not None:
        remedy = "unset CUDA_VISIBLE_DEVICES, or name an existing GPU"
        return _failed("GPU", f"{text}, but CUDA_VISIBLE_DEVICES={visible!r} hides it from torch", remedy)
    text += f", but torch {torch.version} cannot compute on it (built for CUDA {torch.cuda})"
    return _failed("GPU", text, f"update the driver to one for CUDA {torch.cuda}, or install an older torch")


# --- data and disk --------------------------------------------------------------------------------------------------


def data_check(path: Path | None) -> Check:
    """Audit a sample of the data file: its layout, its values, and whether the signals fit the labels."""
    if path is None:
        return _warning("data", "this machine has no data file", "export AMC_DATA=FILE, or give --data FILE")
    if not path.is_file():
        return _failed("data", f"{path}: no such file", "amc-data synth FILE makes one; or correct AMC_DATA")
    from amc_core.audit.checks import audit_file

    checks = audit_file(path, every_frame=False)
    failures = [check for check in checks if check.verdict in {Verdict.FAIL, Verdict.WARN}]
    remedy = f"amc-data audit {path} reads every frame and says more"
    if len(checks) == 1 and failures:
        return _failed("data", failures[0].text, "copy the file again; " + remedy)
    if failures:
        return _warning("data", f"{path}: " + "; ".join(f"{check.name}: {check.text}" for check in failures), remedy)
    number = counted(sum(check.verdict is Verdict.PASS for check in checks), "check")
    return _passed("data", f"{path}: {number} passed on a sample of frames ({path.stat().st_size / 1e9:.1f} GB)")


def disk_check(folder: Path, room: Room) -> Check:
    """Judge the room for checkpoints, by the disk and by the quota."""
    remedy = "name another folder: export AMC_RUNS_DIR=FOLDER"
    if not room.is_writable:
        return _failed("disk", f"{folder} cannot be written", remedy)
    free_gb, limit = room.free_bytes / 1e9, ""
    quota = room.quota
    if quota is not None and quota.most_bytes is not None:
        left_gb = max(quota.most_bytes - quota.used_bytes, 0) / 1e9
        free_gb, limit = (
            min(free_gb, left_gb),
            f"; your quota has {left_gb:.1f} of {quota.most_bytes / 1e9:.1f} GB left",
        )
    text = f"{free_gb:.1f} GB free for checkpoints in {folder}{limit}"
    if free_gb < DISK_FAIL_GB:
        return _failed("disk", text, f"make room (amc-sweep clean shows what can go), or {remedy}")
    if free_gb < DISK_WARN_GB:
        return _warning("disk", text, f"enough for small networks; amc-sweep clean shows what can go; or {remedy}")
    return _passed("disk", text)


def files_check(folder: Path, room: Room) -> Check:
    """Judge how many more files the disk and the quota allow (inodes)."""
    free, limit, quota = room.free_files, "", room.quota
    if quota is not None and quota.most_files is not None:
        left = max(quota.most_files - quota.used_files, 0)
        free, limit = (left if free is None else min(free, left)), f"; your quota is {quota.most_files:,} files"
    if free is None:
        return _passed("files", f"the disk of {folder} has no limit on the number of files")
    text = f"{free:,} more files fit on the disk of {folder}{limit}; a run makes about {FILES_A_RUN}"
    remedy = "remove old folders of runs (and of wandb/), or name another folder: export AMC_RUNS_DIR=FOLDER"
    if free < FILES_FAIL:
        return _failed("files", text, remedy)
    return _warning("files", text, remedy) if free < FILES_WARN else _passed("files", text)


def cache_check(folder: Path, size: int) -> Check:
    """Judge the size of the wandb client's cache of artifacts."""
    text = f"{size / 1e9:.1f} GB in W&B's cache {folder}"
    if size / 1e9 < CACHE_WARN_GB:
        return _passed("W&B cache", text)
    remedy = "amc-sweep clean removes copies of our checkpoints; wandb artifact cache cleanup 5GB removes any"
    return _warning("W&B cache", text, remedy)


def check_server_disk(folder: Path) -> Check | None:
    """Warn if the embedded server's data folder is on a network file system."""
    mount = network_disk(folder)
    return None if mount is None else _warning("server's disk", *network_disk_warning(folder, mount))


def examine(
    backend: Backend | str, *, data: Path | None, runs_dir: Path, server_data: Path, environ: Mapping[str, str]
) -> Iterator[Check]:
    """Yield every check, the fast ones first; ``backend`` is the W&B, or the reason why there is none."""
    required = _requirements()
    yield versions_check(installed_versions(required), required, sys.version_info[:3])
    room = read_room(runs_dir)
    yield disk_check(runs_dir.absolute(), room)
    yield files_check(runs_dir.absolute(), room)
    cache = cache_folder(environ)
    yield cache_check(cache, cache_size(cache))
    if (check := check_server_disk(server_data)) is not None:
        yield check
    if isinstance(backend, str):
        yield _failed("W&B", backend.splitlines()[0], "amc-sweep serve, wandb login, or --base-url URL")
    else:
        yield wandb_check(backend)
        yield clock_check(server_ahead_s(backend.base_url))
    if (mode := mode_check(environ)) is not None:
        yield mode
    yield gpu_check(nvidia_gpus(), torch_facts(), environ.get("CUDA_VISIBLE_DEVICES"))
    yield data_check(data)
