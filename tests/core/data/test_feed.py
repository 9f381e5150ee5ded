"""Batches from the file to the model, read ahead by a thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from tiny_files import raw_file

from amc_core.data.feed import Feed
from amc_core.data.radioml import DataError, RadioMLFile, Selection
from amc_core.data.storage import HeldOnDevice
from amc_core.modulations import CLASSES

CPU = torch.device("cpu")


class Counting(RadioMLFile):
    """Counts the reads, and fails at a row."""

    reads = 0
    bad_row = -1

    def frames(self, rows_B: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        self.reads += 1
        if self.bad_row in rows_B:
            raise DataError("the disk is gone")
        return super().frames(rows_B)


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Counting]:
    frames = np.random.default_rng(0).normal(size=(40, 1024, 2)).astype(np.float32)
    labels = {"Y": np.eye(24, dtype=np.int64)[np.arange(40) % 24], "Z": np.arange(40, dtype=np.int64)[:, None]}
    with Counting(raw_file(tmp_path / "a.hdf5", X=frames, **labels)) as opened:
        opened.reads = 0  # the fingerprint has read
        yield opened


def selection(data: RadioMLFile) -> Selection:
    rows = np.arange(39, -1, -1)  # a position is not a row
    return Selection("all24", CLASSES, tuple(range(40)), rows, data.column_N[rows].astype(np.int64), rows.copy())


def chunks(order: npt.NDArray[np.int64], size: int) -> list[npt.NDArray[np.int64]]:
    return [order[start : start + size] for start in range(0, len(order), size)]


def test_batches_come_in_the_given_order_with_their_own_targets(data: Counting) -> None:
    chosen = selection(data)
    order = np.random.default_rng(1).permutation(40)
    feed = Feed(data, chosen, CPU)
    for positions, batch in zip(chunks(order, 7), feed.batches(chunks(order, 7)), strict=True):
        rows = chosen.rows[positions]
        assert np.array_equal(batch.frames.numpy(), RadioMLFile.frames(data, rows))
        assert batch.snr.tolist() == rows.tolist()
        assert batch.modulation.tolist() == (rows % 24).tolist()
        assert batch.draws is None is batch.is_counted


def test_random_numbers_go_with_their_frames(data: Counting) -> None:
    order = np.random.default_rng(1).permutation(40)
    draws = np.random.default_rng(2).random((40, 3), dtype=np.float32)
    feed = Feed(data, selection(data), CPU)
    for positions, batch in zip(chunks(order, 7), feed.batches(chunks(order, 7), draws_MX=draws), strict=True):
        assert batch.draws is not None
        assert np.array_equal(batch.draws.numpy(), draws[positions])


def test_a_batch_is_filled_up_by_its_last_frame_which_then_does_not_count(data: Counting) -> None:
    chosen = selection(data)
    parts = list(Feed(data, chosen, CPU).batches(chunks(np.arange(12), 8), size=8))
    assert [len(batch.frames) for batch in parts] == [8, 8]
    assert [batch.is_counted.tolist() for batch in parts if batch.is_counted is not None] == [
        [True] * 8,
        [True] * 4 + [False] * 4,
    ]
    assert parts[1].snr.tolist() == [*chosen.rows[8:12].tolist(), *[chosen.rows[11]] * 4]
    assert np.array_equal(parts[1].frames[3:].numpy(), RadioMLFile.frames(data, chosen.rows[[11] * 5]))


def test_frames_that_a_device_holds_come_in_the_order_of_the_positions_without_reading(
    data: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = selection(data)
    held = np.sort(chosen.rows)  # in another order than the selection
    # The CPU is a device as good as another for what is gathered.
    monkeypatch.setattr(data, "_device", HeldOnDevice(data.frames, held, data.n_frames, CPU))
    data.reads = 0
    order = np.random.default_rng(1).permutation(40)
    for positions, batch in zip(chunks(order, 7), Feed(data, chosen, CPU).batches(chunks(order, 7)), strict=True):
        rows = chosen.rows[positions]
        frames = RadioMLFile.frames(data, rows)
        frames /= np.sqrt(np.mean(np.sum(frames**2, axis=2), axis=1))[:, None, None]  # held at unit power
        np.testing.assert_allclose(batch.frames.numpy(), frames, atol=2e-3)
        assert batch.snr.tolist() == rows.tolist()
    assert data.reads == 0


def test_no_chunk_gives_no_batch(data: Counting) -> None:
    assert list(Feed(data, selection(data), CPU).batches([], size=4)) == []


def test_a_stop_in_the_middle_cancels_waiting_reads_and_leaves_no_thread(
    data: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, cancelled = threading.Event(), threading.Event()
    read, cancel = data.frames, Future.cancel

    def slow_from_the_second_on(rows_B: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        if data.reads:
            reading.set()
            cancelled.wait(timeout=5)
        return read(rows_B)

    def tell(future: Future[Any]) -> bool:
        if cancel(future):
            cancelled.set()
        return future.cancelled()

    monkeypatch.setattr(data, "frames", slow_from_the_second_on)
    monkeypatch.setattr(Future, "cancel", tell)
    batches = Feed(data, selection(data), CPU).batches(chunks(np.arange(40), 1))
    next(batches)
    assert reading.wait(timeout=5)
    batches.close()
    assert data.reads == 2
    assert not any(thread.name.startswith("feed") for thread in threading.enumerate())


def test_a_failed_read_raises_at_its_own_batch(data: Counting) -> None:
    data.bad_row = int(selection(data).rows[2])
    batches = Feed(data, selection(data), CPU).batches(chunks(np.arange(40), 1))
    next(batches)
    next(batches)
    with pytest.raises(DataError, match="the disk is gone"):
        next(batches)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("storage", ["device", "memmap"])
def test_a_gpu_gets_frames_that_it_holds_and_frames_from_the_file(data: Counting, storage: str) -> None:
    device = torch.device("cuda")
    chosen = selection(data)
    with RadioMLFile(data.path, storage=storage) as held:
        assert held.hold(chosen.rows, device) == storage
        feed = Feed(held, chosen, device)
        for positions, batch in zip(chunks(np.arange(40), 7), feed.batches(chunks(np.arange(40), 7)), strict=True):
            frames = data.frames(chosen.rows[positions])
            if storage == "device":  # held at unit power
                frames /= np.sqrt(np.mean(np.sum(frames**2, axis=2), axis=1))[:, None, None]
            assert batch.frames.device.type == batch.snr.device.type == "cuda"
            np.testing.assert_allclose(batch.frames.cpu().numpy(), frames, atol=2e-3)
            assert batch.snr.tolist() == chosen.rows[positions].tolist()
