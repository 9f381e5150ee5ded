"""Batches of model input, read from the file in the background while the model computes.

In names: B frames of a batch, T = 1024 samples, C = I and Q, X the shape of one frame's model input, M frames of the
selection.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from amc_core.data.radioml import RadioMLFile, Selection

_READS_AHEAD = 2  # batches, so that one slow read (a cold disk) does not stop the model


@dataclass(frozen=True)
class Batch:
    """Inputs and targets on the device."""

    input: Tensor  # (B, *X), the model's input
    modulation: Tensor  # (B,) index of the class
    snr: Tensor  # (B,) index of the level


@dataclass(frozen=True)
class RandomChange:
    """A random change of every frame before it becomes model input."""

    draws: npt.NDArray[np.float32]  # (M, X) random numbers, X for every frame of the selection
    apply: Callable[[Tensor, Tensor, Tensor], Tensor]  # of (B, T, 2), (B, X) and (B,) classes, on the device


@dataclass(frozen=True)
class _Loaded:
    rows: npt.NDArray[np.int64]
    frames: Tensor | None  # (B, T, 2), pinned for a GPU; None where the GPU holds the frames
    draws: Tensor | None
    modulation: Tensor
    snr: Tensor


class Feed:
    """Frames of a selection as model input, in batches.

    A thread reads ahead into pinned memory, which a GPU copies without waiting. The representation is computed between
    two steps of the model, on the CPU too: there the model uses every core, and a second thread would only slow it
    down. No random number is drawn here, so reading ahead changes none.

    Args:
        data: the open file.
        selection: which rows, and their targets.
        represent: (B, T, 2) float32 on the device to the model's input on the device.
        device: where the model is.
    """

    def __init__(
        self, data: RadioMLFile, selection: Selection, represent: Callable[[Tensor], Tensor], device: torch.device
    ) -> None:
        self._data = data
        self._rows_M = selection.rows
        self._modulation_M = torch.from_numpy(selection.modulation)
        self._snr_M = torch.from_numpy(selection.snr)
        self._represent = represent
        self._device = device

    def batches(
        self, chunks: Sequence[npt.NDArray[np.int64]], change: RandomChange | None = None
    ) -> Generator[Batch, None, None]:
        """Yield a batch for every chunk of positions in the selection, of changed frames where a change is given."""
        queue = deque(chunks)
        reads: deque[Future[_Loaded]] = deque()
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="feed") as reader:
            try:
                while queue or reads:
                    while queue and len(reads) <= _READS_AHEAD:
                        reads.append(reader.submit(self._load, queue.popleft(), change))
                    yield self._finish(reads.popleft().result(), change)
            finally:
                for read in reads:
                    read.cancel()

    def _load(self, positions_B: npt.NDArray[np.int64], change: RandomChange | None) -> _Loaded:
        """Read a batch; this runs in the thread."""
        index_B, rows_B = torch.from_numpy(positions_B), self._rows_M[positions_B]
        modulation_B, snr_B = self._modulation_M[index_B], self._snr_M[index_B]
        iq_BTC = None if self._data.is_on_device else torch.from_numpy(self._data.frames(rows_B))
        draw_BX = None if change is None else torch.from_numpy(change.draws[positions_B])
        if self._device.type == "cuda":
            draw_BX = None if draw_BX is None else draw_BX.pin_memory()
            modulation_B, snr_B = modulation_B.pin_memory(), snr_B.pin_memory()
            iq_BTC = None if iq_BTC is None else iq_BTC.pin_memory()
        return _Loaded(rows_B, iq_BTC, draw_BX, modulation_B, snr_B)

    def _finish(self, loaded: _Loaded, change: RandomChange | None) -> Batch:
        modulation_B, snr_B = (part.to(self._device, non_blocking=True) for part in (loaded.modulation, loaded.snr))
        if loaded.frames is None:
            iq_BTC = self._data.frames_on_device(loaded.rows)
        else:
            iq_BTC = loaded.frames.to(self._device, non_blocking=True)
        if change is not None and loaded.draws is not None:
            iq_BTC = change.apply(iq_BTC, loaded.draws.to(self._device, non_blocking=True), modulation_B)
        return Batch(laid_out(self._represent(iq_BTC)), modulation_B, snr_B)


def laid_out(input_BX: Tensor) -> Tensor:
    """Return images with the channels last, which convolutions on tensor cores and in oneDNN want."""
    return input_BX.contiguous(memory_format=torch.channels_last) if input_BX.ndim == 4 else input_BX
