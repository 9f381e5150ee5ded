"""The devices of this machine: which there are, how busy they are, what their driver complains of, who has them.

NVML comes by nvidia-ml-py, loaded when a fleet starts; without the library or a driver there are no GPUs to be seen,
and those that are named with ``--gpus`` are used all the same.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from amc_sweeps.backend.running_servers import state_folder

GIB = 2**30
# XIDs that speak of the device and not of the program on it: uncorrectable memory (48, 63, 64, 94, 95), NVLink (74),
# fallen off the bus (79), its own firmware (62, 119, 120). 13, 31, 43 and 45 are a program's. Source: NVIDIA, "XID
# Errors", docs.nvidia.com/deploy/xid-errors.
DEVICE_XIDS = frozenset({48, 62, 63, 64, 74, 79, 94, 95, 119, 120})
CROWDED_SHARE = 0.05  # of a device's memory in other hands: less is a desktop or a monitoring tool


class DeviceError(ValueError):
    """The devices that were asked for cannot be used; the message says what to do."""


@dataclass(frozen=True)
class Device:
    """One GPU, or one worker without."""

    name: str  # "gpu0", "cpu2"
    visible: str  # CUDA_VISIBLE_DEVICES of what runs on it; empty: none
    identity: str  # the same in every process of this machine

    @property
    def is_gpu(self) -> bool:
        """Whether it is a GPU."""
        return self.visible != ""


@dataclass(frozen=True)
class Reading:
    """What the driver says of a device now."""

    used_bytes: int
    total_bytes: int
    utilisation: float  # share of the last moments in which a kernel ran, 0..1
    holders: tuple[int, ...] = ()  # ids of the processes that hold memory
    uncorrected: int | None = None  # ECC errors since the driver was loaded; None: no ECC


class Driver(Protocol):
    """What of a GPU driver the fleet needs; tests bring their own."""

    def found(self) -> list[Device]: ...
    def read(self, device: Device) -> Reading | None: ...
    def new_xids(self) -> list[tuple[str, int]]: ...


class NoDriver:
    """A machine without NVIDIA's driver."""

    def found(self) -> list[Device]:
        """Return no device."""
        return []

    def read(self, device: Device) -> Reading | None:
        """Return nothing."""
        return None

    def new_xids(self) -> list[tuple[str, int]]:
        """Return nothing."""
        return []


def load_driver() -> Driver:
    """Return NVML, or its absence."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except ImportError:
        return NoDriver()
    except pynvml.NVMLError:
        return NoDriver()
    return Nvml(pynvml)


class Nvml:
    """NVIDIA's management library."""

    def __init__(self, library: Any) -> None:
        self._nvml = library
        self._handles = [library.nvmlDeviceGetHandleByIndex(k) for k in range(library.nvmlDeviceGetCount())]
        self._uuids = [_text(library.nvmlDeviceGetUUID(handle)) for handle in self._handles]
        self._events = self._listen()

    def found(self) -> list[Device]:
        """Return every GPU in the order of the bus, which is NVML's."""
        return [Device(f"gpu{index}", str(index), uuid) for index, uuid in enumerate(self._uuids)]

    def read(self, device: Device) -> Reading | None:
        """Return the device's state; None for one that NVML does not know, or that no longer answers."""
        nvml = self._nvml
        try:
            handle = self._handles[self._uuids.index(device.identity)]
            memory = nvml.nvmlDeviceGetMemoryInfo(handle)
            share = nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
        except (ValueError, nvml.NVMLError):
            return None
        return Reading(int(memory.used), int(memory.total), share, self._holders(handle), self._uncorrected(handle))

    def new_xids(self) -> list[tuple[str, int]]:
        """Return the critical errors since the last call, as (identity, XID)."""
        found = []
        while self._events is not None:
            try:
                data = self._nvml.nvmlEventSetWait_v2(self._events, 0)
            except self._nvml.NVMLError:  # usually a timeout: nothing is waiting
                break
            with contextlib.suppress(self._nvml.NVMLError):
                found.append((_text(self._nvml.nvmlDeviceGetUUID(data.device)), int(data.eventData)))
        return found

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


def choose(
    driver: Driver, *, gpus: str | None, workers: int | None, environ: Mapping[str, str] = os.environ
) -> list[Device]:
    """Return the devices to work on.

    Args:
        driver: what can be seen of GPUs.
        gpus: "all", or indices and UUIDs as CUDA_VISIBLE_DEVICES has them; None: all there are, else one CPU worker.
        workers: how many workers without a GPU.
        environ: a CUDA_VISIBLE_DEVICES in it limits what "all" means.

    Raises:
        DeviceError: with what was asked for, what there is, and what to do.
    """
    if gpus is not None and workers is not None:
        raise DeviceError("--gpus and --workers exclude one another: give one")
    if workers is not None:
        return [Device(f"cpu{k}", "", f"cpu{k}") for k in range(workers)]
    known = driver.found()
    allowed = environ.get("CUDA_VISIBLE_DEVICES")
    wanted = gpus if gpus not in {None, "all"} else allowed
    if wanted is not None:
        names = [part.strip() for part in wanted.split(",") if part.strip() not in {"", "-1"}]  # -1: CUDA's "none"
        if len(set(names)) != len(names):
            raise DeviceError(f"--gpus {wanted} names a device twice; --per-gpu 2 runs two agents on each")
        if gpus is not None or names:
            return [_named(name, known) for name in names]
        known = []  # CUDA_VISIBLE_DEVICES is empty: the GPUs are hidden from us
    if gpus == "all" and not known:
        raise DeviceError(
            "--gpus all: no GPU is to be seen here (NVML). Name them, like --gpus 0,1, or give --workers N for the CPU"
        )
    return known or [Device("cpu0", "", "cpu0")]


def _named(name: str, known: list[Device]) -> Device:
    for device in known:
        if name in {device.visible, device.identity, device.name}:
            return Device(device.name, name if name == device.identity else device.visible, device.identity)
    if known and name.isdigit():
        there = ", ".join(device.visible for device in known)
        raise DeviceError(f"there is no GPU {name} here; there are {there}")
    if not (name.isdigit() or name.startswith(("GPU-", "MIG-"))):
        raise DeviceError(f"{name!r} names no GPU: write an index like 0, or a UUID like GPU-8f2c... (nvidia-smi -L)")
    return Device(f"gpu{name}" if name.isdigit() else name, name, name)


class Lease:
    """This user's hold on devices: a second fleet on the same GPU is refused, not slowed to death.

    An flock(2) of a file a device; it ends with the process, however that ends.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._folder = state_folder(environ).parent / "devices"
        self._held: list[int] = []

    def take(self, devices: list[Device]) -> None:
        """Take them all.

        Raises:
            DeviceError: when another fleet has one of them.
        """
        for device in devices:
            if not device.is_gpu:
                continue
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            path = self._folder / f"{device.identity}.lock"
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                owner = os.read(descriptor, 20).decode() or "?"
                os.close(descriptor)
                raise DeviceError(
                    f"{device.name} belongs to another amc-sweep agent of yours (pid {owner}). "
                    "Two agents on one GPU on purpose: one command with --per-gpu 2"
                ) from error
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            self._held.append(descriptor)


def crowd(reading: Reading | None, ours: set[int], *, shared: bool = False) -> str | None:
    """Return who else holds a good part of a device's memory, in words, or None.

    Args:
        reading: what the driver says.
        ours: processes of this fleet.
        shared: whether the fleet runs several agents on the device. In a container the driver's process ids are the
            host's, so that one of ours cannot be told from a stranger: those that are not to be seen here do not count.
    """
    if reading is None or reading.used_bytes < CROWDED_SHARE * reading.total_bytes:
        return None
    strangers = [pid for pid in reading.holders if pid not in ours]
    if shared:
        strangers = [pid for pid in strangers if Path(f"/proc/{pid}").exists()]
    if not strangers:
        return None
    names = ", ".join(f"pid {pid} {_name(pid)}".strip() for pid in strangers)
    return f"{reading.used_bytes / GIB:.1f} of {reading.total_bytes / GIB:.1f} GiB in use, by {names} too"


def _name(pid: int) -> str:
    try:
        return f"({Path(f'/proc/{pid}/comm').read_text().strip()})"
    except OSError:
        return ""


def fault(before: Reading | None, after: Reading | None, xids: list[int]) -> str | None:
    """Return what the driver complained of between two readings, in words, or None."""
    serious = sorted(set(xids) & DEVICE_XIDS)
    if serious:
        return f"the driver reported XID {', '.join(map(str, serious))}"
    if before is not None and after is None:
        return "the driver no longer answers for it"
    if before is not None and after is not None and before.uncorrected is not None and after.uncorrected is not None:
        new = after.uncorrected - before.uncorrected
        if new > 0:
            return f"{new} new uncorrected ECC {'error' if new == 1 else 'errors'}"
    return None
