"""Batches of frames and targets on the device, read from the file in the background while the model computes.

In names: B frames of a batch, T = 1024 samples, C = I and Q, X numbers a frame, M frames of the selection.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from amc_core.data.radioml import RadioMLFile, Selection

_READS_AHEAD = 2  # batches, so that one slow read (a cold disk) does not stop the model

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """Frames and targets on the device."""

    frames: Tensor  # (B, T, 2) float32
    modulation: Tensor  # (B,) index of the class
    snr: Tensor  # (B,) index of the level
    draws: Tensor | None = None  # (B, X) random numbers, X for every frame
    is_counted: Tensor | None = None  # (B,) false for frames that only fill the batch; None: every frame counts


class Feed:
    """Frames of a selection in batches.

    A thread reads ahead into pinned memory, which a GPU copies without waiting. Frames that the GPU holds need no
    thread. Positions, targets and random numbers travel once, before the first batch. No random number is drawn here,
    so reading ahead changes none.

    Args:
        data: the open file.
        selection: which rows, and their targets.
        device: where the model is.
    """

    def __init__(self, data: RadioMLFile, selection: Selection, device: torch.device) -> None:
        self._data = data
        self._device = device
        self._rows_M = selection.rows
        self._modulation_M = self._to_device(selection.modulation)
        self._snr_M = self._to_device(selection.snr)
        self._held_M = data.positions_on_device(selection.rows) if data.is_on_device else None

    def batches(
        self, chunks: Sequence[Positions], *, draws_MX: npt.NDArray[np.float32] | None = None, size: int | None = None
    ) -> Generator[Batch, None, None]:
        """Yield a batch for every chunk of positions in the selection.

        Args:
            chunks: positions of each batch.
            draws_MX: random numbers for every frame of the selection, which go with the frames.
            size: fill each batch up to this number of frames, by its last one again and again. These do not count. So
                all batches have one size.
        """
        if not chunks:
            return
        filled = [np.pad(chunk, (0, size - len(chunk)), mode="edge") if size else chunk for chunk in chunks]
        sizes = [len(chunk) for chunk in filled]
        # One copy for the whole pass. A GPU then gathers the targets of a batch by itself.
        index_B = torch.split(self._to_device(np.concatenate(filled)), sizes)
        counted_B: Sequence[Tensor | None] = [None] * len(chunks)
        if size:
            counted = [np.arange(size) < len(chunk) for chunk in chunks]
            counted_B = torch.split(self._to_device(np.concatenate(counted)), sizes)
        draws = None if draws_MX is None else self._to_device(draws_MX)
        with contextlib.closing(self._frames(filled, index_B)) as frames:
            for frames_BTC, index, is_counted in zip(frames, index_B, counted_B, strict=True):
                yield Batch(
                    frames_BTC,
                    self._modulation_M.index_select(0, index),
                    self._snr_M.index_select(0, index),
                    None if draws is None else draws.index_select(0, index),
                    is_counted,
                )

    def _frames(self, chunks: Sequence[Positions], index_B: Sequence[Tensor]) -> Generator[Tensor, None, None]:
        if self._held_M is not None:
            for index in index_B:
                yield self._data.frames_on_device(self._held_M.index_select(0, index))
            return
        queue = deque(chunks)
        reads: deque[Future[Tensor]] = deque()
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="feed") as reader:
            try:
                while queue or reads:
                    while queue and len(reads) <= _READS_AHEAD:
                        reads.append(reader.submit(self._read, queue.popleft()))
                    yield reads.popleft().result().to(self._device, non_blocking=True)
            finally:
                for read in reads:
                    read.cancel()

    def _read(self, positions_B: Positions) -> Tensor:
        """Read the frames of a batch; this runs in the thread."""
        iq_BTC = torch.from_numpy(self._data.frames(self._rows_M[positions_B]))
        return iq_BTC.pin_memory() if self._device.type == "cuda" else iq_BTC

    def _to_device(self, values: npt.NDArray[Any]) -> Tensor:
        tensor = torch.from_numpy(values)
        return tensor.pin_memory().to(self._device, non_blocking=True) if self._device.type == "cuda" else tensor
