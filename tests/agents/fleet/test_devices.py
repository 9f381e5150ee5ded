"""Which devices a fleet uses, their readings, faults and locks. The driver is a fake."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from amc_agents.fleet.agent_slot import agent_environment
from amc_agents.fleet.devices import (
    Device,
    DeviceError,
    Driver,
    Nvml,
    Reading,
    choose_devices,
    device_fault,
    load_driver,
    lock_devices,
    other_users,
)

GIB = 2**30


class FakeNvml:
    """NVIDIA's library on a machine with GPUs."""

    NVML_MEMORY_ERROR_TYPE_UNCORRECTED = 1
    NVML_VOLATILE_ECC = 0
    nvmlEventTypeXidCriticalError = 8  # noqa: N815 - the library's own name

    class NVMLError(Exception):
        """The library's error."""

    def __init__(self, number: int = 3) -> None:
        self.number = number
        self.lost: set[int] = set()
        self.xids: list[tuple[int, int]] = []
        self.ecc: int | None = 0

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return self.number

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetUUID(self, handle: int) -> str:  # noqa: N802
        return f"GPU-{handle}"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:  # noqa: N802
        if handle in self.lost:
            raise self.NVMLError("GPU is lost")
        return SimpleNamespace(used=3 * GIB, total=24 * GIB)

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:  # noqa: N802
        return SimpleNamespace(gpu=87)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[Any]:  # noqa: N802
        return [SimpleNamespace(pid=os.getpid())]

    def nvmlDeviceGetTotalEccErrors(self, handle: int, kind: int, since: int) -> int:  # noqa: N802
        if self.ecc is None:
            raise self.NVMLError("not supported")
        return self.ecc

    def nvmlEventSetCreate(self) -> str:  # noqa: N802
        return "events"

    def nvmlDeviceRegisterEvents(self, handle: int, kind: int, events: str) -> None:  # noqa: N802
        assert kind == self.nvmlEventTypeXidCriticalError

    def nvmlEventSetWait_v2(self, events: str, timeout_ms: int) -> Any:  # noqa: N802
        if not self.xids:
            raise self.NVMLError("timeout")
        handle, xid = self.xids.pop(0)
        return SimpleNamespace(device=handle, eventData=xid)


@pytest.mark.parametrize(
    ("gpus", "visible", "expected"),
    [
        (None, None, ["gpu0", "gpu1", "gpu2"]),
        ("all", None, ["gpu0", "gpu1", "gpu2"]),
        ("2,0", None, ["gpu2", "gpu0"]),
        ("GPU-1", None, ["gpu1"]),
        (None, "1", ["gpu1"]),
        ("all", "0,2", ["gpu0", "gpu2"]),
        (None, "", ["cpu0"]),
        (None, "-1", ["cpu0"]),
    ],
)
def test_gpus_are_written_as_in_cuda_visible_devices(
    gpus: str | None, visible: str | None, expected: list[str]
) -> None:
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    devices = choose_devices(Nvml(FakeNvml()), gpus=gpus, workers=None, environ=environ)
    assert [device.name for device in devices] == expected


def test_without_a_driver_named_gpus_are_used_or_one_cpu_worker() -> None:
    assert [device.visible for device in choose_devices(Driver(), gpus="0,3", workers=None, environ={})] == ["0", "3"]
    assert [device.name for device in choose_devices(Driver(), gpus=None, workers=None, environ={})] == ["cpu0"]
    four = choose_devices(Driver(), gpus=None, workers=4, environ={})
    assert [(device.name, device.visible) for device in four] == [(f"cpu{k}", "") for k in range(4)]


@pytest.mark.parametrize(
    ("gpus", "workers", "driver", "words"),
    [
        ("5", None, Nvml(FakeNvml()), "this machine has no GPU 5, only 0, 1, 2"),
        ("0,0", None, Nvml(FakeNvml()), "--per-gpu 2"),
        ("all", None, Driver(), "--workers N"),
        ("first", None, Driver(), "nvidia-smi -L"),
        ("0", 2, Driver(), "exclude each other"),
    ],
)
def test_devices_that_cannot_be_used_are_refused_with_a_remedy(
    gpus: str, workers: int | None, driver: Any, words: str
) -> None:
    with pytest.raises(DeviceError, match=words):
        choose_devices(driver, gpus=gpus, workers=workers, environ={})


def test_a_reading_has_memory_load_holders_and_errors_and_is_none_for_a_lost_device() -> None:
    library = FakeNvml()
    driver = Nvml(library)
    device = driver.devices()[1]
    assert driver.read(device) == Reading(3 * GIB, 24 * GIB, 0.87, (os.getpid(),), 0)
    library.ecc = None
    reading = driver.read(device)
    assert reading is not None
    assert reading.uncorrected is None
    library.lost.add(1)
    assert driver.read(device) is None
    assert driver.read(Device("gpu9", "9", "9")) is None


def test_critical_errors_are_returned_once_with_their_device() -> None:
    library = FakeNvml()
    driver = Nvml(library)
    library.xids = [(1, 79), (0, 31)]
    assert driver.new_xids() == [("GPU-1", 79), ("GPU-0", 31)]
    assert driver.new_xids() == []


def test_errors_of_the_device_are_faults_and_errors_of_the_program_are_not() -> None:
    good = Reading(0, GIB, 0.0, (), 2)
    assert device_fault(good, good, [31, 43, 13]) is None
    assert device_fault(good, good, [31, 79]) == "the driver reported XID 79"
    assert device_fault(good, None, []) == "the driver gets no answer from it"
    assert device_fault(good, Reading(0, GIB, 0.0, (), 3), []) == "1 new uncorrected ECC error"
    assert device_fault(None, None, []) is None


def test_other_users_are_named_when_they_hold_much_of_the_memory() -> None:
    own_pids, other = {1234567}, os.getpid()
    assert other_users(Reading(20 * GIB, 24 * GIB, 0, (1234567,)), own_pids) is None
    assert other_users(Reading(GIB, 24 * GIB, 0, (other,)), own_pids) is None
    text = other_users(Reading(20 * GIB, 24 * GIB, 0, (1234567, other)), own_pids)
    assert text is not None
    assert f"20.0 of 24.0 GiB in use, also by pid {other}" in text
    unseen = Reading(20 * GIB, 24 * GIB, 0, (2**22 + 1,))
    assert other_users(unseen, set()) is not None
    assert other_users(unseen, set(), shared=True) is None, "in a container it may be our own other trial"


def test_a_second_fleet_on_the_same_gpu_is_refused_until_the_first_has_ended() -> None:
    device = Device("gpu0", "0", "GPU-0")
    code = (
        "import time\nfrom amc_agents.fleet.devices import Device, lock_devices\n"
        "locks = lock_devices([Device('gpu0', '0', 'GPU-0')])\nprint('taken', flush=True)\ntime.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "taken\n"
        with pytest.raises(DeviceError, match=rf"pid {first.pid}\).*--per-gpu 2"):
            lock_devices([device])
        first.kill()
    lock_devices([device, Device("cpu0", "", "cpu0")]).close()


def test_without_nvml_the_gpu_0_of_another_node_or_job_is_another_gpu(tmp_path: Path) -> None:
    device, first = Device("gpu0", "0", "0"), {"AMC_STATE_DIR": str(tmp_path / "shared"), "SLURM_JOB_ID": "4813"}
    with lock_devices([device], first), lock_devices([device], {**first, "SLURM_JOB_ID": "4814"}):
        pass
    with lock_devices([device], first), pytest.raises(DeviceError, match="--per-gpu 2"):
        lock_devices([device], first)


def test_an_agent_sees_only_its_device_and_no_wandb_service_of_its_parent() -> None:
    base = {"WANDB_SERVICE": "3-1-unix", "OMP_NUM_THREADS": "5", "HOME": "/h"}
    gpu = agent_environment("gpu2", Device("gpu2", "2", "GPU-2"), base, tag="t", threads=0)
    assert (gpu["CUDA_VISIBLE_DEVICES"], gpu["CUDA_DEVICE_ORDER"], gpu["AMC_WORKER"]) == (
        "2",
        "PCI_BUS_ID",
        "gpu2",
    )
    assert "WANDB_SERVICE" not in gpu
    cpu = agent_environment("cpu1", Device("cpu1", "", "cpu1"), base, tag="t", threads=2)
    assert (cpu["CUDA_VISIBLE_DEVICES"], cpu["OMP_NUM_THREADS"]) == ("", "5"), "the user's value stays"
    assert agent_environment("cpu1", Device("cpu1", "", "cpu1"), {}, tag="t", threads=2)["OMP_NUM_THREADS"] == "2"


def test_a_machine_without_nvidia_s_driver_has_no_gpus_and_no_error() -> None:
    if Path("/proc/driver/nvidia").exists():
        pytest.skip("this machine has NVIDIA's driver")
    assert load_driver().devices() == []
