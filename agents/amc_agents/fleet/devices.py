"""The devices of this machine: which exist, their memory and load, the driver's errors, and a lock for each.

NVML (nvidia-ml-py) is loaded when a fleet starts. Without the library or a driver, no GPU is listed; a GPU that
``--gpus`` names is used anyway.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amc_core.files import LockedError, lock_file
from amc_sweeps.backend.running_servers import state_folder
from amc_sweeps.number_formats import counted, quoted

GIB = 2**30
# XIDs of faulty hardware: uncorrectable memory (48, 63, 64, 94, 95), NVLink (74), fallen off the bus (79), the
# device's firmware (62, 119, 120). A program causes 13, 31, 43 and 45. Source: NVIDIA, "XID Errors",
# docs.nvidia.com/deploy/xid-errors.
DEVICE_XIDS = frozenset({48, 62, 63, 64, 74, 79, 94, 95, 119, 120})
CROWDED_SHARE = 0.05  # of a device's memory in use by others; a desktop or a monitoring tool uses less


class DeviceError(ValueError):
    """The requested devices cannot be used; the message says what to do."""


@dataclass(frozen=True)
class Device:
    """One GPU, or one CPU worker."""

    name: str  # "gpu0", "cpu2"
    visible: str  # CUDA_VISIBLE_DEVICES of its trials; empty: no GPU
    identity: str  # the same in every process of this machine

    @property
    def is_gpu(self) -> bool:
        return self.visible != ""


@dataclass(frozen=True)
class Reading:
    """The state of a device, from its driver."""

    used_bytes: int
    total_bytes: int
    utilisation: float  # share of the last sample period in which a kernel ran, 0..1
    holders: tuple[int, ...] = ()  # ids of the processes with memory on it
    uncorrected: int | None = None  # ECC errors since the driver was loaded; None: without ECC


class Driver:
    """A machine without a GPU driver."""

    def devices(self) -> list[Device]:
        return []

    def read(self, device: Device) -> Reading | None:
        """Return the device's state; None when the driver does not know it, or it does not answer."""
        return None

    def new_xids(self) -> list[tuple[str, int]]:
        """Return the critical errors since the last call, as (device identity, XID)."""
        return []


def load_driver() -> Driver:
    """Return NVML, or a driver without devices where NVML does not work."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except ImportError:
        return Driver()
    except pynvml.NVMLError:
        return Driver()
    return Nvml(pynvml)


class Nvml(Driver):
    """NVIDIA's management library."""

    def __init__(self, library: Any) -> None:
        self._nvml = library
        self._handles = [library.nvmlDeviceGetHandleByIndex(k) for k in range(library.nvmlDeviceGetCount())]
        self._uuids = [_text(library.nvmlDeviceGetUUID(handle)) for handle in self._handles]
        self._events = self._listen()

    def devices(self) -> list[Device]:
        """Return every GPU, in the order of the PCI bus."""
        return [Device(f"gpu{index}", str(index), uuid) for index, uuid in enumerate(self._uuids)]

    def read(self, device: Device) -> Reading | None:
        nvml = self._nvml
        try:
            handle = self._handles[self._uuids.index(device.identity)]
            memory = nvml.nvmlDeviceGetMemoryInfo(handle)
            share = nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
        except (ValueError, nvml.NVMLError):
            return None
        return Reading(int(memory.used), int(memory.total), share, self._holders(handle), self._uncorrected(handle))

    def new_xids(self) -> list[tuple[str, int]]:
        xids = []
        while self._events is not None:
            try:
                data = self._nvml.nvmlEventSetWait_v2(self._events, 0)
            except self._nvml.NVMLError:  # usually a timeout: no event
                break
            with contextlib.suppress(self._nvml.NVMLError):
                xids.append((_text(self._nvml.nvmlDeviceGetUUID(data.device)), int(data.eventData)))
        return xids

    def _listen(self) -> Any:
        try:
            events = self._nvml.nvmlEventSetCreate()
            for handle in self._handles:
                self._nvml.nvmlDeviceRegisterEvents(handle, self._nvml.nvmlEventTypeXidCriticalError, events)
        except self._nvml.NVMLError:
            return None
        return events

    def _holders(self, handle: Any) -> tuple[int, ...]:
        try:
            return tuple(process.pid for process in self._nvml.nvmlDeviceGetComputeRunningProcesses(handle))
        except self._nvml.NVMLError:
            return ()

    def _uncorrected(self, handle: Any) -> int | None:
        nvml = self._nvml
        try:
            kind, since = nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC
            return int(nvml.nvmlDeviceGetTotalEccErrors(handle, kind, since))
        except nvml.NVMLError:
            return None


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def choose_devices(
    driver: Driver, *, gpus: str | None, workers: int | None, environ: Mapping[str, str] = os.environ
) -> list[Device]:
    """Return the devices to work on.

    Args:
        driver: lists the GPUs.
        gpus: "all", or indices and UUIDs as in CUDA_VISIBLE_DEVICES; None: all GPUs, or one CPU worker without any.
        workers: how many CPU workers.
        environ: its CUDA_VISIBLE_DEVICES limits "all".

    Raises:
        DeviceError: with the request, the existing devices, and what to do.
    """
    if gpus is not None and workers is not None:
        raise DeviceError("--gpus and --workers exclude each other: give one of them")
    if workers is not None:
        return [Device(f"cpu{k}", "", f"cpu{k}") for k in range(workers)]
    devices = driver.devices()
    selection = gpus if gpus not in {None, "all"} else environ.get("CUDA_VISIBLE_DEVICES")
    if selection is not None:
        names = [part.strip() for part in selection.split(",") if part.strip() not in {"", "-1"}]  # -1: CUDA's "none"
        if len(set(names)) != len(names):
            raise DeviceError(f"--gpus {selection} names a device twice; --per-gpu 2 runs two agents on each")
        if gpus is not None or names:
            return [_named(name, devices) for name in names]
        devices = []  # CUDA_VISIBLE_DEVICES is empty: the GPUs are hidden
    if gpus == "all" and not devices:
        raise DeviceError(
            "--gpus all: NVML shows no GPU on this machine. Name the GPUs, like --gpus 0,1, or use --workers N (CPU)"
        )
    return devices or [Device("cpu0", "", "cpu0")]


def _named(name: str, devices: list[Device]) -> Device:
    for device in devices:
        if name in {device.visible, device.identity, device.name}:
            return Device(device.name, name if name == device.identity else device.visible, device.identity)
    if devices and name.isdigit():
        indices = ", ".join(device.visible for device in devices)
        raise DeviceError(f"this machine has no GPU {name}, only {indices}")
    if not (name.isdigit() or name.startswith(("GPU-", "MIG-"))):
        raise DeviceError(
            f"{quoted(name)} is not a GPU: write an index like 0, or a UUID like GPU-8f2c... (nvidia-smi -L)"
        )
    return Device(f"gpu{name}" if name.isdigit() else name, name, name)


def lock_devices(devices: list[Device], environ: Mapping[str, str] = os.environ) -> contextlib.ExitStack:
    """Lock every GPU against other fleets of this user, until the returned stack is closed or the process ends.

    Raises:
        DeviceError: another fleet has locked one of them.
    """
    folder = state_folder(environ).parent / "devices"
    with contextlib.ExitStack() as locks:
        for device in devices:
            if not device.is_gpu:
                continue
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            try:
                locks.enter_context(lock_file(folder / f"{_lock_name(device, environ)}.lock"))
            except LockedError as error:
                raise DeviceError(
                    f"{device.name} belongs to another amc-sweep agent of yours (pid {error.holder}). "
                    "To run two agents on one GPU, use one command with --per-gpu 2"
                ) from error
        return locks.pop_all()


def _lock_name(device: Device, environ: Mapping[str, str]) -> str:
    """Return a name that no other GPU has; the folder of locks may be shared by the nodes of a cluster.

    Without NVML a GPU has only an index. Each machine counts from 0, and with Slurm on some clusters each job does.
    """
    if not device.identity.isdigit():
        return device.identity
    return "-".join(filter(None, (socket.gethostname(), environ.get("SLURM_JOB_ID"), device.identity)))


def other_users(reading: Reading | None, own_pids: set[int], *, shared: bool = False) -> str | None:
    """Return which other processes hold much of a device's memory, as text; None if there are none.

    Args:
        reading: of the device.
        own_pids: the fleet's processes.
        shared: whether the fleet runs several agents on the device. In a container the driver's process ids are those
            of the host, so our own trial looks like another user. Ids that do not exist here are then ignored.
    """
    if reading is None or reading.used_bytes < CROWDED_SHARE * reading.total_bytes:
        return None
    others = [pid for pid in reading.holders if pid not in own_pids]
    if shared:
        others = [pid for pid in others if Path(f"/proc/{pid}").exists()]
    if not others:
        return None
    names = ", ".join(f"pid {pid} {_name(pid)}".strip() for pid in others)
    return f"{reading.used_bytes / GIB:.1f} of {reading.total_bytes / GIB:.1f} GiB in use, also by {names}"


def _name(pid: int) -> str:
    try:
        return f"({Path(f'/proc/{pid}/comm').read_text().strip()})"
    except OSError:
        return ""


def device_fault(before: Reading | None, after: Reading | None, xids: list[int]) -> str | None:
    """Return the fault of the device between two readings, as text, or None."""
    device_xids = sorted(set(xids) & DEVICE_XIDS)
    if device_xids:
        return f"the driver reported XID {', '.join(map(str, device_xids))}"
    if before is not None and after is None:
        return "the driver gets no answer from it"
    if before is not None and after is not None and before.uncorrected is not None and after.uncorrected is not None:
        increase = after.uncorrected - before.uncorrected
        if increase > 0:
            return counted(increase, "new uncorrected ECC error")
    return None
