"""The queue of trials' posts: one thread writes them in groups.

Every post is a transaction of its own. Posts that wait at the same time share one flush to disk. One thread writes them
all, so that forty threads need not take turns at the interpreter. Posts are not urgent: any other write, such as an
agent's heartbeat, goes first; after four of them a post does.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from amc_server.store.storage import Storage
from amc_server.store.writer import Writer

MOST_POSTS = 16  # in a group
MOST_BYTES = 1024**2  # of a group without its last post

Reply = dict[str, Any]
StorePost = Callable[[Writer], Reply]  # stores a post and returns the reply to it


@dataclass
class _PendingWrite:
    size: int
    read: Callable[[], StorePost]
    reply: Future[Reply] = field(default_factory=Future)


class WriteQueue:
    """Takes posts from any event loop and writes them in the order of arrival."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._waiting: queue.SimpleQueue[_PendingWrite] = queue.SimpleQueue()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="posts")
        self._lock = threading.Lock()
        self._is_writing = False  # guarded by the lock; a post that comes meanwhile needs no task of its own

    async def write(self, size: int, read: Callable[[], StorePost]) -> Reply:
        """Return the reply to a post once it is on disk.

        Args:
            size: of the body in bytes.
            read: checks the body before the writer is taken, and returns the function that stores it.

        Raises:
            Refused: ``read`` or the function that it returned refused the post.
        """
        pending = _PendingWrite(size, read)
        with self._lock:
            self._waiting.put(pending)
            is_writing, self._is_writing = self._is_writing, True
        if not is_writing:
            self._thread.submit(self._write_waiting)
        return await asyncio.wrap_future(pending.reply)

    def _write_waiting(self) -> None:
        while True:
            self._write_group()
            with self._lock:
                if self._waiting.empty():
                    self._is_writing = False
                    return

    def _write_group(self) -> None:
        written: list[tuple[_PendingWrite, Reply]] = []
        for pending in self._next_group():
            try:
                store_post = pending.read()
                with self._storage.write_unflushed(urgent=False) as store:
                    reply = store_post(store)
            except BaseException as error:  # noqa: BLE001 - the request that waits for this post gets it
                pending.reply.set_exception(error)
            else:
                written.append((pending, reply))
        if not written:
            return
        try:
            self._storage.flush()
        except BaseException as error:  # noqa: BLE001
            for pending, _ in written:
                pending.reply.set_exception(error)
            return
        for pending, reply in written:
            pending.reply.set_result(reply)

    def _next_group(self) -> Iterator[_PendingWrite]:
        """Yield the waiting posts of one group; a post whose client has disconnected is dropped."""
        count = size = 0
        while count < MOST_POSTS and size < MOST_BYTES:
            try:
                pending = self._waiting.get_nowait()
            except queue.Empty:
                return
            if pending.reply.set_running_or_notify_cancel():
                count, size = count + 1, size + pending.size
                yield pending
