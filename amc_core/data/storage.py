"""Where the frames of a trial are kept: in the file, in memory, or on the GPU.

In names: N all rows of the file, M the rows of the selection, B the rows asked for, T = 1024 samples, C = I and Q.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from amc_core.machine.memory import free_memory, memory_groups
from amc_sweeps.number_formats import duration, percent

if TYPE_CHECKING:
    import torch

_FRAME_VALUES = 1024 * 2
_CHUNK = 2048  # rows copied at once
_AUTO_SHARE = 0.5  # of free memory that auto takes: the model and other trials on this machine need the rest
_NAMED_SHARE = 0.9  # of free memory that a storage named by the user may take

TELL_EVERY_S = 10.0

Tell = Callable[[str], None]
_Gather = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float32]]


def silent(_line: str) -> None:
    """Print nothing."""


class NoRoomError(ValueError):
    """The storage that the user named has no room, or needs a GPU that is not there."""


@dataclass(frozen=True)
class Room:
    """Free memory in bytes; ``device`` is None where no GPU is used."""

    ram: int
    device: int | None


def choose_storage(storage: str, *, n_frames: int, is_contiguous: bool, room: Room) -> str:
    """Return memmap, ram, ram_float16, device, or ``file`` (through h5py) for this number of frames.

    ``auto`` prefers the GPU, where a batch needs no copy. All trials of a machine share one map of a file, so that
    eight trials need its memory once; a map that fits is as fast as a copy. A chunked or compressed file cannot be
    mapped, and any copy is faster than reading it.

    Raises:
        NoRoomError: the named storage has no room, or there is no GPU.
    """
    half, full = 2 * _FRAME_VALUES * n_frames, 4 * _FRAME_VALUES * n_frames  # bytes in float16 and float32
    if storage == "auto":
        ram = room.ram * _AUTO_SHARE
        if room.device is not None and half <= room.device * _AUTO_SHARE:
            return "device"
        if is_contiguous:
            return "memmap"
        return "ram" if full <= ram else "ram_float16" if half <= ram else "file"
    if storage == "device":
        if room.device is None:
            raise NoRoomError(
                "storage: device needs an NVIDIA GPU that torch can use, and there is none here; use auto"
            )
        _require(storage, half, room.device, "on the GPU; use auto, or a narrower SNR range")
    elif storage == "ram":
        _require(storage, full, room.ram, "in memory; use ram_float16, which takes half of it, or memmap")
    elif storage == "ram_float16":
        _require(storage, half, room.ram, "in memory; use memmap, or a narrower SNR range")
    return storage


def find_room(device: torch.device | None) -> Room:
    """Return the free memory of the machine, or of its container or cluster job if that is less."""
    import psutil

    ram = psutil.virtual_memory().available
    if (free_in_group := free_memory(memory_groups())) is not None:
        ram = min(ram, free_in_group)
    if device is None or device.type != "cuda":
        return Room(ram=ram, device=None)
    import torch

    return Room(ram=ram, device=torch.cuda.mem_get_info(device)[0])


class HeldInRam:
    """A copy of the selected frames: as float32, or as float16 at unit power (rounding 66 dB below the peak)."""

    def __init__(
        self, gather: _Gather, rows_M: npt.NDArray[np.int64], n_rows: int, dtype: type[np.floating], tell: Tell = silent
    ) -> None:
        self._position_N = _positions(rows_M, n_rows)
        self._frames_MTC = np.empty((len(rows_M), 1024, 2), dtype=dtype)
        for part in told_parts(len(rows_M), tell):
            frames_BTC = gather(rows_M[part])
            self._frames_MTC[part] = frames_BTC if dtype == np.float32 else _in_half(frames_BTC).numpy()

    def frames(self, rows_B: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Gather rows: float32 (B, 1024, 2), at unit power if they are held as float16."""
        return self._frames_MTC[_held_positions(self._position_N, rows_B)].astype(np.float32, copy=False)

    def heads(self, rows_B: npt.NDArray[np.int64], length: int) -> npt.NDArray[np.float32]:
        """Gather the first samples of rows: float32 (B, length, 2)."""
        return self._frames_MTC[_held_positions(self._position_N, rows_B), :length].astype(np.float32, copy=False)


class HeldOnDevice:
    """A copy of the selected frames on the GPU, in float16 at unit power: 4.6 GB for 1.1 million."""

    def __init__(
        self, gather: _Gather, rows_M: npt.NDArray[np.int64], n_rows: int, device: torch.device, tell: Tell = silent
    ) -> None:
        import torch

        self._device = device
        self._position_N = _positions(rows_M, n_rows)
        self._frames_MTC = torch.empty((len(rows_M), 1024, 2), dtype=torch.float16, device=device)
        for part in told_parts(len(rows_M), tell):
            self._frames_MTC[part] = _in_half(gather(rows_M[part]), device)

    def positions(self, rows_B: npt.NDArray[np.int64]) -> torch.Tensor:
        """Return where rows are held: (B,) on the device."""
        import torch

        return torch.from_numpy(_held_positions(self._position_N, rows_B)).to(self._device)

    def frames(self, position_B: torch.Tensor) -> torch.Tensor:
        """Gather held positions: float32 (B, 1024, 2) at unit power; nothing travels."""
        frames: torch.Tensor = self._frames_MTC.index_select(0, position_B).float()
        return frames


def _require(storage: str, n_bytes: int, free: int, advice: str) -> None:
    if n_bytes > free * _NAMED_SHARE:
        raise NoRoomError(f"storage: {storage} needs {n_bytes / 2**30:.1f} GiB, {free / 2**30:.1f} are free {advice}")


def _in_half(frames_BTC: npt.NDArray[np.float32], device: torch.device | str = "cpu") -> torch.Tensor:
    """Return frames at unit power in float16, whose largest value is 65504 and which has few digits below 6e-5.

    Every representation scales to unit power anyway, so only the receiver's gain is lost. Silent and bad frames keep
    their scale. The device computes; on the CPU all cores do.
    """
    import torch

    iq_BTC = torch.from_numpy(frames_BTC).to(device)
    norm_B = torch.linalg.vector_norm(iq_BTC, dim=(1, 2))
    # Squares of very large or small samples leave float32. float64 for all frames takes six times as long.
    odd_B = ~torch.isfinite(norm_B) | (norm_B < 1e-15)
    if bool(odd_B.any()):
        norm_B[odd_B] = torch.linalg.vector_norm(iq_BTC[odd_B], dim=(1, 2), dtype=torch.float64).float()
    is_scaled_B = torch.isfinite(norm_B) & (norm_B > 0)
    gain_B = torch.where(is_scaled_B, frames_BTC.shape[1] ** 0.5 / norm_B, 1.0).clamp(max=1e38)
    half_BTC: torch.Tensor = (iq_BTC * gain_B[:, None, None]).half()
    return half_BTC


def _positions(rows_M: npt.NDArray[np.int64], n_rows: int) -> npt.NDArray[np.int64]:
    """Return where every row of the file is held; -1: nowhere."""
    position_N = np.full(n_rows, -1, dtype=np.int64)
    position_N[rows_M] = np.arange(len(rows_M))
    return position_N


def _held_positions(position_N: npt.NDArray[np.int64], rows_B: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    position_B: npt.NDArray[np.int64] = position_N[rows_B]
    if len(position_B) and position_B.min() < 0:
        missing = rows_B[position_B < 0]
        raise ValueError(f"row {missing[0]} is not held: only the rows given to hold() are")
    return position_B


def told_parts(n_rows: int, tell: Tell, *, clock: Callable[[], float] = time.monotonic) -> Iterator[slice]:
    """Yield the parts of some rows, and print a line every TELL_EVERY_S on how many were read and the time left.

    A compressed file of 20 GB takes many minutes to read; a quick file prints nothing.
    """
    began_s = told_s = clock()
    for start in range(0, n_rows, _CHUNK):
        now_s = clock()
        if start and now_s - told_s >= TELL_EVERY_S:
            told_s = now_s
            left_s = (now_s - began_s) / start * (n_rows - start)
            tell(f"reading frames: {start:,} of {n_rows:,} ({percent(start / n_rows)}), {duration(left_s)} left")
        yield slice(start, start + _CHUNK)
